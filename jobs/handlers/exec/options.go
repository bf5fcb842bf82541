package exec

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"os"
	osexec "os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"jobstream/jobs/handlers/exec/proc"
	"jobstream/jobs/handlers/internal/template"
	"jobstream/jobs/setting"
)

// Options are what a type of the kind exec can be set to.
type Options struct {
	Command   []string // the program and its arguments, which are templates
	AllowDash bool     // a rendered argument may begin with a dash
	Stdin     string   // "payload", "job", "none", "input:NAME", or the pointer of a text in the payload
	Stdout    string   // "result", "log" or "artifact"
	Artifact  struct {
		File        string // relative to the attempt's folder
		Name        string // of what stdout says, or of File
		ContentType string
	}
	Dir       string            // the working directory; "" = the attempt's folder
	Env       map[string]string // with secrets as ${env:NAME} and ${file:PATH}
	PassEnv   []string          // names of the server's own variables
	User      string            // a name, or uid:gid; "" = the server's
	Permanent []int             // exit statuses that no retry cures
	KillAfter time.Duration     // between TERM and KILL
	Limits    proc.Limits
	Sandbox   struct {
		Mode    string // "auto", "require" or "off"
		Write   []string
		Read    []string
		Network bool
	}

	program string               // Command[0] as a path
	args    []*template.Template // the rest
	write   []*template.Template
	env     []string // Env and PassEnv, with the secrets
	user    *proc.User
}

// NewOptions are the defaults.
func NewOptions() *Options {
	o := &Options{
		Stdin: "payload", Stdout: "result", PassEnv: []string{"PATH", "TZ"}, Permanent: []int{64, 65, 78}, KillAfter: 10 * time.Second,
		Limits: proc.Limits{Output: 64 << 20, Files: 256, FileSize: 1 << 30, Nice: 5, OOM: 500},
	}
	o.Sandbox.Mode, o.Sandbox.Write, o.Sandbox.Network = "auto", []string{"{{.dir}}"}, true
	return o
}

const maxSize = 1 << 50

// Settings binds the keys of a type.
func (o *Options) Settings() []setting.Setting {
	l, s := &o.Limits, &o.Sandbox
	return []setting.Setting{
		setting.CheckedTexts("command", &o.Command, `a list of texts, like [convert, "{{.payload.from}}"] (a number needs quotes)`, func(s string) bool {
			return !strings.ContainsRune(s, 0) // a script has lines
		}),
		setting.Bool("allow_dash", &o.AllowDash),
		setting.Checked("stdin", &o.Stdin, "payload, job, none, input:NAME or the pointer of a text in the payload, like /text", func(v string) bool {
			return v == "payload" || v == "job" || v == "none" || strings.HasPrefix(v, "/") || strings.HasPrefix(v, stdinInput)
		}),
		setting.OneOf("stdout", &o.Stdout, "result", "log", "artifact"),
		setting.Text("artifact.file", &o.Artifact.File),
		setting.Text("artifact.name", &o.Artifact.Name),
		setting.Text("artifact.content_type", &o.Artifact.ContentType),
		setting.Text("dir", &o.Dir),
		setting.Map("env", &o.Env),
		setting.Texts("pass_env", &o.PassEnv),
		setting.Text("user", &o.User),
		setting.Wholes("permanent", &o.Permanent, 1, 255),
		setting.Duration("kill_after", &o.KillAfter, 0, time.Hour),
		setting.Size("limits.output", &l.Output, 0, maxSize),
		setting.Size("limits.memory", &l.Memory, 0, maxSize),
		setting.Duration("limits.cpu", &l.CPU, 0, 365*24*time.Hour),
		setting.Whole("limits.processes", &l.Processes, 0, 1<<20),
		setting.Whole("limits.files", &l.Files, 0, 1<<20),
		setting.Size("limits.file_size", &l.FileSize, 0, maxSize),
		setting.Whole("limits.nice", &l.Nice, 0, 19),
		setting.Whole("limits.oom", &l.OOM, 0, 1000),
		setting.OneOf("sandbox.mode", &s.Mode, "auto", "require", "off"),
		setting.Texts("sandbox.write", &s.Write),
		setting.Texts("sandbox.read", &s.Read),
		setting.Bool("sandbox.network", &s.Network),
	}
}

