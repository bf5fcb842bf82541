package config

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"jobstream/jobs/setting"
)

// node is a value of the file with its line. It comes from the parser's tree, because a
// file that is decoded into maps loses its lines and repeated keys.
type node struct {
	line    int
	value   any    // a scalar: string, bool, int64, uint64, float64 or null; else nil
	number  string // the scalar as JSON has it, if it is a number
	section bool
	entries []entry // of a section
	list    []*node // of a list; a list is neither a scalar nor a section
}

type entry struct {
	key  string
	line int
	node *node
}

// isNull says whether a key has no value.
func (n *node) isNull() bool { return n.value == setting.Null{} }

// show renders n for a message.
func (n *node) show() string {
	switch {
	case n.section:
		return "a section"
	case n.value == nil:
		return "a list"
	}
	return show(n.value)
}

// texts is the list for k as a []string, and no value as an empty one. Anything else stays
// as it is.
func (n *node) texts(k setting.Setting) any {
	if n.isNull() {
		return []string(nil)
	}
	if s, ok := n.value.(string); ok && k.Single {
		return []string{s}
	}
	if n.section || n.value != nil {
		return setting.Plain(n.show())
	}
	var all []string
	for _, item := range n.list {
		s, ok := item.value.(string)
		if k.Numbers {
			s, ok = setting.AsText(item.value, true)
		}
		if !ok {
			return setting.Plain("a list with " + item.show() + " in it")
		}
		all = append(all, s)
	}
	return all
}

// textMap is a section of texts as a map[string]string and no value as an empty one.
// Anything else stays as it is.
func (n *node) textMap() any {
	if n.isNull() {
		return map[string]string(nil)
	}
	if !n.section {
		return setting.Plain(n.show())
	}
	var all map[string]string
	for _, e := range n.entries {
		s, ok := e.node.value.(string)
		if !ok {
			return setting.Plain("a section with " + e.node.show() + " in it")
		}
		if all == nil {
			all = make(map[string]string)
		}
		all[e.key] = s
	}
	return all
}

// child finds an entry of a section; nil if there is none.
func (n *node) child(key string) *node {
	if n == nil {
		return nil
	}
	for _, e := range n.entries {
		if e.key == key {
			return e.node
		}
	}
	return nil
}

// treeBuilder converts the parser's tree to nodes.
type treeBuilder struct {
	file     string
	anchors  map[string]*node
	problems Problems
}

// parseYAML reads a file. The root is nil if the file is empty.
func parseYAML(name string, data []byte) (root *node, problems Problems, err error) {
	if i := invalidUTF8(data); i >= 0 {
		return nil, nil, &SyntaxError{
			File: name, Line: 1 + bytes.Count(data[:i], []byte("\n")),
			Column: i - bytes.LastIndexByte(data[:i], '\n'), Message: "the text is not UTF-8",
		}
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if line := tooDeep(data); line > 0 {
		return nil, nil, &SyntaxError{File: name, Line: line, Column: 1, Message: fmt.Sprintf("more than %d levels", maxDepth)}
	}
	file, err := parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, nil, syntaxError(name, data, err)
	}
	b := &treeBuilder{file: name, anchors: make(map[string]*node)}
	for _, doc := range file.Docs {
		if doc == nil || doc.Body == nil {
			continue
		}
		if root != nil {
			b.fail(lineOf(doc.Body), "", "", "a second document begins here; only one is allowed")
			break
		}
		root = b.build(doc.Body, "")
	}
	switch {
	case root == nil || root.isNull():
		root = nil
	case !root.section:
		b.fail(root.line, "", root.show(), "is not a configuration: sections like server: are expected")
		root = nil
	}
	return root, b.problems, nil
}

