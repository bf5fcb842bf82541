package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/api"
	"jobstream/jobs/intake"
	"jobstream/jobs/jobstest"
)

// desk is an Operator over jobs in memory, by key.
type desk struct {
	op      *api.Operator
	waits   *intake.Waits
	mu      sync.Mutex // guards all for find and requeue
	all     map[uint64]*jobs.Job
	broken  error          // what everything answers, unless nil
	refuse  *jobs.Error    // what Retry says of every job, unless nil
	behind  func()         // runs once before the next change: somebody was faster
	sent    []jobs.Message // what Bulk submitted
	scanned bool
	starts  bool // an attempt at each job is about to begin
}

func newDesk(list ...*jobs.Job) *desk {
	d := &desk{all: make(map[uint64]*jobs.Job), waits: intake.NewWaits()}
	for _, j := range list {
		d.all[j.Key] = j
	}
	d.op = api.NewOperator(api.OperatorOptions{Doer: d, History: d, Find: d.find, Remove: d.remove, Submit: d.submit, Waits: d.waits, Pin: d.pin})
	return d
}

// job makes one with a status; its key is the number of that.
func jobWith(status jobs.Status) *jobs.Job {
	return &jobs.Job{ID: jobs.NewID(), Key: uint64(status), Seq: uint64(status), Type: "email", Status: status, Run: 1, MaxAttempts: 4}
}

func (d *desk) pin(*jobs.Job) (release func(), ok bool) { return func() {}, !d.starts }

func (d *desk) meanwhile() {
	if f := d.behind; f != nil {
		d.behind = nil
		f()
	}
}

func (d *desk) Do(_ context.Context, c jobs.Command) (r jobs.Effect, err error) {
	d.meanwhile()
	if by := c.Origin(); by.Actor != "somebody" || by.At == 0 {
		return r, fmt.Errorf("it comes from %+v", by)
	}
	switch c := c.(type) {
	case jobs.Cancel:
		d.change(c.Keys, func(j *jobs.Job) bool { return j.Cancel(c.At, c.Reason) }, &r)
	case jobs.RunNow:
		d.change(c.Keys, func(j *jobs.Job) bool { return j.RunNow(c.At) }, &r)
	case jobs.Revise:
		d.change([]uint64{c.Key}, func(j *jobs.Job) bool {
			changed, err := j.Revise(&c)
			if e, ok := jobs.AsError(err); ok {
				r.Refused = append(r.Refused, jobs.Refusal{ID: j.ID, Err: e})
			}
			return changed
		}, &r)
	case jobs.Retry:
		d.change(c.Keys, func(j *jobs.Job) bool {
			switch {
			case j.Status != jobs.Failed && j.Status != jobs.Cancelled:
				return false
			case d.refuse != nil:
				r.Refused = append(r.Refused, jobs.Refusal{ID: j.ID, Err: d.refuse})
				return false
			}
			j.Rerun(c.At)
			return true
		}, &r)
	}
	return r, d.broken
}

func (d *desk) change(keys []uint64, f func(*jobs.Job) bool, r *jobs.Effect) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, k := range keys {
		if j := d.all[k]; j != nil {
			if j = j.Clone(); f(j) {
				d.all[k] = j
				r.Changed = append(r.Changed, j)
			}
		}
	}
}

func (d *desk) remove(_ context.Context, list []*jobs.Job) (deleted int, freed int64, err error) {
	d.meanwhile()
	for _, j := range list {
		if now := d.all[j.Key]; now != nil && now.Status.Ended() {
			delete(d.all, j.Key)
			deleted++
		}
	}
	return deleted, 0, d.broken
}

func (d *desk) find(_ context.Context, id jobs.ID) (*jobs.Job, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, j := range d.all {
		if j.ID == id {
			return j, d.broken
		}
	}
	return nil, d.broken
}

func (d *desk) submit(_ context.Context, m *jobs.Message) (*jobs.Job, bool, error) {
	d.sent = append(d.sent, *m)
	m.Seq = 99
	return jobs.NewJob(m, &jobs.Type{Name: m.Type, Handler: jobstest.Nothing}, true), m.Token != nil, d.broken
}

func (d *desk) Count(f jobs.Filter) (n int, err error) {
	for _, j := range d.all {
		if f.Match(j) {
			n++
		}
	}
	return n, d.broken
}

func (d *desk) Scan(_ context.Context, f jobs.Filter, yield func(*jobs.Job) error) error {
	d.scanned = true
	for _, j := range d.all {
		if f.Match(j) {
			if err := yield(j); err != nil {
				return err
			}
		}
	}
	return d.broken
}

// requeue puts a job into the queue as the releaser does.
func (d *desk) requeue(key uint64) {
	d.mu.Lock()
	was := d.all[key]
	j := was.Clone()
	j.Enqueue(key+100, jobs.Now())
	d.all[key] = j
	d.mu.Unlock()
	d.waits.Committed(&jobs.Commit{Changes: []jobs.Change{{Before: was, After: j}}})
}