// Grace is what the end of a program may take.
func (o *Options) Grace() time.Duration { return o.KillAfter + 5*time.Second }

// LeavesFiles reports whether jobs leave files.
func (o *Options) LeavesFiles() bool { return o.Stdout == "artifact" || o.Artifact.File != "" }

// Check looks for the program, its folder and its user, and reads templates and secrets.
// Relative paths begin at folder, that of the configuration's file.
func (o *Options) Check(folder string, fail func(path, text string)) {
	o.checkCommand(folder, fail)
	if o.Dir != "" {
		o.Dir = setting.Path(folder, o.Dir)
		if info, err := os.Stat(o.Dir); err != nil {
			fail("dir", err.Error())
		} else if !info.IsDir() {
			fail("dir", o.Dir+" is not a folder")
		}
	}
	if name := o.Artifact.File; name != "" && !filepath.IsLocal(name) {
		fail("artifact.file", "must be a path below the attempt's folder, like out.png")
	}
	if o.Stdout == "artifact" && o.Artifact.File != "" {
		fail("artifact.file", "goes with another stdout; stdout is the artifact here")
	}
	o.checkUser(fail)
	o.checkSandbox(folder, fail)
	o.checkEnv(folder, fail)
}

func (o *Options) checkCommand(folder string, fail func(path, text string)) {
	if len(o.Command) == 0 || o.Command[0] == "" {
		fail("command", "is required: a list of the program and its arguments, like [/usr/bin/convert, \"{{.payload.file}}\"]")
		return
	}
	switch name := o.Command[0]; {
	case strings.Contains(name, "{{"):
		fail("command[0]", "must not be a template: what runs stands in the configuration only")
	case strings.ContainsRune(name, filepath.Separator):
		o.program = setting.Path(folder, name)
	default:
		o.program = name
	}
	if o.program != "" {
		found, err := osexec.LookPath(o.program)
		if err != nil {
			fail("command[0]", fmt.Sprintf("%s cannot be run: %s", o.program, reason(err)))
		}
		o.program = found
	}
	o.args = nil
	for i, text := range o.Command[1:] {
		a, err := argument.Parse(text)
		if err != nil {
			fail(fmt.Sprintf("command[%d]", i+1), err.Error())
			continue
		}
		o.args = append(o.args, a)
	}
}

// reason is an error of os/exec without what it is about.
func reason(err error) string {
	var e *osexec.Error
	if errors.As(err, &e) {
		return e.Err.Error()
	}
	return err.Error()
}

// Warnings say what is allowed but not wise, or cannot be done here.
func (o *Options) Warnings() (all []string) {
	shells := []string{"sh", "bash", "dash", "zsh", "ksh"}
	if slices.Contains(shells, filepath.Base(o.program)) && len(o.Command) > 2 && o.Command[1] == "-c" && strings.Contains(o.Command[2], "{{") {
		all = append(all, `a template stands in a script of a shell, so that a payload can be a command there; make it an argument: [/bin/sh, -c, 'echo "$1"', sh, "{{.payload.text}}"]`)
	}
	s := o.sandbox()
	if missing := s.Missing(); missing != "" {
		all = append(all, missing+" (sandbox.mode)")
	}
	return all
}

func (o *Options) checkUser(fail func(path, text string)) {
	o.user = nil
	if o.User == "" {
		if o.Limits.Processes > 0 && os.Getuid() == 0 {
			fail("limits.processes", "does not bind root; set user as well")
		}
		return
	}
	u, err := lookUp(o.User)
	if err != nil {
		fail("user", err.Error())
		return
	}
	if os.Getuid() != 0 && int(u.UID) != os.Getuid() {
		fail("user", "needs a server that runs as root")
		return
	}
	o.user = u
}

func lookUp(name string) (*proc.User, error) {
	uid, gid, numbers := strings.Cut(name, ":")
	if !numbers {
		u, err := user.Lookup(name)
		if err != nil {
			return nil, fmt.Errorf("there is no user %q here; a number needs its group, like 1000:1000", name)
		}
		uid, gid = u.Uid, u.Gid
	}
	u, err := strconv.ParseUint(uid, 10, 32)
	g, wrong := strconv.ParseUint(gid, 10, 32)
	if err != nil || wrong != nil {
		return nil, fmt.Errorf("must be a name or uid:gid, not %q", name)
	}
	return &proc.User{UID: uint32(u), GID: uint32(g)}, nil
}

