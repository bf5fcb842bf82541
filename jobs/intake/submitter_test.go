package intake_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/api"
	"jobstream/jobs/intake"
	"jobstream/jobs/jobstest"
)

// inbox keeps what is submitted until a test commits or refuses it.
type inbox struct {
	mu      sync.Mutex
	waiting []*jobs.Message
	refuse  []func(error)
	seq     uint64
	err     error // what Submit answers
}

func (b *inbox) Submit(m *jobs.Message, refused func(error)) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return b.err
	}
	b.seq++
	taken := *m // it stays the caller's
	taken.Seq = b.seq
	b.waiting = append(b.waiting, &taken)
	b.refuse = append(b.refuse, refused)
	return nil
}

// take hands out what is waiting.
func (b *inbox) take() ([]*jobs.Message, []func(error)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m, r := b.waiting, b.refuse
	b.waiting, b.refuse = nil, nil
	return m, r
}

// door is a submitter with what a test needs around it.
type door struct {
	*intake.Submitter
	inbox      *inbox
	mu         sync.Mutex
	unfinished int
	sick       error
}

func newDoor(size, unfinished int) *door {
	d := &door{inbox: &inbox{}, unfinished: unfinished}
	d.Submitter = intake.NewSubmitter(intake.SubmitterOptions{
		Inbox: d.inbox, Registry: jobs.NewRegistry(&jobs.Type{Name: "a", RetryCount: 3, Handler: jobstest.Picky{HandlerFunc: jobstest.Nothing}}),
		QueueSize: size, MaxScheduled: size, Timeout: 5 * time.Second,
		Healthy: func() error {
			d.mu.Lock()
			defer d.mu.Unlock()
			return d.sick
		},
	}, unfinished, 0)
	return d
}

func good() *jobs.Submission {
	return &jobs.Submission{Type: "a", Payload: []byte(`{"to":"x"}`), Priority: 2, RetryCount: -1, Tags: []string{"t"}, Timeout: time.Minute}
}

// commit makes messages durable, in their order.
func (d *door) commit(messages ...*jobs.Message) {
	d.mu.Lock()
	d.unfinished += len(messages)
	c := &jobs.Commit{Load: jobs.Load{Unfinished: d.unfinished}}
	d.mu.Unlock()
	for _, m := range messages {
		c.Changes = append(c.Changes, jobs.Change{After: jobs.NewJob(m, &jobs.Type{Name: "a", RetryCount: 3}, true)})
		c.Positions.Jobs = m.Seq
	}
	d.Committed(c)
}

// end makes n jobs finished.
func (d *door) end(n int) {
	d.mu.Lock()
	d.unfinished -= n
	c := &jobs.Commit{Load: jobs.Load{Unfinished: d.unfinished}}
	d.mu.Unlock()
	d.Committed(c)
}

type submittedJob struct {
	job *jobs.Job
	err error
}

// submit submits in the background.
func (d *door) submit(ctx context.Context) <-chan submittedJob {
	answer := make(chan submittedJob, 1)
	go func() {
		j, _, err := d.Submit(ctx, good())
		answer <- submittedJob{j, err}
	}()
	return answer
}

func TestSubmitAnswersAfterTheCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(10, 0)
		answer := d.submit(t.Context())
		synctest.Wait()
		messages, _ := d.inbox.take()
		if len(messages) != 1 || len(answer) != 0 {
			t.Fatalf("%d messages, answered %v", len(messages), len(answer) != 0)
		}
		m := messages[0]
		if m.Type != "a" || m.Priority != 2 || string(m.Payload) != `{"to":"x"}` || m.RetryCount != -1 || m.Timeout != time.Minute || !slices.Equal(m.Tags, []string{"t"}) || m.ID.Version() != 7 {
			t.Errorf("message %+v", m)
		}
		if !d.Checked(m.ID) || d.Checked(jobs.NewID()) {
			t.Error("it does not know what it has checked")
		}
		d.commit()
		synctest.Wait()
		if len(answer) != 0 {
			t.Error("a commit of something else answered it")
		}
		d.commit(m)
		if a := <-answer; a.err != nil || a.job.ID != m.ID {
			t.Errorf("got %+v", a)
		}
		if d.Checked(m.ID) {
			t.Error("it still waits")
		}
	})
}

func TestSubmitReleasesEachItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(10, 0)
		var answers []<-chan submittedJob
		for range 3 {
			answers = append(answers, d.submit(t.Context()))
			synctest.Wait()
		}
		messages, _ := d.inbox.take()
		d.commit(messages[0], messages[1])
		synctest.Wait()
		for i, want := range []int{1, 1, 0} {
			if len(answers[i]) != want {
				t.Errorf("after the first commit submission %d has %d answers, want %d", i, len(answers[i]), want)
			}
		}
		d.commit(messages[2])
		for i, answer := range answers {
			if a := <-answer; a.err != nil || a.job.ID != messages[i].ID || a.job.Seq != uint64(i+1) {
				t.Errorf("submission %d: %+v", i, a)
			}
		}
	})
}

