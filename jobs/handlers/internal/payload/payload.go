// Package payload reads the payloads of the built-in jobs. Start at [Read]: it walks an
// object field by field. It collects every problem under its JSON pointer, instead of
// stopping at the first.
package payload

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"jobstream/jobs"
)

// Fields maps the fields of an object to their readers. A field that is missing or null
// is not read, so its default stays.
type Fields map[string]func(v Value)

// Read reads a whole payload. A payload that is missing or null has no fields.
// The error is an [*jobs.Error] that names every wrong field.
func Read(raw json.RawMessage, fields Fields) error {
	return ReadThen(raw, fields, nil)
}

// ReadThen is [Read] with a final check for rules about several fields at once. check
// gets the payload itself; it may be nil.
func ReadThen(raw json.RawMessage, fields Fields, check func(whole Value)) error {
	var bad []jobs.FieldError
	whole := Value{Pointer: "/payload", Raw: raw, bad: &bad}
	if !whole.null() {
		whole.Object(fields)
	}
	if check != nil {
		check(whole)
	}
	if len(bad) > 0 {
		return jobs.InvalidFields(bad...)
	}
	return nil
}

// Value is a value in a payload, and its place there.
type Value struct {
	Pointer string // RFC 6901, from the body of a submission
	Raw     json.RawMessage

	bad *[]jobs.FieldError
}

// Fail adds a problem with the value.
func (v Value) Fail(format string, args ...any) {
	*v.bad = append(*v.bad, jobs.FieldError{Pointer: v.Pointer, Detail: fmt.Sprintf(format, args...)})
}

// At is the place of the field name of the object v, for a problem; it has no value.
func (v Value) At(name string) Value { return v.child(name, nil) }

func (v Value) child(name string, raw json.RawMessage) Value {
	name = strings.ReplaceAll(strings.ReplaceAll(name, "~", "~0"), "/", "~1")
	return Value{Pointer: v.Pointer + "/" + name, Raw: raw, bad: v.bad}
}

func (v Value) null() bool {
	raw := bytes.TrimSpace(v.Raw)
	return len(raw) == 0 || string(raw) == "null"
}

// Object reads v as an object with these fields and no others.
func (v Value) Object(fields Fields) {
	err := jobs.EachField(v.Raw, func(name string, raw json.RawMessage) {
		field := v.child(name, raw)
		read, ok := fields[name]
		switch {
		case !ok:
			known := slices.Sorted(maps.Keys(fields))
			field.Fail("is not a known field; known are %s", strings.Join(known, ", "))
		case !field.null():
			read(field)
		}
	})
	if err == nil {
		return
	}
	e, _ := jobs.AsError(err)
	if len(e.Fields) == 0 {
		v.Fail("cannot be read: %s", e.Detail)
	}
	for _, f := range e.Fields {
		*v.bad = append(*v.bad, jobs.FieldError{Pointer: v.Pointer + f.Pointer, Detail: f.Detail})
	}
}

// Text reads v as a string.
func (v Value) Text() (s string, ok bool) {
	if json.Unmarshal(v.Raw, &s) != nil || v.null() {
		v.Fail("must be a string, not %s", v.describe())
		return "", false
	}
	return s, true
}

// Bool reads v as true or false.
func (v Value) Bool() (b bool) {
	if json.Unmarshal(v.Raw, &b) != nil {
		v.Fail("must be true or false, not %s", v.describe())
	}
	return b
}

// Zone reads v as the IANA name of a time zone.
func (v Value) Zone() *time.Location {
	s, ok := v.Text()
	if !ok {
		return nil
	}
	loc, err := jobs.ParseZone(s)
	if err != nil {
		v.Fail("%s", err)
	}
	return loc
}

// Texts reads v as a string or a list of strings, and calls each for every string with
// its own place.
func (v Value) Texts(each func(item Value, s string)) {
	if !v.IsList() {
		if v.Raw[0] != '"' {
			v.Fail("must be a string or a list of strings, not %s", v.describe())
			return
		}
		if s, ok := v.Text(); ok {
			each(v, s)
		}
		return
	}
	var list []json.RawMessage
	if err := json.Unmarshal(v.Raw, &list); err != nil {
		v.Fail("must be a list of strings: %s", err)
		return
	}
	for i, raw := range list {
		item := v.child(strconv.Itoa(i), raw)
		if s, ok := item.Text(); ok {
			each(item, s)
		}
	}
}

// IsList says whether v is a list.
func (v Value) IsList() bool { return len(v.Raw) > 0 && v.Raw[0] == '[' }

// IsEmptyList says whether v is a list without items.
func (v Value) IsEmptyList() bool {
	return v.IsList() && len(bytes.TrimSpace(v.Raw[1:])) == 1
}

// IsObject says whether v is an object.
func (v Value) IsObject() bool { return len(v.Raw) > 0 && v.Raw[0] == '{' }

// IsText says whether v is a string.
func (v Value) IsText() bool { return len(v.Raw) > 0 && v.Raw[0] == '"' }

// OneOf reads v as one of the names.
func (v Value) OneOf(names ...string) (string, bool) {
	s, ok := v.Text()
	if ok && !slices.Contains(names, s) {
		v.Fail("must be one of %s, not %q", strings.Join(names, ", "), s)
		return "", false
	}
	return s, ok
}

// Statuses reads v as a status or a list of statuses, without repeats. It accepts only
// those for which allowed is true.
func (v Value) Statuses(allowed func(jobs.Status) bool) []jobs.Status {
	var found []jobs.Status
	v.Texts(func(item Value, s string) {
		status, ok := jobs.ParseStatus(s)
		if !ok || !allowed(status) {
			item.Fail("%q is not one of %s", s, strings.Join(statusNames(allowed), ", "))
			return
		}
		if !slices.Contains(found, status) {
			found = append(found, status)
		}
	})
	return found
}

func statusNames(allowed func(jobs.Status) bool) []string {
	return slices.DeleteFunc(slices.Clone(jobs.StatusNames()), func(name string) bool {
		status, _ := jobs.ParseStatus(name)
		return !allowed(status)
	})
}

func (v Value) describe() string {
	const longest = 40
	switch {
	case v.null():
		return "null"
	case v.IsObject():
		return "an object"
	case v.IsList():
		return "a list"
	case len(v.Raw) > longest:
		return string(v.Raw[:longest]) + "…"
	}
	return string(v.Raw)
}
