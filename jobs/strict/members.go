package strict

import (
	"encoding/json"
	"iter"
)

// Members are the members of an object, in order. The object must be valid JSON. The
// values are parts of it, and a name may come twice.
func Members(object []byte) iter.Seq2[string, json.RawMessage] {
	return func(yield func(string, json.RawMessage) bool) { members(object, yield) }
}

// members is not part of Members because that has to be small: a loop over an iterator
// that is inlined allocates nothing.
func members(object []byte, yield func(string, json.RawMessage) bool) {
	for i := skipSpace(object, skipSpace(object, 0)+1); object[i] != '}'; i = skipSpace(object, i) {
		if object[i] == ',' {
			i = skipSpace(object, i+1)
		}
		end := skipValue(object, i)
		name, _ := Text(object[i:end])
		i = skipSpace(object, skipSpace(object, end)+1) // over the colon
		end = skipValue(object, i)
		if !yield(name, object[i:end:end]) {
			return
		}
		i = end
	}
}

// Elements are the elements of a list, in order. The list must be valid JSON. The elements
// are parts of it.
func Elements(list json.RawMessage) iter.Seq[json.RawMessage] {
	return func(yield func(json.RawMessage) bool) { elements(list, yield) }
}

func elements(list json.RawMessage, yield func(json.RawMessage) bool) {
	for i := skipSpace(list, 1); list[i] != ']'; i = skipSpace(list, i) {
		if list[i] == ',' {
			i = skipSpace(list, i+1)
		}
		end := skipValue(list, i)
		if !yield(list[i:end:end]) {
			return
		}
		i = end
	}
}

// maxFields bounds the fields of one object, known or not.
const maxFields = 1000

// names are the names that an object has had so far: a list while they are few, as they
// nearly always are.
type names struct {
	few  [16]string
	n    int // of few
	many map[string]bool
}

// The results of add.
const (
	isNew = iota
	twice
	tooMany
)

func (n *names) add(name string) int {
	if n.many == nil {
		for _, s := range n.few[:n.n] {
			if s == name {
				return twice
			}
		}
		n.few[n.n] = name
		if n.n++; n.n == len(n.few) {
			n.many = make(map[string]bool)
			for _, s := range n.few {
				n.many[s] = true
			}
		}
		return isNew
	}
	switch {
	case n.many[name]:
		return twice
	case len(n.many) == maxFields:
		return tooMany
	}
	n.many[name] = true
	return isNew
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
