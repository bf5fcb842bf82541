package jobs

import (
	"bytes"
	"fmt"

	"jobstream/jobs/strict"
)

// Read reads JSON of a request strictly, with f: a body, or its part at a pointer. The
// error is an [*Error] that names all mistakes.
func Read(at string, raw []byte, f func(whole strict.Value)) error {
	if err := strict.Check(raw); err != nil {
		return &Error{Kind: MalformedJSON, Detail: err.Error()}
	}
	raw = bytes.TrimSpace(raw)
	switch {
	case strict.TooDeep(raw):
		return Invalid(at, fmt.Sprintf("is nested deeper than %d", strict.MaxDepth))
	case at == "" && raw[0] != '{':
		return &Error{
			Kind: InvalidRequest, Detail: "the body must be a JSON object",
			Fields: []FieldError{{Pointer: "", Detail: "must be a JSON object"}},
		}
	}
	return Mistaken(strict.Read(at, raw, f))
}

// Mistaken is the error for a request with mistakes, nil if there are none.
func Mistaken(mistakes []strict.Mistake) error {
	if len(mistakes) == 0 {
		return nil
	}
	fields := make([]FieldError, len(mistakes))
	for i, m := range mistakes {
		fields[i] = FieldError(m)
	}
	return InvalidFields(fields...)
}
