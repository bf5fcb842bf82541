package pool_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/jobstest"
)

// terms submits with terms.
func terms(t jobs.Terms) func(*jobs.Message) {
	return func(m *jobs.Message) { m.Terms = &t }
}

// in is the moment after d.
func in(d time.Duration) jobs.Time { return jobs.Now().Add(d) }

// TestDeliveryOfAJobThatIsNotInTheQueue: its message is useless, or not needed yet; the
// job will be published again.
func TestDeliveryOfAJobThatIsNotInTheQueue(t *testing.T) {
	for name, change := range map[string]func(*jobs.Job){
		"scheduled":      func(j *jobs.Job) { j.Status, j.Place, j.DueAt = jobs.Scheduled, jobs.Due, in(time.Hour) },
		"scheduled, due": func(j *jobs.Job) { j.Status, j.Place, j.DueAt = jobs.Scheduled, jobs.Due, jobs.Now() },
		"held":           func(j *jobs.Job) { j.Place = jobs.Held },
		"to run again":   func(j *jobs.Job) { j.Status = jobs.Failed; j.Rerun(jobs.Now()) },
	} {
		t.Run(name, func(t *testing.T) {
			inRig(t, rigOptions{}, func(r *rig) {
				seq := r.preset("a3", change)
				r.quiet()
				r.want("calls", r.said(), fmt.Sprintf("ack %d", seq))
				r.want("running", r.running(), "")
				pass(time.Hour)
				r.change(seq, func(j *jobs.Job) { j.Place = jobs.Due }) // its turn has come
				next := r.publish(seq)
				r.quiet()
				r.want("when it is in the queue again", r.running(), fmt.Sprint(next))
				r.finish(next)
				r.want("calls", r.said(), fmt.Sprintf("ack %d", next))
				r.want("status", r.job(seq).Status.String(), "completed")
			})
		})
	}
}

func TestScheduledJobHoldsUpNoLesserLane(t *testing.T) {
	inRig(t, rigOptions{workers: 1}, func(r *rig) {
		r.submit("a5")
		r.quiet()
		r.submit("a5")
		r.quiet()
		r.pool.Committed(&jobs.Commit{Positions: jobs.Positions{Jobs: 10}, Changes: []jobs.Change{
			{After: &jobs.Job{Seq: 10, Type: "b", Priority: 1, Status: jobs.Scheduled, Place: jobs.Due, DueAt: in(time.Hour)}},
		}})
		r.finish(1)
		r.want("running", r.running(), "2")
	})
}

