package pool

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"jobstream/jobs"
)

// Errors for workers. The times differ a little, so that not all come again together.

func errStopping() *jobs.Error {
	return &jobs.Error{Kind: jobs.ShuttingDown, Detail: "the server is shutting down; leases stay, and beats and ends are taken after its next start", RetryAfter: later()}
}

func errUnstored() *jobs.Error {
	return &jobs.Error{Kind: jobs.Unavailable, Detail: "it is not known yet whether that was stored; repeat it", RetryAfter: later()}
}

func tooMany(detail string) *jobs.Error {
	return &jobs.Error{Kind: jobs.TooMany, Detail: detail, RetryAfter: later()}
}

func later() time.Duration { return time.Second + rand.N(2*time.Second) }

func errNoLease() *jobs.Error {
	return &jobs.Error{Kind: jobs.NotFound, Detail: "this is no lease of this server, or its job was deleted"}
}

// errLost is the error for the token of an execution that is not the present one of j.
func errLost(j *jobs.Job) *jobs.Error {
	detail := fmt.Sprintf("the lease is lost: the job is %s, attempt %d; stop, and throw the work away", j.Status, j.Attempt)
	return &jobs.Error{Kind: jobs.LeaseLost, Detail: detail, State: &jobs.LeaseState{Status: j.Status, Attempt: j.Attempt, Error: j.Error}}
}

func (r *Leases) isHalted() bool {
	select {
	case <-r.halted:
		return true
	default:
		return false
	}
}

// stopped is the reason why an ask has ended early; nil if it has not.
func (r *Leases) stopped() error {
	if r.isHalted() {
		return errStopping()
	}
	return nil
}

// held is a token's execution, as far as this process has it.
type held struct {
	name jobs.Execution
	x    *execution // nil: it has ended, or is of another one
	live bool       // x has not ended
	done bool       // x has ended by completing its job
}

// find reads a token. The error is an [*jobs.Error].
func (r *Leases) find(token string) (h held, err error) {
	name, ok := jobs.TokenExecution(token)
	if !ok {
		return h, errNoLease()
	}
	h.name = name
	r.p.mu.Lock()
	if h.x = r.leases.find(name.Key, token); h.x != nil {
		h.live = !h.x.lease.dead
		h.done = h.x.d.outcome != nil && h.x.d.outcome.Kind == jobs.KindCompleted
	}
	r.p.mu.Unlock()
	if h.x == nil && !r.leases.key.Signed(token) {
		return h, errNoLease()
	}
	return h, nil
}

// beat renews the lease of a token, if it lives.
func (r *Leases) beat(token string, now time.Time) (h held, err error) {
	h, err = r.find(token)
	if err != nil {
		return h, err
	}
	r.p.mu.Lock()
	defer r.p.mu.Unlock()
	if h.live = h.live && !h.x.lease.dead; h.live {
		r.leases.renew(h.x, now)
		if w := h.x.lease.worker; w != nil {
			w.seen = jobs.Now()
		}
	}
	return h, nil
}

// record is the stored job of a token. The error is an [*jobs.Error], or internal.
func (r *Leases) record(h held) (*jobs.Job, error) {
	j, err := r.p.o.Tracker.Find(h.name.Key)
	if err == nil && j == nil {
		err = errNoLease()
	}
	return j, err
}

// cancelled is the reason if the job of a lost lease was cancelled, or has met its
// deadline.
func (r *Leases) cancelled(h held, j *jobs.Job) (reason string, ok bool) {
	if h.x != nil {
		if ended := h.x.ended.Load(); ended != nil {
			j = ended
		}
	}
	if j.Key != h.name.Key || j.Run != h.name.Run || j.StartedAt != h.name.Started {
		return "", false
	}
	if j.Status == jobs.Cancelled || j.Status == jobs.Failed && strings.HasPrefix(j.Error, jobs.DeadlineReason) {
		return j.Error, true
	}
	return "", false
}

// Beat renews leases; see [jobs.Leases].
func (r *Leases) Beat(_ context.Context, worker string, tokens []string) (b jobs.Beats, err error) {
	now := time.Now()
	r.p.mu.Lock()
	r.workers.seen(worker, jobs.Now())
	r.p.mu.Unlock()
	for _, token := range tokens {
		h, err := r.beat(token, now)
		if err != nil {
			b.Lost = append(b.Lost, token)
			continue
		}
		if h.live {
			lasts(&b, h.x.lease.span)
			continue
		}
		if err := r.ending(h, token, &b); err != nil {
			return jobs.Beats{}, err
		}
	}
	if b.Span == 0 {
		b.Span = r.p.o.Lease
	}
	return b, nil
}

// lasts counts a lease that lasts for a while.
func lasts(b *jobs.Beats, span time.Duration) {
	if b.Span == 0 || span < b.Span {
		b.Span = span
	}
}

