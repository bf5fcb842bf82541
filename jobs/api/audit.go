package api

import (
	"context"
	"strings"
	"sync"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/access"
)

// AuditLog keeps who did what.
type AuditLog interface {
	jobs.Doer
	// Audit calls yield with the entries before one of them, the youngest first, until
	// yield returns false. before is the sequence of that entry; 0 = from the end.
	// Refusals are a list of their own.
	Audit(refusals bool, before uint64, yield func(jobs.AuditEntry) bool) error
}

// audited says whether the audit log has the operation: those that change something, but
// for submissions and the work of workers, which stand in the jobs.
func (op *Operation) audited() bool {
	return (op.Scope == access.Manage || op.Scope == access.Admin) && op.Name != "audit"
}

// audit has the audit log say who did an operation. A command that the operation gives
// stores that together with its change. All else is stored before the answer. Refusals are
// counted.
func (op *Operation) audit(h Handler) Handler {
	return func(ctx context.Context, r Request) (Answer, error) {
		request := &jobs.Request{Act: jobs.Act{Action: op.Name}}
		if op.audited() {
			request.Actor = r.Caller().Name
			ctx = jobs.WithRequest(ctx, request)
		}
		a, err := h(ctx, r)
		switch e, known := jobs.AsError(err); {
		case err == nil && op.audited() && !request.Noted():
			if request.Target == "" {
				request.Target = strings.TrimPrefix(a.Address, "/jobs/")
			}
			err = r.Backend().note(ctx, request)
		case known && e.Kind == jobs.Forbidden:
			r.Backend().refused(r.Caller().Name, op.Name)
		}
		return a, err
	}
}

// note adds a request to the audit log.
func (b *Backend) note(ctx context.Context, r *jobs.Request) error {
	if b == nil || b.Audit == nil {
		return nil
	}
	r.SetNoted() // so that the log has it once
	note := jobs.Note{Stamp: jobs.By(r.Actor)}
	note.Entries = []jobs.AuditEntry{{At: note.At, Act: r.Act}}
	_, err := b.Audit.Do(context.WithoutCancel(ctx), note)
	return err
}

// refused counts a request that was refused.
func (b *Backend) refused(actor, action string) {
	if b != nil {
		b.Refusals.count(actor, action)
	}
}

// Refusals counts requests whose callers lacked a right, until the audit log has them. A
// flood of them costs neither a transaction each, nor memory. Make one with [NewRefusals].
type Refusals struct {
	log AuditLog

	mu  sync.Mutex
	all map[refusal]*refused
}

// refusal is what is counted together.
type refusal struct{ actor, action string }

type refused struct {
	n           int // since the last entry
	since, last jobs.Time
	next        time.Time // no entry before
}

const (
	refusalsEvery = time.Second // until the first of a kind is in the log
	refusalsAgain = time.Minute // until the next of that kind are
	refusalKinds  = 1000        // the rest has no actor
)

// NewRefusals makes a counter of refusals for a log.
func NewRefusals(log AuditLog) *Refusals {
	return &Refusals{log: log, all: make(map[refusal]*refused)}
}

func (c *Refusals) count(actor, action string) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	of := refusal{actor, action}
	if c.all[of] == nil && len(c.all) >= refusalKinds {
		of.actor = ""
	}
	r := c.all[of]
	if r == nil {
		r = &refused{}
		c.all[of] = r
	}
	r.last = jobs.Now()
	if r.n++; r.n == 1 {
		r.since = r.last
	}
}

// Run stores what has been counted, until ctx ends.
func (c *Refusals) Run(ctx context.Context) error {
	tick := time.NewTicker(refusalsEvery)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			c.store(ctx, c.due(now))
		case <-ctx.Done():
			return nil
		}
	}
}

// store stores entries. Those that cannot be stored are lost: a request that was refused
// has changed nothing.
func (c *Refusals) store(ctx context.Context, entries []jobs.AuditEntry) {
	if len(entries) > 0 {
		_, _ = c.log.Do(ctx, jobs.Note{Stamp: jobs.By("refusals"), Entries: entries})
	}
}

// due takes the entries that are to be stored now, and forgets what is over.
func (c *Refusals) due(now time.Time) (entries []jobs.AuditEntry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for of, r := range c.all {
		switch {
		case now.Before(r.next):
		case r.n == 0:
			delete(c.all, of)
		default:
			entries = append(entries, jobs.AuditEntry{
				At: r.last, Act: jobs.Act{Actor: of.actor, Action: of.action}, Refused: true, Count: r.n, Since: r.since,
			})
			r.n, r.next = 0, now.Add(refusalsAgain)
		}
	}
	return entries
}
