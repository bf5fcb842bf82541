package strict

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"unicode/utf8"
)

// Check says why body is not JSON text that every program can read, nil if it is.
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

// malformed says where JSON text is broken.
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

// MaxDepth is how deep JSON may be nested: many programs cannot read what is
// much deeper.
const MaxDepth = 128

// TooDeep says whether the JSON text b is nested deeper than [MaxDepth]. For what
// is not JSON it says anything.
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