// invalidUTF8 is the index of the first byte that is not UTF-8 or is NUL, or -1.
func invalidUTF8(data []byte) int {
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		if r == 0 || r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

// maxDepth bounds the nesting of brackets and lists before the parser sees them,
// because the parser recurses and keeps the path of every level. The deepest key has
// four levels.
const maxDepth = 100

// tooDeep is the line in which data exceeds maxDepth, or 0. It looks at characters
// only, so it also refuses a text full of open brackets.
func tooDeep(data []byte) int {
	brackets := 0
	for i, line := range bytes.Split(data, []byte("\n")) {
		for _, c := range line {
			switch c {
			case '[', '{':
				brackets++
			case ']', '}':
				brackets = max(brackets-1, 0)
			}
			if brackets > maxDepth {
				return i + 1
			}
		}
		markers := bytes.Count(line, []byte("- ")) + bytes.Count(line, []byte("? "))
		if indent := len(line) - len(bytes.TrimLeft(line, " ")); markers > maxDepth || indent > 4*maxDepth {
			return i + 1
		}
	}
	return 0
}

func syntaxError(name string, data []byte, err error) error {
	e := &SyntaxError{File: name, Message: err.Error()}
	var se *yaml.SyntaxError
	if errors.As(err, &se) {
		e.Message = se.Message
		if se.Token != nil && se.Token.Position != nil {
			e.Line, e.Column = se.Token.Position.Line, se.Token.Position.Column
		}
	}
	if lines := bytes.Split(data, []byte("\n")); e.Line > 0 && e.Line <= len(lines) {
		line := lines[e.Line-1]
		if bytes.ContainsRune(line[:len(line)-len(bytes.TrimLeft(line, " \t"))], '\t') {
			e.Message = "the line is indented with a tab; YAML takes spaces there"
		}
	}
	return e
}

func (b *treeBuilder) fail(line int, path, value, text string) {
	b.problems = append(b.problems, Problem{Key: path, File: b.file, Line: line, Value: value, Text: text})
}

func lineOf(n ast.Node) int {
	if n == nil {
		return 0
	}
	if t := n.GetToken(); t != nil && t.Position != nil {
		return t.Position.Line
	}
	return 0
}

// build converts the value n at path.
func (b *treeBuilder) build(n ast.Node, path string) *node {
	out := &node{line: lineOf(n)}
	switch n := n.(type) {
	case nil:
		out.value = setting.Null{}
	case *ast.MappingNode:
		out.section = true
		b.fill(out, n.Values, path)
	case *ast.MappingValueNode:
		out.section = true
		b.fill(out, []*ast.MappingValueNode{n}, path)
	case *ast.SequenceNode:
		for i, item := range n.Values {
			out.list = append(out.list, b.build(item, join(path, strconv.Itoa(i))))
		}
	case *ast.AnchorNode:
		out = b.build(n.Value, path)
		b.anchors[nameOf(n.Name)] = out
	case *ast.AliasNode:
		return b.alias(n, path)
	case *ast.StringNode:
		out.value = n.Value
		if n.Token.Type == token.StringType { // without quotes
			out.number = jsonNumber(n.Value, nil)
		}
	case *ast.LiteralNode:
		out.value = n.Value.Value
	case *ast.BoolNode:
		out.value = n.Value
	case *ast.IntegerNode:
		out.value = n.Value
		out.number = jsonNumber(n.Token.Value, n.Value)
	case *ast.FloatNode:
		out.value = n.Value
		out.number = jsonNumber(n.Token.Value, n.Value)
	case *ast.InfinityNode:
		out.value = n.Value
	case *ast.NullNode:
		out.value = setting.Null{}
	default:
		b.fail(out.line, path, "", fmt.Sprintf("%s is not supported here; give a plain value", n.Type()))
		out.value = setting.Null{}
	}
	return out
}

// fill adds entries to a section: its own ones first, since they override merged ones.
func (b *treeBuilder) fill(out *node, values []*ast.MappingValueNode, path string) {
	seen := make(map[string]int)
	var merges []*ast.MappingValueNode
	for _, v := range values {
		if _, ok := v.Key.(*ast.MergeKeyNode); ok {
			merges = append(merges, v)
			continue
		}
		name, line := nameOf(v.Key), lineOf(v.Key)
		if !plainKey(v.Key) {
			b.fail(line, path, "", "has a name in it that is more than text: tags, anchors and aliases are not supported there")
			continue
		}
		at := join(path, name)
		child := b.build(v.Value, at)
		if first, ok := seen[name]; ok {
			b.fail(line, at, "", fmt.Sprintf("is given twice, first in line %d", first))
			continue
		}
		seen[name] = line
		out.entries = append(out.entries, entry{name, line, child})
	}
	for _, m := range merges {
		for _, from := range b.merged(m.Value, path) {
			for _, e := range from.entries {
				if _, ok := seen[e.key]; !ok {
					seen[e.key] = e.line
					out.entries = append(out.entries, e)
				}
			}
		}
	}
}

// merged lists the sections behind a << key.
func (b *treeBuilder) merged(n ast.Node, path string) []*node {
	list := []ast.Node{n}
	if seq, ok := n.(*ast.SequenceNode); ok {
		list = seq.Values
	}
	var out []*node
	for _, n := range list {
		from := b.build(n, path)
		if !from.section {
			b.fail(from.line, path, "", "<< is not followed by a section")
			continue
		}
		out = append(out, from)
	}
	return out
}

// alias finds the value of *name. An anchor is known only after its place, so there are
// no circles.
func (b *treeBuilder) alias(n *ast.AliasNode, path string) *node {
	name := nameOf(n.Value)
	if found := b.anchors[name]; found != nil {
		return found
	}
	b.fail(lineOf(n), path, "", fmt.Sprintf("the alias %s stands for nothing that was given before; text that begins with * needs quotes", quote("*"+name)))
	return &node{line: lineOf(n), value: setting.Null{}}
}

// nameOf is a key or the name of an anchor as text.
func nameOf(n ast.Node) string {
	switch n := n.(type) {
	case nil:
		return ""
	case *ast.StringNode:
		return n.Value
	case *ast.LiteralNode:
		return n.Value.Value
	case *ast.MappingKeyNode:
		return nameOf(n.Value)
	}
	if t := n.GetToken(); t != nil {
		return t.Value
	}
	return n.String()
}

// plainKey says whether the key n is no more than nameOf returns.
func plainKey(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.MappingKeyNode:
		return plainKey(n.Value)
	case *ast.TagNode, *ast.AnchorNode, *ast.AliasNode, *ast.MappingNode, *ast.MappingValueNode, *ast.SequenceNode:
		return false
	}
	return true
}

// join is path with a name below it, which is quoted unless it is one word.
func join(path, name string) string {
	if !simpleName(name) {
		name = quote(name)
	}
	if path == "" {
		return name
	}
	return path + "." + name
}

func simpleName(s string) bool {
	for _, r := range s {
		if notInLabel(r) {
			return false
		}
	}
	return s != ""
}
