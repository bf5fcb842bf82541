package pool_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"jobstream/jobs"
	"jobstream/jobs/jobstest"
	"jobstream/jobs/strict"
)

func TestOutcomes(t *testing.T) {
	tests := []struct {
		name    string
		retries int
		end     verdict
		want    string // brief
		result  string
		said    string
	}{
		{name: "nothing to say", end: verdict{}, want: "completed 1/0 100%", said: "ack 1"},
		{name: "a result", end: verdict{result: jobs.Result{Value: map[string]int{"n": 3}}}, want: "completed 1/0 100%", result: `{"n":3}`, said: "ack 1"},
		{name: "an error", retries: 1, end: verdict{err: errors.New("no luck")}, want: "retrying 1/1 no luck", said: "nak 1 1s"},
		{name: "an error without retries", end: verdict{err: errors.New("no luck")}, want: "failed 1/1 no luck", said: "ack 1"},
		{name: "an error with a result", retries: 1, end: verdict{err: errors.New("no luck"), result: jobs.Result{Value: 1}}, want: "retrying 1/1 no luck", said: "nak 1 1s"},
		{name: "a permanent error", retries: 5, end: verdict{err: jobs.Permanentf("no such %s", "address")}, want: "failed 1/1 no such address", said: "ack 1"},
		{name: "a wrapped permanent error", retries: 5, end: verdict{err: fmt.Errorf("sending: %w", jobs.Permanentf("550"))}, want: "failed 1/1 sending: 550", said: "ack 1"},
		{name: "a panic", retries: 1, end: verdict{panics: true}, want: "retrying 1/1 panic: boom", said: "nak 1 1s"},
		{name: "a panic without retries", end: verdict{panics: true}, want: "failed 1/1 panic: boom", said: "ack 1"},
		{name: "a result that is not JSON", retries: 5, end: verdict{result: jobs.Result{Value: make(chan int)}}, want: "failed 1/1 the handler's result is not JSON: json: unsupported type: chan int", said: "ack 1"},
		{name: "a result that is too deep", retries: 5, end: verdict{result: jobs.Result{Value: json.RawMessage(nested(strict.MaxDepth + 1))}}, want: "failed 1/1 the handler's result is nested deeper than 128", said: "ack 1"},
		{name: "a result that is too large", retries: 5, end: verdict{result: jobs.Result{Value: strings.Repeat("x", jobs.MaxResult)}}, want: "failed 1/1 the handler's result has 262146 bytes of JSON, at most 262144 are kept; use an artifact", said: "ack 1"},
		{name: "a panic of nothing but a canceled context of its own", retries: 1, end: verdict{err: context.Canceled}, want: "retrying 1/1 context canceled", said: "nak 1 1s"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inRig(t, rigOptions{}, func(r *rig) {
				seq := r.submitWith("a3", func(m *jobs.Message) { m.RetryCount = tt.retries })
				r.quiet()
				r.want("while it runs", r.job(seq).Status.String(), "processing")
				r.end(tt.end, seq)
				j := r.job(seq)
				r.want("record", jobstest.Brief(j), tt.want)
				r.want("result", string(j.Result), tt.result)
				r.want("calls", r.said(), tt.said)
				if j.Node != "here" || j.StartedAt == 0 {
					t.Errorf("started %s on %q", j.StartedAt, j.Node)
				}
			})
		})
	}
}

func TestLongErrorsAreCutBetweenCharacters(t *testing.T) {
	inRig(t, rigOptions{}, func(r *rig) {
		r.submit("a3")
		r.quiet()
		r.end(verdict{err: jobs.Permanent(errors.New("x" + strings.Repeat("é", 5000)))}, 1)
		if e := r.job(1).Error; len(e) < 4000 || len(e) > 4100 || !utf8.ValidString(e) {
			t.Errorf("%d bytes, UTF-8: %v", len(e), utf8.ValidString(e))
		}
	})
}

