package pool_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/jobstest"
)

func TestStrictPriorityOverAllTypes(t *testing.T) {
	inRig(t, rigOptions{workers: 1}, func(r *rig) {
		r.submit("a5")
		r.quiet()
		r.submit("a5", "b4", "a3", "b2", "a1", "b1", "a2", "b3", "b5", "a4")
		r.quiet()
		r.want("running", r.running(), "1")
		r.drain()
		got := strings.Fields(r.begun())
		var row []byte
		for _, s := range got {
			row = append(row, s[1])
		}
		r.want("priorities", string(row), "51122334455")
	})
}

func TestLaneIsFIFO(t *testing.T) {
	inRig(t, rigOptions{workers: 1}, func(r *rig) {
		var want []string
		for i := range 200 { // more than a lane holds in advance
			r.submit("a3")
			want = append(want, fmt.Sprintf("a3/%d", i+1))
		}
		r.quiet()
		r.drain()
		r.want("order", r.begun(), strings.Join(want, " "))
		if n := len(r.messages); n != 0 {
			t.Errorf("%d messages are left in the queue", n)
		}
	})
}

func TestTypesTakeTurnsWithinAPriority(t *testing.T) {
	inRig(t, rigOptions{workers: 1, types: []*jobs.Type{typ("a"), typ("b"), typ("c")}}, func(r *rig) {
		for range 30 {
			r.submit("a2")
		}
		r.submit("b2", "b2", "b2", "c2", "c2", "c2")
		r.quiet()
		r.drain()
		got := strings.Fields(r.begun())
		for _, name := range []string{"b", "c"} {
			for n := range 3 {
				last := 0
				for i, s := range got {
					if s[:1] == name {
						if last++; last == n+1 && i > 3*(n+1)+1 {
							t.Errorf("%s's job %d began as number %d: %s", name, n+1, i+1, strings.Join(got[:12], " "))
						}
					}
				}
			}
		}
		if len(got) != 36 {
			t.Errorf("%d ran, want 36", len(got))
		}
	})
}

func TestAsManyAsThereAreWorkers(t *testing.T) {
	inRig(t, rigOptions{workers: 4}, func(r *rig) {
		for range 20 {
			r.submit("a3", "b1")
		}
		r.quiet()
		if w := r.pool.Workers(); w.Active != 4 || w.Max != 4 || w.Types["b"].Active != 4 || w.Types["a"].Active != 0 {
			t.Errorf("workers %+v", w)
		}
		r.drain()
		if r.gate.most != 4 {
			t.Errorf("%d ran at once, want 4", r.gate.most)
		}
		if w := r.pool.Workers(); w.Active != 0 {
			t.Errorf("workers at the end %+v", w)
		}
	})
}

func TestTypeCaps(t *testing.T) {
	a := typ("a")
	a.MaxWorkers = 2
	inRig(t, rigOptions{workers: 5, types: []*jobs.Type{a, typ("b")}}, func(r *rig) {
		r.submit("a1", "a1", "a1", "a1", "b5", "b5", "b5", "b5")
		r.quiet()
		r.want("running", r.running(), "1 2 5 6 7") // a's cap leaves room for lesser lanes
		r.finish(1)
		r.want("running", r.running(), "2 3 5 6 7")
		r.finish(5)
		r.want("running", r.running(), "2 3 6 7 8")
		r.finish(2, 3)
		r.want("running", r.running(), "4 6 7 8")
		if w := r.pool.Workers(); w.Types["a"].Max != 2 || w.Types["b"].Max != 0 {
			t.Errorf("workers %+v", w)
		}
	})
}

