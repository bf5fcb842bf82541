package config

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/v2"

	"jobstream/jobs"
	"jobstream/jobs/access"
	"jobstream/jobs/handlers"
	"jobstream/jobs/schema"
	"jobstream/jobs/setting"
)

const envPrefix = "JOBSTREAM_"

// loader is one run of Load.
type loader struct {
	file      string
	config    *Config
	types     []namedType
	shipped   bool // there is no jobs section
	keys      []setting.Setting
	schedules *node             // the schedules section
	trees     map[string]entry  // the sections of any shape, by their paths
	merged    *koanf.Koanf      // the values of the file, overridden by those of the environment
	lines     map[string]int    // the line of each key in the file
	vars      map[string]string // the variable or flag that each key's value comes from
	problems  Problems
}

// fail adds a problem with the key at path and its source.
func (l *loader) fail(path, value, text string) {
	p := Problem{Key: path, Value: value, Text: text, Env: l.vars[path]}
	if p.Env == "" {
		p.File, p.Line = l.file, l.lines[path]
	}
	l.problems = append(l.problems, p)
}

// declareTypes decides which types exist: those of the jobs section, or without one the
// shipped types. It reads their runs first, since a run decides which keys its type
// has.
func (l *loader) declareTypes(root *node, environ []string) {
	kinds := l.config.Kinds
	section := root.child("jobs")
	if l.shipped = section == nil; l.shipped {
		types := shippedTypes(kinds)
		for name, t := range types {
			if run := runOf(entry{key: name}, environ); run != name {
				made := newType(handlers.Find(kinds, run))
				t.Options, t.Inputs = made.Options, made.Inputs
			}
		}
		l.types = l.config.inOrder(types)
		return
	}
	l.lines = map[string]int{"jobs": section.line}
	if len(section.entries) == 0 && (section.section || section.isNull()) {
		l.fail("jobs", "", "has no type in it; name at least one, or leave the section out for "+strings.Join(shippedNames(kinds), ", "))
	}
	types := make(map[string]*JobType)
	for _, e := range section.entries {
		if wrong := wrongTypeName(e.key); wrong != "" {
			path := join("jobs", e.key)
			l.lines[path] = e.line
			l.fail(path, "", wrong)
			continue
		}
		k := handlers.Find(kinds, runOf(e, environ))
		types[e.key] = newType(k)
		l.declareInputs(types[e.key], k, join(join("jobs", e.key), "inputs"), e.node.child("inputs"))
	}
	l.types = l.config.inOrder(types)
}

// declareInputs decides which inputs a type has, from the section at path; nil if there is
// none. Their settings follow from their names. A kind with inputs of its own, which may
// be nil, takes no others.
func (l *loader) declareInputs(t *JobType, k *handlers.Kind, path string, section *node) {
	if section == nil {
		return
	}
	for _, e := range section.entries {
		if !jobs.ValidInputName(e.key) {
			l.lines[join(path, e.key)] = e.line
			l.fail(join(path, e.key), "", fmt.Sprintf("is not a name for an input: 1 to %d letters, digits, _ and -", jobs.MaxTypeName))
			continue
		}
		if slices.ContainsFunc(t.Inputs, func(r jobs.InputRule) bool { return r.Name == e.key }) {
			continue
		}
		if k != nil && k.Inputs != nil {
			l.lines[join(path, e.key)] = e.line
			l.fail(join(path, e.key), "", "is not an input of "+k.Name+", which takes "+k.Inputs[0].Name)
		}
		t.Inputs = append(t.Inputs, jobs.InputRule{Name: e.key})
	}
	slices.SortFunc(t.Inputs, func(a, b jobs.InputRule) int { return strings.Compare(a.Name, b.Name) })
	if len(t.Inputs) > jobs.MaxInputs {
		l.lines[path] = section.line
		l.fail(path, "", fmt.Sprintf("has more than %d names", jobs.MaxInputs))
	}
}

func shippedNames(kinds []*handlers.Kind) (names []string) {
	for _, k := range kinds {
		if k.Shipped != nil {
			names = append(names, k.Name)
		}
	}
	return names
}

// runOf is the run of this entry's type, if it can be found out.
func runOf(e entry, environ []string) string {
	run := e.key
	if n := e.node.child("run"); n != nil {
		run, _ = n.value.(string)
	}
	v := variable("jobs."+e.key+".run") + "="
	for _, s := range environ {
		if value, ok := strings.CutPrefix(s, v); ok {
			run = value
		}
	}
	return run
}

