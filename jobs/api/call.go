package api

import (
	"context"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/strict"
)

// Request is one request at a door, which implements it. An operation reads it in
// its own order, so that a door need not know which parts count.
type Request interface {
	// Backend is what stands behind the door now. It is asked for after the request
	// has been read, which may take long.
	Backend() *Backend
	// Caller is who asks.
	Caller() Caller
	// Admits is nil, or why the door admits no more jobs.
	Admits() error
	// Param is a parameter of the path; "" over NATS.
	Param(name string) string
	// Query is that of the URL; nil if there is none.
	Query() (url.Values, error)
	// Body reads the whole body, which belongs to the operation then.
	Body() ([]byte, error)
	// Header returns the values of a header.
	Header(name string) []string
	// Patience is for how long the caller prefers to wait for the end of a job that it
	// submits; 0 = not at all.
	Patience() time.Duration
	waiter
}

// waiter is the door's part in waiting for a job.
type waiter interface {
	// Wait is called before the operation waits for a job, so that the request no
	// longer counts among those that are worked on. The context ends after d, or when
	// the door closes. Its parent is that of the request. The operation must not keep
	// the body, and calls done at the end.
	Wait(ctx context.Context, d time.Duration) (waiting context.Context, done context.CancelFunc, err error)
}

// Caller is who asks.
type Caller struct {
	Actor string // the name in commands, see [jobs.Stamp]
	Realm string // idempotency keys of different realms are different keys, see [jobs.NewToken]
}

// Call is a request that has been read: what it works on and who asks.
type Call struct {
	*Backend
	Caller Caller
	door   waiter
}

// await returns a job once it has ended; after d as it is then.
func (c Call) await(ctx context.Context, id jobs.ID, d time.Duration) (*jobs.Job, error) {
	ctx, done, err := c.door.Wait(ctx, d)
	if err != nil {
		return nil, err
	}
	defer done()
	j, err := c.Jobs.Wait(ctx, id)
	if err == nil && j == nil {
		err = jobs.NoSuchJob(id.String())
	}
	return j, err
}

// Readers of what many requests have.

// noQuery refuses a query: a parameter that this version has no use for must not
// be mistaken for one that works.
func noQuery(r Request) error {
	values, err := r.Query()
	if err != nil || len(values) == 0 {
		return err
	}
	var bad []jobs.FieldError
	for name := range values {
		bad = append(bad, jobs.FieldError{Pointer: "query/" + name, Detail: "is not a known parameter; there are none here"})
	}
	slices.SortFunc(bad, func(a, b jobs.FieldError) int { return strings.Compare(a.Pointer, b.Pointer) })
	return jobs.InvalidFields(bad...)
}

// bodyOnly reads the body of a request that has no query.
func bodyOnly(r Request) ([]byte, error) {
	if err := noQuery(r); err != nil {
		return nil, err
	}
	return r.Body()
}

// pathOnly refuses a query, and a body that says anything: here it would be
// ignored. None, and an empty object, are fine.
func pathOnly(r Request) error {
	body, err := bodyOnly(r)
	if err != nil || len(body) == 0 {
		return err
	}
	var bad []jobs.FieldError
	err = jobs.EachField(body, func(name string, _ json.RawMessage) {
		bad = append(bad, jobs.FieldError{Pointer: strict.Pointer(name), Detail: "is not a known field; there are none here"})
	})
	if err == nil && len(bad) > 0 {
		return jobs.InvalidFields(bad...)
	}
	return err
}

// token is that of a request's idempotency key, nil if it has none; content is
// what is asked for.
func token(r Request, content []byte) (*jobs.Token, error) {
	keys := r.Header("Idempotency-Key")
	if err := CheckIdempotencyKey(keys); err != nil || len(keys) == 0 {
		return nil, err
	}
	return jobs.NewToken(r.Caller().Realm, keys[0], content), nil
}

// nothing is what a request asks for that has no parameters.
type nothing struct{}

func readNothing(r Request) (nothing, error) { return nothing{}, noQuery(r) }

func ignoreBody(Request) (nothing, error) { return nothing{}, nil }
