package strict

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// EachMember calls f for every member of an object of valid JSON, until f finds an
// error. raw is a part of body.
func EachMember(body []byte, f func(name string, raw json.RawMessage) error) error {
	for i := skipSpace(body, skipSpace(body, 0)+1); body[i] != '}'; i = skipSpace(body, i) {
		if body[i] == ',' {
			i = skipSpace(body, i+1)
		}
		end := skipValue(body, i)
		name, _ := Text(body[i:end])
		i = skipSpace(body, skipSpace(body, end)+1) // over the colon
		end = skipValue(body, i)
		if err := f(name, json.RawMessage(body[i:end:end])); err != nil {
			return err
		}
		i = end
	}
	return nil
}

// EachElement calls f for every element of the valid JSON list in raw.
func EachElement(raw json.RawMessage, f func(json.RawMessage)) {
	for i := skipSpace(raw, 1); i < len(raw) && raw[i] != ']'; i = skipSpace(raw, i) {
		if raw[i] == ',' {
			i = skipSpace(raw, i+1)
		}
		end := skipValue(raw, i)
		f(raw[i:end:end])
		i = end
	}
}

// Mistake is what is wrong with the value at a JSON pointer (RFC 6901).
type Mistake struct{ Pointer, Detail string }

var errStop = errors.New("no further")

// EachOnce is [EachMember] for an object in which no name may stand twice, nor more than
// a thousand. Another one is a mistake, and ends it.
func EachOnce(object []byte, f func(name string, raw json.RawMessage)) (wrong *Mistake) {
	var seen fieldNames
	_ = EachMember(object, func(name string, raw json.RawMessage) error {
		switch seen.add(name) {
		case nameTwice:
			wrong = &Mistake{Pointer(name), "is given twice"}
			return errStop
		case nameTooMany:
			wrong = &Mistake{"", fmt.Sprintf("has more than %d fields", maxFields)}
			return errStop
		}
		f(name, raw)
		return nil
	})
	return wrong
}

// maxFields bounds the fields of one object, known or not.
const maxFields = 1000

// fieldNames are the names that an object has had so far: a list while they
// are few, as they nearly always are.
type fieldNames struct {
	few  []string
	many map[string]bool
}

// What add says of a name.
const (
	nameNew = iota
	nameTwice
	nameTooMany
)

func (n *fieldNames) add(name string) int {
	const fewest = 16
	if n.many == nil {
		if slices.Contains(n.few, name) {
			return nameTwice
		}
		if n.few = append(n.few, name); len(n.few) == fewest {
			n.many = make(map[string]bool)
			for _, s := range n.few {
				n.many[s] = true
			}
		}
		return nameNew
	}
	switch {
	case n.many[name]:
		return nameTwice
	case len(n.many) == maxFields:
		return nameTooMany
	}
	n.many[name] = true
	return nameNew
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\n' || b[i] == '\r') {
		i++
	}
	return i
}

// skipValue returns the index behind the valid JSON value that begins at i.
func skipValue(b []byte, i int) int {
	depth := 0
	for ; i < len(b); i++ {
		switch b[i] {
		case '"':
			for i++; b[i] != '"'; i++ {
				if b[i] == '\\' {
					i++
				}
			}
		case '{', '[':
			depth++
			continue
		case '}', ']':
			if depth == 0 {
				return i
			}
			depth--
		case ',', ':', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return i
			}
			continue
		default:
			if depth == 0 {
				for i+1 < len(b) && !isDelimiter(b[i+1]) {
					i++
				}
				return i + 1
			}
			continue
		}
		if depth == 0 {
			return i + 1
		}
	}
	return i
}

func isDelimiter(c byte) bool {
	switch c {
	case ',', ':', '}', ']', ' ', '\t', '\n', '\r':
		return true
	}
	return false
}
