// Package template fills fields of a job in a text of the configuration, as text/template
// does: an argument of a program, the address of an endpoint.
//
// Start reading at [Language.Parse], which is called when the server starts, and
// [Template.Render], which is called at the door and when a job runs. What a payload lacks
// is said in terms of the payload.
package template

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"
	texttemplate "text/template"
	"text/template/parse"

	"jobstream/jobs"
	"jobstream/jobs/strict"
)

// Language is what the templates for one purpose may name and what they make.
type Language struct {
	Makes  string              // what a template makes, to follow "makes": "an argument"
	For    string              // what it is for, to follow "does not fit": "the command"
	Roots  []string            // what a field may begin with: "payload", "job" or another name of [Data]
	Max    int                 // the longest text that may be made, in bytes
	Escape func(string) string // what each field that is filled in passes through; nil: nothing
	parsed sync.Map            // templates by their texts; see Parse
}

// Template is a text with fields of a job in it.
type Template struct {
	of      *Language
	t       *texttemplate.Template // nil: literal is all of it
	literal string
	fixed   bool       // it begins with text of its own
	needs   [][]string // the fields that must be there
	shows   [][]string // those that must be a text, a number or a truth value
	reads   [][]string // those of the payload and of inputs that it names
}

// Data is what the fields of a template stand for, by the names that they begin with.
type Data map[string]any

// NewData is the data of one attempt of a job, with the payload and the job. The error is a
// [*jobs.Error].
func NewData(p *jobs.Payload, j *jobs.Job, attempt int) (Data, error) {
	v, err := p.Value()
	if err != nil {
		return nil, err
	}
	tags := j.Tags
	if tags == nil {
		tags = []string{}
	}
	return Data{
		"payload": v,
		"job": map[string]any{
			"id": j.ID.String(), "type": j.Type, "priority": uint8(j.Priority), "attempt": attempt,
			"tags": tags, "created_at": j.CreatedAt.String(),
		},
	}, nil
}

// InputData is what stands for an input under its name in the part "inputs" of [Data].
func InputData(f *jobs.InputFile) map[string]any {
	return map[string]any{"path": f.Path, "name": f.File.Name, "content_type": f.File.ContentType, "size": f.File.Size}
}

// SomeInputs is the part "inputs" with values that stand for those of a job, where none are
// known yet.
func SomeInputs(names []string) map[string]any {
	all := make(map[string]any, len(names))
	for _, name := range names {
		all[name] = InputData(&jobs.InputFile{Path: "/input", Input: jobs.Input{File: jobs.Artifact{Name: "name", ContentType: "a/b"}}})
	}
	return all
}

// following are the names that may follow the first of a field. What is not here may be
// followed by any.
var following = map[string][]string{
	"job": {"id", "type", "priority", "attempt", "tags", "created_at"},
}

// ofInput are the names that may follow that of an input.
var ofInput = []string{"path", "name", "content_type", "size"}

// functions are what templates may call beside those of text/template; nothing reads the
// world.
func (l *Language) functions() texttemplate.FuncMap {
	return texttemplate.FuncMap{
		"json":     asJSON,
		"default":  orDefault,
		"join":     join,
		"base":     func(s string) string { return path.Base(s) },
		"optional": optional,
		"fill":     l.fill,
	}
}

// fill is a value as a text shows it. Every field that is filled in is passed through it.
func (l *Language) fill(v any) (string, error) {
	s, err := plain(v)
	if err == nil && l.Escape != nil {
		s = l.Escape(s)
	}
	return s, err
}

// EscapeURL is a text as one part of the path or of the query of a URL. No character of it
// means anything there.
func EscapeURL(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

func asJSON(v any) (string, error) {
	b, err := json.Marshal(v)
	return string(b), err
}

func orDefault(instead, v any) any {
	if v == nil || v == "" {
		return instead
	}
	return v
}

func join(separator string, list any) (string, error) {
	all, ok := list.([]any)
	if texts, is := list.([]string); is {
		return strings.Join(texts, separator), nil
	}
	if !ok {
		return "", fmt.Errorf("join needs a list, not %s", describe(list))
	}
	parts := make([]string, len(all))
	for i, v := range all {
		s, err := plain(v)
		if err != nil {
			return "", err
		}
		parts[i] = s
	}
	return strings.Join(parts, separator), nil
}

// optional is a field of a value, nil if there is none. It stands for fields beside
// default, which would be errors otherwise.
func optional(v any, names ...string) any {
	for _, name := range names {
		switch m := v.(type) {
		case Data:
			v = m[name]
		case map[string]any:
			v = m[name]
		default:
			return nil
		}
	}
	return v
}

// plain is a value as text.
func plain(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case json.Number:
		return string(v), nil
	case bool, int, int64, uint8:
		return fmt.Sprint(v), nil
	}
	return "", fmt.Errorf("%s cannot be filled in: it must be a string, a number, true or false; the function json makes one of anything", describe(v))
}