func TestExpiryAndDeadlineBeforeTheStart(t *testing.T) {
	again := func(j *jobs.Job) {
		j.Status, j.Attempt, j.Failures, j.DueAt = jobs.Retrying, 1, 1, in(time.Minute)
		j.Errors = []jobs.AttemptError{{Attempt: 1, Error: "no luck"}}
	}
	tests := []struct {
		name   string
		terms  jobs.Terms
		before func(*jobs.Job)
		want   string // brief; %s is the moment after a minute
		kind   string
		errors int
	}{
		{name: "expired", terms: jobs.Terms{ExpiresAt: 1}, want: "cancelled 0/0 expired: it had not started by %s", kind: "cancelled"},
		{name: "deadline", terms: jobs.Terms{Deadline: 1}, want: "failed 0/0 deadline exceeded at %s", kind: "failed", errors: 1},
		{name: "both at once", terms: jobs.Terms{ExpiresAt: 1, Deadline: 1}, want: "cancelled 0/0 expired: it had not started by %s", kind: "cancelled"},
		{name: "the deadline of a retry", terms: jobs.Terms{Deadline: 1}, before: again, want: "failed 1/1 deadline exceeded at %s", kind: "failed", errors: 2},
		{name: "the deadline after a release", terms: jobs.Terms{Deadline: 1}, before: func(j *jobs.Job) { j.Attempt = 1 }, want: "failed 1/0 deadline exceeded at %s", kind: "failed", errors: 1},
		{name: "the deadline of one whose worker died", terms: jobs.Terms{Deadline: 1}, before: func(j *jobs.Job) { j.Attempt, j.Lost = 1, 1 }, want: "failed 1/0 deadline exceeded at %s", kind: "failed", errors: 1},
		{name: "the expiry of a retry does not count", terms: jobs.Terms{ExpiresAt: 1}, before: again, want: "processing 2/1"},
		{name: "the expiry after a release does not count", terms: jobs.Terms{ExpiresAt: 1}, before: func(j *jobs.Job) { j.Attempt = 1 }, want: "processing 1/0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inRig(t, rigOptions{workers: 1}, func(r *rig) {
				r.submit("a1")
				r.quiet()
				at := in(time.Minute)
				if tt.terms.ExpiresAt != 0 {
					tt.terms.ExpiresAt = at
				}
				if tt.terms.Deadline != 0 {
					tt.terms.Deadline = at
				}
				seq := r.preset("a3", func(j *jobs.Job) {
					j.Terms = &tt.terms
					if tt.before != nil {
						tt.before(j)
					}
				})
				pass(time.Minute)
				r.finish(1)
				r.said()
				want := tt.want
				if strings.Contains(want, "%s") {
					want = fmt.Sprintf(want, at)
				}
				pass(time.Second)
				j := r.job(seq)
				got := jobstest.Brief(j)
				if !j.Status.Ended() {
					got, _, _ = strings.Cut(got, " no luck")
					r.want("record", got, want)
					return
				}
				r.want("record", got, want)
				r.want("events", r.log(seq), tt.kind)
				r.want("begun", r.begun(), "a1/1")
				if len(j.Errors) != tt.errors || j.EndedAt < at {
					t.Errorf("it has ended at %s, with the errors %v", j.EndedAt, j.Errors)
				}
				if n := len(r.left()); n != 0 {
					t.Errorf("%d messages are left", n)
				}
				r.submit("a3")
				r.quiet()
				r.want("the worker is free", r.running(), fmt.Sprint(seq+1))
			})
		})
	}
}

func TestDeadlineEndsAnAttempt(t *testing.T) {
	tests := []struct {
		name string
		deaf bool
		err  error // of the handler, when its context has ended; nil = the context's
		want string
	}{
		{name: "heard", want: "failed 1/1 deadline exceeded at %s"},
		{name: "with words of its own", err: errors.New("row 5 of 10"), want: "failed 1/1 deadline exceeded at %s: row 5 of 10"},
		{name: "permanently", err: jobs.Permanentf("no such row"), want: "failed 1/1 deadline exceeded at %s: no such row"},
		{name: "snoozing", err: jobs.Snooze(time.Second, "not yet"), want: "failed 1/1 deadline exceeded at %s: snoozed for 1s: not yet"},
		{name: "ignored", deaf: true, want: "failed 1/1 deadline exceeded at %s"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inRig(t, rigOptions{workers: 1}, func(r *rig) {
				r.gate.deaf, r.gate.last = tt.deaf, tt.err
				at := in(time.Minute)
				r.submitWith("a3", terms(jobs.Terms{Deadline: at}))
				r.quiet()
				p := r.passage(1)
				pass(59 * time.Second)
				r.want("before", jobstest.Brief(r.job(1)), "processing 1/0")
				pass(3 * time.Second)
				r.want("after", jobstest.Brief(r.job(1)), fmt.Sprintf(tt.want, at))
				r.want("calls", r.said(), "ack 1")
				if tt.deaf {
					p.end <- verdict{}
					r.quiet()
					r.want("and it stays so", r.job(1).Status.String(), "failed")
				} else if len(r.gate.ended) != 1 || r.gate.ended[0] != "1 deadline exceeded" {
					t.Errorf("the handler heard %v", r.gate.ended)
				}
				if w := r.pool.Workers(); w.Active != 0 {
					t.Errorf("%d workers are active", w.Active)
				}
			})
		})
	}
}

func TestTimeoutBeforeTheDeadline(t *testing.T) {
	a := typ("a")
	a.Timeout = 10 * time.Second
	inRig(t, rigOptions{types: []*jobs.Type{a}}, func(r *rig) {
		r.submitWith("a3", terms(jobs.Terms{Deadline: in(time.Minute)}))
		r.quiet()
		pass(10 * time.Second)
		r.want("the first", jobstest.Brief(r.job(1)), "retrying 1/1 timed out after 10s")
	})
}

