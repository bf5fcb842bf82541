package schema

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Lacks says which field of the payload a template cannot name, of those that lead to the
// one with these names; "" if all may exist. It is sure of that only if the schema forbids
// the field, or lists others and says nothing of more.
func (s *Schema) Lacks(field []string) string {
	at := []*jsonschema.Schema{s.full}
	for i, name := range field {
		if _, err := strconv.Atoi(name); err == nil {
			return "" // perhaps an entry of a list
		}
		next, known := step(at, name)
		if known != nil {
			text := ".payload." + strings.Join(field[:i+1], ".") + ", which the schema does not have"
			if len(known) > 0 {
				text += "; known are " + strings.Join(known, ", ")
			}
			return text
		}
		if len(next) == 0 {
			return "" // anything may follow
		}
		at = next
	}
	return ""
}

// step goes from the schemas of a value to those of its field. If there is no such field,
// known are those that there are; otherwise it is nil.
func step(at []*jsonschema.Schema, name string) (next []*jsonschema.Schema, known []string) {
	all := make(map[*jsonschema.Schema]bool)
	for _, s := range at {
		gather(s, len(at) == 1, all)
	}
	more := false
	fields := make(map[string]bool)
	for s, always := range all {
		if always && closed(s, name) {
			return nil, namesIn(s.Properties)
		}
		more = more || open(s, name)
		for name := range s.Properties {
			fields[name] = true
		}
		if sub := s.Properties[name]; sub != nil {
			next = append(next, sub)
		}
	}
	if more || len(next) > 0 || len(fields) == 0 {
		return next, nil
	}
	return nil, slices.Sorted(maps.Keys(fields))
}

// gather finds the schemas that apply to the same value as s: true for those that do if s
// does, false for those that do in some cases.
func gather(s *jsonschema.Schema, always bool, all map[*jsonschema.Schema]bool) {
	if s == nil {
		return
	}
	if before, ok := all[s]; ok && (before || !always) {
		return
	}
	all[s] = always
	gather(s.Ref, always, all)
	for _, part := range s.AllOf {
		gather(part, always, all)
	}
	for _, part := range slices.Concat(s.AnyOf, s.OneOf, []*jsonschema.Schema{s.If, s.Then, s.Else}, slices.Collect(maps.Values(s.DependentSchemas))) {
		gather(part, false, all)
	}
}

// closed says whether what fits s cannot have a field of this name.
func closed(s *jsonschema.Schema, name string) bool {
	switch {
	case isFalse(s) || s.Types != nil && !slices.Contains(s.Types.ToStrings(), "object"):
		return true
	case s.Properties[name] != nil || matches(s, name):
		return false
	}
	more, _ := s.AdditionalProperties.(*jsonschema.Schema)
	return s.AdditionalProperties == false || isFalse(more)
}

func matches(s *jsonschema.Schema, name string) bool {
	for pattern := range s.PatternProperties {
		if pattern.MatchString(name) {
			return true
		}
	}
	return false
}

// open says whether s speaks of fields that it does not list, or may.
func open(s *jsonschema.Schema, name string) bool {
	more, _ := s.AdditionalProperties.(*jsonschema.Schema)
	switch {
	case s.Bool != nil:
		return *s.Bool
	case s.RecursiveRef != nil || s.DynamicRef != nil || s.UnevaluatedProperties != nil && !isFalse(s.UnevaluatedProperties):
		return true
	}
	return matches(s, name) || s.AdditionalProperties == true || more != nil && !isFalse(more)
}

func isFalse(s *jsonschema.Schema) bool { return s != nil && s.Bool != nil && !*s.Bool }

func namesIn(properties map[string]*jsonschema.Schema) []string {
	return append(make([]string, 0, len(properties)), slices.Sorted(maps.Keys(properties))...)
}