func describe(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case map[string]any, Data:
		return "an object"
	case []any, []string:
		return "a list"
	}
	return "this value"
}

// Parse reads a template. Equal texts share one, so that settings which have templates
// can be compared.
func (l *Language) Parse(text string) (*Template, error) {
	if known, ok := l.parsed.Load(text); ok {
		return known.(*Template), nil
	}
	a, err := l.parse(text)
	if err != nil {
		return nil, err
	}
	first, _ := l.parsed.LoadOrStore(text, a)
	return first.(*Template), nil
}

func (l *Language) parse(text string) (*Template, error) {
	a := &Template{of: l, literal: text, fixed: true}
	t, err := texttemplate.New("").Option("missingkey=error").Funcs(l.functions()).Parse(text)
	if err != nil {
		return nil, errors.New(strings.TrimPrefix(err.Error(), "template: "))
	}
	if !strings.Contains(text, "{{") {
		return a, nil
	}
	if len(t.Templates()) > 1 || calls(t.Root) {
		return nil, errors.New("must not define templates, nor call any")
	}
	if err := l.checkRoots(fieldsOf(t.Root)); err != nil {
		return nil, err
	}
	if len(t.Root.Nodes) > 0 {
		_, a.fixed = t.Root.Nodes[0].(*parse.TextNode)
	}
	for _, f := range fieldsOf(t.Root) {
		if f[0] == "payload" || f[0] == "inputs" {
			a.reads = append(a.reads, f)
		}
	}
	a.shows = shownBy(t.Root)
	defer func() { a.needs = fieldsOf(t.Root) }()
	walk(t.Root, func(n parse.Node) {
		switch n := n.(type) {
		case *parse.ActionNode:
			if len(n.Pipe.Decl) == 0 {
				n.Pipe.Cmds = append(n.Pipe.Cmds, l.call(t.Tree, `{{fill}}`))
			}
		case *parse.PipeNode:
			l.relax(t.Tree, n)
		}
	})
	a.t = t
	return a, nil
}

// calls says whether a template calls another, or itself, without an end.
func calls(root *parse.ListNode) (is bool) {
	walk(root, func(n parse.Node) { is = is || n.Type() == parse.NodeTemplate })
	return is
}

// checkRoots says which name of a template is not known.
func (l *Language) checkRoots(fields [][]string) error {
	for _, f := range fields {
		known := following[f[0]]
		switch {
		case !slices.Contains(l.Roots, f[0]):
			return fmt.Errorf("names .%s, which does not exist; known are .%s", f[0], strings.Join(l.Roots, ", ."))
		case len(f) > 1 && len(known) > 0 && !slices.Contains(known, f[1]):
			return fmt.Errorf("names .%s.%s, which does not exist; known are %s", f[0], f[1], strings.Join(known, ", "))
		case f[0] == "inputs" && len(f) == 1:
			return errors.New("must name an input, like .inputs.image.path")
		case f[0] == "inputs" && len(f) > 2 && (len(f) > 3 || !slices.Contains(ofInput, f[2])):
			return fmt.Errorf("names .%s, which does not exist; known are %s", strings.Join(f, "."), strings.Join(ofInput, ", "))
		}
	}
	return nil
}

// relax makes the fields in a pipe with default optional.
func (l *Language) relax(tree *parse.Tree, pipe *parse.PipeNode) {
	has := false
	for _, c := range pipe.Cmds {
		if id, ok := c.Args[0].(*parse.IdentifierNode); ok && id.Ident == "default" {
			has = true
		}
	}
	if !has {
		return
	}
	for _, c := range pipe.Cmds {
		for i, arg := range c.Args {
			f, ok := arg.(*parse.FieldNode)
			if !ok {
				continue
			}
			names := make([]string, len(f.Ident))
			for k, name := range f.Ident {
				names[k] = fmt.Sprintf("%q", name)
			}
			instead := l.call(tree, `{{optional . `+strings.Join(names, " ")+`}}`)
			if len(c.Args) == 1 {
				c.Args = instead.Args
				break
			}
			c.Args[i] = &parse.PipeNode{NodeType: parse.NodePipe, Pos: f.Pos, Line: pipe.Line, Cmds: []*parse.CommandNode{instead}}
		}
	}
}

// call is the one command of a template, to stand in another's tree.
func (l *Language) call(tree *parse.Tree, text string) *parse.CommandNode {
	t := texttemplate.Must(texttemplate.New(tree.Name).Funcs(l.functions()).Parse(text))
	return t.Root.Nodes[0].(*parse.ActionNode).Pipe.Cmds[0]
}