func TestRetriesEndWithTheDeadline(t *testing.T) {
	a := typ("a")
	a.Backoff = jobs.Backoff{Kind: jobs.Constant, Base: 10 * time.Second}
	inRig(t, rigOptions{types: []*jobs.Type{a}}, func(r *rig) {
		at := in(25 * time.Second)
		r.submitWith("a3", terms(jobs.Terms{Deadline: at}))
		r.quiet()
		for range 2 {
			r.end(verdict{err: errors.New("no luck")}, 1)
			r.want("status", r.job(1).Status.String(), "retrying")
			pass(10 * time.Second)
		}
		r.said()
		r.end(verdict{err: errors.New("no luck")}, 1)
		r.want("record", jobstest.Brief(r.job(1)), fmt.Sprintf("failed 3/3 no luck; the deadline at %s leaves no time for another attempt", at))
		r.want("calls", r.said(), "ack 1")
	})
}

func TestSnooze(t *testing.T) {
	for name, err := range map[string]error{
		"plain":   jobs.Snooze(time.Minute, "not there yet"),
		"wrapped": fmt.Errorf("looking for the file: %w", jobs.Snooze(time.Minute, "not there yet")),
	} {
		t.Run(name, func(t *testing.T) {
			inRig(t, rigOptions{}, func(r *rig) {
				r.submitWith("a3", func(m *jobs.Message) { m.RetryCount = 0 })
				r.quiet()
				begin := jobs.Now()
				r.end(verdict{err: err, result: jobs.Result{Value: 1}}, 1)
				j := r.job(1)
				r.want("record", jobstest.Brief(j), "scheduled 1/0")
				r.want("message", j.Message, "not there yet")
				r.want("calls", r.said(), "ack 1")
				r.want("history", jobstest.Kinds(j), "submitted started snoozed")
				if j.DueAt != begin.Add(time.Minute) || j.Place != jobs.Due || j.Result != nil {
					t.Errorf("due at %s, place %d, result %s", j.DueAt, j.Place, j.Result)
				}
				pass(time.Minute)
				next := r.publish(1)
				r.quiet()
				if n := r.passage(next).task.Attempt; n != 1 {
					t.Errorf("it comes back with attempt %d, want 1", n)
				}
				r.finish(next)
				r.want("in the end", jobstest.Brief(r.job(1)), "completed 1/0 100%")
				r.want("calls", r.said(), "ack 2")
			})
		})
	}
}

func TestSnoozeIsNoWayOutOfATimeout(t *testing.T) {
	a := typ("a")
	a.Timeout = 10 * time.Second
	inRig(t, rigOptions{types: []*jobs.Type{a}}, func(r *rig) {
		r.gate.last = jobs.Snooze(time.Second, "not yet")
		r.submit("a3")
		r.quiet()
		pass(10 * time.Second)
		r.want("record", jobstest.Brief(r.job(1)), "retrying 1/1 timed out after 10s: snoozed for 1s: not yet")
	})
}

// TestSnoozeThatDoesNotCount comes again: nobody else would publish the job.
func TestSnoozeThatDoesNotCount(t *testing.T) {
	inRig(t, rigOptions{}, func(r *rig) {
		r.submit("a3")
		r.quiet()
		r.hold(true)
		r.end(verdict{err: jobs.Snooze(time.Minute, "")}, 1)
		r.change(1, func(j *jobs.Job) { j.StartedAt++ })
		r.hold(false)
		r.quiet()
		r.want("calls", r.said(), "nak 1 59.99s") // a moment has passed
	})
}

func TestRetryOfAKeyedJobLeavesTheQueue(t *testing.T) {
	inRig(t, rigOptions{}, func(r *rig) {
		r.submitWith("a3", terms(jobs.Terms{ConcurrencyKey: "k"}))
		r.quiet()
		r.end(verdict{err: errors.New("no luck")}, 1)
		r.want("record", jobstest.Brief(r.job(1)), "retrying 1/1 no luck")
		r.want("calls", r.said(), "ack 1")
		pass(time.Second)
		next := r.publish(1)
		r.quiet()
		r.want("in time", r.running(), fmt.Sprint(next))
		r.finish(next)
		r.want("record", jobstest.Brief(r.job(1)), "completed 2/1 100%")
	})
}
