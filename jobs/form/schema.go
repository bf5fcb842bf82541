package form

import (
	"maps"
	"time"
)

// Schema is a JSON Schema (draft 2020-12). Those with a title are shown once, under that
// name.
type Schema map[string]any

// With is the schema with another keyword.
func (s Schema) With(keyword string, value any) Schema {
	more := maps.Clone(s)
	if more == nil {
		more = make(Schema)
	}
	more[keyword] = value
	return more
}

// Named is the schema under a name of its own.
func (s Schema) Named(title string) Schema { return s.With("title", title) }

// OrNull is the schema, or null.
func (s Schema) OrNull() Schema { return Schema{"anyOf": []any{s, Schema{"type": "null"}}} }

// Field is a field of an object.
type Field struct {
	name     string
	text     string
	required bool
	of       any
}

// May is a field that may be missing. of is a [Schema], or a value of the Go type whose
// JSON it is. text says what it means; "" = the schema says it.
func May(name string, of any, text string) Field { return Field{name, text, false, of} }

// Need is a field that must be there.
func Need(name string, of any, text string) Field { return Field{name, text, true, of} }

// Object is an object with these fields and no others.
func Object(fields ...Field) Schema {
	properties, required := make(map[string]any, len(fields)), []string{}
	for _, f := range fields {
		properties[f.name] = Explained{f.of, f.text}
		if f.required {
			required = append(required, f.name)
		}
	}
	s := Schema{"type": "object", "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		s["required"] = required
	}
	return s
}

// And is the object with more fields. It has no name of its own any more.
func (s Schema) And(fields ...Field) Schema {
	if len(fields) == 0 {
		return s
	}
	all := Object(fields...)
	maps.Copy(all["properties"].(map[string]any), s["properties"].(map[string]any))
	needed, _ := all["required"].([]string)
	if more, some := s["required"].([]string); some {
		needed = append(needed, more...)
	}
	if len(needed) > 0 {
		all["required"] = needed
	}
	return all
}

// Explained is a form with a description of its own.
type Explained struct {
	Of   any
	Text string
}

// Text is any text.
func Text() Schema { return Schema{"type": "string"} }

// TextUpTo is a text of 1 to that many characters. JSON Schema counts characters, and the
// server bytes, so a text at the bound may be refused all the same.
func TextUpTo(most int) Schema {
	return Schema{"type": "string", "minLength": 1, "maxLength": most}
}

// Pattern is a text that matches a regular expression.
func Pattern(expression string) Schema { return Schema{"type": "string", "pattern": expression} }

// OneOf is one of these texts.
func OneOf[S ~string](values ...S) Schema { return Schema{"type": "string", "enum": values} }

// Whole is a whole number from lo to hi.
func Whole(lo, hi int) Schema { return Schema{"type": "integer", "minimum": lo, "maximum": hi} }

// Count is a whole number from 0 on.
func Count() Schema { return Schema{"type": "integer", "minimum": 0} }

// Number is a number from 0 on.
func Number() Schema { return Schema{"type": "number", "minimum": 0} }

// Bool is true or false.
func Bool() Schema { return Schema{"type": "boolean"} }

// Any is any JSON.
func Any() Schema { return Schema{} }

// Moment is a time in RFC 3339.
func Moment() Schema { return Schema{"type": "string", "format": "date-time"} }

// ID is the id of a job or a file.
func ID() Schema { return Schema{"type": "string", "format": "uuid"} }

// Span is how long something lasts, at most most: seconds, or a text like 5m.
func Span(most time.Duration) Schema {
	return Schema{"anyOf": []any{
		Schema{"type": "number", "minimum": 0, "maximum": most.Seconds()},
		Pattern(`^([0-9]+|([0-9.]+(ns|us|µs|ms|s|m|h|d|w))+)$`).With("examples", []any{"30s", "1h30m"}),
	}}
}

// List is a list of lo to hi items; hi = 0 stands for no bound.
func List(of any, lo, hi int) Schema {
	s := Schema{"type": "array", "items": of}
	if lo > 0 {
		s["minItems"] = lo
	}
	if hi > 0 {
		s["maxItems"] = hi
	}
	return s
}

// OneOrMore is one value, or a list of up to most.
func OneOrMore(of Schema, most int) Schema {
	return Schema{"anyOf": []any{of, List(of, 1, most)}}
}

// Map is an object with values of a kind by names.
func Map(of any) Schema { return Schema{"type": "object", "additionalProperties": of} }

// Either is one of several forms.
func Either(forms ...any) Schema { return Schema{"anyOf": forms} }
