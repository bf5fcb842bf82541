// Package exec runs programs as jobs: whatever the machine has, without a shell between.
//
// Start reading at [Handler.Handle], one attempt from the folder to the result. How a
// program is run and ended is in package proc.
package exec

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"jobstream/jobs"
	"jobstream/jobs/handlers/exec/proc"
	"jobstream/jobs/handlers/internal/template"
)

// Handler runs the program of one type.
type Handler struct {
	o *Options
	h Host
}

// Host is what programs need of the server that starts them.
type Host struct {
	Data string // the data folder, by which this server's processes are known
	Work string // the folder in which each attempt gets one of its own
}

// New makes the handler of a type whose options have been checked.
func New(o *Options, h Host) *Handler { return &Handler{o, h} }

// Describe says what the program is.
func (h *Handler) Describe() string { return h.o.Describe() }

// Check renders the command, as far as it depends on the payload.
func (h *Handler) Check(p *jobs.Payload) error {
	d, err := newData(p, &jobs.Job{Type: "type"}, 1, "/dir")
	if err != nil {
		return err
	}
	if names := template.InputNames(h.o.args...); len(names) > 0 {
		d["inputs"] = template.SomeInputs(names)
	}
	if _, err := h.argv(d); err != nil {
		return err
	}
	if strings.HasPrefix(h.o.Stdin, stdinInput) {
		return nil
	}
	_, err = h.stdin(&jobs.Job{Payload: p.JSON}, d)
	return err
}

// argument is the language of the elements of a command.
var argument = template.Language{
	Makes: "an argument", For: "the command", Roots: []string{"payload", "inputs", "job", "dir"},
	Max: 128 << 10, // Linux has the same bound
}

// newData is what templates of a job can name.
func newData(p *jobs.Payload, j *jobs.Job, attempt int, dir string) (template.Data, error) {
	d, err := template.NewData(p, j, attempt)
	if err == nil {
		d["dir"] = dir
	}
	return d, err
}

// render is an element of the command for a job.
func (h *Handler) render(t *template.Template, d template.Data) (string, error) {
	s, err := t.Render(d)
	switch {
	case err != nil:
		return "", err
	case strings.ContainsRune(s, 0):
		return "", t.Wrong("makes an argument with a NUL byte, which no program can get")
	case strings.HasPrefix(s, "-") && !t.BeginsFixed() && !h.o.AllowDash:
		return "", t.Wrong(`begins with "-", so that the program would take it for an option`)
	}
	return s, nil
}

// argv is the command for a job.
func (h *Handler) argv(d template.Data) ([]string, error) {
	argv := append(make([]string, 0, 1+len(h.o.args)), h.o.program)
	var bad []jobs.FieldError
	for _, a := range h.o.args {
		s, err := h.render(a, d)
		if e, ok := jobs.AsError(err); err != nil && ok {
			for _, f := range e.Fields {
				if !slices.Contains(bad, f) {
					bad = append(bad, f)
				}
			}
			continue
		}
		argv = append(argv, s)
	}
	if len(bad) > 0 {
		return nil, jobs.InvalidFields(bad...)
	}
	return argv, nil
}

// stdin is what the program reads.
func (h *Handler) stdin(j *jobs.Job, d template.Data) (io.Reader, error) {
	switch h.o.Stdin {
	case "none":
		return nil, nil
	case "payload":
		if len(j.Payload) == 0 {
			return strings.NewReader("null"), nil
		}
		return bytes.NewReader(j.Payload), nil
	case "job":
		return bytes.NewReader(j.AppendJSON(nil)), nil
	}
	v := d["payload"]
	for _, name := range pointerNames(h.o.Stdin) {
		switch at := v.(type) {
		case map[string]any:
			v = at[name]
		case []any:
			i, err := strconv.Atoi(name)
			if v = nil; err == nil && i >= 0 && i < len(at) {
				v = at[i]
			}
		default:
			v = nil
		}
	}
	text, ok := v.(string)
	if !ok {
		return nil, jobs.Invalid("/payload"+h.o.Stdin, "must be a string, which the program reads")
	}
	return strings.NewReader(text), nil
}