func TestResultsAreUTF8(t *testing.T) {
	inRig(t, rigOptions{}, func(r *rig) {
		r.submit("a3")
		r.quiet()
		r.end(verdict{result: jobs.Result{Value: json.RawMessage("{\"said\":\"\xff\"}")}}, 1)
		if b := r.job(1).AppendJSON(nil); !utf8.Valid(b) || !json.Valid(b) {
			t.Errorf("the resource is not JSON: %q", b)
		}
	})
}

func TestRetriesComeWithBackoff(t *testing.T) {
	a := typ("a")
	a.Backoff = jobs.Backoff{Kind: jobs.Exponential, Base: 10 * time.Second, Max: 25 * time.Second}
	inRig(t, rigOptions{types: []*jobs.Type{a}}, func(r *rig) {
		r.submit("a3") // 3 retries
		r.quiet()
		for attempt, wait := range []time.Duration{10 * time.Second, 20 * time.Second, 25 * time.Second} {
			if n := r.passage(1).task.Attempt; n != attempt+1 {
				t.Fatalf("attempt %d, want %d", n, attempt+1)
			}
			begin := time.Now()
			r.end(verdict{err: errors.New("again")}, 1)
			r.want("calls", r.said(), "nak 1 "+wait.String())
			j := r.job(1)
			if due := j.DueAt.Std().Sub(begin); j.Status != jobs.Retrying || due != wait {
				t.Errorf("%s, due after %s, want %s", jobstest.Brief(j), due, wait)
			}
			pass(wait - time.Second)
			r.want("before its time", r.running(), "")
			pass(time.Second)
			r.want("in time", r.running(), "1")
			r.quiet()
		}
		r.end(verdict{err: errors.New("enough")}, 1)
		r.want("record", jobstest.Brief(r.job(1)), "failed 4/4 enough")
		if n := len(r.job(1).Errors); n != 4 {
			t.Errorf("%d errors", n)
		}
	})
}

// TestRetryAfter has targets that ask for more patience than the backoff, and for less.
func TestRetryAfter(t *testing.T) {
	a := typ("a")
	a.Backoff = jobs.Backoff{Kind: jobs.ListKind, Delays: []time.Duration{5 * time.Second, time.Hour}}
	inRig(t, rigOptions{types: []*jobs.Type{a}}, func(r *rig) {
		r.submit("a3") // 3 retries
		r.quiet()
		for i, c := range []struct{ asked, want time.Duration }{{time.Minute, time.Minute}, {time.Minute, time.Hour}, {0, time.Hour}} {
			begin := time.Now()
			r.end(verdict{err: fmt.Errorf("answered: %w", jobs.RetryAfter(c.asked, errors.New("429")))}, 1)
			j := r.job(1)
			if due := j.DueAt.Std().Sub(begin); j.Status != jobs.Retrying || due != c.want || j.Error != "answered: 429" {
				t.Errorf("%d: %s, due after %s, want %s", i, jobstest.Brief(j), due, c.want)
			}
			pass(c.want)
			r.quiet()
		}
		r.end(verdict{err: jobs.RetryAfter(time.Minute, errors.New("429"))}, 1)
		r.want("record", jobstest.Brief(r.job(1)), "failed 4/4 429")
	})
}

func TestDeliveryBeforeItsTimeGoesBack(t *testing.T) {
	a := typ("a")
	a.Backoff.Base = time.Minute
	inRig(t, rigOptions{types: []*jobs.Type{a}}, func(r *rig) {
		seq := r.preset("a3", func(j *jobs.Job) {
			j.Status, j.Attempt, j.Failures, j.DueAt = jobs.Retrying, 1, 1, jobs.Now().Add(time.Minute)
		})
		r.quiet()
		r.want("calls", r.said(), fmt.Sprintf("nak %d 1m0s", seq))
		r.want("running", r.running(), "")
		pass(time.Minute)
		r.want("in time", r.running(), fmt.Sprint(seq))
		if n := r.passage(seq).task.Attempt; n != 2 {
			t.Errorf("attempt %d, want 2", n)
		}
	})
}