// walk calls f for all nodes below n, the inner ones first.
func walk(n parse.Node, f func(parse.Node)) {
	list := func(l *parse.ListNode) {
		if l != nil {
			walk(l, f)
		}
	}
	branch := func(b *parse.BranchNode) {
		walk(b.Pipe, f)
		list(b.List)
		list(b.ElseList)
	}
	switch n := n.(type) {
	case *parse.ListNode:
		for _, c := range n.Nodes {
			walk(c, f)
		}
	case *parse.ActionNode:
		walk(n.Pipe, f)
	case *parse.PipeNode:
		for _, c := range n.Cmds {
			walk(c, f)
		}
	case *parse.CommandNode:
		for _, c := range n.Args {
			walk(c, f)
		}
	case *parse.ChainNode:
		walk(n.Node, f)
	case *parse.IfNode:
		branch(&n.BranchNode)
	case *parse.RangeNode:
		branch(&n.BranchNode)
	case *parse.WithNode:
		branch(&n.BranchNode)
	}
	f(n)
}

// Reads are the fields of the payload and of inputs that the template names, from "payload"
// or "inputs" on. The caller does not change them.
func (a *Template) Reads() [][]string { return a.reads }

// InputNames are the inputs that these templates name, each once and in order.
func InputNames(all ...*Template) (names []string) {
	for _, a := range all {
		for _, f := range a.reads {
			if f[0] == "inputs" {
				names = append(names, f[1])
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// BeginsFixed says whether the text begins with what the configuration says.
func (a *Template) BeginsFixed() bool { return a.fixed }

// Render is the text for a job. The error is a [*jobs.Error] that points at what is wrong
// with its payload.
func (a *Template) Render(d Data) (string, error) {
	if a.t == nil {
		return a.literal, nil
	}
	b := bounded{most: a.of.Max}
	switch err := a.t.Execute(&b, d); {
	case errors.Is(err, errTooLong):
		return "", a.Wrong(fmt.Sprintf("makes %s of more than %d bytes", a.of.Makes, a.of.Max))
	case err != nil:
		return "", a.problem(d, err)
	}
	return b.String(), nil
}

// bounded is a text that is rendered. It ends the rendering when there is too much: a list
// in the payload can be passed many times.
type bounded struct {
	strings.Builder
	most int
}

var errTooLong = errors.New("is too long")

func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > b.most {
		return 0, errTooLong
	}
	return b.Builder.Write(p)
}

// Wrong is an error about the text that was made: a [*jobs.Error] at the first field of
// the payload or of an input in it.
func (a *Template) Wrong(detail string) error {
	if len(a.reads) > 0 {
		return jobs.Invalid(pointer(a.reads[0]), detail)
	}
	return jobs.Invalid("/payload", detail)
}

// problem is an error of a template in terms of the payload.
func (a *Template) problem(d Data, err error) error {
	for _, f := range a.needs {
		var v any = d
		for i, name := range f {
			m, ok := v.(map[string]any)
			if root, is := v.(Data); is {
				m, ok = root, true
			}
			if !ok {
				return jobs.Invalid(pointer(f[:i]), fmt.Sprintf("must be an object with %s, not %s", name, describe(v)))
			}
			if v, ok = m[name]; !ok {
				return jobs.Invalid(pointer(f[:i+1]), "is required")
			}
		}
	}
	for _, f := range a.shows {
		v := optional(d, f...)
		if _, err := plain(v); err != nil {
			return jobs.Invalid(pointer(f), "must be a string, a number, true or false, not "+describe(v))
		}
	}
	var e texttemplate.ExecError
	if errors.As(err, &e) {
		err = e.Err
	}
	return jobs.Invalid("/payload", "does not fit "+a.of.For+": "+err.Error())
}

// fieldsOf are the fields that a template names of the job's data. In range and with,
// fields are those of another value.
func fieldsOf(root *parse.ListNode) (all [][]string) {
	others := make(map[*parse.FieldNode]bool)
	inner := func(l *parse.ListNode) {
		walk(l, func(n parse.Node) {
			if f, ok := n.(*parse.FieldNode); ok {
				others[f] = true
			}
		})
	}
	walk(root, func(n parse.Node) {
		switch n := n.(type) {
		case *parse.RangeNode:
			inner(n.List)
		case *parse.WithNode:
			inner(n.List)
		}
	})
	walk(root, func(n parse.Node) {
		switch n := n.(type) {
		case *parse.FieldNode:
			if !others[n] {
				all = append(all, n.Ident)
			}
		case *parse.VariableNode:
			if n.Ident[0] == "$" && len(n.Ident) > 1 {
				all = append(all, n.Ident[1:])
			}
		}
	})
	return all
}

// shownBy are the fields that a template shows as they are, outside of any branch.
func shownBy(root *parse.ListNode) (all [][]string) {
	for _, n := range root.Nodes {
		a, ok := n.(*parse.ActionNode)
		if !ok || len(a.Pipe.Cmds) != 1 || len(a.Pipe.Cmds[0].Args) != 1 {
			continue
		}
		if f, ok := a.Pipe.Cmds[0].Args[0].(*parse.FieldNode); ok {
			all = append(all, f.Ident)
		}
	}
	return all
}

func pointer(names []string) string {
	s := ""
	for _, name := range names {
		s += strict.Pointer(name)
	}
	return s
}
