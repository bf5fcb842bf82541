package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/cmd/node"
	"jobstream/jobs"
	"jobstream/jobs/handlers"
	"jobstream/jobs/setting"
)

// greeting is the options of a kind for tests.
type greeting struct {
	text  string
	grace time.Duration
}

func (g *greeting) Settings() []setting.Setting {
	return []setting.Setting{setting.Text("text", &g.text), setting.Duration("grace", &g.grace, 0, time.Hour)}
}

func (g *greeting) Check(string, func(path, text string)) {}

func (g *greeting) Grace() time.Duration { return g.grace }

func (g *greeting) Handle(context.Context, *jobs.Task) (jobs.Result, error) {
	return jobs.Result{Value: g.text}, nil
}

// TestEachTypeHasItsOwnHandler with the options that its entry of the configuration
// gives, and their grace.
func TestEachTypeHasItsOwnHandler(t *testing.T) {
	greet := handlers.With("greet", func() *greeting { return &greeting{text: "hello"} },
		func(_ *handlers.Server, g *greeting) (jobs.Handler, error) { return g, nil })
	kinds := append(handlers.Kinds(), greet)
	file := filepath.Join(t.TempDir(), "config.yaml")
	const text = "jobs: {greet: {}, en: {run: greet, text: good day, grace: 30s}, mail: {run: email}, email: {}, export: {}, cleanup: {}, report: {}}"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(file, kinds, nil)
	if err != nil {
		t.Fatal(err)
	}
	types, err := (&typeMaker{tools: handlerServer(cfg, node.FoldersIn(t.TempDir()), &node.Tools{}, nil)}).make(cfg)
	if err != nil {
		t.Fatal(err)
	}
	reg := jobs.NewRegistry(types...)
	for name, want := range map[string]greeting{"greet": {text: "hello"}, "en": {"good day", 30 * time.Second}} {
		typ := reg.Lookup(name)
		res, err := typ.Handler.Handle(t.Context(), nil)
		if err != nil || res.Value != want.text || typ.Grace != want.grace {
			t.Errorf("%s says %v, %v, and has the grace %s", name, res.Value, err, typ.Grace)
		}
	}
	if reg.Lookup("email").Handler == reg.Lookup("mail").Handler {
		t.Error("two types share a handler")
	}
	if names := reg.Names(); len(names) != 7 {
		t.Errorf("the types are %v", names)
	}
}
