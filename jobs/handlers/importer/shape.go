package importer

import (
	"bytes"
	"encoding/json"
	"errors"
	"regexp"
	"strconv"
	"strings"

	"jobstream/jobs"
	"jobstream/jobs/handlers/internal/template"
	"jobstream/jobs/strict"
)

// language is that of the texts in the payload of the rows.
var language = &template.Language{Makes: "a text", For: "the payload of the rows", Roots: []string{"row"}, Max: 1 << 20}

// shape makes the payload of a job out of a row: a JSON value with templates in it.
type shape struct {
	raw    json.RawMessage    // what stays as it is
	text   *template.Template // a text that is filled in
	field  []string           // the names that lead to the value, below row
	names  []json.RawMessage  // of an object, with the colon
	parts  []*shape           // of an object or a list
	object bool
}

// parseShape reads a payload of rows. The error is an [*jobs.Error] that names every
// mistake.
func parseShape(raw json.RawMessage) (s *shape, err error) {
	err = jobs.Mistaken(strict.Read("/payload/payload", raw, func(v strict.Value) { s = shapeOf(v) }))
	return s, err
}

func shapeOf(v strict.Value) *shape {
	s := &shape{}
	switch {
	case v.IsObject():
		s.object = true
		v.Each(func(of strict.Value) {
			s.names = append(s.names, append(jobs.AppendString(nil, of.Name()), ':'))
			s.parts = append(s.parts, shapeOf(of))
		})
	case v.IsList():
		v.Items(func(of strict.Value) { s.parts = append(s.parts, shapeOf(of)) })
	case v.IsText():
		text, _ := v.Text()
		if !strings.Contains(text, "{{") {
			s.raw = v.Raw
			break
		}
		var err error
		if s.text, err = language.Parse(text); v.Check(err) {
			s.field = onlyField(text)
		}
	default:
		s.raw = v.Raw
	}
	return s
}

// onlyFields are texts that are one field and nothing else.
var (
	onlyDots  = regexp.MustCompile(`^\{\{-?\s*\.row((?:\.[A-Za-z_][A-Za-z0-9_]*)*)\s*-?\}\}$`)
	onlyIndex = regexp.MustCompile(`^\{\{-?\s*index\s+\.row((?:\s+"(?:[^"\\]|\\.)*")+)\s*-?\}\}$`)
	quoted    = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
)

// onlyField are the names that lead to the value of a text that is one field; nil if it is
// not.
func onlyField(text string) []string {
	if m := onlyDots.FindStringSubmatch(text); m != nil {
		names := strings.Split(m[1], ".")
		return names[1:] // empty for the whole row
	}
	m := onlyIndex.FindStringSubmatch(text)
	if m == nil {
		return nil
	}
	var names []string
	for _, q := range quoted.FindAllString(m[1], -1) {
		name, err := strconv.Unquote(q)
		if err != nil {
			return nil
		}
		names = append(names, name)
	}
	return names
}

// fill is the payload for a row. The error is an [*jobs.Error].
func (s *shape) fill(row any) (json.RawMessage, error) { return s.append(nil, row) }

func (s *shape) append(b []byte, row any) ([]byte, error) {
	switch {
	case s.raw != nil:
		return append(b, s.raw...), nil
	case s.field != nil:
		v, err := valueAt(row, s.field)
		if err != nil {
			return nil, err
		}
		return appendValue(b, v)
	case s.text != nil:
		text, err := s.text.Render(template.Data{"row": row})
		if err != nil {
			return nil, aboutRow(err)
		}
		return jobs.AppendString(b, text), nil
	}
	opening, closing := byte('['), byte(']')
	if s.object {
		opening, closing = '{', '}'
	}
	b = append(b, opening)
	for i, part := range s.parts {
		if i > 0 {
			b = append(b, ',')
		}
		if s.object {
			b = append(b, s.names[i]...)
		}
		var err error
		if b, err = part.append(b, row); err != nil {
			return nil, err
		}
	}
	return append(b, closing), nil
}

// valueAt is the value of a field of a row.
func valueAt(row any, names []string) (any, error) {
	v := row
	for i, name := range names {
		m, ok := v.(map[string]any)
		if !ok {
			return nil, jobs.Invalid(pointerOf(names[:i]), "must be an object with "+jobs.Quote(name))
		}
		if v, ok = m[name]; !ok {
			return nil, jobs.Invalid(pointerOf(names[:i+1]), "is required")
		}
	}
	return v, nil
}

func pointerOf(names []string) string {
	s := "/row"
	for _, name := range names {
		s += strict.Pointer(name)
	}
	return s
}

func appendValue(b []byte, v any) ([]byte, error) {
	if s, ok := v.(string); ok {
		return jobs.AppendString(b, s), nil
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return append(b, bytes.TrimSpace(out.Bytes())...), nil
}

// aboutRow is an error of a template about a row, which the package template takes for a
// payload where it knows no field.
func aboutRow(err error) error {
	var e *jobs.Error
	if !errors.As(err, &e) || len(e.Fields) == 0 || e.Fields[0].Pointer != "/payload" {
		return err
	}
	return jobs.Invalid("/row", e.Fields[0].Detail)
}
