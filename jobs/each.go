package jobs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"jobstream/jobs/strict"
)

// EachField calls f for every field of the JSON object in body, in order. An
// *Error comes back if body is not JSON ([MalformedJSON]), not an object, nested
// deeper than [jobstream/jobs/strict.MaxDepth], or names a field twice. raw is a part of body.
func EachField(body []byte, f func(name string, raw json.RawMessage)) error {
	if err := strict.Check(body); err != nil {
		return &Error{Kind: MalformedJSON, Detail: err.Error()}
	}
	switch {
	case strict.TooDeep(body):
		return Invalid("", fmt.Sprintf("is nested deeper than %d", strict.MaxDepth))
	case bytes.TrimSpace(body)[0] != '{':
		return &Error{
			Kind: InvalidRequest, Detail: "the body must be a JSON object",
			Fields: []FieldError{{Pointer: "", Detail: "must be a JSON object"}},
		}
	}
	return Mistaken(strict.Read("", bytes.TrimSpace(body), func(v strict.Value) {
		v.Each(func(member strict.Value) { f(member.Name(), member.Raw) })
	}))
}

// EachKnown is [EachField] for an object that has no other fields than known, and
// all of required. A null is as if its field were not there. What read says is
// wrong with a field is gathered, in one [*Error].
func EachKnown(body []byte, known, required []string, read func(name string, raw json.RawMessage) error) error {
	var bad []FieldError
	fail := func(name string, err error) {
		if err != nil {
			bad = append(bad, FieldError{strict.Pointer(name), err.Error()})
		}
	}
	given := 0 // a bit for each of required
	err := EachField(body, func(name string, raw json.RawMessage) {
		switch {
		case !slices.Contains(known, name):
			fail(name, unknownField(known))
		case string(raw) != "null":
			if i := slices.Index(required, name); i >= 0 {
				given |= 1 << i
			}
			fail(name, read(name, raw))
		}
	})
	if err != nil {
		return err
	}
	for i, name := range required {
		if given&(1<<i) == 0 {
			fail(name, errors.New("is required"))
		}
	}
	if len(bad) > 0 {
		return InvalidFields(bad...)
	}
	return nil
}

func unknownField(known []string) error {
	if len(known) == 1 {
		return fmt.Errorf("is not a known field; known is %s", known[0])
	}
	return fmt.Errorf("is not a known field; known are %s", strings.Join(known, ", "))
}