func TestOperatorCancel(t *testing.T) {
	for s := jobs.Scheduled; int(s) < jobs.NumStatus; s++ {
		d := newDesk(jobWith(s))
		j, err := d.op.Cancel(t.Context(), "somebody", d.all[uint64(s)], "no need")
		want := ""
		if s.Ended() {
			want = "conflict"
		}
		if got := jobstest.Failure(t, err); got != want {
			t.Errorf("%s: %q, want %q", s, got, want)
		}
		if want == "" && (j.Status != jobs.Cancelled || j.Error != "no need") {
			t.Errorf("%s became %+v", s, j)
		}
	}
}

func (d *desk) operations() map[string]func(ctx context.Context, j *jobs.Job) error {
	return map[string]func(ctx context.Context, j *jobs.Job) error{
		"cancel": func(ctx context.Context, j *jobs.Job) error {
			_, err := d.op.Cancel(ctx, "somebody", j, "")
			return err
		},
		"retry":  func(ctx context.Context, j *jobs.Job) error { _, err := d.op.Retry(ctx, "somebody", j); return err },
		"delete": d.op.Delete,
	}
}

// TestOperatorTooLate has the job change, or go, after it was looked up.
func TestOperatorTooLate(t *testing.T) {
	for name, from := range map[string]jobs.Status{"cancel": jobs.Processing, "retry": jobs.Failed, "delete": jobs.Completed} {
		j := jobWith(from)
		d := newDesk(j)
		d.behind = func() { delete(d.all, j.Key) }
		if got := jobstest.Failure(t, d.operations()[name](t.Context(), j)); got != "not_found" {
			t.Errorf("%s of a job that is gone: %q", name, got)
		}
		d = newDesk(j)
		d.behind = func() {
			changed := j.Clone()
			changed.Status = map[bool]jobs.Status{true: jobs.Completed, false: jobs.Pending}[name == "cancel"]
			d.all[j.Key] = changed
		}
		if got := jobstest.Failure(t, d.operations()[name](t.Context(), j)); got != "conflict" {
			t.Errorf("%s of a job that changed: %q", name, got)
		}
		d = newDesk(j)
		d.broken = errors.New("boom")
		if err := d.operations()[name](t.Context(), j); !errors.Is(err, d.broken) {
			t.Errorf("%s of a broken tracker: %v", name, err)
		}
	}
}

