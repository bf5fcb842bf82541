package strict

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Mistake describes the problem with the value at a JSON pointer (RFC 6901).
type Mistake struct{ Pointer, Detail string }

// Read reads raw with f and returns the mistakes. raw is valid JSON, or nil where there is
// none. at is the pointer of raw within its request, "" for a body.
func Read(at string, raw json.RawMessage, f func(whole Value)) []Mistake {
	r := reading{at: at}
	f(Value{Raw: raw, of: &r})
	return r.mistakes
}

// reading gathers the mistakes in all parts of one text.
type reading struct {
	at       string
	mistakes []Mistake
}

// Value is a value and its place. A reader that cannot read it adds a mistake, and
// returns a value of the right type all the same.
type Value struct {
	// Raw is the value without space around it; nil if it is missing.
	Raw json.RawMessage

	name string
	in   *Value // what the value is a part of, nil for the whole
	of   *reading
}

// Name is the name of the value in its object.
func (v Value) Name() string { return v.name }

func (v Value) pointer() string {
	if v.in == nil {
		return v.of.at
	}
	return v.in.pointer() + Pointer(v.name)
}

// At is the part of v with this name, to complain about. It has no value.
func (v Value) At(name string) Value { return Value{name: name, in: &v, of: v.of} }

// Get is the part of the object v with this name, missing if there is none. It ignores
// the rest.
func (v Value) Get(name string) Value {
	part := v.At(name)
	if v.IsObject() {
		for n, raw := range Members(v.Raw) {
			if n == name {
				part.Raw = raw
				break
			}
		}
	}
	return part
}

// Fail adds a mistake in v.
func (v Value) Fail(format string, args ...any) {
	v.of.mistakes = append(v.of.mistakes, Mistake{v.pointer(), fmt.Sprintf(format, args...)})
}

// Check adds err as a mistake, unless it is nil. The result is true for nil.
func (v Value) Check(err error) bool {
	if err != nil {
		v.Fail("%s", err)
	}
	return err == nil
}

// Right says whether there is no mistake so far, neither in v nor beside it.
func (v Value) Right() bool { return len(v.of.mistakes) == 0 }

// Failed says whether v itself, not only a part of it, has a mistake.
func (v Value) Failed() bool {
	at := v.pointer()
	return slices.ContainsFunc(v.of.mistakes, func(m Mistake) bool { return m.Pointer == at })
}

// Null says whether v is null or missing.
func (v Value) Null() bool { return len(v.Raw) == 0 || string(v.Raw) == "null" }

// IsObject says whether v is an object.
func (v Value) IsObject() bool { return v.begins('{') }

// IsList says whether v is a list.
func (v Value) IsList() bool { return v.begins('[') }

// IsEmptyList says whether v is a list without items.
func (v Value) IsEmptyList() bool { return v.IsList() && v.Raw[skipSpace(v.Raw, 1)] == ']' }

// IsText says whether v is a string.
func (v Value) IsText() bool { return v.begins('"') }

// IsNumber says whether v is a number.
func (v Value) IsNumber() bool { return len(v.Raw) > 0 && IsNumber(v.Raw) }

func (v Value) begins(c byte) bool { return len(v.Raw) > 0 && v.Raw[0] == c }

// String is v as an error shows it: itself if it is short.
func (v Value) String() string { return Describe(v.Raw) }

// Field is a field that an object may have, and its reader.
type Field struct {
	Name     string
	Required bool
	// Alien is for a field that is refused with a reason of its own, by Read. It is not
	// listed among the known ones.
	Alien bool
	Read  func(Value)
}

// May is a field that may be missing.
func May(name string, read func(Value)) Field { return Field{Name: name, Read: read} }

// Need is a field that must be there.
func Need(name string, read func(Value)) Field { return Field{Name: name, Read: read, Required: true} }

// Object reads v as an object with these fields and no others. A field that is null
// counts as absent, and is not read. The result is that of [Value.Each].
func (v Value) Object(fields ...Field) bool {
	var given uint64 // a bit for each field
	whole := v.Each(func(member Value) {
		i := slices.IndexFunc(fields, func(f Field) bool { return f.Name == member.name })
		switch {
		case i < 0:
			member.Fail("is not a known field; %s", known(fields))
		case fields[i].Alien || !member.Null():
			given |= 1 << i
			fields[i].Read(member)
		}
	})
	if !whole {
		return false
	}
	for i := range fields {
		if fields[i].Required && given&(1<<i) == 0 {
			v.At(fields[i].Name).Fail("is required")
		}
	}
	return true
}

// known lists the fields that there are.
func known(fields []Field) string {
	var names []string
	for i := range fields {
		if !fields[i].Alien {
			names = append(names, fields[i].Name)
		}
	}
	switch len(names) {
	case 0:
		return "there are none here"
	case 1:
		return "known is " + names[0]
	}
	return "known are " + strings.Join(names, ", ")
}

// Each calls f for every member of the object v, in order. It stops at a name that v has
// already. That is then the only mistake in v, because either of the two values may be
// the one that is meant. The result says whether all members were read.
func (v Value) Each(f func(member Value)) bool {
	if !v.IsObject() {
		v.Fail("must be a JSON object")
		return false
	}
	before := len(v.of.mistakes)
	var seen names
	for name, raw := range Members(v.Raw) {
		if wrong := seen.add(name); wrong != isNew {
			v.of.mistakes = v.of.mistakes[:before]
			if wrong == twice {
				v.At(name).Fail("is given twice")
			} else {
				v.Fail("has more than %d fields", maxFields)
			}
			return false
		}
		f(Value{Raw: raw, name: name, in: &v, of: v.of})
	}
	return true
}

// Items calls f for every item of the list v, in order. The name of an item is its
// index.
func (v Value) Items(f func(item Value)) {
	i := 0
	for raw := range Elements(v.Raw) {
		f(Value{Raw: raw, name: strconv.Itoa(i), in: &v, of: v.of})
		i++
	}
}

// As reads v with a function. Its error becomes the mistake.
func As[T any](v Value, read func(json.RawMessage) (T, error)) T {
	t, err := read(v.Raw)
	v.Check(err)
	return t
}

// Text reads v as a string.
func (v Value) Text() (s string, ok bool) {
	s, err := Text(v.Raw)
	return s, v.Check(err)
}

// Int reads v as a whole number from lo to hi.
func (v Value) Int(lo, hi int) int {
	n, err := Int(v.Raw, lo, hi)
	v.Check(err)
	return n
}

// Bool reads v as true or false.
func (v Value) Bool() bool { return As(v, Bool) }

// OneOf reads v as one of the names.
func (v Value) OneOf(names ...string) (string, bool) {
	s, ok := v.Text()
	if ok && !slices.Contains(names, s) {
		v.Fail("must be one of %s, not %q", strings.Join(names, ", "), s)
		return "", false
	}
	return s, ok
}

// Texts reads v as a string or a list of strings, and calls each for every one of them
// with its place.
func (v Value) Texts(each func(item Value, s string)) {
	switch {
	case v.IsText():
		s, _ := v.Text()
		each(v, s)
	case v.IsList():
		v.Items(func(item Value) {
			if s, ok := item.Text(); ok {
				each(item, s)
			}
		})
	default:
		v.Fail("must be a string or a list of strings, not %s", v)
	}
}
