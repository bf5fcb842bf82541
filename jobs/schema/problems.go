package schema

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"jobstream/jobs"
	"jobstream/jobs/strict"
)

// problem is one thing that is wrong with a document, at the names that lead to it.
type problem struct {
	at     []string
	detail string
}

type problems []problem

// fields are the problems by their pointers below at, each once and in order.
func (ps problems) fields(at string) []jobs.FieldError {
	all := make([]jobs.FieldError, len(ps))
	for i, p := range ps {
		all[i] = jobs.FieldError{Pointer: shorten(at + pointer(p.at)), Detail: p.detail}
	}
	slices.SortFunc(all, func(a, b jobs.FieldError) int {
		return cmp.Or(strings.Compare(a.Pointer, b.Pointer), strings.Compare(a.Detail, b.Detail))
	})
	return slices.Compact(all)
}

func pointer(names []string) string {
	var b strings.Builder
	for _, name := range names {
		b.WriteString(strict.Pointer(name))
	}
	return b.String()
}

// problemsOf says in this project's words what the library has found.
func problemsOf(e *jsonschema.ValidationError) problems {
	at := e.InstanceLocation
	switch k := e.ErrorKind.(type) {
	case *kind.Schema, *kind.Group, *kind.Reference, *kind.AllOf:
		return below(e)
	case *kind.AnyOf:
		return alternatives(e)
	case *kind.OneOf:
		if len(k.Subschemas) == 2 {
			return problems{{at, fmt.Sprintf("fits the alternatives %d and %d of oneOf, and must fit one", k.Subschemas[0]+1, k.Subschemas[1]+1)}}
		}
		return alternatives(e)
	case *kind.Required:
		return each(at, k.Missing, "is required")
	case *kind.DependentRequired:
		return each(at, k.Missing, "is required beside "+k.Prop)
	case *kind.Dependency:
		return each(at, k.Missing, "is required beside "+k.Prop)
	case *kind.AdditionalProperties:
		return each(at, k.Properties, "is not a known field")
	case *kind.PropertyNames:
		detail := "is no name that is allowed here"
		if all := below(e); len(all) > 0 {
			detail += ": it " + all[0].detail
		}
		return each(at, []string{k.Property}, detail)
	}
	return problems{{at, detail(e.ErrorKind)}}
}

func below(e *jsonschema.ValidationError) (all problems) {
	for _, c := range e.Causes {
		all = append(all, problemsOf(c)...)
	}
	return all
}

// each is one problem of these names below at.
func each(at, names []string, detail string) problems {
	all := make(problems, len(names))
	for i, name := range names {
		all[i] = problem{append(slices.Clone(at), name), detail}
	}
	return all
}

// alternatives are the problems of a value that fits none of several schemas. If only one of
// them can be meant, they are the problems with that one.
func alternatives(e *jsonschema.ValidationError) problems {
	depth := len(e.InstanceLocation)
	likely := meant(meant(e.Causes, depth, otherType), depth, otherValue)
	if len(likely) == 1 {
		return problemsOf(likely[0])
	}
	if want, ok := types(likely, depth); ok {
		return problems{{e.InstanceLocation, detail(want)}}
	}
	const most = 4
	var texts []string
	for _, c := range likely {
		all := problemsOf(c)
		if len(all) == 0 {
			continue
		}
		first := all.fields("")[0]
		text := first.Detail
		if inner := strings.TrimPrefix(first.Pointer, pointer(e.InstanceLocation)); inner != "" {
			text = inner + " " + text
		}
		if !slices.Contains(texts, text) {
			texts = append(texts, text)
		}
	}
	more := ""
	if len(texts) > most {
		texts, more = texts[:most], ", or more"
	}
	return problems{{e.InstanceLocation, fmt.Sprintf("fits none of the alternatives: %s%s", strings.Join(texts, "; or "), more)}}
}

// meant are those of several alternatives that are not unlike the value in this way, or all
// of them if none is left.
func meant(all []*jsonschema.ValidationError, depth int, unlike func(e *jsonschema.ValidationError, depth int) bool) []*jsonschema.ValidationError {
	left := slices.DeleteFunc(slices.Clone(all), func(e *jsonschema.ValidationError) bool { return unlike(e, depth) })
	if len(left) == 0 {
		return all
	}
	return left
}

// otherType says whether an alternative is of another type than the value at this depth.
func otherType(e *jsonschema.ValidationError, depth int) bool {
	switch e.ErrorKind.(type) {
	case *kind.Type, *kind.FalseSchema:
		return len(e.InstanceLocation) == depth
	}
	return anyOf(e, depth, otherType)
}

// otherValue says whether an alternative asks for another value there, or of a field that
// tells alternatives apart.
func otherValue(e *jsonschema.ValidationError, depth int) bool {
	switch e.ErrorKind.(type) {
	case *kind.Const, *kind.Enum:
		return len(e.InstanceLocation) <= depth+1
	}
	return anyOf(e, depth, otherValue)
}

// anyOf says whether it is so for a part of what must all be right.
func anyOf(e *jsonschema.ValidationError, depth int, unlike func(*jsonschema.ValidationError, int) bool) bool {
	switch e.ErrorKind.(type) {
	case *kind.Group, *kind.Reference, *kind.AllOf:
		return slices.ContainsFunc(e.Causes, func(c *jsonschema.ValidationError) bool { return unlike(c, depth) })
	}
	return false
}