func TestSubmitRefuses(t *testing.T) {
	tests := []struct {
		name string
		door func() *door
		sub  *jobs.Submission
		want string
		wait bool // Retry-After is said
	}{
		{name: "unknown type", sub: &jobs.Submission{Type: "b"}, want: "unknown_type /type"},
		{name: "bad payload", sub: &jobs.Submission{Type: "a", Payload: []byte(`{}`)}, want: "invalid_request /payload/to"},
		{name: "full", door: func() *door { return newDoor(3, 3) }, want: "queue_full", wait: true},
		{name: "more than full", door: func() *door { return newDoor(3, 7) }, want: "queue_full", wait: true},
		{name: "draining", door: func() *door { d := newDoor(3, 0); d.Drain(); return d }, want: "shutting_down", wait: true},
		{name: "sick", door: func() *door { d := newDoor(3, 0); d.sick = errors.New("disk full"); return d }, want: "unavailable", wait: true},
		{name: "sick and unknown", door: func() *door { d := newDoor(3, 0); d.sick = errors.New("disk full"); return d }, sub: &jobs.Submission{Type: "b"}, want: "unknown_type /type"},
		{name: "the broker is away", door: func() *door { d := newDoor(3, 0); d.inbox.err = errors.New("no connection"); return d }, want: "unavailable", wait: true},
		{name: "too large for the broker", door: func() *door {
			d := newDoor(3, 0)
			d.inbox.err = &jobs.Error{Kind: jobs.PayloadTooLarge}
			return d
		}, want: "payload_too_large"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, sub := newDoor(3, 0), tt.sub
			if tt.door != nil {
				d = tt.door()
			}
			if sub == nil {
				sub = good()
			}
			for range 5 { // a refusal leaves nothing behind that counts
				j, _, err := d.Submit(t.Context(), sub)
				if got := jobstest.Failure(t, err); got != tt.want || j != nil {
					t.Fatalf("got %v, %q, want %q", j, got, tt.want)
				}
				if e, _ := jobs.AsError(err); (api.RetryAfterSeconds(e) != "") != tt.wait {
					t.Errorf("Retry-After is %q", api.RetryAfterSeconds(e))
				}
			}
			if m, _ := d.inbox.take(); len(m) != 0 {
				t.Errorf("%d messages went out", len(m))
			}
		})
	}
}

func TestSubmitHearsTheQueuesRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(1, 0)
		answer := d.submit(t.Context())
		synctest.Wait()
		_, refuse := d.inbox.take()
		full := &jobs.Error{Kind: jobs.QueueFull, Detail: "the stream is full"}
		refuse[0](full)
		if a := <-answer; !errors.Is(a.err, full) {
			t.Errorf("got %+v", a)
		}
		refuse[0](full) // a second time does nothing
		answer = d.submit(t.Context())
		synctest.Wait()
		messages, refuse := d.inbox.take()
		if len(messages) != 1 {
			t.Fatalf("the refused one still counts: %+v", <-answer)
		}
		d.commit(messages[0])
		refuse[0](full)
		if a := <-answer; a.err != nil {
			t.Errorf("refused after its commit: %v", a.err)
		}
	})
}

// A submission that a stream has lost or could not take is published again, with the same id.
func TestSubmitAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &door{inbox: &inbox{}}
		d.Submitter = intake.NewSubmitter(intake.SubmitterOptions{
			Inbox: d.inbox, Registry: jobs.NewRegistry(&jobs.Type{Name: "a", Handler: jobstest.Picky{HandlerFunc: jobstest.Nothing}}),
			QueueSize: 1, Timeout: 5 * time.Second, Resubmit: time.Second, Healthy: func() error { return nil },
		}, 0, 0)
		go func() { _ = d.Run(t.Context()) }()
		for _, refusal := range []error{nil, &jobs.Error{Kind: jobs.Unavailable, Detail: "nobody leads the stream"}} {
			begin := time.Now()
			answer := d.submit(t.Context())
			synctest.Wait()
			first, refuse := d.inbox.take()
			if refusal != nil {
				refuse[0](refusal)
			}
			var again []*jobs.Message
			for len(again) == 0 {
				time.Sleep(10 * time.Millisecond) // by the bubble's clock, like the other ones
				again, _ = d.inbox.take()
			}
			if first[0].Again || !again[0].Again {
				t.Errorf("the first one says that it is a copy: %v; the second one: %v", first[0].Again, again[0].Again)
			}
			if took := time.Since(begin); again[0].ID != first[0].ID || took > 1300*time.Millisecond || (refusal == nil) != (took >= time.Second) {
				t.Errorf("after %v, %v came again, want %v", took, again[0].ID, first[0].ID)
			}
			d.commit(again[0])
			d.end(1)
			if a := <-answer; a.err != nil {
				t.Errorf("got %+v", a)
			}
			time.Sleep(5 * time.Second)
			if more, _ := d.inbox.take(); len(more) > 0 {
				t.Errorf("%d came after the commit", len(more))
			}
		}
	})
}

