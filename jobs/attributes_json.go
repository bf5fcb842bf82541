package jobs

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"jobstream/jobs/strict"
)

// AppendFieldsJSON appends a JSON object with the fields of v.
func AppendFieldsJSON[T any](b []byte, fields []Field[T], v *T) []byte {
	start := len(b)
	b = append(appendMembers(b, fields, v), '}')
	b[start] = '{'
	return b
}

// appendMembers appends the fields of v that JSON shows, each after a comma.
func appendMembers[T any](b []byte, fields []Field[T], v *T) []byte {
	for i := range fields {
		f := &fields[i]
		if f.JSON == Hidden {
			continue
		}
		of := f.Of
		if f.Shown != nil {
			of = f.Shown
		}
		if x := of(v); x != nil && (f.JSON == Always || !IsZero(x)) {
			b = append(append(append(b, `,"`...), f.Name...), `":`...)
			b = AppendValueJSON(b, x)
		}
	}
	return b
}

// AppendValueJSON appends the value of an attribute, the result of its [Field].Of.
func AppendValueJSON(b []byte, v any) []byte {
	switch v := v.(type) {
	case *string:
		return AppendString(b, *v)
	case *int:
		return strconv.AppendInt(b, int64(*v), 10)
	case *int64:
		return strconv.AppendInt(b, *v, 10)
	case *uint64:
		return strconv.AppendUint(b, *v, 10)
	case *bool:
		return strconv.AppendBool(b, *v)
	case *Time:
		return appendTime(b, *v)
	case *time.Duration:
		return strconv.AppendFloat(b, v.Seconds(), 'f', -1, 64)
	case *json.RawMessage:
		return appendRaw(b, *v)
	case *[]string:
		return appendListJSON(b, *v, func(b []byte, s *string) []byte { return AppendString(b, *s) })
	case *ID:
		return append(AppendID(append(b, '"'), *v), '"')
	case *Trace:
		return append(AppendTrace(append(b, '"'), *v), '"')
	case *uint8:
		return strconv.AppendUint(b, uint64(*v), 10)
	case *Status:
		return AppendString(b, v.String())
	case *Kind:
		return AppendString(b, v.String())
	case **Artifact:
		return AppendFieldsJSON(b, ArtifactFields, *v)
	case *[]Artifact:
		return appendObjectsJSON(b, ArtifactFields, *v)
	case *[]Input:
		return AppendInputsJSON(b, *v)
	case *[]AttemptError:
		return appendObjectsJSON(b, ErrorFields, *v)
	}
	panic(fmt.Sprintf("JSON has no attributes of type %T", v))
}

func appendObjectsJSON[E any](b []byte, fields []Field[E], list []E) []byte {
	return appendListJSON(b, list, func(b []byte, e *E) []byte { return AppendFieldsJSON(b, fields, e) })
}

func appendListJSON[E any](b []byte, list []E, one func([]byte, *E) []byte) []byte {
	b = append(b, '[')
	for i := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = one(b, &list[i])
	}
	return append(b, ']')
}

// ReadFieldsJSON is the inverse of [AppendFieldsJSON]. It skips unknown members, and
// treats null as missing. Nothing of v points into body.
func ReadFieldsJSON[T any](body []byte, fields []Field[T], v *T) error {
	if !json.Valid(body) || bytes.TrimSpace(body)[0] != '{' {
		return errors.New("it is not a JSON object")
	}
	for name, raw := range strict.Members(body) {
		if _, err := readMember(fields, v, name, raw); err != nil {
			return err
		}
	}
	return nil
}

// readMember reads one member of an object into v, if it has such a field.
func readMember[T any](fields []Field[T], v *T, name string, raw json.RawMessage) (known bool, err error) {
	f := FieldNamed(fields, name)
	if f == nil || f.JSON == Hidden {
		return false, nil
	}
	if string(raw) == "null" {
		return true, nil
	}
	if err := ReadValueJSON(f.Of(v), raw); err != nil {
		return true, fmt.Errorf("%s %w", name, err)
	}
	return true, nil
}

// ReadValueJSON reads a JSON value into an attribute. v is the result of its
// [Field].Of.
func ReadValueJSON(v any, raw json.RawMessage) (err error) {
	switch v := v.(type) {
	case *string:
		*v, err = strict.Text(raw)
	case *int:
		*v, err = strict.Int(raw, math.MinInt, math.MaxInt)
	case *int64:
		*v, err = strconv.ParseInt(string(raw), 10, 64)
	case *uint64:
		if *v, err = strconv.ParseUint(string(raw), 10, 64); err != nil {
			err = fmt.Errorf("must be a whole number, not %s", strict.Describe(raw))
		}
	case *bool:
		*v, err = strict.Bool(raw)
	case *Time:
		var t time.Time
		err = json.Unmarshal(raw, &t)
		*v = TimeOf(t)
	case *time.Duration:
		*v, err = ReadDelay(raw)
	case *json.RawMessage:
		*v = append(json.RawMessage(nil), raw...)
	case *[]string:
		if *v, err = strict.Texts(raw); len(*v) == 0 {
			*v = nil
		}
	case *ID:
		err = readTextJSON(v, raw, ParseID)
	case *Trace:
		err = readTextJSON(v, raw, func(text string) (Trace, error) { return ParseTrace(text), nil })
	case *uint8:
		var n int
		n, err = strict.Int(raw, 0, math.MaxUint8)
		*v = uint8(n)
	case *Status:
		err = readTextJSON(v, raw, named(ParseStatus))
	case *Kind:
		err = readTextJSON(v, raw, named(ParseKind))
	case **Artifact:
		*v = &Artifact{}
		err = ReadFieldsJSON(raw, ArtifactFields, *v)
	case *[]Artifact:
		*v, err = readObjectsJSON(raw, ArtifactFields)
	case *[]Input:
		*v, err = readInputsJSON(raw)
	case *[]AttemptError:
		*v, err = readObjectsJSON(raw, ErrorFields)
	default:
		panic(fmt.Sprintf("JSON has no attributes of type %T", v))
	}
	return err
}

func readObjectsJSON[E any](raw json.RawMessage, fields []Field[E]) (list []E, err error) {
	if raw[0] != '[' {
		return nil, fmt.Errorf("must be a list, not %s", strict.Describe(raw))
	}
	for entry := range strict.Elements(raw) {
		list = append(list, *new(E))
		err = cmp.Or(err, ReadFieldsJSON(entry, fields, &list[len(list)-1]))
	}
	return list, err
}

func readTextJSON[V any](v *V, raw json.RawMessage, parse func(string) (V, error)) error {
	text, err := strict.Text(raw)
	if err == nil {
		*v, err = parse(text)
	}
	return err
}

func named[V any](parse func(string) (V, bool)) func(string) (V, error) {
	return func(name string) (V, error) {
		v, ok := parse(name)
		if !ok {
			return v, fmt.Errorf("is %s, which is unknown", Quote(name))
		}
		return v, nil
	}
}