// types is the one problem of alternatives that differ in their types only.
func types(all []*jsonschema.ValidationError, depth int) (*kind.Type, bool) {
	var one kind.Type
	for _, e := range all {
		k, ok := e.ErrorKind.(*kind.Type)
		if !ok || len(e.InstanceLocation) != depth {
			return nil, false
		}
		one.Got = k.Got
		one.Want = append(one.Want, k.Want...)
	}
	return &one, len(all) > 0
}

// typeNames are the types of JSON Schema in this project's words.
var typeNames = map[string]string{
	"null": "null", "boolean": "true or false", "number": "a number", "integer": "a whole number", "string": "a string",
	"array": "a list", "object": "an object",
}

// formats says what a text of each format looks like.
var formats = map[string]string{
	"date":      "a date like 2026-11-30",
	"date-time": "a moment like 2026-11-30T14:00:00Z",
	"email":     "a mail address like ada@example.com",
	"uri":       "a URI with its scheme, like https://example.com/a",
	"uuid":      "a UUID like 0198a3c1-6d7e-7c3f-8a52-3f1d2c4b5a69",
}

// detail says what is wrong with one value.
func detail(k jsonschema.ErrorKind) string {
	switch k := k.(type) {
	case *kind.Type:
		want := make([]string, len(k.Want))
		for i, name := range k.Want {
			want[i] = cmp.Or(typeNames[name], name)
		}
		return "must be " + list(want, "or") + ", not " + cmp.Or(typeNames[k.Got], k.Got)
	case *kind.Enum:
		if len(k.Want) == 1 {
			return "must be " + show(k.Want[0])
		}
		const most = 20
		want := make([]string, 0, most)
		for _, v := range k.Want[:min(most, len(k.Want))] {
			want = append(want, show(v))
		}
		if len(k.Want) > most {
			return "must be one of " + strings.Join(want, ", ") + ", …"
		}
		return "must be one of " + strings.Join(want, ", ")
	case *kind.Const:
		return "must be " + show(k.Want)
	case *kind.Format:
		if k.Want == "regex" {
			return "is no pattern that can be used: " + k.Err.Error()
		}
		if like, ok := formats[k.Want]; ok {
			return "must be " + like
		}
		return "is not of the format " + k.Want + ": " + k.Err.Error()
	case *kind.Pattern:
		return "does not match " + k.Want
	case *kind.Not:
		return "is what the schema excludes by not"
	case *kind.FalseSchema:
		return "is not allowed"
	case *kind.RefCycle:
		return "cannot be checked: the schema leads back to itself"
	}
	if text := size(k); text != "" {
		return text
	}
	return k.LocalizedString(message.NewPrinter(language.English))
}

// size says what is wrong with the size of a value; "" if k is about something else.
func size(k jsonschema.ErrorKind) string {
	switch k := k.(type) {
	case *kind.MinLength:
		return "must have at least " + count(k.Want, "character") + ", not " + strconv.Itoa(k.Got)
	case *kind.MaxLength:
		return "must have at most " + count(k.Want, "character") + ", not " + strconv.Itoa(k.Got)
	case *kind.MinItems:
		return "must have at least " + count(k.Want, "entry") + ", not " + strconv.Itoa(k.Got)
	case *kind.MaxItems:
		return "must have at most " + count(k.Want, "entry") + ", not " + strconv.Itoa(k.Got)
	case *kind.MinProperties:
		return "must have at least " + count(k.Want, "field") + ", not " + strconv.Itoa(k.Got)
	case *kind.MaxProperties:
		return "must have at most " + count(k.Want, "field") + ", not " + strconv.Itoa(k.Got)
	case *kind.AdditionalItems:
		return "has more entries than allowed: " + strconv.Itoa(k.Count)
	case *kind.UniqueItems:
		return fmt.Sprintf("has the same entry twice, at %d and %d", k.Duplicates[0], k.Duplicates[1])
	case *kind.Contains:
		return "has no entry of the kind that must be there"
	case *kind.MinContains:
		return fmt.Sprintf("must have at least %d entries of the kind that must be there, not %d", k.Want, len(k.Got))
	case *kind.MaxContains:
		return fmt.Sprintf("must have at most %d entries of the kind that must be there, not %d", k.Want, len(k.Got))
	case *kind.Minimum:
		return "must be at least " + number(k.Want)
	case *kind.Maximum:
		return "must be at most " + number(k.Want)
	case *kind.ExclusiveMinimum:
		return "must be more than " + number(k.Want)
	case *kind.ExclusiveMaximum:
		return "must be less than " + number(k.Want)
	case *kind.MultipleOf:
		return "must be a multiple of " + number(k.Want)
	}
	return ""
}

// number is a number of a schema without rounding.
func number(r *big.Rat) string {
	if digits, exact := r.FloatPrec(); exact {
		return r.FloatString(digits)
	}
	return r.RatString()
}

// show is a value of a schema.
func show(v any) string {
	b, err := json.Marshal(v)
	const most = 200
	switch {
	case err != nil:
		return fmt.Sprint(v)
	case len(b) > most:
		return string(b[:most]) + "…"
	}
	return string(b)
}

// list is "a, b or c".
func list(words []string, last string) string {
	if n := len(words) - 1; n > 0 {
		return strings.Join(words[:n], ", ") + " " + last + " " + words[n]
	}
	return strings.Join(words, "")
}

// count is "1 field" or "2 fields".
func count(n int, what string) string {
	switch {
	case n == 1:
	case strings.HasSuffix(what, "y"):
		what = strings.TrimSuffix(what, "y") + "ies"
	default:
		what += "s"
	}
	return strconv.Itoa(n) + " " + what
}