func TestTimeout(t *testing.T) {
	a := typ("a")
	a.Timeout = 10 * time.Second
	inRig(t, rigOptions{types: []*jobs.Type{a}}, func(r *rig) {
		r.submit("a3")
		own := r.submitWith("a3", func(m *jobs.Message) { m.Timeout, m.RetryCount = 20*time.Second, 0 })
		r.quiet()
		pass(9 * time.Second)
		r.want("before", r.running(), "1 2")
		pass(time.Second)
		j := r.job(1)
		r.want("the type's", jobstest.Brief(j), "retrying 1/1 timed out after 10s")
		r.want("the one with its own", jobstest.Brief(r.job(own)), "processing 1/0")
		pass(10 * time.Second)
		r.want("its own", jobstest.Brief(r.job(own)), "failed 1/1 timed out after 20s")
		if got := strings.Join(r.gate.ended[:1], ""); got != "1 timed out" {
			t.Errorf("the cause was %q", got)
		}
	})
}

// All attempts share one alarm. It is set for an attempt that begins later and ends
// earlier. After a ring, even one in vain, it is set for the next.
func TestTimeoutsOfSeveral(t *testing.T) {
	inRig(t, rigOptions{workers: 4}, func(r *rig) {
		lasting := func(d time.Duration) uint64 {
			return r.submitWith("a3", func(m *jobs.Message) { m.Timeout, m.RetryCount = d, 0 })
		}
		long, short, quick := lasting(60*time.Second), lasting(30*time.Second), lasting(10*time.Second)
		r.quiet()
		r.finish(quick)
		pass(5 * time.Second)
		late := lasting(15 * time.Second)
		r.quiet()
		pass(14 * time.Second)
		r.want("before", r.running(), fmt.Sprint(long, short, late))
		pass(time.Second)
		r.want("the one that came last", jobstest.Brief(r.job(late)), "failed 1/1 timed out after 15s")
		r.want("the others", r.running(), fmt.Sprint(long, short))
		pass(10 * time.Second)
		r.want("the one in the middle", jobstest.Brief(r.job(short)), "failed 1/1 timed out after 30s")
		pass(29 * time.Second)
		r.want("the last one", r.running(), fmt.Sprint(long))
		pass(time.Second)
		r.want("the last one", jobstest.Brief(r.job(long)), "failed 1/1 timed out after 1m0s")
		r.want("the quick one", jobstest.Brief(r.job(quick)), "completed 1/0 100%")
	})
}

func TestDeafHandlerIsGivenUp(t *testing.T) {
	a := typ("a")
	a.Timeout = 10 * time.Second
	inRig(t, rigOptions{workers: 1, types: []*jobs.Type{a}}, func(r *rig) {
		r.gate.deaf = true
		r.submitWith("a3", func(m *jobs.Message) { m.RetryCount = 0 })
		r.submit("a3")
		r.quiet()
		p := r.passage(1)
		pass(10500 * time.Millisecond)
		r.want("half a second late", jobstest.Brief(r.job(1)), "processing 1/0")
		pass(500 * time.Millisecond)
		r.want("a second late", jobstest.Brief(r.job(1)), "failed 1/1 timed out after 10s")
		r.want("its worker's place is free", r.running(), "1 2")
		if w := r.pool.Workers(); w.Active != 1 {
			t.Errorf("%d workers are active", w.Active)
		}
		p.task.Progress(99, "still here")
		p.end <- verdict{result: jobs.Result{Value: "late"}}
		r.quiet()
		r.want("what it says is ignored", jobstest.Brief(r.job(1)), "failed 1/1 timed out after 10s")
		r.want("events", r.log(1), "started failed")
		if w := r.pool.Workers(); w.Active != 1 {
			t.Errorf("%d workers are active", w.Active)
		}
		r.finish(2)
		r.want("calls", r.said(), "ack 1, ack 2")
		if w := r.pool.Workers(); w.Active != 0 {
			t.Errorf("%d workers are active", w.Active)
		}
	})
}