func TestOperatorRetry(t *testing.T) {
	for s := jobs.Scheduled; int(s) < jobs.NumStatus; s++ {
		synctest.Test(t, func(t *testing.T) {
			d := newDesk(jobWith(s))
			old := d.all[uint64(s)]
			want := "conflict"
			if s == jobs.Failed || s == jobs.Cancelled {
				want = ""
				// Its message comes into the queue while the answer waits.
				time.AfterFunc(time.Second, func() { d.requeue(old.Key) })
			}
			start := time.Now()
			j, err := d.op.Retry(t.Context(), "somebody", old)
			if got := jobstest.Failure(t, err); got != want {
				t.Fatalf("%s: %q, want %q", s, got, want)
			}
			if want != "" {
				return
			}
			if j.Place != jobs.InQueue || j.Status != jobs.Pending || j.Run != 2 || j.Seq != old.Seq+100 {
				t.Errorf("%s became %+v", s, j)
			}
			if took := time.Since(start); took != time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) { // nobody puts it into the queue
		d := newDesk(jobWith(jobs.Failed))
		start := time.Now()
		j, err := d.op.Retry(t.Context(), "somebody", d.all[uint64(jobs.Failed)])
		if err != nil || j.Status != jobs.Pending || time.Since(start) != 2*time.Second {
			t.Errorf("%+v, %v after %s", j, err, time.Since(start))
		}
	})
	d := newDesk(jobWith(jobs.Failed))
	d.refuse = &jobs.Error{Kind: jobs.Duplicate, Detail: "taken", JobID: jobs.NewID()}
	_, err := d.op.Retry(t.Context(), "somebody", d.all[uint64(jobs.Failed)])
	if got, _ := jobs.AsError(err); got != d.refuse {
		t.Errorf("a refused retry: %v", err)
	}
}

func TestOperatorRevise(t *testing.T) {
	changes := map[string]func(d *desk, j *jobs.Job) (*jobs.Job, error){
		"run now": func(d *desk, j *jobs.Job) (*jobs.Job, error) { return d.op.RunNow(t.Context(), "somebody", j) },
		"revise": func(d *desk, j *jobs.Job) (*jobs.Job, error) {
			return d.op.Revise(t.Context(), "somebody", j, jobs.Revise{Priority: 1})
		},
	}
	for name, change := range changes {
		for s := jobs.Scheduled; int(s) < jobs.NumStatus; s++ {
			j := jobWith(s)
			j.Priority = 3
			d := newDesk(j)
			waits := make(chan struct{})
			go func() { // the releaser
				defer close(waits)
				for {
					d.mu.Lock()
					due := d.all[j.Key] != nil && d.all[j.Key].Place == jobs.Due
					d.mu.Unlock()
					if due || !s.Waits() || s == jobs.Pending || name == "revise" {
						break
					}
					runtime.Gosched()
				}
				if s.Waits() && s != jobs.Pending && name != "revise" {
					d.requeue(j.Key)
				}
			}()
			now, err := change(d, j)
			<-waits
			want := "conflict"
			if s.Waits() {
				want = ""
			}
			if got := jobstest.Failure(t, err); got != want {
				t.Errorf("%s of a %s job: %q, want %q", name, s, got, want)
			}
			if want == "" && name == "revise" && now.Priority != 1 || want == "" && name != "revise" && (now.Status != jobs.Pending || now.Place != jobs.InQueue) {
				t.Errorf("%s of a %s job: %+v", name, s, now)
			}
			if s != jobs.Scheduled {
				continue
			}
			d = newDesk(jobWith(s))
			d.starts = true
			if _, err := change(d, d.all[uint64(s)]); jobstest.Failure(t, err) != "conflict" {
				t.Errorf("%s of a job that is about to start: %v", name, err)
			}
			d.starts = false
			d.behind = func() { delete(d.all, uint64(s)) }
			if _, err := change(d, d.all[uint64(s)]); jobstest.Failure(t, err) != "not_found" {
				t.Errorf("%s of a job that is gone: %v", name, err)
			}
		}
	}
}

func TestOperatorDelete(t *testing.T) {
	for s := jobs.Scheduled; int(s) < jobs.NumStatus; s++ {
		d := newDesk(jobWith(s))
		got := jobstest.Failure(t, d.op.Delete(t.Context(), d.all[uint64(s)]))
		if want := map[bool]string{true: "", false: "conflict"}[s.Ended()]; got != want || (len(d.all) == 0) != s.Ended() {
			t.Errorf("%s: %q with %d left, want %q", s, got, len(d.all), want)
		}
	}
}

func TestOperatorBulk(t *testing.T) {
	d := newDesk()
	token := jobs.NewToken("http", "k", nil)
	request := json.RawMessage(`{"action":"cancel","all":true}`)
	j, replayed, err := d.op.Bulk(t.Context(), "somebody", request, token)
	if err != nil || !replayed || j.Type != api.BulkType || string(j.Payload) != string(request) || j.Priority != jobs.HighestPriority {
		t.Errorf("%+v, %v, %v", j, replayed, err)
	}
	if m := d.sent[0]; m.Token != token || m.RetryCount != -1 || m.ID != j.ID {
		t.Errorf("it sent %+v", m)
	}
}

func TestOperatorCountBulk(t *testing.T) {
	var list []*jobs.Job
	for s := jobs.Scheduled; int(s) < jobs.NumStatus; s++ {
		list = append(list, jobWith(s))
	}
	own := jobWith(jobs.Processing)
	own.Key, own.Type, own.CreatedAt = 100, api.BulkType, 1
	ended := jobWith(jobs.Completed)
	ended.Key, ended.Type = 101, api.BulkType
	list = append(list, own, ended)
	for _, tt := range []struct {
		body  string
		want  int
		scans bool
	}{
		{body: `{"action":"cancel","all":true}`, want: 4},
		{body: `{"action":"retry","all":true}`, want: 2},
		{body: `{"action":"delete","all":true}`, want: 3},
		{body: `{"action":"delete","filter":{"type":["email","jobstream-bulk"]}}`, want: 3},
		{body: `{"action":"delete","filter":{"type":"jobstream-bulk"}}`, want: 0},
		{body: `{"action":"cancel","filter":{"type":"email","status":["pending","failed"]}}`, want: 1},
		{body: `{"action":"cancel","filter":{"status":"failed"}}`, want: 0},
		{body: `{"action":"cancel","filter":{"type":"export"}}`, want: 0},
		{body: `{"action":"cancel","filter":{"created_before":"2030-01-01"}}`, want: 4, scans: true},
		{body: `{"action":"cancel","filter":{"error":"x"}}`, want: 0, scans: true},
	} {
		d := newDesk(list...)
		b, err := api.ParseBulk([]byte(tt.body), "")
		if err != nil {
			t.Fatal(err)
		}
		n, err := d.op.CountBulk(t.Context(), b)
		if err != nil || n != tt.want || d.scanned != tt.scans {
			t.Errorf("%s: %d, %v, scanned %v; want %d, %v", tt.body, n, err, d.scanned, tt.want, tt.scans)
		}
		d.broken = errors.New("boom")
		if _, none := b.Target(); !none {
			if _, err := d.op.CountBulk(t.Context(), b); !errors.Is(err, d.broken) {
				t.Errorf("%s of a broken tracker: %v", tt.body, err)
			}
		}
	}
}
