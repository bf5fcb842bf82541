package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"sync"
)

// Run does one attempt of a job here, without any server: for tests of the function that
// [Definition.Handle] has put into the registry. What surrounds an attempt is as on a
// server: payload and result become JSON and are checked, the timeout counts, and a panic
// is an error. The error of the function is returned as it is. Progress and log entries
// are dropped, and files that the attempt leaves are removed at its end.
func Run[In, Out any](ctx context.Context, r *Registry, d *Definition[In, Out], in In, options ...SubmitOption) (out Out, err error) {
	s, err := d.submission(in, options...)
	if err == nil {
		s, err = s.Admit("", Now())
	}
	if err == nil {
		err = r.Check(s)
	}
	if err != nil {
		return out, err
	}
	m := s.Message()
	m.At = Now()
	t := r.Lookup(s.Type)
	j := NewJob(m, t, true)
	j.Status, j.Attempt = Processing, 1
	if j.Result, err = attempt(ctx, t, j); err != nil {
		return out, err
	}
	j.Status = Completed
	return d.Result(j)
}

// attempt does the first attempt of a job.
func attempt(ctx context.Context, t *Type, j *Job) (json.RawMessage, error) {
	limit := t.Timeout
	if j.Timeout > 0 {
		limit = j.Timeout
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, ErrTimeout)
	defer cancel()
	host := &noServer{id: j.ID}
	defer host.remove()
	task := NewTask(j, 1, host)
	task.Until, _ = ctx.Deadline()
	result, err := Attempt(ctx, t.Handler, task, slog.New(slog.DiscardHandler))
	task.End()
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = errors.Join(cause, err)
	}
	if err != nil || result.Value == nil {
		return nil, err
	}
	return EncodeResult(result.Value)
}

// noServer is the [Host] of an attempt without a server.
type noServer struct {
	id  ID
	mu  sync.Mutex
	dir string // of its files; "" = none yet
}

func (*noServer) Report(int, string)        {}
func (*noServer) Log(Level, string, string) {}
func (*noServer) InputPath(*Input) (string, error) {
	return "", errors.New("there are no inputs without a server")
}

func (h *noServer) Create() (w ArtifactWriter, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dir == "" {
		if h.dir, err = os.MkdirTemp("", "jobstream-run-"); err != nil {
			return nil, err
		}
	}
	return NewArtifactDir(h.dir, 0).Create(h.id)
}

func (h *noServer) remove() {
	if h.dir != "" {
		_ = os.RemoveAll(h.dir) // it is in the folder for what is temporary
	}
}
