package main

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/build"
	"go/doc"
	"go/parser"
	"go/printer"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write what packages export to testdata/surface")

// forPrograms are the packages that programs of others import. What they export is meant to
// stay, and is listed in testdata/surface. All other packages are the server's own: they can
// be imported, and change as it needs.
var forPrograms = []string{
	"broker/client",
	"cmd/node",
	"cmd/node/nodetest",
	"jobs",
	"jobs/access",
	"jobs/handlers/webhook",
	"jobs/schedule",
	"jobs/schema",
}

// TestSurface compares what the packages for programs export with the lists. After a change
// that is meant, go test ./cmd/jobstream -run TestSurface -update writes them again.
func TestSurface(t *testing.T) {
	t.Parallel()
	for _, name := range forPrograms {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := surface(t, name)
			file := filepath.Join("testdata", "surface", strings.ReplaceAll(name, "/", "_")+".txt")
			if *update {
				mustDo(t, os.MkdirAll(filepath.Dir(file), 0o750))
				mustDo(t, os.WriteFile(file, []byte(got), 0o600))
			}
			want, err := os.ReadFile(file)
			mustDo(t, err)
			if got == string(want) {
				return
			}
			was, is := strings.Split(string(want), "\n"), strings.Split(got, "\n")
			for _, line := range was {
				if !slices.Contains(is, line) {
					t.Errorf("no longer exported, or changed: %s", line)
				}
			}
			for _, line := range is {
				if !slices.Contains(was, line) {
					t.Errorf("new, or changed: %s", line)
				}
			}
			t.Errorf("package %s exports other things than %s says; if that is meant, run this test with -update", name, file)
		})
	}
}

// TestSurfaceIsWhole: the lists are of these packages and no others, and CONTRIBUTING.md
// names them.
func TestSurfaceIsWhole(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../CONTRIBUTING.md")
	mustDo(t, err)
	_, part, _ := strings.Cut(string(text), "## Packages for programs")
	part, _, _ = strings.Cut(part, "\n## ")
	var named []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z/]+)` ").FindAllStringSubmatch(part, -1) {
		named = append(named, m[1])
	}
	if slices.Sort(named); !slices.Equal(named, forPrograms) {
		t.Errorf("CONTRIBUTING.md names %q, the test has %q", named, forPrograms)
	}
	files, err := os.ReadDir(filepath.Join("testdata", "surface"))
	mustDo(t, err)
	for _, f := range files {
		if name := strings.ReplaceAll(strings.TrimSuffix(f.Name(), ".txt"), "_", "/"); !slices.Contains(forPrograms, name) {
			t.Errorf("there is a list of %s, which is no package for programs", name)
		}
	}
}

// surface is what a package exports: each declaration without comments, in alphabetical
// order.
func surface(t *testing.T, name string) string {
	t.Helper()
	folder := filepath.Join("../..", filepath.FromSlash(name))
	pkg, err := build.Default.ImportDir(folder, 0)
	mustDo(t, err)
	set := token.NewFileSet()
	var files []*ast.File
	for _, file := range pkg.GoFiles {
		f, err := parser.ParseFile(set, filepath.Join(folder, file), nil, parser.SkipObjectResolution)
		mustDo(t, err)
		files = append(files, f)
	}
	d, err := doc.NewFromFiles(set, files, "jobstream/"+name, doc.PreserveAST)
	mustDo(t, err)
	l := &declared{t: t, set: set}
	l.values(d.Consts)
	l.values(d.Vars)
	l.funcs(d.Funcs)
	for _, typ := range d.Types {
		l.print(typ.Decl)
		l.values(typ.Consts)
		l.values(typ.Vars)
		l.funcs(typ.Funcs)
		l.funcs(typ.Methods)
	}
	slices.Sort(l.lines)
	return strings.Join(l.lines, "\n") + "\n"
}

// declared is a list of declarations.
type declared struct {
	t     *testing.T
	set   *token.FileSet
	lines []string
}

func (l *declared) funcs(all []*doc.Func) {
	for _, f := range all {
		decl := *f.Decl
		decl.Doc, decl.Body = nil, nil
		l.print(&decl)
	}
}

func (l *declared) values(all []*doc.Value) {
	for _, v := range all {
		kind := v.Decl.Tok.String()
		for _, s := range v.Decl.Specs {
			spec, ok := s.(*ast.ValueSpec)
			if !ok {
				continue
			}
			for i, name := range spec.Names {
				if !name.IsExported() {
					continue
				}
				line := kind + " " + name.Name
				if spec.Type != nil {
					line += " " + l.text(spec.Type)
				}
				if v.Decl.Tok == token.CONST && i < len(spec.Values) {
					line += " = " + l.text(spec.Values[i])
				}
				l.lines = append(l.lines, line)
			}
		}
	}
}

// print lists a declaration, and each exported field or method of a type as a line of its
// own.
func (l *declared) print(decl ast.Decl) {
	d, ok := decl.(*ast.GenDecl)
	if !ok {
		l.lines = append(l.lines, l.text(decl))
		return
	}
	for _, s := range d.Specs {
		spec, ok := s.(*ast.TypeSpec)
		if !ok {
			continue
		}
		head, fields := spec.Type, []*ast.Field(nil)
		switch of := spec.Type.(type) {
		case *ast.StructType:
			fields, head = of.Fields.List, &ast.Ident{Name: "struct"}
		case *ast.InterfaceType:
			fields, head = of.Methods.List, &ast.Ident{Name: "interface"}
		}
		name := spec.Name.Name
		if spec.TypeParams != nil {
			name += "[" + strings.Trim(l.text(&ast.FuncType{Params: spec.TypeParams}), "func()") + "]"
		}
		if spec.Assign.IsValid() {
			name += " ="
		}
		l.lines = append(l.lines, "type "+name+" "+l.text(head))
		for _, f := range fields {
			l.field(spec.Name.Name, f)
		}
	}
}

func (l *declared) field(of string, f *ast.Field) {
	if len(f.Names) == 0 {
		l.lines = append(l.lines, fmt.Sprintf("type %s: %s", of, l.text(f.Type)))
	}
	for _, name := range f.Names {
		if name.IsExported() {
			l.lines = append(l.lines, fmt.Sprintf("type %s: %s %s", of, name.Name, l.text(f.Type)))
		}
	}
}

// text is a piece of Go in one line.
func (l *declared) text(node any) string {
	var b bytes.Buffer
	mustDo(l.t, printer.Fprint(&b, l.set, node))
	return strings.Join(strings.Fields(b.String()), " ")
}