// TestAdmissionIsExact submits 50 jobs at once. Exactly as many get in as there is
// room, and ended jobs make room again.
func TestAdmissionIsExact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(10, 0)
		answers := make(chan submittedJob, 50)
		for range 3 {
			for range 50 {
				go func() {
					j, _, err := d.Submit(t.Context(), good())
					answers <- submittedJob{j, err}
				}()
			}
			for range 40 {
				if a := <-answers; jobstest.Failure(t, a.err) != "queue_full" {
					t.Fatalf("got %+v", a)
				}
			}
			synctest.Wait() // the others wait for their commit
			in, _ := d.inbox.take()
			if len(in) != 10 || len(answers) != 0 {
				t.Fatalf("%d are on their way, %d answered, want 10 and 0", len(in), len(answers))
			}
			d.commit(in[:4]...)
			if _, _, err := d.Submit(t.Context(), good()); jobstest.Failure(t, err) != "queue_full" {
				t.Fatalf("an eleventh, between two commits: %v", err)
			}
			d.commit(in[4:]...)
			for range 10 {
				if a := <-answers; a.err != nil {
					t.Fatal(a.err)
				}
			}
			if _, _, err := d.Submit(t.Context(), good()); jobstest.Failure(t, err) != "queue_full" {
				t.Fatalf("an eleventh: %v", err)
			}
			d.end(10)
		}
	})
}

func TestSubmitTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(1, 0)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- d.Run(ctx) }()
		begin := time.Now()
		a := <-d.submit(t.Context())
		if jobstest.Failure(t, a.err) != "unavailable" || !strings.Contains(a.err.Error(), "may or may not run") {
			t.Errorf("got %+v", a)
		}
		if took := time.Since(begin); took < 5*time.Second || took > 6*time.Second {
			t.Errorf("it took %s", took)
		}
		late, _ := d.inbox.take()
		answer := d.submit(t.Context())
		synctest.Wait()
		messages, _ := d.inbox.take()
		if len(messages) != 1 {
			t.Fatalf("the one that timed out still counts: %+v", <-answer)
		}
		d.commit(late...) // nobody waits for it any more
		synctest.Wait()
		if len(answer) != 0 {
			t.Errorf("the late one answered another: %+v", <-answer)
		}
		d.commit(messages...)
		if a := <-answer; a.err != nil || a.job.ID != messages[0].ID {
			t.Errorf("got %+v", a)
		}
		d.end(2)
		d.mu.Lock()
		d.sick = nil
		d.mu.Unlock()
		answer = d.submit(t.Context())
		synctest.Wait()
		d.mu.Lock()
		d.sick = errors.New("no space left on device")
		d.mu.Unlock()
		if a := <-answer; jobstest.Failure(t, a.err) != "unavailable" || !strings.Contains(a.err.Error(), "no space left") {
			t.Errorf("the reason is not said: %+v", a)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestSubmitterGivesUp ends Run during a wait: no more commits come.
func TestSubmitterGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(5, 0)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- d.Run(ctx) }()
		first, second := d.submit(t.Context()), d.submit(t.Context())
		synctest.Wait()
		begin := time.Now()
		stop()
		for _, c := range []<-chan submittedJob{first, second} {
			if a := <-c; jobstest.Failure(t, a.err) != "unavailable" || !strings.Contains(a.err.Error(), "may or may not run") {
				t.Errorf("got %+v", a)
			}
		}
		if took := time.Since(begin); took != 0 {
			t.Errorf("it took %s", took)
		}
		if _, _, err := d.Submit(t.Context(), good()); jobstest.Failure(t, err) != "shutting_down" {
			t.Errorf("a later one got %v", err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestSubmitterEndsWithItsCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(1, 0)
		gone := errors.New("the client hung up")
		ctx, cancel := context.WithCancelCause(t.Context())
		answer := d.submit(ctx)
		synctest.Wait()
		cancel(gone)
		if a := <-answer; !errors.Is(a.err, gone) {
			t.Errorf("got %+v", a)
		}
		// it is on its way nevertheless, so it counts
		if _, _, err := d.Submit(t.Context(), good()); jobstest.Failure(t, err) != "queue_full" {
			t.Errorf("got %v", err)
		}
		messages, _ := d.inbox.take()
		d.commit(messages...)
		d.end(1)
		answer = d.submit(t.Context())
		synctest.Wait()
		messages, _ = d.inbox.take()
		d.commit(messages...)
		if a := <-answer; a.err != nil {
			t.Errorf("afterwards: %v", a.err)
		}
	})
}

func TestDrainLetsThoseInThatAreOnTheirWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(5, 0)
		answer := d.submit(t.Context())
		synctest.Wait()
		d.Drain()
		if _, _, err := d.Submit(t.Context(), good()); jobstest.Failure(t, err) != "shutting_down" {
			t.Errorf("got %v", err)
		}
		messages, _ := d.inbox.take()
		d.commit(messages...)
		if a := <-answer; a.err != nil {
			t.Errorf("got %v", a.err)
		}
	})
}