// TestGraceOfAType: a job does not start again while its handler uses its grace.
func TestGraceOfAType(t *testing.T) {
	slow := func() *jobs.Type {
		a := typ("a")
		a.Timeout, a.Grace = 10*time.Second, 30*time.Second
		return a
	}
	t.Run("it returns within it", func(t *testing.T) {
		inRig(t, rigOptions{workers: 2, types: []*jobs.Type{slow()}}, func(r *rig) {
			r.gate.deaf = true
			r.submit("a3")
			r.quiet()
			p := r.passage(1)
			pass(39 * time.Second)
			r.want("one attempt", r.begun(), "a3/1")
			r.want("it still has its worker", jobstest.Brief(r.job(1)), "processing 1/0")
			p.end <- verdict{err: context.DeadlineExceeded}
			r.quiet()
			r.want("what it says counts", jobstest.Brief(r.job(1)), "retrying 1/1 timed out after 10s")
			pass(time.Second)
			r.want("then it starts again", r.begun(), "a3/1 a3/1")
		})
	})
	t.Run("it does not return", func(t *testing.T) {
		inRig(t, rigOptions{workers: 2, types: []*jobs.Type{slow()}}, func(r *rig) {
			r.gate.deaf = true
			r.submit("a3")
			r.quiet()
			p := r.passage(1)
			pass(40 * time.Second)
			r.want("it is given up", jobstest.Brief(r.job(1)), "retrying 1/1 timed out after 10s")
			pass(time.Second)
			r.want("then it starts again", r.begun(), "a3/1 a3/1")
			p.end <- verdict{}
		})
	})
	t.Run("cancelled and retried by hand", func(t *testing.T) {
		inRig(t, rigOptions{workers: 2, types: []*jobs.Type{slow()}}, func(r *rig) {
			r.gate.deaf = true
			r.submit("a3")
			r.quiet()
			p := r.passage(1)
			r.cancel(1, "by hand")
			r.change(1, func(j *jobs.Job) { j.Rerun(jobs.Now()) })
			next := r.publish(1)
			pass(29 * time.Second)
			r.want("one attempt", r.begun(), "a3/1")
			p.end <- verdict{}
			pass(time.Second)
			r.want("the next run", r.running(), fmt.Sprint(next))
		})
	})
	t.Run("a stop", func(t *testing.T) {
		inRig(t, rigOptions{types: []*jobs.Type{typ("b"), slow()}}, func(r *rig) {
			r.gate.deaf = true
			r.submit("a3")
			r.quiet()
			p := r.passage(1)
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			begin := time.Now()
			if err := r.pool.Stop(ctx); err != nil {
				t.Error(err)
			}
			if d := time.Since(begin); d < 30*time.Second || d > 31*time.Second {
				t.Errorf("it took %s, want the type's grace of 30 s", d)
			}
			p.end <- verdict{}
		})
	})
}

func TestTaskTellsItsJob(t *testing.T) {
	inRig(t, rigOptions{}, func(r *rig) {
		r.submitWith("a2", func(m *jobs.Message) { m.Payload = json.RawMessage(`{"n":1}`) })
		r.quiet()
		task := r.passage(1).task
		if task.Attempt != 1 || string(task.Job.Payload) != `{"n":1}` || task.Job.Priority != 2 || task.Job.ID != r.job(1).ID {
			t.Errorf("got %+v", task)
		}
	})
}

