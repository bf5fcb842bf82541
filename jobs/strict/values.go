package strict

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// The readers of single JSON values. raw is one valid JSON value without space around
// it, as [Members] returns it. Their errors follow the field's pointer: "must be a
// string, not 5".

// Text reads a string.
func Text(raw json.RawMessage) (string, error) {
	if len(raw) < 2 || raw[0] != '"' {
		return "", fmt.Errorf("must be a string, not %s", Describe(raw))
	}
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1 : len(raw)-1]), nil
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return "", fmt.Errorf("must be a string: %w", err)
	}
	return s, nil
}

// Int reads a whole number from lo to hi.
func Int(raw json.RawMessage, lo, hi int) (int, error) {
	n, err := strconv.Atoi(string(raw))
	if err != nil || n < lo || n > hi {
		return lo, fmt.Errorf("must be a whole number from %d to %d, not %s", lo, hi, Describe(raw))
	}
	return n, nil
}

// Bool reads true or false.
func Bool(raw json.RawMessage) (bool, error) {
	switch string(raw) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, fmt.Errorf("must be true or false, not %s", Describe(raw))
}

// Texts reads a list of strings.
func Texts(raw json.RawMessage) (list []string, err error) {
	if raw[0] != '[' || json.Unmarshal(raw, &list) != nil {
		return nil, fmt.Errorf("must be a list of strings, not %s", Describe(raw))
	}
	return list, nil
}

// IsNumber says whether a JSON value is a number.
func IsNumber(raw json.RawMessage) bool { return raw[0] == '-' || raw[0] >= '0' && raw[0] <= '9' }

// Describe is a JSON value in a form for errors: itself if it is short.
func Describe(raw json.RawMessage) string {
	switch {
	case len(raw) == 0:
		return "nothing"
	case raw[0] == '{':
		return "an object"
	case raw[0] == '[':
		return "a list"
	case len(raw) > 40:
		return string(raw[:40]) + "…"
	}
	return string(raw)
}

// Pointer is the JSON pointer (RFC 6901) to a field of the body.
func Pointer(name string) string {
	return "/" + strings.ReplaceAll(strings.ReplaceAll(name, "~", "~0"), "/", "~1")
}