// reservedPrefix begins the names of the server's own types.
const reservedPrefix = "jobstream-"

// wrongTypeName returns the problem with a type's name, or "".
func wrongTypeName(name string) string {
	switch {
	case !jobs.ValidTypeName(name):
		return fmt.Sprintf("is not a name for a job type: 1 to %d letters, digits, _ and -", jobs.MaxTypeName)
	case strings.HasPrefix(name, reservedPrefix):
		return "is not a name for a job type of yours: those that begin with " + reservedPrefix + " are the server's own"
	}
	return ""
}

// merge combines the layers.
func (l *loader) merge(root *node, environ []string, flags []Flag) error {
	l.merged = koanf.New(".")
	l.trees = make(map[string]entry)
	l.lines = make(map[string]int)
	values := make(map[string]any)
	if root != nil {
		l.collect(root, "", sections(l.keys), values)
	}
	if err := l.merged.Load(confmap.Provider(values, "."), nil); err != nil {
		return fmt.Errorf("%s: %w", l.file, err)
	}
	l.vars = make(map[string]string)
	provider := env.Provider(".", env.Opt{
		Prefix:        envPrefix,
		TransformFunc: l.variables(),
		EnvironFunc:   func() []string { return environ },
	})
	if err := l.merged.Load(provider, nil); err != nil {
		return fmt.Errorf("environment: %w", err)
	}
	for _, f := range flags {
		l.vars[f.Key] = f.Name
		if err := l.merged.Set(f.Key, setting.FromText(f.Value)); err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	return nil
}

// collect adds the values of section n at path, and reports keys that do not belong
// there.
func (l *loader) collect(n *node, path string, known map[string]bool, values map[string]any) {
	for _, e := range n.entries {
		if path == "jobs" && wrongTypeName(e.key) != "" || isInputs(path) && !jobs.ValidInputName(e.key) {
			continue // declareTypes has reported it
		}
		if path == tokensKey && !access.ValidName(e.key) {
			continue // declareTokens has reported it
		}
		at := join(path, e.key)
		l.lines[at] = e.line
		leaf := slices.IndexFunc(l.keys, func(k setting.Setting) bool { return k.Path == at })
		switch {
		case leaf >= 0 && subtree(l.keys[leaf]):
			if !e.node.section && !e.node.isNull() {
				l.fail(at, e.node.show(), "is not a section of names with cron or every, and type")
			}
			l.schedules = e.node
		case leaf >= 0 && isInputs(at) && len(e.node.entries) > 0:
			// declareTypes has found wrong names only, and reported them.
		case leaf >= 0 && l.keys[leaf].List:
			values[at] = e.node.texts(l.keys[leaf])
		case leaf >= 0 && l.keys[leaf].Map:
			values[at] = e.node.textMap()
		case leaf >= 0 && l.keys[leaf].Tree && e.node.value == nil:
			l.collectTree(at, e, values)
		case leaf >= 0 && e.node.value == nil:
			l.fail(at, e.node.show(), "is not "+l.keys[leaf].Allowed)
		case leaf >= 0:
			values[at] = e.node.value
		case !known[at]:
			l.fail(at, "", "is not a known key; "+l.hint(at, path))
		case e.node.section:
			l.collect(e.node, at, known, values)
		case !e.node.isNull():
			text := "is not a section"
			if at != "jobs" { // the jobs section has names below it, not settings
				text += " with " + strings.Join(under(l.keys, at), ", ")
			}
			l.fail(at, e.node.show(), text)
		}
	}
}

// maxTreeJSON bounds a section of any shape as JSON, in bytes. A file can hardly reach it
// without aliases.
const maxTreeJSON = schema.MaxSize

// collectTree adds the value of a section of any shape.
func (l *loader) collectTree(path string, e entry, values map[string]any) {
	l.trees[path] = e
	w := jsonWriter{limit: maxTreeJSON, large: "is larger than " + setting.FormatSize(maxTreeJSON)}
	if at, value, wrong := w.write(e.node, 1); wrong != "" {
		l.failBelow(path, at, value, wrong)
		return
	}
	values[path] = setting.JSON(w.out)
}

// failBelow adds a problem with the value that these names lead to in a section of any
// shape, or with the key itself.
func (l *loader) failBelow(path string, names []string, value, text string) {
	e, ok := l.trees[path]
	if !ok {
		l.fail(path, value, text)
		return
	}
	scheduleReader{loader: l, path: path, entry: e}.failAt(names, value, text)
}

// isInputs says whether path is that of a type's section inputs.
func isInputs(path string) bool {
	rest, ok := strings.CutPrefix(path, "jobs.")
	_, key, _ := strings.Cut(rest, ".")
	return ok && key == "inputs"
}

// hint suggests a known key for the unknown key at, in section.
func (l *loader) hint(at, section string) string {
	var paths []string
	for _, k := range l.keys {
		paths = append(paths, k.Path)
	}
	for s := range sections(l.keys) {
		if s != "" {
			paths = append(paths, s)
		}
	}
	slices.Sort(paths)
	if found := nearest(at, paths, "."); found != "" {
		return "did you mean " + found + "?"
	}
	names := strings.Join(under(l.keys, section), ", ")
	if section == "" {
		return "known are " + names
	}
	return section + " has " + names
}

// clusterVariable matches the variables that Kubernetes sets in every container for a
// service with the name jobstream. They are no settings.
var clusterVariable = regexp.MustCompile(`^JOBSTREAM_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)=`)

// Variables of the commands that talk to a server. They are no settings.
const (
	URLVariable   = envPrefix + "URL"   // the address of the server
	TokenVariable = envPrefix + "TOKEN" // a token for it
)

// noSetting says whether a variable with our prefix means something else.
func noSetting(name, value string) bool {
	return name == URLVariable || name == TokenVariable || clusterVariable.MatchString(name+"=") && (name != "JOBSTREAM_PORT" || strings.Contains(value, "://"))
}

// variables returns the function that finds the key of a variable. Paths have
// underscores of their own, so it compares with the known ones.
func (l *loader) variables() func(name, value string) (string, any) {
	paths := make(map[string][]string)
	var names []string
	for _, k := range l.keys {
		if subtree(k) || k.FileOnly() {
			continue
		}
		v := variable(k.Path)
		paths[v] = append(paths[v], k.Path)
		names = append(names, v)
	}
	return func(name, value string) (string, any) {
		found := paths[name]
		switch {
		case len(found) == 1:
			l.vars[found[0]] = name
			return found[0], setting.FromText(value)
		case len(found) > 1:
			l.failVariable(name, "could mean "+strings.Join(found, " or ")+"; set them in the file")
		case noSetting(name, value):
		case name == variable(schedulesKey) || strings.HasPrefix(name, variable(schedulesKey)+"_"):
			l.failVariable(name, "is not a known variable: schedules are set in the file only")
		case slices.ContainsFunc(l.keys, func(k setting.Setting) bool { return k.List && name == variable(k.Path) }):
			l.failVariable(name, "is not a known variable: lists are set in the file only")
		case slices.ContainsFunc(l.keys, func(k setting.Setting) bool {
			return (k.Map || k.Tree) && strings.HasPrefix(name+"_", variable(k.Path)+"_")
		}):
			l.failVariable(name, "is not a known variable: sections of names are set in the file only")
		default:
			text := "is not a known variable; it is " + envPrefix + " and a key's path in capitals, joined by _"
			if meant := nearest(name, names, "\x00"); meant != "" {
				text = "is not a known variable; did you mean " + meant + "?"
			}
			l.failVariable(name, text)
		}
		return "", nil
	}
}

func (l *loader) failVariable(name, text string) {
	l.problems = append(l.problems, Problem{Env: name, Text: text})
}

// decide sets every key that has a value in some layer.
func (l *loader) decide() {
	for _, k := range l.keys {
		if !l.merged.Exists(k.Path) {
			continue
		}
		v := l.merged.Get(k.Path)
		if k.Set(v) {
			continue
		}
		value := show(v)
		if k.Secret {
			value = "the value"
		}
		l.fail(k.Path, value, "is not "+k.Allowed)
	}
	for _, t := range l.types {
		t.finish(t.name, l.config.Worker.JobTimeout)
	}
}

// crossCheck checks keys that depend on one another.
func (l *loader) crossCheck() {
	c := l.config
	if c.IsWorker() {
		l.checkWorker()
	} else {
		l.checkServer()
	}
	smtp := c.Email.SMTP
	if c.Email.Transport == "smtp" && (smtp.Username == "") != (smtp.Password == "") {
		l.fail("email.smtp.username", "", "and email.smtp.password go together: set both, or none for a server without authentication")
	}
	if w := c.Worker; w.MinWorkers > w.MaxWorkers {
		l.fail("worker.min_workers", strconv.Itoa(w.MinWorkers), fmt.Sprintf(
			"is more than worker.max_workers, %d; lower it, or 0 for a pool that always has max_workers", w.MaxWorkers))
	}
	for _, t := range l.types {
		path := "jobs." + t.name
		if handlers.Find(c.Kinds, t.Run) == nil && !l.merged.Exists(path+".run") {
			l.fail(path, "", "says nothing about what runs it; set "+path+".run to one of "+strings.Join(handlers.Names(c.Kinds), ", "))
		}
		l.checkOptions(path, t.Options)
		l.checkReads(path, t, l.checkSchema(path, t))
		if t.Rate.Burst > 0 && t.Rate.IsZero() {
			l.fail(path+".burst", strconv.Itoa(t.Rate.Burst), "means something only with a rate; set "+path+".rate as well, or leave burst out")
		}
		l.checkBackoff(path+".backoff.", &t.Backoff)
	}
}

// checkServer checks the doors of a server, and its membership in a cluster.
func (l *loader) checkServer() {
	l.checkReach()
	l.checkTokens()
	l.checkJWT()
	l.checkTLS()
	l.refuseServers()
	l.checkCluster()
}

// failed says whether there is a problem with a key.
func (l *loader) failed(key string) bool {
	return slices.ContainsFunc(l.problems, func(p Problem) bool { return p.Key == key })
}

func (l *loader) checkBackoff(path string, b *jobs.Backoff) {
	switch list := b.Kind == jobs.ListKind; {
	case l.failed(path + "delays"):
	case list && len(b.Delays) == 0:
		l.fail(path+"kind", string(b.Kind), "needs "+path+"delays, like [5s, 5m, 1h]")
	case !list && len(b.Delays) > 0:
		l.fail(path+"delays", "", "means something only with kind: list; set "+path+"kind as well, or leave delays out")
	case !list && b.Max != 0 && b.Max < b.Base:
		l.fail(path+"max", setting.FormatDuration(b.Max), "is less than backoff.base, "+setting.FormatDuration(b.Base)+"; raise it, or 0 for no bound")
	}
}

// checkOptions checks the options of the type at path. It reports no problem twice.
func (l *loader) checkOptions(path string, o handlers.Options) {
	if o == nil {
		return
	}
	o.Check(filepath.Dir(l.file), func(name, text string) { l.failOption(path, name, text) })
}

// failOption adds a problem with an option of the type at path, unless it has one.
func (l *loader) failOption(path, name, text string) {
	at := path + "." + name
	if l.failed(at) {
		return
	}
	if _, there := l.lines[at]; !there {
		list, _, _ := strings.Cut(at, "[")
		section := at[:strings.LastIndexByte(at, '.')] // of names that the user chooses
		l.lines[at] = cmp.Or(l.lines[list], l.lines[section], l.lines[path])
	}
	l.fail(at, "", text)
}

// checkSchema reads the schema of the type at path; nil if it has none, or a problem.
func (l *loader) checkSchema(path string, t namedType) *schema.Schema {
	if t.Schema.IsZero() {
		return nil
	}
	t.Schema.Folder = filepath.Dir(l.file)
	s, err := t.Schema.Compile()
	var p *schema.Problem
	if errors.As(err, &p) {
		l.failBelow(path+".schema", p.At, "", p.Text)
	}
	if err != nil {
		return nil
	}
	t.Schema.Digest = s.Digest()
	return s
}

// checkReads compares what the settings of the type at path read of jobs with its inputs and
// with its schema, which may be nil.
func (l *loader) checkReads(path string, t namedType, s *schema.Schema) {
	reader, ok := t.Options.(handlers.Reader)
	if !ok {
		return
	}
	for key, field := range reader.Reads() {
		lacks := ""
		switch {
		case field[0] == "inputs" && !slices.ContainsFunc(t.Inputs, func(r jobs.InputRule) bool { return r.Name == field[1] }):
			lacks = "the input " + quote(field[1]) + ", which is not among the type's inputs"
		case field[0] == "payload" && s != nil:
			lacks = s.Lacks(field[1:])
		}
		if lacks != "" {
			l.failOption(path, key, "names "+lacks)
		}
	}
}

// Exposed lists the hosts that other machines may reach, with their keys. Whoever reaches a
// worker can do nothing there.
func (c *Config) Exposed() (hosts []string) {
	if c.IsWorker() {
		return nil
	}
	if !access.Loopback(c.Server.Host) {
		hosts = append(hosts, "server.host "+c.Server.Host)
	}
	if c.Broker.Port != 0 && !access.Loopback(c.Broker.Host) {
		hosts = append(hosts, "broker.host "+c.Broker.Host)
	}
	return hosts
}