func (o *Options) checkSandbox(folder string, fail func(path, text string)) {
	s := o.sandbox()
	if missing := s.Missing(); missing != "" && o.Sandbox.Mode == "require" {
		fail("sandbox.mode", missing+"; set it to auto to run without")
	}
	o.write = nil
	for i, text := range o.Sandbox.Write {
		if !strings.Contains(text, "{{") {
			text = setting.Path(folder, text)
			if _, err := os.Stat(text); err != nil {
				fail(fmt.Sprintf("sandbox.write[%d]", i), err.Error())
			}
		}
		a, err := argument.Parse(text)
		if err == nil && strings.Contains(text, "{{") && text != "{{.dir}}" && !strings.HasPrefix(text, "{{.dir}}/") {
			err = fmt.Errorf("may begin with {{.dir}} or be a path; nothing else can be filled in")
		}
		if err != nil {
			fail(fmt.Sprintf("sandbox.write[%d]", i), err.Error())
			continue
		}
		o.write = append(o.write, a)
	}
	for i, path := range o.Sandbox.Read {
		if _, err := os.Stat(setting.Path(folder, path)); err != nil {
			fail(fmt.Sprintf("sandbox.read[%d]", i), err.Error())
		}
		o.Sandbox.Read[i] = setting.Path(folder, path)
	}
}

// sandbox is the one of a program, without the paths that it may write to.
func (o *Options) sandbox() proc.Sandbox {
	s := proc.Sandbox{Off: o.Sandbox.Mode == "off", NoNetwork: !o.Sandbox.Network}
	if len(o.Sandbox.Read) > 0 {
		s.Read = append(slices.Clone(o.Sandbox.Read), o.program)
	}
	return s
}

// variable is what the name of a variable may be.
var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func (o *Options) checkEnv(folder string, fail func(path, text string)) {
	o.env = nil
	for i, name := range o.PassEnv {
		if !variable.MatchString(name) {
			fail(fmt.Sprintf("pass_env[%d]", i), "must be the name of a variable, like LANG")
			continue
		}
		if v, ok := os.LookupEnv(name); ok {
			o.env = append(o.env, name+"="+v)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(o.Env)) {
		v, err := setting.Reveal(o.Env[name], folder)
		switch {
		case !variable.MatchString(name):
			fail("env."+name, "must be the name of a variable, like LANG")
		case strings.HasPrefix(name, "JOBSTREAM_"):
			fail("env."+name, "is set by the server; variables of your own must not begin with JOBSTREAM_")
		case err != nil:
			fail("env."+name, err.Error())
		default:
			o.env = append(o.env, name+"="+v)
		}
	}
}

// stdinInput begins a stdin that is an input of the job; its name follows.
const stdinInput = "input:"

// Reads implements [jobstream/jobs/handlers.Reader] for the arguments and for stdin.
func (o *Options) Reads() iter.Seq2[string, []string] {
	return func(yield func(string, []string) bool) {
		for i, a := range o.args {
			for _, field := range a.Reads() {
				if !yield(fmt.Sprintf("command[%d]", i+1), field) {
					return
				}
			}
		}
		if strings.HasPrefix(o.Stdin, "/") {
			yield("stdin", append([]string{"payload"}, pointerNames(o.Stdin)...))
		}
		if name, ok := strings.CutPrefix(o.Stdin, stdinInput); ok {
			yield("stdin", []string{"inputs", name})
		}
	}
}

// pointerNames are the names of a JSON pointer.
func pointerNames(pointer string) []string {
	names := strings.Split(pointer[1:], "/")
	for i, name := range names {
		names[i] = strings.NewReplacer("~1", "/", "~0", "~").Replace(name)
	}
	return names
}

// Describe says what the type runs, for people: secrets are not in the command.
func (o *Options) Describe() string {
	words := make([]string, len(o.Command))
	for i, w := range o.Command {
		words[i] = w
		if w == "" || strings.ContainsAny(w, " \t\n\"'\\$`") {
			words[i] = strconv.Quote(w)
		}
	}
	return strings.Join(words, " ")
}
