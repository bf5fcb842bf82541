// Package schema checks payloads against the JSON Schema of their type. It is the only
// package that knows the library for that.
//
// Start reading at [Source.Compile], which reads a schema when the server starts, and
// [Schema.Check], which the doors call for every payload. What the library finds is said in
// this project's words and pointers; see problems.go. What a payload may cost is bounded in
// bounds.go.
package schema

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"

	"jobstream/jobs"
)

// Schema is what the payloads of a type must look like. All methods may be called from any
// goroutine.
type Schema struct {
	text   json.RawMessage
	digest string
	full   *jsonschema.Schema // names every problem
	fits   *jsonschema.Schema // refuses what full accepts, and names nothing
}

// Digest differs for schemas whose texts, or files that these lead to, differ.
func (s *Schema) Digest() string { return s.digest }

// JSON is the schema as it was given.
func (s *Schema) JSON() json.RawMessage { return s.text }

// manyValues is how many values a payload may have for its problems to be named. Each
// problem takes memory until all are found, and each value can be one.
const manyValues = 10_000

// Check returns an [*jobs.Error] with the problems of a payload; no payload counts as null.
// It must be JSON, nested no deeper than the doors allow.
func (s *Schema) Check(p *jobs.Payload) error {
	v, err := p.Value()
	if err != nil {
		return err
	}
	values, err := survey(p.JSON, v, "/payload")
	switch {
	case err != nil:
		return err
	case values > manyValues && s.fits.Validate(v) == nil:
		return jobs.Invalid("/payload", "does not match the schema of the type, and has too many values to say where")
	case values > manyValues:
		return nil
	}
	var wrong *jsonschema.ValidationError
	if !errors.As(s.full.Validate(v), &wrong) {
		return nil
	}
	return invalid(problemsOf(wrong).fields("/payload"))
}

// maxProblems is how many problems of one payload are named.
const maxProblems = 20

// invalid is the error for these problems.
func invalid(all []jobs.FieldError) error {
	if more := len(all) - maxProblems; more > 0 {
		all = append(all[:maxProblems:maxProblems], jobs.FieldError{Pointer: "/payload", Detail: fmt.Sprintf("has %d more problems", more)})
	}
	return jobs.InvalidFields(all...)
}

// visit calls f for a compiled schema and all that it consists of.
func visit(s *jsonschema.Schema, seen map[*jsonschema.Schema]bool, f func(*jsonschema.Schema)) {
	if s == nil || seen[s] {
		return
	}
	seen[s] = true
	f(s)
	for _, part := range parts(s) {
		visit(part, seen, f)
	}
}

func parts(s *jsonschema.Schema) []*jsonschema.Schema {
	all := append([]*jsonschema.Schema{
		s.Ref, s.RecursiveRef, s.Not, s.If, s.Then, s.Else, s.PropertyNames, s.UnevaluatedProperties,
		s.Contains, s.Items2020, s.UnevaluatedItems,
	}, s.PrefixItems...)
	all = append(append(append(all, s.AllOf...), s.AnyOf...), s.OneOf...)
	if s.DynamicRef != nil {
		all = append(all, s.DynamicRef.Ref)
	}
	for _, m := range []map[string]*jsonschema.Schema{s.Properties, s.DependentSchemas} {
		for _, part := range m {
			all = append(all, part)
		}
	}
	for _, part := range s.PatternProperties {
		all = append(all, part)
	}
	for _, v := range []any{s.AdditionalProperties, s.Items, s.AdditionalItems} {
		switch v := v.(type) {
		case *jsonschema.Schema:
			all = append(all, v)
		case []*jsonschema.Schema:
			all = append(all, v...)
		}
	}
	return all
}

// nameCheck checks the names in an object. The library does that as well, but says the wrong
// place when objects are nested.
type nameCheck struct{ of *jsonschema.Schema }

// Validate implements [jsonschema.SchemaExt].
func (n nameCheck) Validate(ctx *jsonschema.ValidatorContext, v any) {
	object, _ := v.(map[string]any)
	for name := range object {
		var wrong *jsonschema.ValidationError
		if errors.As(n.of.Validate(name), &wrong) {
			ctx.AddErrors(wrong.Causes, &kind.PropertyNames{Property: name})
		}
	}
}

// withNames makes s check names by itself.
func withNames(s *jsonschema.Schema) {
	if s.PropertyNames != nil {
		s.Extensions = append(s.Extensions, nameCheck{s.PropertyNames})
		s.PropertyNames = nil
	}
}
