package schema

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"jobstream/jobs"
	"jobstream/jobs/strict"
)

// Numbers are compared exactly, as fractions, so 1e999999 takes a million digits. No more
// than this is compared.
const (
	maxDigits   = 400 // characters of a number
	maxExponent = 400 // of ten, also below zero
)

// comparable says whether a number is cheap to compare.
func comparable(n json.Number) bool {
	if len(n) > maxDigits {
		return false
	}
	i := strings.IndexAny(string(n), "eE")
	if i < 0 {
		return true
	}
	exponent, err := strconv.Atoi(string(n[i+1:]))
	return err == nil && -maxExponent <= exponent && exponent <= maxExponent
}

// survey counts the values of a document, and refuses what cannot be checked: numbers that
// are too long, and names that an object has twice. Of those two programs can see different
// ones, so that what was checked is not what is used.
func survey(raw json.RawMessage, v any, at string) (values int, err error) {
	c := counter{cheap: true}
	c.count(v)
	if c.cheap && c.names == colons(raw) {
		return c.values, nil
	}
	if wrong := place(bytes.TrimSpace(raw), at); wrong != nil {
		return c.values, wrong
	}
	return c.values, nil
}

type counter struct {
	values, names int
	cheap         bool // so far
}

func (c *counter) count(v any) {
	c.values++
	switch v := v.(type) {
	case map[string]any:
		c.names += len(v)
		for _, part := range v {
			c.count(part)
		}
	case []any:
		for _, part := range v {
			c.count(part)
		}
	case json.Number:
		c.cheap = c.cheap && comparable(v)
	}
}

// colons is the number of names in a JSON text, repeated ones too.
func colons(raw json.RawMessage) (n int) {
	inside := false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case inside && c == '\\':
			i++
		case c == '"':
			inside = !inside
		case c == ':' && !inside:
			n++
		}
	}
	return n
}

// place is the first thing in a JSON text that survey refuses, nil if there is none.
func place(raw json.RawMessage, at string) *jobs.Error {
	switch {
	case len(raw) == 0:
		return nil
	case raw[0] == '{':
		seen := make(map[string]bool)
		for name, part := range strict.Members(raw) {
			here := at + strict.Pointer(name)
			if seen[name] {
				return jobs.Invalid(shorten(here), "is given twice")
			}
			seen[name] = true
			if wrong := place(part, here); wrong != nil {
				return wrong
			}
		}
	case raw[0] == '[':
		i := 0
		for part := range strict.Elements(raw) {
			if wrong := place(part, at+"/"+strconv.Itoa(i)); wrong != nil {
				return wrong
			}
			i++
		}
	case raw[0] == '-' || raw[0] >= '0' && raw[0] <= '9':
		if !comparable(json.Number(raw)) {
			return jobs.Invalid(shorten(at), fmt.Sprintf("is a number that is not compared: at most %d characters, and an exponent from -%d to %d", maxDigits, maxExponent, maxExponent))
		}
	}
	return nil
}

// maxPointer is the longest pointer that is shown. Names in a payload can be of any length.
const maxPointer = 1000

// shorten leaves the beginning of a long pointer: that of something around what it means.
func shorten(pointer string) string {
	if len(pointer) <= maxPointer {
		return pointer
	}
	return pointer[:max(strings.LastIndexByte(pointer[:maxPointer], '/'), 0)]
}
