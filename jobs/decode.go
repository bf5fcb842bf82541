package jobs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"jobstream/jobs/strict"
)

// decodePayload reads a payload into a value of a Go program. The error is an [*Error]
// with the pointers of the wrong fields.
func decodePayload(raw json.RawMessage, into any, lenient bool) error {
	if len(raw) == 0 {
		return nil // as null
	}
	fits := func(doc []byte, into any) error {
		d := json.NewDecoder(bytes.NewReader(doc))
		if !lenient {
			d.DisallowUnknownFields()
		}
		err := d.Decode(into)
		if err == nil && d.More() {
			err = errors.New("more follows the value")
		}
		return err
	}
	err := fits(raw, into)
	if err == nil {
		return nil
	}
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) || errors.Is(err, io.ErrUnexpectedEOF) || !json.Valid(raw) {
		return Invalid("/payload", "cannot be read: "+err.Error())
	}
	of := reflect.TypeOf(into).Elem()
	s := search{
		fits: func(doc []byte) error { return fits(doc, reflect.New(of).Interface()) },
		left: 64<<10 + 16*len(raw),
	}
	s.in(part{pointer: "/payload", raw: bytes.TrimSpace(raw), err: err})
	return InvalidFields(s.wrong...)
}

// search looks for the parts of a payload that do not fit. It tries each of them in its
// place, without the parts beside it, and goes on in those that do not fit. So it knows
// no more of the rules of encoding/json than the messages of errors.
type search struct {
	fits  func(doc []byte) error
	left  int // bytes that it may still read; then it names what is around the mistake
	wrong []FieldError
}

// part is a part of a payload, between the beginning and the end of a document that has
// nothing else.
type part struct {
	pointer       string
	before, after []byte
	raw           json.RawMessage
	err           error // why it does not fit
}

// in looks for the mistakes in a part that does not fit.
func (s *search) in(p part) {
	before := len(s.wrong)
	switch empty := string(p.raw[0]) + string(p.raw[len(p.raw)-1]); {
	case empty != "{}" && empty != "[]" || s.try(&p, json.RawMessage(empty)) != nil:
		// No part of it is to blame: it is not of the right kind.
	case empty == "{}":
		for name, raw := range strict.Members(p.raw) {
			quoted := append(AppendString([]byte{'{'}, name), ':')
			s.inside(p, part{pointer: strict.Pointer(name), before: quoted, after: []byte{'}'}, raw: raw})
		}
	case empty == "[]":
		i := 0
		for raw := range strict.Elements(p.raw) {
			s.inside(p, part{pointer: "/" + strconv.Itoa(i), before: []byte{'['}, after: []byte{']'}, raw: raw})
			i++
		}
	}
	if len(s.wrong) == before {
		s.wrong = append(s.wrong, FieldError{Shorten(p.pointer, maxSearchPointer), misfit(p.err, p.raw)})
	}
}

// maxSearchPointer bounds the pointers that are shown, as names can be of any length.
const maxSearchPointer = 1000

// inside tries a part of a part.
func (s *search) inside(of, p part) {
	if s.left < 0 {
		return // even its place in the payload may be large
	}
	p.pointer, p.before, p.after = of.pointer+p.pointer, slices.Concat(of.before, p.before), slices.Concat(p.after, of.after)
	if p.err = s.try(&p, p.raw); p.err == nil {
		return
	}
	if null := s.try(&p, json.RawMessage("null")); null != nil && isUnknown(null) {
		s.wrong = append(s.wrong, FieldError{Shorten(p.pointer, maxSearchPointer), "is not a known field"})
		return
	}
	s.in(p)
}

// try reads the document with raw as the part. Without any bytes left it seems to fit.
func (s *search) try(p *part, raw json.RawMessage) error {
	doc := slices.Concat(p.before, raw, p.after)
	if s.left -= len(doc); s.left < 0 || len(s.wrong) >= maxFieldErrors {
		return nil
	}
	return s.fits(doc)
}

// isUnknown says whether an error of encoding/json is that for an unknown field, which
// has no type of its own.
func isUnknown(err error) bool { return strings.HasPrefix(err.Error(), "json: unknown field ") }

// misfit says why a value does not fit, for people.
func misfit(err error, raw json.RawMessage) string {
	var wrong *json.UnmarshalTypeError
	if !errors.As(err, &wrong) || wrong.Type == nil {
		return "does not fit: " + strings.TrimPrefix(err.Error(), "json: ")
	}
	want := wrong.Type.String()
	switch wrong.Type.Kind() {
	case reflect.Bool:
		want = "true or false"
	case reflect.String:
		want = "a text"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		want = fmt.Sprintf("a whole number of %d bits", wrong.Type.Bits())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		want = fmt.Sprintf("a whole number of %d bits, not below 0", wrong.Type.Bits())
	case reflect.Float32, reflect.Float64:
		want = "a number"
	case reflect.Struct, reflect.Map:
		want = "an object"
	case reflect.Slice, reflect.Array:
		want = "a list"
	}
	return "must be " + want + ", not " + strict.Describe(raw)
}
