package exec

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"text/template"
	"text/template/parse"

	"jobstream/jobs"
	"jobstream/jobs/strict"
)

// maxArgument bounds one rendered argument, in bytes; Linux has the same bound.
const maxArgument = 128 << 10

// argument is one element of a command: text with fields of the job in it.
type argument struct {
	t       *template.Template // nil: literal is all of it
	literal string
	dashed  bool       // it may begin with a dash: its own text decides how it begins
	needs   [][]string // the fields that must be there
	shows   [][]string // those that must be a text, a number or a truth value
	reads   [][]string // those of the payload that it names
}

// data is what the fields of a template stand for.
type data map[string]any

// roots are the names that a template may begin with, and those that may follow; none: any.
var roots = map[string][]string{
	"payload": {}, "dir": {},
	"job": {"id", "type", "priority", "attempt", "tags", "created_at"},
}

// functions are what templates may call beside those of text/template; nothing reads the
// world.
var functions = template.FuncMap{
	"json":     asJSON,
	"default":  orDefault,
	"join":     join,
	"base":     func(s string) string { return path.Base(s) },
	"optional": optional,
	"argument": plain,
}

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
		case data:
			v = m[name]
		case map[string]any:
			v = m[name]
		default:
			return nil
		}
	}
	return v
}

// plain is a value as an argument shows it. Every field is passed through it.
func plain(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case json.Number:
		return string(v), nil
	case bool, int, uint8:
		return fmt.Sprint(v), nil
	}
	return "", fmt.Errorf("%s is no argument: it must be a string, a number, true or false; the function json makes one of anything", describe(v))
}

func describe(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case map[string]any, data:
		return "an object"
	case []any, []string:
		return "a list"
	}
	return "this value"
}

// newArgument reads an element of a command.
func newArgument(text string) (*argument, error) {
	a := &argument{literal: text, dashed: true}
	t, err := template.New("").Option("missingkey=error").Funcs(functions).Parse(text)
	if err != nil {
		return nil, errors.New(strings.TrimPrefix(err.Error(), "template: "))
	}
	if !strings.Contains(text, "{{") {
		return a, nil
	}
	if len(t.Templates()) > 1 || calls(t.Root) {
		return nil, errors.New("must not define templates, nor call any")
	}
	if err := checkRoots(fieldsOf(t.Root)); err != nil {
		return nil, err
	}
	if len(t.Root.Nodes) > 0 {
		_, a.dashed = t.Root.Nodes[0].(*parse.TextNode)
	}
	for _, f := range fieldsOf(t.Root) {
		if f[0] == "payload" {
			a.reads = append(a.reads, f)
		}
	}
	a.shows = shownBy(t.Root)
	defer func() { a.needs = fieldsOf(t.Root) }()
	walk(t.Root, func(n parse.Node) {
		switch n := n.(type) {
		case *parse.ActionNode:
			if len(n.Pipe.Decl) == 0 {
				n.Pipe.Cmds = append(n.Pipe.Cmds, call(t.Tree, `{{argument}}`))
			}
		case *parse.PipeNode:
			relax(t.Tree, n)
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
func checkRoots(fields [][]string) error {
	for _, f := range fields {
		known := roots[f[0]]
		switch {
		case known == nil:
			return fmt.Errorf("names .%s, which does not exist; known are .payload, .job, .dir", f[0])
		case len(f) > 1 && len(known) > 0 && !slices.Contains(known, f[1]):
			return fmt.Errorf("names .%s.%s, which does not exist; known are %s", f[0], f[1], strings.Join(known, ", "))
		}
	}
	return nil
}

// relax makes the fields in a pipe with default optional.
func relax(tree *parse.Tree, pipe *parse.PipeNode) {
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
			instead := call(tree, `{{optional . `+strings.Join(names, " ")+`}}`)
			if len(c.Args) == 1 {
				c.Args = instead.Args
				break
			}
			c.Args[i] = &parse.PipeNode{NodeType: parse.NodePipe, Pos: f.Pos, Line: pipe.Line, Cmds: []*parse.CommandNode{instead}}
		}
	}
}

// call is the one command of a template, to stand in another's tree.
func call(tree *parse.Tree, text string) *parse.CommandNode {
	t := template.Must(template.New(tree.Name).Funcs(functions).Parse(text))
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

// render is the argument for a job. The error is a [*jobs.Error] that points at what is
// wrong with its payload.
func (a *argument) render(d data, allowDash bool) (string, error) {
	if a.t == nil {
		return a.literal, nil
	}
	var b bounded
	switch err := a.t.Execute(&b, d); {
	case errors.Is(err, errTooLong):
		return "", a.wrong(err.Error())
	case err != nil:
		return "", a.problem(d, err)
	}
	s := b.String()
	switch {
	case strings.ContainsRune(s, 0):
		return "", a.wrong("makes an argument with a NUL byte, which no program can get")
	case strings.HasPrefix(s, "-") && !a.dashed && !allowDash:
		return "", a.wrong(`begins with "-", so that the program would take it for an option`)
	}
	return s, nil
}

// bounded is an argument that is rendered. It ends the rendering when there is too much: a
// list in the payload can be passed many times.
type bounded struct{ strings.Builder }

var errTooLong = fmt.Errorf("makes an argument of more than %d bytes", maxArgument)

func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > maxArgument {
		return 0, errTooLong
	}
	return b.Builder.Write(p)
}

// wrong is an error about what is rendered, at the first field that it has.
func (a *argument) wrong(detail string) error {
	if len(a.reads) > 0 {
		return jobs.Invalid(pointer(a.reads[0]), detail)
	}
	return jobs.Invalid("/payload", detail)
}

// problem is an error of a template in terms of the payload.
func (a *argument) problem(d data, err error) error {
	for _, f := range a.needs {
		var v any = d
		for i, name := range f {
			m, ok := v.(map[string]any)
			if root, is := v.(data); is {
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
	var e template.ExecError
	if errors.As(err, &e) {
		err = e.Err
	}
	return jobs.Invalid("/payload", "does not fit the command: "+err.Error())
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
		if f, ok := n.(*parse.FieldNode); ok && !others[f] {
			all = append(all, f.Ident)
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
