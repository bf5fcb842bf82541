package natsdoor

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"jobstream/broker"
	"jobstream/jobs"
	"jobstream/jobs/api"
)

// Tracer gives spans to requests.
type Tracer interface {
	// Serve begins the span of a request that is at a place in a trace, or nowhere. It
	// returns the span's place, and ends it when the request is answered.
	Serve(operation string, from jobs.Trace) (at jobs.Trace, answered func(error))
}

// Endpoints are the operations that are offered over NATS, with what back returns behind
// them. Those that make jobs have spans, and so have others that are in a trace; t is nil
// where none has.
func Endpoints(back func() *api.Backend, t Tracer) []broker.Endpoint {
	var all []broker.Endpoint
	for _, op := range api.Operations() {
		if op.NATS == nil {
			continue
		}
		all = append(all, broker.Endpoint{Name: op.Name, Handle: func(ctx context.Context, r *broker.Request) ([]byte, error) {
			b := back()
			if b.Submitter == nil && op.Place == api.AtLeader {
				return nil, &jobs.Error{Kind: jobs.Unavailable, RetryAfter: time.Second, Detail: "another node begins to lead; try again"}
			}
			if t == nil {
				return serve(ctx, op, request{r: r, b: b})
			}
			from := api.TraceOf(request{r: r, b: b})
			if from == (jobs.Trace{}) && op.Scope != submits {
				return serve(ctx, op, request{r: r, b: b})
			}
			at, answered := t.Serve(op.Name, from)
			out, err := serve(ctx, op, request{r, b, at})
			answered(err)
			return out, err
		}})
	}
	return all
}

// submits is the scope of operations that make jobs.
const submits = "submit"

// serve answers a request of an operation.
func serve(ctx context.Context, op *api.Operation, q request) ([]byte, error) {
	a, err := op.NATS(ctx, q)
	if err != nil {
		return nil, inBody(err)
	}
	return answer(ctx, q.r, &a)
}

// request is a request of the service as an [api.Request].
type request struct {
	r  *broker.Request
	b  *api.Backend
	at jobs.Trace // instead of that of its header; none: that one counts
}

func (q request) Backend() *api.Backend { return q.b }

// Caller is whom the request is by.
func (q request) Caller() api.Caller {
	c := api.CallerOf(q.r.Principal, cmp.Or(q.r.Realm, "service"))
	c.JobID = q.r.JobID
	return c
}

// Admits leaves the decision to the backend, which stops at the same time.
func (q request) Admits() error { return nil }

// Param is empty, because there is no path.
func (q request) Param(string) string { return "" }

// Query is empty, because there is no URL.
func (q request) Query() (url.Values, error) { return nil, nil }

func (q request) Body() ([]byte, error) { return q.r.Body, nil }

// Upload is not offered: a message has a bound, and stands in memory as a whole.
func (q request) Upload() (io.Reader, error) {
	return nil, &jobs.Error{Kind: jobs.InvalidRequest, Detail: "files are uploaded by POST /artifacts, over REST"}
}

// Header is a header of the request. The span of the request takes the place of its
// parent.
func (q request) Header(name string) []string {
	if q.at != (jobs.Trace{}) && strings.EqualFold(name, jobs.TraceHeader) {
		return []string{q.at.String()}
	}
	return q.r.Header(name)
}

// Patience is zero. The operation run is the one that waits.
func (q request) Patience() time.Duration { return 0 }

func (q request) Wait(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc, error) {
	if err := q.r.Wait(); err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, d)
	return ctx, cancel, nil
}

func (q request) Gone() bool { return q.r.Gone() }

// answer writes the answer of an operation. Fields that would make it too large for a
// message are omitted, if that is possible.
func answer(ctx context.Context, r *broker.Request, a *api.Answer) (out []byte, err error) {
	switch body := a.JSON.(type) {
	case api.Fitting:
		out, r.Omitted = body.AppendFitting(nil, r.MaxAnswer)
		return out, nil
	case api.JSON:
		return body.AppendJSON(nil), nil
	}
	if a.List != nil {
		return list(ctx, r, a.List)
	}
	return []byte("{}"), nil
}

// listEnd is room for the end of a list, behind the jobs.
const listEnd = 128

// list writes as many jobs of a page as there is room for.
func list(ctx context.Context, r *broker.Request, l *api.List) ([]byte, error) {
	out, most := []byte(api.OpenListing), min(r.MaxAnswer, jobs.MaxPageBytes)-listEnd
	first := true
	found, err := l.Read(ctx, func(j *jobs.Job) bool {
		if first {
			first = false
			out, r.Omitted = j.AppendFitting(out, l.Waiting(j), most-len(out))
			return true
		}
		if r.Omitted != "" {
			return false // it has a page for itself, so that the omitted fields are clearly its own
		}
		before := len(out)
		if out = j.AppendWaiting(append(out, ','), l.Waiting(j)); len(out) > most {
			out = out[:before]
			return false
		}
		return true
	})
	if err != nil {
		return nil, inBody(err)
	}
	return api.AppendListEnd(out, &found), nil
}

// inBody moves the pointers to parameters of a query to the fields of the body, where
// requests of the service have them.
func inBody(err error) error {
	var e *jobs.Error
	if !errors.As(err, &e) {
		return err
	}
	moved := *e
	moved.Fields = slices.Clone(e.Fields)
	for i, f := range moved.Fields {
		if name, ok := strings.CutPrefix(f.Pointer, "query/"); ok {
			moved.Fields[i].Pointer = "/" + name
		}
	}
	return &moved
}