func TestShortAttemptsRecordNoStart(t *testing.T) {
	inRig(t, rigOptions{}, func(r *rig) {
		r.submit("a3")
		pass(0) // it has begun, but its start is deferred
		r.want("running", r.running(), "1")
		r.passage(1).end <- verdict{}
		r.quiet()
		r.want("events", r.log(1), "completed")
		r.want("history", jobstest.Kinds(r.job(1)), "submitted started completed")
	})
}

func TestProgressIsThrottled(t *testing.T) {
	inRig(t, rigOptions{}, func(r *rig) {
		r.submit("a3")
		r.quiet()
		task := r.passage(1).task
		for i := range 1000 { // 2 s with a report every 2 ms
			task.Progress(i/10, fmt.Sprintf("row %d", i))
			pass(2 * time.Millisecond)
		}
		pass(time.Second)
		r.want("the last one", fmt.Sprint(r.job(1).Progress, " ", r.job(1).Message), "99 row 999")
		reports := strings.Count(r.log(1), "progress")
		if reports < 19 || reports > 22 {
			t.Errorf("%d reports in 2 s, want about 20", reports)
		}
		for range 100 {
			task.Progress(99, "row 999")
			pass(50 * time.Millisecond)
		}
		if n := strings.Count(r.log(1), "progress"); n != reports {
			t.Errorf("%d reports of nothing new", n-reports)
		}
		for percent, want := range map[int]int{-5: 0, 105: 100} {
			task.Progress(percent, "")
			pass(time.Second)
			if got := r.job(1).Progress; got != want {
				t.Errorf("%d percent is stored as %d", percent, got)
			}
		}
		task.Progress(1, strings.Repeat("ä", 1000))
		pass(time.Second)
		if m := r.job(1).Message; len(m) > 520 || !utf8.ValidString(m) {
			t.Errorf("a message of %d bytes, UTF-8: %v", len(m), utf8.ValidString(m))
		}
	})
}

// The writes of progress are bounded, however large the record is and however frequent
// the reports. The history still covers the whole run.
func TestProgressWritesLittle(t *testing.T) {
	const minute = 60
	for name, c := range map[string]struct{ errors, reports, bytes int }{
		"small record": {0, 10 * minute, 1000 << 10},
		"large record": {jobs.MaxErrors, 5, 6 << 20}, // 0.8 MB, ten times a second, would be half a gigabyte
	} {
		t.Run(name, func(t *testing.T) {
			inRig(t, rigOptions{}, func(r *rig) {
				r.preset("a3", func(j *jobs.Job) {
					for range c.errors {
						j.Errors = append(j.Errors, jobs.AttemptError{Error: strings.Repeat("x", 4096)})
						j.History = append(j.History, jobs.HistoryEntry{Kind: jobs.KindRetrying, Text: strings.Repeat("x", 4096)})
					}
				})
				r.quiet()
				task := r.passage(1).task
				written, reports, seen := 0, 0, ""
				for i := range 100 * minute {
					task.Progress(i/minute, fmt.Sprintf("row %d", i))
					pass(10 * time.Millisecond)
					j := r.job(1)
					if j.Message == seen {
						continue
					}
					seen = j.Message
					reports++
					for _, e := range j.Errors {
						written += len(e.Error)
					}
					for _, h := range j.History {
						written += 40 + len(h.Text)
					}
				}
				t.Logf("%d reports wrote %d KiB", reports, written>>10)
				if written > c.bytes || reports < c.reports {
					t.Errorf("%d reports wrote %d bytes in a minute, want %d at least and %d at most", reports, written, c.reports, c.bytes)
				}
				lines := 0
				for _, h := range r.job(1).History {
					if h.Kind == jobs.KindProgress {
						lines++
					}
				}
				if lines > jobs.MaxProgress || lines < min(reports, jobs.MaxProgress/2) {
					t.Errorf("%d lines of %d reports", lines, reports)
				}
			})
		})
	}
}