// ending tells a worker what became of a lease that does not live. One whose job it has
// completed is none of its worries.
func (r *Leases) ending(h held, token string, b *jobs.Beats) error {
	j, err := r.record(h)
	if e, known := jobs.AsError(err); err != nil && known && e.Kind == jobs.NotFound {
		b.Lost = append(b.Lost, token)
		return nil
	}
	if err != nil {
		return err
	}
	if reason, ok := r.cancelled(h, j); ok {
		if b.Cancelled == nil {
			b.Cancelled = make(map[string]string)
		}
		b.Cancelled[token] = reason
		return nil
	}
	if !h.done && (j.Status != jobs.Completed || !h.name.Of(j)) {
		b.Lost = append(b.Lost, token)
	}
	return nil
}

// Progress reports on an execution; see [jobs.Leases].
func (r *Leases) Progress(_ context.Context, token string, p *jobs.Progress) (b jobs.Beats, err error) {
	h, err := r.beat(token, time.Now())
	if err != nil {
		return b, err
	}
	if !h.live {
		return r.late(h, token)
	}
	x := h.x
	if p.Checkpoint != nil {
		if err := x.task.SetCheckpoint(p.Checkpoint); err != nil {
			return b, jobs.Invalid("/checkpoint", err.Error())
		}
	}
	for i := range p.Log {
		x.Log(p.Log[i].Level, p.Log[i].Stream, p.Log[i].Text)
	}
	x.log.pause()
	x.report(p)
	lasts(&b, x.lease.span)
	return b, nil
}

// late answers a report on a lease that does not live.
func (r *Leases) late(h held, token string) (b jobs.Beats, err error) {
	j, err := r.record(h)
	if err != nil {
		return b, err
	}
	if reason, ok := r.cancelled(h, j); ok {
		b.Cancelled = map[string]string{token: reason}
		return b, nil
	}
	return b, errLost(j)
}

// verb is a way in which a worker ends an execution.
type verb int

const (
	verbDone verb = iota
	verbFail
	verbRelease
)

// Done completes jobs; see [jobs.Leases].
func (r *Leases) Done(ctx context.Context, of []jobs.Done) []jobs.Ending {
	all := make([]jobs.Ending, len(of))
	begun := make([]ended, len(of))
	for i := range of {
		begun[i], all[i].Err = r.done(&of[i])
	}
	for i := range of {
		if all[i].Err == nil {
			all[i] = r.conclusion(ctx, begun[i], verbDone)
		}
	}
	return all
}

// ended is an execution whose end is recorded, or has been for a while.
type ended struct {
	held
	now bool // by this call
}

// encoded is a result that [jobs.EncodeResult] has made.
type encoded json.RawMessage

func (r *Leases) done(d *jobs.Done) (ended, error) {
	var result jobs.Result
	if d.Result != nil {
		b, err := jobs.EncodeResult(d.Result)
		if err != nil {
			return ended{}, jobs.Invalid("/result", err.Error())
		}
		result.Value = encoded(b)
	}
	return r.end(d.Token, result, nil)
}

// Fail ends an execution with an error; see [jobs.Leases].
func (r *Leases) Fail(ctx context.Context, token string, f *jobs.Failure) jobs.Ending {
	err := errors.New(f.Error)
	if f.Permanent {
		err = jobs.Permanent(err)
	}
	switch {
	case f.Busy:
		err = jobs.BusyFailed(f.RetryAfter, err)
	case f.RetryAfter > 0:
		err = jobs.RetryAfter(f.RetryAfter, err)
	}
	return r.endOne(ctx, token, err, verbFail)
}

// Release gives a job back; see [jobs.Leases].
func (r *Leases) Release(ctx context.Context, token string, b *jobs.GiveBack) jobs.Ending {
	var err error = &releasedError{b.Reason}
	switch {
	case b.Busy:
		err = jobs.Busy(b.Delay, b.Reason)
	case b.Delay > 0:
		err = jobs.Snooze(b.Delay, b.Reason)
	}
	return r.endOne(ctx, token, err, verbRelease)
}

func (r *Leases) endOne(ctx context.Context, token string, why error, v verb) jobs.Ending {
	e, err := r.end(token, jobs.Result{}, why)
	if err != nil {
		return jobs.Ending{Err: err}
	}
	return r.conclusion(ctx, e, v)
}

// end ends the execution of a token, unless it has ended.
func (r *Leases) end(token string, result jobs.Result, why error) (ended, error) {
	h, err := r.find(token)
	if err != nil {
		return ended{}, err
	}
	e := ended{held: h}
	if h.x != nil {
		e.now = h.x.endAs(endedThere, result, why)
	}
	return e, nil
}

// conclusion waits until an end is committed, and says what it has come to.
func (r *Leases) conclusion(ctx context.Context, e ended, v verb) jobs.Ending {
	var j *jobs.Job
	if e.x != nil {
		select {
		case <-e.x.lease.stored:
		case <-ctx.Done():
			return jobs.Ending{Err: errUnstored()}
		case <-r.closed:
			return jobs.Ending{Err: errUnstored()}
		}
		j = e.x.lease.record
	}
	if j == nil {
		var err error
		if j, err = r.record(e.held); err != nil {
			return jobs.Ending{Err: err}
		}
	}
	if !e.name.Of(j) || !v.has(j, e.name.Attempt) {
		return jobs.Ending{Err: errLost(j)}
	}
	end := jobs.Ending{Status: j.Status, Repeated: !e.now}
	if j.Status == jobs.Retrying || j.Status == jobs.Scheduled {
		end.RunAt = j.DueAt
	}
	return end
}