// Handle runs the program once.
func (h *Handler) Handle(ctx context.Context, t *jobs.Task) (result jobs.Result, err error) {
	mark, err := Mark(h.h.Data)
	if err != nil {
		return result, err
	}
	dir, err := h.folder(mark)
	if err != nil {
		return result, fmt.Errorf("cannot make the attempt's folder: %w", err)
	}
	defer func() {
		if e := remove(dir); e != nil {
			t.Log(jobs.LevelWarn, "the attempt's folder cannot be removed: "+e.Error())
		}
	}()
	a := &attempt{h: h, mark: mark, t: t, dir: dir, out: head{most: jobs.MaxResult + len("\r\n")}, errs: tail{most: 4 << 10}}
	defer a.abort()
	c, err := a.command()
	if err != nil {
		if e, ok := jobs.AsError(err); ok {
			return result, jobs.Permanent(e) // the payload does not fit, and never will
		}
		return result, err
	}
	end, err := proc.Run(ctx, c)
	if err != nil {
		return result, err
	}
	return a.result(ctx, &end)
}

// folder makes an attempt's folder. One that another user works in must be reached by
// that user, so it is not below the data folder.
func (h *Handler) folder(mark string) (string, error) {
	work, pattern := h.h.Work, "attempt-"
	if h.o.user != nil {
		work, pattern = os.TempDir(), foreign(mark)
	} else if err := os.MkdirAll(work, 0o700); err != nil {
		return "", err
	}
	work, err := filepath.Abs(work) // the program works somewhere else than this process
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(work, pattern)
	if err == nil && h.o.user != nil {
		err = os.Chown(dir, int(h.o.user.UID), int(h.o.user.GID))
	}
	return dir, err
}

// remove removes a folder, even if what is in it cannot be entered.
func remove(dir string) error {
	if syscall.Rmdir(dir) == nil { // most are empty
		return nil
	}
	err := os.RemoveAll(dir)
	if err == nil {
		return nil
	}
	root, e := os.OpenRoot(dir) // a link does not lead out of it
	if e != nil {
		return err
	}
	defer root.Close()
	_ = fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, _ error) error {
		if d != nil && d.IsDir() {
			_ = root.Chmod(path, 0o700) // RemoveAll says whether that helped
		}
		return nil
	})
	return os.RemoveAll(dir)
}

// attempt is one run of the program.
type attempt struct {
	h    *Handler
	t    *jobs.Task
	dir  string
	mark string
	said said
	out  head
	errs tail
	in   *os.File            // an input that is stdin; nil: it is something else
	file jobs.ArtifactWriter // what stdout goes to; nil: no file
	logs []*lines            // to be closed at the end
}

// command is what is run.
func (a *attempt) command() (*proc.Command, error) {
	o, j := a.h.o, a.t.Job
	d, err := newData(jobs.NewPayload(j.Payload), j, a.t.Attempt, a.dir)
	if err != nil {
		return nil, err
	}
	c := &proc.Command{
		Dir: a.dir, Mark: a.mark + j.ID.String() + "." + strconv.Itoa(a.t.Attempt) + "." + strconv.FormatInt(time.Now().UnixNano(), 36),
		KillAfter: o.KillAfter, User: o.user, Limits: o.Limits, Sandbox: o.sandbox(),
	}
	if o.Dir != "" {
		c.Dir = o.Dir
	}
	if d["inputs"], err = a.inputs(&c.Sandbox); err != nil {
		return nil, err
	}
	if c.Argv, err = a.h.argv(d); err != nil {
		return nil, err
	}
	if c.Stdin, err = a.stdin(d); err != nil {
		return nil, err
	}
	for _, w := range o.write {
		path, err := w.Render(d)
		if err != nil {
			return nil, err
		}
		c.Sandbox.Write = append(c.Sandbox.Write, path)
	}
	c.Env = a.environ()
	a.said = said{progress: a.t.Progress, log: func(level, text string) { a.t.Log(jobs.Level(level), text) }}
	c.Events = a.closed(&lines{each: a.said.line, most: maxEvent, cut: true})
	c.Stderr = io.MultiWriter(&a.errs, a.lines(func(s string) { a.t.LogOutput(jobs.LevelInfo, "stderr", s) }))
	switch o.Stdout {
	case "log":
		c.Stdout = a.lines(func(s string) { a.t.LogOutput(jobs.LevelInfo, "stdout", s) })
	case "artifact":
		if a.file, err = a.t.Artifact(); err != nil {
			return nil, err
		}
		c.Stdout = a.file
	default:
		c.Stdout = &a.out
	}
	return c, nil
}