func TestResize(t *testing.T) {
	size := func(n int, types map[string]int) *jobs.Resize {
		z := &jobs.Resize{Types: types}
		if n > 0 {
			z.MaxWorkers = &n
		}
		return z
	}
	inRig(t, rigOptions{workers: 2}, func(r *rig) {
		for range 50 {
			r.submit("a3")
		}
		r.quiet()
		r.want("two", r.running(), "1 2")
		r.resize(size(5, nil))
		r.quiet()
		r.want("up to five", r.running(), "1 2 3 4 5")
		r.resize(size(1, nil))
		r.quiet()
		r.want("down to one: nobody is stopped", r.running(), "1 2 3 4 5")
		r.finish(1, 2, 3, 4)
		r.want("four have ended", r.running(), "5")
		r.finish(5)
		r.want("one goes on", r.running(), "6")
		r.resize(size(4, map[string]int{"a": 2, "unknown": 7}))
		r.quiet()
		r.want("a cap of two", r.running(), "6 7")
		r.resize(size(0, map[string]int{"a": 0}))
		r.quiet()
		r.want("no cap", r.running(), "6 7 8 9")
		r.drain()
		if n := len(r.messages); n != 0 {
			t.Errorf("%d jobs were lost", n)
		}
	})
}

func TestNothingRunsBeforeItsCommit(t *testing.T) {
	inRig(t, rigOptions{}, func(r *rig) {
		r.hold(true)
		r.submit("a3", "a3")
		r.quiet()
		r.want("before the commit", r.running(), "")
		r.hold(false)
		r.quiet()
		r.want("after it", r.running(), "1 2")
	})
}

// TestMessageWithoutAJobIsDropped, like a repeated one: the commit that reaches it
// names no job of the lane.
func TestMessageWithoutAJobIsDropped(t *testing.T) {
	inRig(t, rigOptions{workers: 1}, func(r *rig) {
		r.hold(true)
		r.submit("a3", "a3", "b3")
		r.quiet()
		r.want("before the commit", r.said(), "")
		r.mu.Lock()
		r.submitted = nil
		r.mu.Unlock()
		for seq := uint64(1); seq <= 3; seq++ {
			r.pool.Committed(&jobs.Commit{Positions: jobs.Positions{Jobs: seq}})
			r.quiet()
			r.want("after it", r.said(), fmt.Sprint("ack ", seq))
		}
	})
}

func TestOutcomeIsCommittedBeforeTheAck(t *testing.T) {
	inRig(t, rigOptions{workers: 1}, func(r *rig) {
		r.submit("a3", "a3")
		r.quiet()
		r.hold(true)
		r.finish(1)
		r.want("before the commit", r.said(), "")
		r.want("the worker goes on meanwhile", r.running(), "2")
		r.hold(false)
		r.quiet()
		r.want("after it", r.said(), "ack 1")
		r.want("status", r.job(1).Status.String(), "completed")
	})
}

// TestOnlyItsOwnOutcomeSettlesADelivery: neither another attempt's nor that of
// an earlier execution of the same attempt.
func TestOnlyItsOwnOutcomeSettlesADelivery(t *testing.T) {
	inRig(t, rigOptions{}, func(r *rig) {
		r.submit("a3")
		r.quiet()
		r.hold(true)
		r.finish(1)
		r.mu.Lock()
		own := r.events[len(r.events)-1]
		r.mu.Unlock()
		if own.Kind != jobs.KindCompleted {
			t.Fatalf("the outcome is %s", own.Kind)
		}
		for name, change := range map[string]func(*jobs.Event){
			"an earlier execution": func(e *jobs.Event) { e.StartedAt-- },
			"another attempt":      func(e *jobs.Event) { e.Attempt++ },
			"another kind":         func(e *jobs.Event) { e.Kind = jobs.KindReleased },
			"another job":          func(e *jobs.Event) { e.Seq = 99 },
		} {
			e := own
			change(&e)
			r.pool.Committed(&jobs.Commit{Positions: jobs.Positions{Jobs: 1}, Outcomes: []jobs.Event{e}})
			r.want(name, r.said(), "")
		}
		r.pool.Committed(&jobs.Commit{Positions: jobs.Positions{Jobs: 1}, Outcomes: []jobs.Event{own}})
		r.want("its own", r.said(), "ack 1")
	})
}