// has says whether the last execution of j, which was an attempt, has ended in this way.
func (v verb) has(j *jobs.Job, attempt int) bool {
	switch v {
	case verbDone:
		return j.Status == jobs.Completed
	case verbFail:
		return j.Failures >= attempt && j.Status != jobs.Completed
	default:
		return j.Status == jobs.Pending || j.Status == jobs.Scheduled
	}
}

// Job is the job of a lease; see [jobs.Leases].
func (r *Leases) Job(_ context.Context, token string) (*jobs.Job, error) {
	h, err := r.find(token)
	if err != nil {
		return nil, err
	}
	j, err := r.record(h)
	if err == nil && !h.live {
		err = errLost(j)
	}
	if err != nil {
		return nil, err
	}
	return j, nil
}

// Attach stores a file; see [jobs.Leases].
func (r *Leases) Attach(ctx context.Context, token, name, contentType string, content io.Reader) (*jobs.Artifact, error) {
	h, err := r.find(token)
	if err == nil && !h.live {
		_, err = r.late(h, token)
		if err == nil { // it was cancelled
			err = &jobs.Error{Kind: jobs.LeaseLost, Detail: "the job was cancelled; stop, and throw the work away"}
		}
	}
	if err != nil {
		return nil, err
	}
	a, err := h.x.store(jobs.ArtifactName(name), contentType, &beating{r: r, token: token, from: content})
	if err != nil {
		return nil, err
	}
	return a, r.attach(ctx, h.x, a)
}

// beating renews a lease while its worker sends a file.
type beating struct {
	r     *Leases
	token string
	from  io.Reader
	last  time.Time
}

func (b *beating) Read(p []byte) (int, error) {
	n, err := b.from.Read(p)
	if now := time.Now(); now.Sub(b.last) > time.Second {
		b.last = now
		if h, e := b.r.beat(b.token, now); e != nil || !h.live {
			return 0, &jobs.Error{Kind: jobs.LeaseLost, Detail: "the lease was lost while the file was sent"}
		}
	}
	return n, err
}

// store writes a file of a lease.
func (x *execution) store(name, contentType string, content io.Reader) (*jobs.Artifact, error) {
	w, err := x.Create()
	if err != nil {
		return nil, err
	}
	defer w.Abort()
	if _, err := io.Copy(w, content); err != nil {
		return nil, err
	}
	return w.Commit(name, jobs.Shorten(contentType, jobs.MaxArtifactName))
}

// attach makes a stored file one of the job's, and returns when its record says so.
func (r *Leases) attach(ctx context.Context, x *execution, a *jobs.Artifact) error {
	files, err := x.task.Leave(a)
	if err != nil {
		return err
	}
	w := r.p.awaited.expect(len(files), x)
	defer r.p.awaited.forget(w)
	if j, err := r.record(held{name: x.name()}); err != nil || x.name().Of(j) && len(j.Files()) >= len(files) {
		return err // it was left before
	}
	x.reportFiles(files)
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
	case <-r.closed:
	}
	return errUnstored()
}

// AtWork lists who works; see [jobs.Leases].
func (r *Leases) AtWork() []jobs.Worker {
	p := r.p
	p.mu.Lock()
	defer p.mu.Unlock()
	own := jobs.Worker{Name: p.o.Node, Node: p.o.Node, Local: true, Seen: jobs.Now()}
	for name, t := range p.types {
		if !t.Remote && !t.Internal && !t.removed() {
			own.Types = append(own.Types, name)
		}
	}
	slices.Sort(own.Types)
	work := map[string][]jobs.AtWork{}
	for _, d := range p.claims.deliveries {
		switch x := d.exec; {
		case x == nil || d.lane.typ.Internal:
		case x.node() == p.o.Node && (x.lease == nil || x.lease.worker == nil):
			own.Work = append(own.Work, x.atWork())
		default:
			work[x.lease.node] = append(work[x.lease.node], x.atWork())
		}
	}
	var others []jobs.Worker
	for name, w := range r.workers.byName {
		node := cmp.Or(jobs.WorkingMember(name), p.o.Node)
		others = append(others, jobs.Worker{Name: name, Node: node, Types: w.types, Seen: w.seen, Work: work[name]})
		delete(work, name)
	}
	for name, all := range work { // those that are not known by name
		others = append(others, jobs.Worker{Name: name, Node: p.o.Node, Work: all})
	}
	slices.SortFunc(others, func(a, b jobs.Worker) int { return strings.Compare(a.Name, b.Name) })
	all := append([]jobs.Worker{own}, others...)
	for i := range all {
		slices.SortFunc(all[i].Work, func(a, b jobs.AtWork) int { return int(a.Since - b.Since) })
	}
	return all
}

// atWork is the execution for lists.
func (x *execution) atWork() jobs.AtWork {
	return jobs.AtWork{ID: x.job.ID, Type: x.job.Type, Since: x.started, Progress: x.progress.now()}
}