func TestProgressEndsWithItsAttempt(t *testing.T) {
	inRig(t, rigOptions{}, func(r *rig) {
		r.submit("a3")
		r.quiet()
		task := r.passage(1).task
		task.Progress(1, "now")
		task.Progress(2, "held back")
		r.finish(1)
		task.Progress(3, "too late")
		pass(time.Second)
		r.want("events", r.log(1), "started progress completed")
	})
}

func TestFirstProgressIsSentAtOnce(t *testing.T) {
	inRig(t, rigOptions{}, func(r *rig) {
		r.submit("a3")
		pass(0)
		r.passage(1).task.Progress(5, "")
		pass(2 * time.Millisecond)
		r.want("events", r.log(1), "started progress")
		r.want("record", jobstest.Brief(r.job(1)), "processing 1/0 5%")
	})
}

func TestSuspectsStartDurably(t *testing.T) {
	for name, c := range map[string]struct{ lost, survivors int }{
		"its worker died":      {lost: 1},
		"its process has died": {survivors: 1},
	} {
		t.Run(name, func(t *testing.T) {
			inRig(t, rigOptions{survivors: uint64(c.survivors)}, func(r *rig) {
				r.hold(true)
				r.preset("a3", func(j *jobs.Job) { j.Lost = c.lost })
				r.quiet()
				r.pool.Committed(&jobs.Commit{Positions: jobs.Positions{Jobs: 1}})
				r.quiet()
				r.want("before its start is durable", r.running(), "")
				r.hold(false)
				r.quiet()
				r.want("after it", r.running(), "1")
				r.want("status", r.job(1).Status.String(), "processing")
				r.finish(1)
				r.want("calls", r.said(), "ack 1")
			})
		})
	}
}

func TestSuspectWhoseStartIsNotStoredGoesBack(t *testing.T) {
	inRig(t, rigOptions{}, func(r *rig) {
		r.mu.Lock()
		r.losing = 1
		r.mu.Unlock()
		r.preset("a3", func(j *jobs.Job) { j.Lost = 1 })
		r.quiet()
		r.want("running", r.running(), "")
		pass(5 * time.Second)
		r.want("calls", r.said(), "nak 1 0s")
		r.want("the second time it is stored", r.running(), "1")
	})
}

func TestSuspectsRunApart(t *testing.T) {
	lost := func(n int) func(*jobs.Job) { return func(j *jobs.Job) { j.Lost = n } }
	inRig(t, rigOptions{workers: 8}, func(r *rig) {
		r.hold(true) // so that they come in order
		for _, n := range []int{2, 1, 3, 1, 4, 0, 0} {
			r.preset("a3", lost(n))
		}
		r.hold(false)
		pass(200 * time.Millisecond)
		ran := make(map[uint64]bool)
		for range 10 {
			var suspects []int
			for s := range strings.FieldsSeq(r.running()) {
				var seq uint64
				if _, err := fmt.Sscan(s, &seq); err != nil {
					t.Fatal(err)
				}
				ran[seq] = true
				if n := r.job(seq).Lost; n > 0 {
					suspects = append(suspects, n)
				}
			}
			if len(suspects) > 1 && slices.Max(suspects) > 1 {
				t.Errorf("suspects with %v lost workers run together", suspects)
			}
			r.drain1()
		}
		if n := len(ran); n != 7 {
			t.Errorf("%d of 7 ran: %v", n, slices.Sorted(maps.Keys(ran)))
		}
		if n := len(r.left()); n != 0 {
			t.Errorf("%d are left", n)
		}
	})
}

