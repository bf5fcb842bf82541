package jobs

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"
)

// AppendFieldsJSON appends a JSON object with the fields of v.
func AppendFieldsJSON[T any](b []byte, fields []Field[T], v *T) []byte {
	start := len(b)
	b = append(appendMembers(b, fields, v), '}')
	b[start] = '{'
	return b
}

// appendMembers appends the fields of v that JSON shows, each with a comma before it.
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
			b = appendValueJSON(b, x)
		}
	}
	return b
}

func appendValueJSON(b []byte, v any) []byte {
	switch v := v.(type) {
	case *string:
		return AppendString(b, *v)
	case *int:
		return strconv.AppendInt(b, int64(*v), 10)
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
		return appendListJSON(b, *v, AppendString)
	case *ID:
		return append(appendID(append(b, '"'), *v), '"')
	case *Priority:
		return strconv.AppendUint(b, uint64(*v), 10)
	case *Status:
		return AppendString(b, v.String())
	case *Kind:
		return AppendString(b, v.String())
	case **Artifact:
		return appendArtifact(b, *v)
	case *[]AttemptError:
		return appendListJSON(b, *v, appendAttemptError)
	}
	panic(fmt.Sprintf("JSON has no attributes of type %T", v))
}

func appendListJSON[E any](b []byte, list []E, one func([]byte, E) []byte) []byte {
	b = append(b, '[')
	for i, e := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = one(b, e)
	}
	return append(b, ']')
}

func appendAttemptError(b []byte, e AttemptError) []byte {
	b = strconv.AppendInt(append(b, `{"attempt":`...), int64(e.Attempt), 10)
	b = AppendString(append(b, `,"error":`...), e.Error)
	return append(appendTime(append(b, `,"at":`...), e.At), '}')
}

func appendArtifact(b []byte, a *Artifact) []byte {
	b = AppendString(append(b, `{"name":`...), a.Name)
	b = AppendString(append(b, `,"content_type":`...), a.ContentType)
	b = strconv.AppendInt(append(b, `,"size":`...), a.Size, 10)
	return append(AppendString(append(b, `,"sha256":`...), a.SHA256), '}')
}

// ReadFieldsJSON reads what [AppendFieldsJSON] has written. Unknown members are passed
// over, and null is as if it were not there. Nothing of v points into body.
func ReadFieldsJSON[T any](body []byte, fields []Field[T], v *T) error {
	if !json.Valid(body) || body[skipSpace(body, 0)] != '{' {
		return errors.New("it is not a JSON object")
	}
	return eachMember(body, func(name string, raw json.RawMessage) error {
		_, err := readMember(fields, v, name, raw)
		return err
	})
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
	if err := readValueJSON(f.Of(v), raw); err != nil {
		return true, fmt.Errorf("%s %w", name, err)
	}
	return true, nil
}

func readValueJSON(v any, raw json.RawMessage) (err error) {
	switch v := v.(type) {
	case *string:
		*v, err = stringValue(raw)
	case *int:
		*v, err = intValue(raw, math.MinInt, math.MaxInt)
	case *uint64:
		if *v, err = strconv.ParseUint(string(raw), 10, 64); err != nil {
			err = fmt.Errorf("must be a whole number, not %s", describe(raw))
		}
	case *bool:
		*v, err = BoolField(raw)
	case *Time:
		var t time.Time
		err = json.Unmarshal(raw, &t)
		*v = TimeOf(t)
	case *time.Duration:
		*v, err = delayValue(raw)
	case *json.RawMessage:
		*v = append(json.RawMessage(nil), raw...)
	case *[]string:
		if *v, err = listValue(raw); len(*v) == 0 {
			*v = nil
		}
	case *ID:
		err = readTextJSON(v, raw, ParseID)
	case *Priority:
		var n int
		n, err = intValue(raw, 0, math.MaxUint8)
		*v = Priority(n)
	case *Status:
		err = readTextJSON(v, raw, named(ParseStatus))
	case *Kind:
		err = readTextJSON(v, raw, named(ParseKind))
	case **Artifact:
		var a struct {
			Name        string
			ContentType string `json:"content_type"`
			Size        int64
			SHA256      string
		}
		err = json.Unmarshal(raw, &a)
		*v = &Artifact{Name: a.Name, ContentType: a.ContentType, Size: a.Size, SHA256: a.SHA256}
	case *[]AttemptError:
		var all []struct {
			Attempt int
			Error   string
			At      time.Time
		}
		err = json.Unmarshal(raw, &all)
		for _, e := range all {
			*v = append(*v, AttemptError{Attempt: e.Attempt, Error: e.Error, At: TimeOf(e.At)})
		}
	default:
		panic(fmt.Sprintf("JSON has no attributes of type %T", v))
	}
	return err
}

func readTextJSON[V any](v *V, raw json.RawMessage, parse func(string) (V, error)) error {
	text, err := stringValue(raw)
	if err == nil {
		*v, err = parse(text)
	}
	return err
}

func named[V any](parse func(string) (V, bool)) func(string) (V, error) {
	return func(name string) (V, error) {
		v, ok := parse(name)
		if !ok {
			return v, fmt.Errorf("is %s, which is unknown", quote(name))
		}
		return v, nil
	}
}
