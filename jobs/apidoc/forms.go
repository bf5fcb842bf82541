package apidoc

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/google/jsonschema-go/jsonschema"

	"jobstream/jobs/form"
)

// forms turns the forms of operations into JSON Schemas. Those with a name of their own
// come into components, and are referred to.
type forms struct {
	types      map[reflect.Type]form.Schema // forms of Go types whose JSON is made by hand
	components map[string]any
	made       map[string]any // the forms of the components
}

func newForms(types map[reflect.Type]form.Schema) *forms {
	return &forms{types: types, components: make(map[string]any), made: make(map[string]any)}
}

// request is the schema of something that clients send.
func (f *forms) request(of any) any { return f.resolve(of, true) }

// answer is the schema of something that the server sends. It may have more fields in
// the future, so clients must not rely on there being no others.
func (f *forms) answer(of any) any { return f.resolve(of, false) }

// resolve makes plain JSON of a form. Objects that are not closed may have other fields.
func (f *forms) resolve(of any, closed bool) any {
	switch v := of.(type) {
	case nil:
		return map[string]any{}
	case form.Explained:
		return explain(f.resolve(v.Of, closed), v.Text)
	case form.Schema:
		return f.schema(v, closed)
	case []any:
		all := make([]any, len(v))
		for i := range v {
			all[i] = f.resolve(v[i], closed)
		}
		return all
	}
	return f.goType(reflect.TypeOf(of), closed)
}

func explain(s any, text string) any {
	if text == "" {
		return s
	}
	with := maps.Clone(s.(map[string]any))
	with["description"] = text
	return with
}

// schema resolves the forms within a schema.
func (f *forms) schema(s form.Schema, closed bool) any {
	plain := make(map[string]any, len(s))
	for keyword, v := range s {
		switch v := v.(type) {
		case form.Schema, form.Explained, []any:
			if keyword != "examples" && keyword != "enum" {
				plain[keyword] = f.resolve(v, closed)
				continue
			}
		case map[string]any: // properties
			of := make(map[string]any, len(v))
			for name, field := range v {
				of[name] = f.resolve(field, closed)
			}
			plain[keyword] = of
			continue
		case bool:
			if keyword == "additionalProperties" && !closed {
				continue
			}
		default:
			if keyword == "items" || keyword == "additionalProperties" {
				plain[keyword] = f.resolve(v, closed)
				continue
			}
		}
		plain[keyword] = v
	}
	name, named := plain["title"].(string)
	if !named {
		return plain
	}
	return f.component(name, s, plain)
}

// component refers to a component. Two forms with one name are a mistake in the program.
func (f *forms) component(name string, of any, plain map[string]any) any {
	if before, known := f.components[name]; known && !reflect.DeepEqual(before, plain) {
		panic(fmt.Sprintf("the name %s is that of two forms, %v and %v", name, f.made[name], of))
	}
	f.components[name], f.made[name] = plain, of
	return reference(name)
}

func reference(name string) map[string]any {
	return map[string]any{"$ref": "#/components/schemas/" + name}
}

// goType is the schema of a Go type's JSON.
func (f *forms) goType(t reflect.Type, closed bool) any {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if known, by := f.types[t]; by {
		return f.schema(known, closed)
	}
	if p := reflect.PointerTo(t); p.Implements(reflect.TypeFor[json.Marshaler]()) && t != reflect.TypeFor[json.RawMessage]() {
		panic(fmt.Sprintf("the JSON of %s is made by hand, so api.Forms has to describe it", t))
	}
	o := &jsonschema.ForOptions{TypeSchemas: map[reflect.Type]*jsonschema.Schema{
		reflect.TypeFor[time.Time]():       {Type: "string", Format: "date-time"},
		reflect.TypeFor[json.RawMessage](): {},
	}}
	for known, of := range f.types {
		o.TypeSchemas[known] = asSchema(f.schema(of, closed))
	}
	for _, part := range structsIn(t) {
		if o.TypeSchemas[part] == nil {
			o.TypeSchemas[part] = asSchema(f.goType(part, closed))
		}
	}
	s, err := jsonschema.ForType(t, o)
	if err != nil {
		panic(err)
	}
	plain := asJSON(s)
	tidy(plain, closed)
	if t.Name() == "" {
		return plain
	}
	return f.component(componentName(t), t, plain)
}

// componentName is the name of a Go type for its readers.
func componentName(t reflect.Type) string {
	name := strings.TrimSuffix(t.Name(), "Resource")
	return strings.ToUpper(name[:1]) + name[1:]
}

// structsIn are the named types that the fields of t have, which become components.
func structsIn(t reflect.Type) (all []reflect.Type) {
	var walk func(t reflect.Type)
	walk = func(t reflect.Type) {
		switch t.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
			walk(t.Elem())
		case reflect.Struct:
			if t == reflect.TypeFor[time.Time]() || slices.Contains(all, t) {
				return
			}
			if t.Name() != "" {
				all = append(all, t)
				return
			}
			for i := range t.NumField() {
				walk(t.Field(i).Type)
			}
		}
	}
	if t.Kind() != reflect.Struct {
		walk(t)
		return all
	}
	for i := range t.NumField() {
		if field := t.Field(i); field.IsExported() && !field.Anonymous {
			walk(field.Type)
		}
	}
	return all
}

// tidy removes from a schema of jsonschema what does not hold here: lists are never null,
// and answers may get more fields.
func tidy(v any, closed bool) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			tidy(e, closed)
		}
	case map[string]any:
		if types, many := v["type"].([]any); many && slices.Contains(types, any("array")) {
			v["type"] = "array"
		}
		if ref, is := v["$ref"]; is {
			delete(v, "type")
			v["$ref"] = ref
		}
		if more, is := v["additionalProperties"].(bool); is && !more && !closed {
			delete(v, "additionalProperties")
		}
		for key, e := range v {
			if e == true { // any value; not all readers know this form
				v[key] = map[string]any{}
			}
			tidy(e, closed)
		}
	}
}

// asSchema and asJSON convert between the two forms of a schema.
func asSchema(plain any) (s *jsonschema.Schema) { return convert(plain, s) }

func asJSON(s *jsonschema.Schema) (plain map[string]any) { return convert(s, plain) }

func convert[T any](from any, to T) T {
	raw, err := json.Marshal(from)
	if err == nil {
		err = json.Unmarshal(raw, &to)
	}
	if err != nil {
		panic(err) // forms are part of the program
	}
	return to
}