// inputs are the inputs that the command names. The program can read them, whatever its
// sandbox and its user.
func (a *attempt) inputs(s *proc.Sandbox) (map[string]any, error) {
	all := make(map[string]any)
	for _, name := range template.InputNames(a.h.o.args...) {
		f, err := a.t.Input(name)
		if err != nil {
			return nil, err
		}
		if a.h.o.user != nil {
			if f.Path, err = a.copyInput(f); err != nil {
				return nil, fmt.Errorf("the input %s cannot be copied for the user of the program: %w", name, err)
			}
		}
		if len(s.Read) > 0 {
			s.Read = append(s.Read, f.Path)
		}
		all[name] = template.InputData(f)
	}
	return all, nil
}

// copyInput copies an input into the attempt's folder, for a user who cannot go where it is.
func (a *attempt) copyInput(f *jobs.InputFile) (path string, err error) {
	in, err := f.Open()
	if err != nil {
		return "", err
	}
	defer in.Close()
	out, err := os.CreateTemp(a.dir, ".input-")
	if err != nil {
		return "", err
	}
	defer func() {
		if e := out.Close(); err == nil {
			err = e
		}
	}()
	if err := out.Chown(int(a.h.o.user.UID), int(a.h.o.user.GID)); err != nil {
		return "", err
	}
	_, err = io.Copy(out, in)
	return out.Name(), err
}

// stdin is what the program reads; a file is closed by abort.
func (a *attempt) stdin(d template.Data) (io.Reader, error) {
	name, ok := strings.CutPrefix(a.h.o.Stdin, stdinInput)
	if !ok {
		return a.h.stdin(a.t.Job, d)
	}
	f, err := a.t.Input(name)
	if err != nil {
		return nil, err
	}
	if a.in, err = f.Open(); err != nil {
		return nil, err
	}
	return a.in, nil
}

// lines is a writer of lines that is closed at the end.
func (a *attempt) lines(each func(string)) io.Writer {
	return a.closed(&lines{each: each, most: maxLine})
}

func (a *attempt) closed(l *lines) io.Writer {
	a.logs = append(a.logs, l)
	return l
}

// environ is the environment of the program.
func (a *attempt) environ() []string {
	j := a.t.Job
	env := append([]string{"TMPDIR=" + a.dir, "HOME=" + a.dir}, a.h.o.env...)
	env = append(env,
		"JOBSTREAM_JOB_ID="+j.ID.String(),
		"JOBSTREAM_JOB_TYPE="+j.Type,
		"JOBSTREAM_JOB_ATTEMPT="+strconv.Itoa(a.t.Attempt),
		"JOBSTREAM_JOB_RUN="+strconv.Itoa(j.Run),
		"JOBSTREAM_DIR="+a.dir,
		"JOBSTREAM_EVENTS=/dev/fd/3",
	)
	if at := a.t.Until; !at.IsZero() {
		env = append(env, "JOBSTREAM_JOB_DEADLINE="+at.UTC().Format(time.RFC3339))
	}
	if trace := a.t.Trace(); trace != (jobs.Trace{}) {
		env = append(env, "TRACEPARENT="+trace.String())
	}
	return lastOfEach(env)
}

// lastOfEach leaves the last of the entries for each variable: of two, some programs see
// the first and others the last.
func lastOfEach(env []string) []string {
	seen := map[string]bool{markVariable: true} // a mark of another server is not passed on
	kept := make([]string, 0, len(env))
	for _, entry := range slices.Backward(env) {
		name, _, _ := strings.Cut(entry, "=")
		if !seen[name] {
			seen[name] = true
			kept = append(kept, entry)
		}
	}
	return kept
}

// abort throws away what was not finished.
func (a *attempt) abort() {
	if a.in != nil {
		_ = a.in.Close() // it was only read
	}
	if a.file != nil {
		a.file.Abort()
	}
}