// TestSuspectsTakeTurns: one that must run alone waits for the running ones, and later
// ones wait for it.
func TestSuspectsTakeTurns(t *testing.T) {
	lost := func(n int) func(*jobs.Job) { return func(j *jobs.Job) { j.Lost = n } }
	inRig(t, rigOptions{workers: 8}, func(r *rig) {
		r.preset("a3", lost(1))
		r.quiet()
		r.preset("a3", lost(1))
		r.quiet()
		r.want("those that lost one run together", r.running(), "1 2")
		r.preset("a3", lost(2))
		r.quiet()
		r.preset("a3", lost(1))
		r.quiet()
		r.submit("a3")
		r.quiet()
		r.want("one that lost two waits, and the next behind it", r.running(), "1 2 5")
		r.finish(1)
		r.want("it waits for both", r.running(), "2 5")
		r.finish(2)
		r.want("then it is alone among suspects", r.running(), "3 5")
		r.preset("a3", lost(2))
		r.quiet()
		r.want("no other beside it", r.running(), "3 5")
		r.finish(3)
		r.want("the next of its kind", r.running(), "5 6")
		r.finish(6)
		r.want("at last the lesser one", r.running(), "4 5")
		r.finish(4, 5)
		if n := len(r.left()); n != 0 {
			t.Errorf("%d are left", n)
		}
	})
}

// drain1 ends what runs now.
func (r *rig) drain1() {
	r.gate.mu.Lock()
	for _, p := range r.gate.running {
		p.end <- verdict{}
	}
	r.gate.mu.Unlock()
	pass(200 * time.Millisecond)
}

// TestDeafSuspectHoldsUpNoOther: a suspect whose handler never returns is given up like
// any other job, and others go on.
func TestDeafSuspectHoldsUpNoOther(t *testing.T) {
	a := typ("a")
	a.Timeout = 10 * time.Second
	inRig(t, rigOptions{types: []*jobs.Type{a}}, func(r *rig) {
		r.gate.deaf = true
		for range 2 {
			r.preset("a3", func(j *jobs.Job) { j.Lost, j.MaxAttempts = 2, 1 })
		}
		r.quiet()
		first := r.running()
		if len(first) != 1 {
			t.Fatalf("running %q", first)
		}
		pass(11 * time.Second)
		r.want("both have begun", r.running(), "1 2")
	})
}

// TestClockThatGoesBack: an execution counts as newer than the one before it,
// whatever the clock says.
func TestClockThatGoesBack(t *testing.T) {
	inRig(t, rigOptions{}, func(r *rig) {
		ahead := jobs.Now().Add(time.Hour)
		r.preset("a3", func(j *jobs.Job) { j.Attempt, j.StartedAt, j.Lost = 1, ahead, 1 })
		r.quiet()
		r.want("running", r.running(), "1")
		r.want("record", jobstest.Brief(r.job(1)), "processing 1/0")
		r.finish(1)
		j := r.job(1)
		if j.Status != jobs.Completed || j.EndedAt < j.StartedAt || j.StartedAt <= ahead {
			t.Errorf("%s, from %s to %s", jobstest.Brief(j), j.StartedAt, j.EndedAt)
		}
	})
}

// TestForgottenRetryIsAskedForAgain: a server may forget a redelivery, so a late
// delivery is given back once more.
func TestForgottenRetryIsAskedForAgain(t *testing.T) {
	inRig(t, rigOptions{lease: time.Hour}, func(r *rig) {
		r.submit("a3")
		r.quiet()
		r.end(verdict{err: errors.New("again")}, 1)
		r.want("calls", r.said(), "nak 1 1s")
		r.mu.Lock()
		for _, timer := range r.out {
			timer.Stop() // forgotten
		}
		r.mu.Unlock()
		pass(900 * time.Millisecond)
		r.want("not before its time", r.said(), "")
		pass(time.Second)
		r.want("then", r.said(), "nak 1 0s")
		r.want("running", r.running(), "1")
		pass(time.Minute)
		r.want("calls afterwards", r.said(), "")
	})
}

func TestTheLastWordStays(t *testing.T) {
	inRig(t, rigOptions{}, func(r *rig) {
		r.submit("a3")
		r.quiet()
		task := r.passage(1).task
		task.Progress(50, "at it")
		task.Progress(100, "done")
		r.finish(1)
		r.quiet()
		r.want("message", r.job(1).Message, "done")
	})
}