func TestEndedAndUnknownDeliveriesAreSkipped(t *testing.T) {
	tests := []struct {
		name   string
		change func(*jobs.Job)
	}{
		{name: "completed", change: func(j *jobs.Job) { j.Status = jobs.Completed }},
		{name: "failed", change: func(j *jobs.Job) { j.Status = jobs.Failed }},
		{name: "cancelled", change: func(j *jobs.Job) { j.Status = jobs.Cancelled }},
		{name: "moved to another message", change: func(j *jobs.Job) { j.Seq = 99 }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inRig(t, rigOptions{}, func(r *rig) {
				seq := r.preset("a3", tt.change)
				next := r.submit("a3")
				r.quiet()
				r.want("calls", r.said(), fmt.Sprintf("ack %d", seq))
				r.want("running", r.running(), fmt.Sprint(next))
			})
		})
	}
	t.Run("deleted", func(t *testing.T) {
		inRig(t, rigOptions{}, func(r *rig) {
			r.hold(true)
			r.submit("a3", "a3")
			r.quiet()
			r.mu.Lock()
			r.submitted = r.submitted[1:] // nobody owns the first
			r.mu.Unlock()
			r.hold(false)
			r.quiet()
			r.want("calls", r.said(), "ack 1")
			r.want("running", r.running(), "2")
		})
	})
}

func TestFreeWorkerWaitsForABetterLane(t *testing.T) {
	inRig(t, rigOptions{workers: 1}, func(r *rig) {
		r.submit("a5")
		r.quiet()
		r.submit("a5")
		// the tracker has committed a job of priority 1, but its delivery is slow
		r.mu.Lock()
		r.seq = 10
		r.mu.Unlock()
		r.pool.Committed(&jobs.Commit{Positions: jobs.Positions{Jobs: 10}, Changes: []jobs.Change{{After: &jobs.Job{Seq: 10, Type: "b", Priority: 1, Status: jobs.Pending}}}})
		begin := time.Now()
		r.finish(1)
		r.want("at first", r.running(), "")
		for r.running() == "" && time.Since(begin) < time.Minute {
			pass(time.Millisecond)
		}
		r.want("in the end", r.running(), "2")
		if d := time.Since(begin); d < 90*time.Millisecond || d > 150*time.Millisecond {
			t.Errorf("it waited %s, want about 100 ms", d)
		}
		// once is enough: the next does not wait again
		r.submit("a5")
		r.finish(2)
		r.want("the next", r.running(), "11")
	})
}

func TestSlowDeliveryOfABetterLaneRunsFirst(t *testing.T) {
	inRig(t, rigOptions{workers: 1}, func(r *rig) {
		r.submit("a5")
		r.quiet()
		r.submit("a5")
		r.quiet()
		j := &jobs.Job{Seq: 10, ID: jobs.NewID(), Type: "b", Priority: 1, Status: jobs.Pending, Run: 1, MaxAttempts: 1}
		r.mu.Lock()
		r.records[10] = j
		r.messages[10] = &jobs.Message{Seq: 10, Type: "b", Priority: 1}
		r.mu.Unlock()
		r.pool.Committed(&jobs.Commit{Positions: jobs.Positions{Jobs: 10}, Changes: []jobs.Change{{After: j}}})
		r.finish(1)
		pass(50 * time.Millisecond)
		r.want("waiting", r.running(), "")
		r.pool.Deliver(jobs.Delivery{Lane: j.Lane(), Seq: 10, Ref: "10#x"})
		r.quiet()
		r.want("the better one", r.running(), "10")
		r.finish(10)
		r.want("then the lesser", r.running(), "2")
	})
}