// result is what has come of the program.
func (a *attempt) result(ctx context.Context, end *proc.End) (r jobs.Result, err error) {
	for _, l := range a.logs {
		l.close()
	}
	o, s := a.h.o, &a.said
	switch {
	case s.failed && s.forGood:
		return r, jobs.Permanent(errors.New(cmp.Or(s.why, end.String())))
	case end.Over != "":
		return r, jobs.Permanentf("the program %s", end)
	case s.snoozed > 0 && !end.Stopped:
		return r, jobs.Snooze(s.snoozed, s.why)
	case s.failed:
		return r, errors.New(cmp.Or(s.why, end.String()))
	case end.Stopped && !end.OK():
		return r, a.stopped(ctx, end)
	case end.Signal == 0 && slices.Contains(o.Permanent, end.Code):
		return r, jobs.Permanent(a.failure(end))
	case !end.OK():
		return r, a.failure(end)
	}
	if r.Value, err = a.value(); err != nil {
		return r, err
	}
	return r, a.keep()
}

// stopped is the error of a program that was ended: why, and its last words.
func (a *attempt) stopped(ctx context.Context, end *proc.End) error {
	if a.errs.text() == "" {
		return context.Cause(ctx)
	}
	return a.failure(end) // the pool says why it ended
}

// failure is how the program ended, with its last words.
func (a *attempt) failure(end *proc.End) error {
	if words := a.errs.text(); words != "" {
		return fmt.Errorf("%s: %s", end, words)
	}
	return errors.New(end.String())
}

// value is the job's result: what was said, or else what stdout has, as JSON if it is.
func (a *attempt) value() (any, error) {
	switch {
	case a.said.result != nil:
		return json.RawMessage(a.said.result), nil
	case a.h.o.Stdout != "result":
		return nil, nil
	case len(bytes.TrimRight(a.out.b, "\r\n")) > jobs.MaxResult || a.out.more:
		return nil, jobs.Permanentf("the program wrote more than %d bytes to its output, which is its job's result; write a file and name it as an artifact, or set stdout to log or artifact", jobs.MaxResult)
	}
	text := bytes.TrimSpace(a.out.b)
	switch {
	case len(text) == 0:
		return nil, nil
	case valid(string(text)):
		return json.RawMessage(text), nil
	}
	return strings.ToValidUTF8(string(bytes.TrimRight(a.out.b, "\r\n")), string(utf8.RuneError)), nil
}

func valid(text string) bool { return json.Valid([]byte(text)) && utf8.ValidString(text) }

// keep makes artifacts of what the program has written and of the files that it has left.
func (a *attempt) keep() error {
	o := a.h.o
	if a.file != nil {
		if _, err := a.file.Commit(cmp.Or(o.Artifact.Name, "output"), cmp.Or(o.Artifact.ContentType, "application/octet-stream")); err != nil {
			return err
		}
	}
	files := a.said.files
	if o.Artifact.File != "" {
		files = append([]file{{o.Artifact.File, o.Artifact.ContentType}}, files...)
	}
	for _, f := range files {
		if err := a.copy(f); err != nil {
			return fmt.Errorf("the artifact %s: %w", f.name, err)
		}
	}
	return nil
}

// copy copies one file of the attempt's folder to the artifacts. A link must not lead out
// of it: the server may read more than the program.
func (a *attempt) copy(f file) error {
	root, err := os.OpenRoot(a.dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if !filepath.IsLocal(f.name) {
		return errors.New("is not below the attempt's folder")
	}
	info, err := root.Stat(f.name)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("is not a file")
	}
	in, err := root.Open(f.name)
	if err != nil {
		return err
	}
	defer in.Close()
	w, err := a.t.Artifact()
	if err != nil {
		return err
	}
	defer w.Abort()
	if _, err := io.Copy(w, in); err != nil {
		return err
	}
	_, err = w.Commit(filepath.Base(f.name), cmp.Or(f.contentType, contentType(f.name)))
	return err
}

// contentType is the type of a file by the end of its name.
func contentType(name string) string {
	if t := mime.TypeByExtension(filepath.Ext(name)); t != "" {
		return t
	}
	return "application/octet-stream"
}
