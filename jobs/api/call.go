package api

import (
	"context"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/access"
	"jobstream/jobs/strict"
)

// Request is one request at a door. The doors implement it. An operation reads it in an
// order of its own, so a door need not know which parts count.
type Request interface {
	// Backend stands behind the door now. Call it after reading the request, which may
	// last: the server may have another one by then.
	Backend() *Backend
	// Caller is whose request it is.
	Caller() Caller
	// Admits returns an error if the door admits no more jobs.
	Admits() error
	// Param is a parameter of the path; "" over NATS.
	Param(name string) string
	// Query is the query of the URL; nil if there is none.
	Query() (url.Values, error)
	// Body reads the whole body. The bytes belong to the operation.
	Body() ([]byte, error)
	// Upload is the body of a request that may be too large for memory. Its errors are
	// for the caller. A door that takes no uploads has none.
	Upload() (io.Reader, error)
	// Header returns the values of a header.
	Header(name string) []string
	// Patience is how long the caller prefers to wait for the end of a job that it
	// submits; 0 = not at all.
	Patience() time.Duration
	waiter
}

// waiter is the part of a door that knows about waits.
type waiter interface {
	// Wait is called before the operation waits for a job. The request then counts
	// among those that wait, and no longer among those that are worked on. The waiting
	// context is made of ctx, and ends after d or when the door closes. The operation
	// must not keep the body meanwhile, and calls done afterwards.
	Wait(ctx context.Context, d time.Duration) (waiting context.Context, done context.CancelFunc, err error)
	// Gone says that nobody reads the answer any more. It may be called during a wait.
	Gone() bool
}

// Caller is whose request it is.
type Caller struct {
	*access.Principal        // required
	Realm             string // separates its idempotency keys from those of others, see [jobs.NewToken]
	// JobID is that of the job that a submission makes; zero = a new one. A node that passes
	// a submission on sets it, so that the same one may come twice.
	JobID jobs.ID
}

// CallerOf makes a caller of a principal. Those without a token share the realm of their
// door, as they always have. Everybody else has a realm of their own at both doors.
func CallerOf(p *access.Principal, door string) Caller {
	if p.Name == access.Anonymous {
		return Caller{Principal: p, Realm: door}
	}
	return Caller{Principal: p, Realm: "principal " + p.Name}
}

// Call is a request that has been read: whose it is, and the backend to do it with.
type Call struct {
	*Backend
	Caller Caller
	door   waiter
}

// await returns a job once it has ended, or as it is after d.
func (c Call) await(ctx context.Context, id jobs.ID, d time.Duration) (*jobs.Job, error) {
	ctx, done, err := c.door.Wait(ctx, d)
	if err != nil {
		return nil, err
	}
	defer done()
	j, err := c.Reader.Wait(ctx, id)
	if err == nil && j == nil {
		err = jobs.NoSuchJob(id.String())
	}
	return j, err
}

// noQuery refuses any query. A parameter that this version does not know must not look
// like one that works.
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

// pathOnly refuses a query, and a body with fields, because it would be ignored. No body
// and an empty object are fine.
func pathOnly(r Request) error {
	body, err := bodyOnly(r)
	if err != nil || len(body) == 0 {
		return err
	}
	return jobs.Read("", body, func(v strict.Value) { v.Object() })
}

// token is the token of a request's idempotency key, nil if it has none. The content
// identifies what the request makes.
func token(r Request, content []byte) (*jobs.Token, error) {
	keys := r.Header("Idempotency-Key")
	if err := CheckIdempotencyKey(keys); err != nil || len(keys) == 0 {
		return nil, err
	}
	return jobs.NewToken(r.Caller().Realm, keys[0], content), nil
}

// nothing is the input of an operation without parameters.
type nothing struct{}

func readNothing(r Request) (nothing, error) { return nothing{}, noQuery(r) }

// readEmpty is readNothing of a request that may have a body.
func readEmpty(r Request) (nothing, error) { return nothing{}, pathOnly(r) }

// ignoreBody accepts any body.
func ignoreBody(Request) (nothing, error) { return nothing{}, nil }