// TestMissingDeliveryStarvesNobody: a lane whose delivery never comes is given up in
// time, whatever happens in its neighbour.
func TestMissingDeliveryStarvesNobody(t *testing.T) {
	inRig(t, rigOptions{workers: 2}, func(r *rig) {
		expected := func(typ string, seq uint64) {
			r.pool.Committed(&jobs.Commit{Positions: jobs.Positions{Jobs: seq}, Changes: []jobs.Change{{After: &jobs.Job{Seq: seq, Type: typ, Priority: 1, Status: jobs.Pending}}}})
		}
		r.submit("a5")
		r.quiet()
		r.hold(true)
		r.submit("a5")
		r.quiet()
		expected("a", 1000) // never delivered
		r.hold(false)
		r.quiet()
		r.want("it waits", r.running(), "1")
		begin := time.Now()
		for i := range uint64(40) {
			// each of these is expected for a moment, and is then there and gone
			expected("b", 2000+i)
			pass(30 * time.Millisecond)
			r.pool.Deliver(jobs.Delivery{Lane: jobs.Lane{Type: "b", Priority: 1}, Seq: 2000 + i, Ref: "none"})
			pass(20 * time.Millisecond)
			if r.running() == "1 2" {
				break
			}
		}
		r.want("in the end", r.running(), "1 2")
		if d := time.Since(begin); d > 300*time.Millisecond {
			t.Errorf("it waited %s", d)
		}
	})
}

func TestPullsAgainWhenARequestHasEnded(t *testing.T) {
	inRig(t, rigOptions{}, func(r *rig) {
		lane := jobs.Lane{Type: "a", Priority: 3}
		r.mu.Lock()
		asked := r.pulled[lane]
		r.pulled[lane] = 0 // the server has let them run out
		r.mu.Unlock()
		if asked == 0 {
			t.Fatal("nothing was asked for")
		}
		r.pool.PullEnded(lane, asked)
		r.submit("a3")
		r.quiet()
		r.want("running", r.running(), "1")
		r.pool.PullEnded(jobs.Lane{Type: "zz", Priority: 1}, 5) // not ours
		r.pool.Deliver(jobs.Delivery{Lane: jobs.Lane{Type: "zz", Priority: 1}, Seq: 50, Ref: "x"})
	})
}

func TestPullsAgainAfterTheQueueDidNotTakeIt(t *testing.T) {
	inRig(t, rigOptions{idle: true}, func(r *rig) {
		r.mu.Lock()
		r.deaf = true
		r.mu.Unlock()
		r.pool.Start(0, 0)
		r.submit("a3")
		r.quiet()
		r.want("while the queue is away", r.running(), "")
		r.mu.Lock()
		r.deaf = false
		r.mu.Unlock()
		pass(2 * time.Second)
		r.want("when it is back", r.running(), "1")
	})
}

func TestHoldsLittleInAdvance(t *testing.T) {
	inRig(t, rigOptions{workers: 2}, func(r *rig) {
		for range 500 {
			r.submit("a3")
		}
		r.quiet()
		if n := len(r.out); n > 2+16 {
			t.Errorf("%d deliveries are held for 2 workers", n)
		}
		r.finish(1, 2)
		r.want("running", r.running(), "3 4")
	})
}

func TestLeasesAreRenewed(t *testing.T) {
	inRig(t, rigOptions{workers: 1}, func(r *rig) {
		r.submit("a3", "a3", "a3")
		r.quiet()
		pass(5 * time.Minute) // ten leases
		r.want("running", r.running(), "1")
		r.want("calls", r.said(), "") // none expired: neither the running one nor those that wait
		pass(time.Minute)
		count := make(map[string]int)
		for s := range strings.SplitSeq(r.said("extend"), ", ") {
			count[s]++
		}
		for seq := 1; seq <= 3; seq++ {
			if n := count[fmt.Sprintf("extend %d", seq)]; n < 5 || n > 7 {
				t.Errorf("job %d was extended %d times a minute, want about 6", seq, n)
			}
		}
		r.hold(true)
		r.finish(1) // now it waits for its commit
		pass(2 * time.Minute)
		r.want("while waiting", r.said(), "")
		r.hold(false)
		r.quiet()
		r.want("after the commit", r.said(), "ack 1")
	})
}

