package strict

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"unicode/utf8"
)

// Check returns an error unless body is JSON text that every program can read.
func Check(body []byte) error {
	switch {
	case len(bytes.TrimSpace(body)) == 0:
		return errors.New("the body is empty; a JSON object is expected")
	case bytes.IndexByte(body, 0) >= 0:
		return errors.New("the body contains a NUL byte")
	case !utf8.Valid(body):
		return errors.New("the body is not UTF-8")
	case !json.Valid(body):
		return malformed(body)
	}
	return nil
}

// malformed is the error for broken JSON text, with the place.
func malformed(body []byte) error {
	var v any
	err := json.Unmarshal(body, &v)
	detail := "the body is not JSON"
	if err != nil {
		detail += ": " + err.Error()
		if se, ok := err.(*json.SyntaxError); ok { //nolint:errorlint // Unmarshal returns it bare
			detail += " (at byte " + strconv.FormatInt(se.Offset, 10) + ")"
		}
	}
	return errors.New(detail)
}

// MaxDepth is the deepest nesting of JSON, because many programs cannot read much
// deeper ones.
const MaxDepth = 128

// TooDeep says whether the JSON text b is nested deeper than [MaxDepth]. If b is not
// JSON the result means nothing.
func TooDeep(b []byte) bool {
	depth, inString := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			if depth++; depth > MaxDepth {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}
