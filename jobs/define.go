package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Definition is a job type of a Go program: In is its payload, Out its result, both as
// encoding/json writes them. Those who submit its jobs and those who do them share one
// definition, so that the compiler checks both ends. In = struct{} is a job without a
// payload, Out = struct{} one without a result. It does not change, and may be used from
// any goroutine.
//
// A payload that does not fit In is refused at the door, with the pointer of each wrong
// field. So is one with a field that In does not have, unless the type is [Lenient]. If
// *In has a method Validate() error, that is asked too. It must be fast and depend on its
// receiver only; its error may be an [*Error] made by [Invalid], with pointers within the
// payload.
type Definition[In, Out any] struct{ d definition }

// definition is what the options of a [Definition] set.
type definition struct {
	Type
	lenient bool
}

// Define defines a job type. Without options it has 3 retries, a timeout of 5 minutes
// and the backoff of [DefaultBackoff]. It panics if the name or an option is out of
// bounds, as that is a mistake of the program.
func Define[In, Out any](name string, options ...TypeOption) *Definition[In, Out] {
	d := &Definition[In, Out]{definition{Type: Type{
		Name: name, RetryCount: 3, Timeout: 5 * time.Minute, ConcurrencyPerKey: 1, Backoff: DefaultBackoff(), Run: "go",
	}}}
	for _, o := range options {
		o.define(&d.d)
	}
	if err := d.d.check(); err != nil {
		panic("jobs: type " + Quote(name) + " " + err.Error())
	}
	return d
}

// Name is the name of the type.
func (d *Definition[In, Out]) Name() string { return d.d.Name }

// Handle adds the type to a registry, with the function that does its jobs. See [Handler]
// for what the function may and must do. It panics if the registry has the type already.
func (d *Definition[In, Out]) Handle(r *Registry, f func(ctx context.Context, t *Task, in In) (Out, error)) {
	t := d.d.Type
	t.Handler = &defined[In, Out]{d, f}
	r.Add(&t)
}

// Remote adds the type to the registry of a server whose jobs of this type are done by
// workers elsewhere. The server checks payloads all the same.
func (d *Definition[In, Out]) Remote(r *Registry) {
	t := d.d.Type
	t.Remote, t.Run, t.Handler = true, "remote", &defined[In, Out]{d, nil}
	r.Add(&t)
}

// submission is the request for a job with this payload.
func (d *Definition[In, Out]) submission(in In, options ...SubmitOption) (*Submission, error) {
	payload, err := json.Marshal(in)
	if err != nil {
		return nil, Invalid("/payload", "is not JSON: "+err.Error())
	}
	s := &Submission{Type: d.d.Name, Payload: payload, Priority: DefaultPriority, RetryCount: -1}
	for _, o := range options {
		o.submit(s)
	}
	return s, nil
}

// Submit makes a job and returns it when it is on disk. The error for a submission that
// is refused is an [*Error].
func (d *Definition[In, Out]) Submit(ctx context.Context, c Client, in In, options ...SubmitOption) (*Job, error) {
	s, err := d.submission(in, options...)
	if err != nil {
		return nil, err
	}
	return c.Submit(ctx, s)
}

// Wait returns the result of the job with this id when it is completed. If it ends
// otherwise the error is a [*JobError]. When ctx ends before, it is that of ctx.
func (d *Definition[In, Out]) Wait(ctx context.Context, c Client, id ID) (out Out, err error) {
	j, err := wait(ctx, c, id)
	if err != nil {
		return out, err
	}
	return d.Result(j)
}

// Payload is what a job of this type is given.
func (d *Definition[In, Out]) Payload(j *Job) (in In, err error) {
	if j.Type != d.d.Name {
		return in, d.another(j)
	}
	return in, decodePayload(j.Payload, &in, true)
}

// Result is the result of a completed job of this type. If it has ended otherwise the
// error is a [*JobError]; see [Job.Err].
func (d *Definition[In, Out]) Result(j *Job) (out Out, err error) {
	if j.Type != d.d.Name {
		return out, d.another(j)
	}
	if err := j.Err(); err != nil || len(j.Result) == 0 {
		return out, err
	}
	if err := json.Unmarshal(j.Result, &out); err != nil {
		return out, fmt.Errorf("the result of job %s is not of its type: %w", j.ID, err)
	}
	return out, nil
}

// another is the error for a job of another type.
func (d *Definition[In, Out]) another(j *Job) error {
	return fmt.Errorf("job %s is of type %s, not %s", j.ID, j.Type, d.d.Name)
}

// defined is the handler of a [Definition]; f is nil for a remote type.
type defined[In, Out any] struct {
	d *Definition[In, Out]
	f func(context.Context, *Task, In) (Out, error)
}

// Check returns an [*Error] for a payload that does not fit.
func (h *defined[In, Out]) Check(p *Payload) error {
	_, err := h.read(p.JSON)
	return err
}

func (h *defined[In, Out]) read(payload json.RawMessage) (in In, err error) {
	if err = decodePayload(payload, &in, h.d.d.lenient); err != nil {
		return in, err
	}
	if v, ok := any(&in).(interface{ Validate() error }); ok {
		err = inPayload(v.Validate())
	}
	return in, err
}

// inPayload turns the error of a Validate method into one of the submission.
func inPayload(err error) error {
	var e *Error
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &e) || len(e.Fields) == 0:
		return Invalid("/payload", err.Error())
	}
	fields := make([]FieldError, len(e.Fields))
	for i, f := range e.Fields {
		fields[i] = FieldError{"/payload" + f.Pointer, f.Detail}
	}
	return InvalidFields(fields...)
}

// Handle does an attempt.
func (h *defined[In, Out]) Handle(ctx context.Context, t *Task) (Result, error) {
	if h.f == nil {
		return Result{}, Permanentf("jobs of type %s are done by workers elsewhere", h.d.d.Name)
	}
	in, err := h.read(t.Job.Payload)
	if err != nil {
		return Result{}, Permanent(err)
	}
	out, err := h.f(ctx, t, in)
	if _, none := any(out).(struct{}); none || err != nil {
		return Result{}, err
	}
	return Result{Value: out}, nil
}