func TestRedeliveryOfAHeldJobDoesNotRunTwice(t *testing.T) {
	inRig(t, rigOptions{workers: 2}, func(r *rig) {
		r.submit("a3")
		r.quiet()
		r.mu.Lock()
		var old uint64
		for seq := range r.out {
			old = seq
		}
		r.mu.Unlock()
		r.again(old, "expired")
		r.quiet()
		r.want("begun", r.begun(), "a3/1")
		r.finish(1)
		r.want("the new delivery is acked", r.said(), "expired 1, ack 1")
		r.want("begun", r.begun(), "a3/1")
		if len(r.messages) != 0 {
			t.Error("it is still in the queue")
		}
	})
}

func TestRedeliveryWhileSettlingDoesNotRunTwice(t *testing.T) {
	inRig(t, rigOptions{workers: 2}, func(r *rig) {
		r.submit("a3")
		r.quiet()
		r.hold(true)
		r.finish(1)
		r.mu.Lock()
		var old uint64
		for seq := range r.out {
			old = seq
		}
		r.mu.Unlock()
		r.again(old, "expired")
		r.quiet()
		r.hold(false)
		r.quiet()
		r.want("calls", r.said(), "expired 1, ack 1")
		r.want("begun", r.begun(), "a3/1")
	})
}

func TestOutcomeIsSentAgain(t *testing.T) {
	inRig(t, rigOptions{}, func(r *rig) {
		r.submit("a3")
		r.quiet()
		r.mu.Lock()
		r.losing = 1
		r.mu.Unlock()
		begin := time.Now()
		r.finish(1)
		r.want("lost", r.said(), "")
		for r.job(1).Status != jobs.Completed && time.Since(begin) < time.Minute {
			pass(100 * time.Millisecond)
		}
		if d := time.Since(begin); d < 5*time.Second || d > 7*time.Second {
			t.Errorf("sent again after %s, want 5 s", d)
		}
		r.quiet()
		r.want("calls", r.said(), "ack 1")
		r.want("begun", r.begun(), "a3/1")
	})
}

func TestStartServesWhatIsThere(t *testing.T) {
	inRig(t, rigOptions{workers: 1, idle: true}, func(r *rig) {
		r.submit("a5", "b2", "a2")
		pass(time.Minute)
		r.want("before the start", r.running(), "")
		r.pool.Start(3, 3)
		pass(2 * time.Second)
		r.drain()
		pass(2 * time.Second)
		r.drain()
		got := strings.Fields(r.begun())
		if len(got) != 3 || got[2] != "a5/1" {
			t.Errorf("order %v, want a5 last", got)
		}
	})
}

func TestStopWaitsForWhatRuns(t *testing.T) {
	inRig(t, rigOptions{workers: 1}, func(r *rig) {
		r.submit("a3", "a3", "a3")
		r.quiet()
		done := make(chan error, 1)
		go func() { done <- r.pool.Stop(context.Background()) }()
		r.quiet()
		// what comes again for requests that are still open is given back, too
		back := strings.Split(r.said(), ", ")
		slices.Sort(back)
		r.want("given back", strings.Join(slices.Compact(back), ", "), "nak 2 0s, nak 3 0s")
		pass(time.Hour - time.Minute)
		if len(done) != 0 {
			t.Fatal("stopped while a job runs")
		}
		r.want("running", r.running(), "1")
		r.hold(true)
		r.finish(1)
		if len(done) != 0 {
			t.Fatal("stopped before the outcome is stored")
		}
		r.hold(false)
		if err := <-done; err != nil {
			t.Error(err)
		}
		r.want("status", r.job(1).Status.String(), "completed")
		r.quiet()
		said := r.said()
		if !strings.Contains(said, "ack 1") {
			t.Errorf("calls %q", said)
		}
		r.want("begun", r.begun(), "a3/1")
	})
}

func TestStopReleasesWhatDoesNotFinish(t *testing.T) {
	inRig(t, rigOptions{workers: 2}, func(r *rig) {
		r.submit("a3", "a3")
		r.quiet()
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		begin := time.Now()
		if err := r.pool.Stop(ctx); err != nil {
			t.Error(err)
		}
		if d := time.Since(begin); d < 30*time.Second || d > 31*time.Second {
			t.Errorf("it took %s, want the grace of 30 s", d)
		}
		r.quiet()
		ended := slices.Sorted(slices.Values(r.gate.ended))
		r.want("causes", strings.Join(ended, ", "), "1 server is shutting down, 2 server is shutting down")
		for seq := range uint64(2) {
			j := r.job(seq + 1)
			if j.Status != jobs.Pending || j.Failures != 0 || j.Attempt > 1 {
				t.Errorf("job %d: %s", seq+1, jobstest.Brief(j))
			}
			if got := jobstest.Kinds(j); got != "submitted started released" {
				t.Errorf("job %d has the history %s", seq+1, got)
			}
		}
		calls := strings.Split(r.said(), ", ")
		if !slices.Contains(calls, "nak 1 0s") || !slices.Contains(calls, "nak 2 0s") {
			t.Errorf("calls %v", calls)
		}
		if n := len(strings.Fields(r.begun())); n != 2 {
			t.Errorf("something began again: %s", r.begun())
		}
	})
}

func TestStopGivesUpADeafHandler(t *testing.T) {
	inRig(t, rigOptions{workers: 1}, func(r *rig) {
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
		if d := time.Since(begin); d < time.Second || d > 1100*time.Millisecond {
			t.Errorf("it took %s, want 1 s", d)
		}
		j := r.job(1)
		if j.Status != jobs.Pending || j.Failures != 0 {
			t.Errorf("got %s", jobstest.Brief(j))
		}
		p.end <- verdict{} // and what it says now is ignored
		r.quiet()
		r.want("status", r.job(1).Status.String(), "pending")
	})
}

func TestStopSaysWhatIsNotStored(t *testing.T) {
	inRig(t, rigOptions{workers: 1}, func(r *rig) {
		r.submit("a3")
		r.quiet()
		r.hold(true)
		r.finish(1)
		begin := time.Now()
		err := r.pool.Stop(context.Background())
		if err == nil || !strings.Contains(err.Error(), "1 outcomes are not stored") {
			t.Errorf("got %v", err)
		}
		if d := time.Since(begin); d > 10*time.Second {
			t.Errorf("it took %s", d)
		}
	})
}

// TestBreak ends a pool whose outcomes nobody stores. Handlers are interrupted at once,
// and it waits only for a deaf one, for a second.
func TestBreak(t *testing.T) {
	for _, deaf := range []bool{false, true} {
		inRig(t, rigOptions{workers: 2}, func(r *rig) {
			r.gate.deaf = deaf
			for range 3 {
				r.submit("a3")
			}
			r.quiet()
			r.hold(true)
			begin := time.Now()
			r.pool.Break()
			least, most := time.Duration(0), 100*time.Millisecond
			if deaf {
				least, most = time.Second, 1100*time.Millisecond
			}
			if d := time.Since(begin); d < least || d > most {
				t.Errorf("deaf %v: it took %s", deaf, d)
			}
			if n := len(strings.Fields(r.begun())); n != 2 {
				t.Errorf("deaf %v: begun %s", deaf, r.begun())
			}
			if calls := strings.Split(r.said(), ", "); !slices.Contains(calls, "nak 3 0s") {
				t.Errorf("deaf %v: what had not begun was not given back: %v", deaf, calls)
			}
		})
	}
}

func TestStopParkedSuspects(t *testing.T) {
	inRig(t, rigOptions{workers: 3}, func(r *rig) {
		for range 3 {
			r.preset("a3", func(j *jobs.Job) { j.Lost = 2 })
		}
		r.quiet()
		first := r.running()
		if len(first) != 1 {
			t.Fatalf("%q run, want one suspect at a time", first)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		begin := time.Now()
		if err := r.pool.Stop(ctx); err != nil {
			t.Error(err)
		}
		if d := time.Since(begin); d > 100*time.Millisecond {
			t.Errorf("it took %s", d)
		}
		r.want("begun", r.begun(), "a3/"+first)
	})
}

// TestEveryJobEndsOnce: a random load with failures, redeliveries, lost events
// and resizes ends with every job run to its end and acknowledged.
func TestEveryJobEndsOnce(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	inRig(t, rigOptions{workers: 5, types: []*jobs.Type{typ("a"), typ("b"), typ("c")}}, func(r *rig) {
		const total = 300
		failed := make(map[uint64]bool)
		for n := 0; n < total || len(r.left()) > 0; {
			switch k := rnd.IntN(20); {
			case k < 8 && n < total:
				r.submit(string('a'+rune(rnd.IntN(3))) + string('1'+rune(rnd.IntN(5))))
				n++
			case k == 8:
				size := 1 + rnd.IntN(8)
				r.resize(&jobs.Resize{MaxWorkers: &size, Types: map[string]int{"a": rnd.IntN(3)}})
			case k == 9:
				r.mu.Lock()
				r.losing = 1
				r.mu.Unlock()
			case k == 10:
				r.mu.Lock()
				var seq uint64
				for seq = range r.out {
					break
				}
				r.mu.Unlock()
				if seq != 0 && rnd.IntN(4) == 0 {
					r.again(seq, "expired")
				}
			case k == 11:
				pass(time.Duration(rnd.IntN(3000)) * time.Millisecond)
			default:
				r.gate.mu.Lock()
				for seq, p := range r.gate.running {
					v := verdict{}
					if rnd.IntN(4) == 0 {
						v.err = fmt.Errorf("no luck")
						failed[seq] = true
					}
					select {
					case p.end <- v:
					default:
					}
					if rnd.IntN(2) == 0 {
						break
					}
				}
				r.gate.mu.Unlock()
				r.quiet()
			}
		}
		for seq := uint64(1); seq <= total; seq++ {
			j := r.job(seq)
			starts := 0
			for s := range strings.FieldsSeq(r.begun()) {
				if strings.HasSuffix(s, fmt.Sprintf("/%d", seq)) {
					starts++
				}
			}
			if !j.Status.Ended() || starts != j.Attempt || !failed[seq] && j.Attempt != 1 {
				t.Errorf("job %d: %s, begun %d times", seq, jobstest.Brief(j), starts)
			}
		}
		if n := len(r.messages); n != 0 {
			t.Errorf("%d messages are left", n)
		}
	})
}

// left are the jobs that have not ended or are still in the queue.
func (r *rig) left() []uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	var seqs []uint64
	for seq := range r.messages {
		seqs = append(seqs, seq)
	}
	return seqs
}

func TestOutcomesThatAreNotStoredAreBounded(t *testing.T) {
	inRig(t, rigOptions{workers: 2, unsettled: 3}, func(r *rig) {
		for range 6 {
			r.submit("a3")
		}
		r.quiet()
		r.hold(true)
		for seq := uint64(1); seq <= 3; seq++ {
			r.finish(seq)
			r.quiet()
		}
		r.want("with three outcomes waiting", r.running(), "4")
		r.finish(4)
		r.quiet()
		r.want("with four", r.running(), "")
		r.hold(false)
		r.quiet()
		r.want("after the commit", r.running(), "5 6")
	})
}

// While ends are not stored, nothing more starts: all of it would run again after a crash.
func TestNothingStartsWhileEndsAreNotStored(t *testing.T) {
	inRig(t, rigOptions{workers: 1}, func(r *rig) {
		for range 4 {
			r.submit("a3")
		}
		r.quiet()
		r.hold(true)
		r.finish(1)
		r.quiet()
		r.want("at first", r.running(), "2")
		pass(7 * time.Second)
		r.finish(2)
		r.quiet()
		r.want("after a while", r.running(), "")
		r.hold(false)
		r.quiet()
		r.want("after the commit", r.running(), "3")
	})
}
