package pool_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/jobstest"
	"jobstream/jobs/pool"
)

const leaseSpan = 30 * time.Second

// noPlace says that a job's place in its lane is not known.
var noPlace pool.Queueing

// remote is a type for workers elsewhere.
func remote(name string) *jobs.Type {
	t := typ(name)
	t.Remote = true
	return t
}

// inLeases runs f with a rig with the remote types x and y, and the local type a.
func inLeases(t *testing.T, o rigOptions, f func(r *rig)) {
	t.Helper()
	if o.types == nil {
		o.types = []*jobs.Type{remote("x"), remote("y"), typ("a")}
	}
	inRig(t, o, f)
}

// answer is what an ask has come to.
type answer struct {
	leases []jobs.Lease
	err    error
}

// ask asks in the background.
func (r *rig) ask(worker string, most int, wait time.Duration, types ...string) chan answer {
	return r.askIn(r.t.Context(), &jobs.Ask{Types: types, Max: most, Wait: wait, Worker: worker})
}

func (r *rig) askIn(ctx context.Context, a *jobs.Ask) chan answer {
	got := make(chan answer, 1)
	p := r.pool
	go func() {
		var all answer
		all.leases, all.err = p.Leases().Next(ctx, a)
		got <- all
	}()
	return got
}

// now is the answer to an ask that has been given. A pool that has just started waits a
// moment for better jobs.
func (r *rig) now(got chan answer) []jobs.Lease {
	r.t.Helper()
	if r.quiet(); len(got) == 0 {
		pass(150 * time.Millisecond)
	}
	select {
	case a := <-got:
		if a.err != nil {
			r.t.Fatalf("the ask was refused: %v", a.err)
		}
		return a.leases
	default:
		return nil
	}
}

// next asks for one job, which must be there.
func (r *rig) next(worker string, types ...string) jobs.Lease {
	r.t.Helper()
	all := r.now(r.ask(worker, 1, time.Second, types...))
	if len(all) != 1 {
		r.t.Fatalf("%s got %d jobs, want 1", worker, len(all))
	}
	return all[0]
}

// take asks until the worker has so many jobs.
func (r *rig) take(worker string, n int, types ...string) (all []jobs.Lease) {
	r.t.Helper()
	for len(all) < n {
		got := r.now(r.ask(worker, n-len(all), time.Second, types...))
		if all = append(all, got...); len(got) == 0 {
			r.t.Fatalf("%s got %d jobs, want %d", worker, len(all), n)
		}
	}
	return all
}

func seqs(leases []jobs.Lease) string {
	var s []string
	for _, l := range leases {
		s = append(s, fmt.Sprint(l.Job.Seq))
	}
	return strings.Join(s, " ")
}

// ending is an ending in words.
func ending(e jobs.Ending) string {
	if e.Err != nil {
		known, _ := jobs.AsError(e.Err)
		if known.State != nil {
			return fmt.Sprintf("%s: %s %d", known.Kind, known.State.Status, known.State.Attempt)
		}
		return string(known.Kind)
	}
	s := e.Status.String()
	if e.RunAt != 0 {
		s += " later"
	}
	if e.Repeated {
		s += ", repeated"
	}
	return s
}

func (r *rig) done(token string) string {
	e := r.pool.Leases().Done(r.t.Context(), []jobs.Done{{Token: token, Result: json.RawMessage(`{"ok": true}`)}})
	r.quiet()
	return ending(e[0])
}

func (r *rig) fail(token string, f *jobs.Failure) string {
	e := r.pool.Leases().Fail(r.t.Context(), token, f)
	r.quiet()
	return ending(e)
}

func (r *rig) giveBack(token string, delay time.Duration) string {
	e := r.pool.Leases().Release(r.t.Context(), token, &jobs.GiveBack{Delay: delay, Reason: "no time"})
	r.quiet()
	return ending(e)
}

func (r *rig) beats(worker string, tokens ...string) string {
	b, err := r.pool.Leases().Beat(r.t.Context(), worker, tokens)
	if err != nil {
		return err.Error()
	}
	s := []string{b.Span.String()}
	for _, token := range b.Lost {
		s = append(s, fmt.Sprintf("lost %d", slices.Index(tokens, token)))
	}
	for token, reason := range b.Cancelled {
		s = append(s, fmt.Sprintf("cancel %d: %s", slices.Index(tokens, token), reason))
	}
	slices.Sort(s[1:])
	return strings.Join(s, ", ")
}

func TestLeaseOfOneJob(t *testing.T) {
	inLeases(t, rigOptions{}, func(r *rig) {
		r.submit("x3")
		l := r.next("w-1", "x")
		if l.Job.Seq != 1 || l.Span != leaseSpan || l.Attempt != 1 || l.Fence != int64(l.Job.StartedAt) || l.Deadline != jobs.Now().Add(time.Hour-10*time.Millisecond) {
			t.Errorf("got %+v of %+v", l, l.Job)
		}
		r.want("before the worker hears of it", jobstest.Brief(r.job(1)), "processing 1/0")
		r.want("node", r.job(1).Node, "w-1")
		r.want("done", r.done(l.Token), "completed")
		r.want("record", jobstest.Brief(r.job(1)), "completed 1/0 100%")
		r.want("result", string(r.job(1).Result), `{"ok":true}`)
		r.want("again", r.done(l.Token), "completed, repeated")
		r.want("another end", r.fail(l.Token, &jobs.Failure{Error: "no"}), "lease_lost: completed 1")
		r.want("a beat then", r.beats("w-1", l.Token), "30s")
		r.want("queue", r.said(), "ack 1")
	})
}

func TestLeaseEndsInEveryWay(t *testing.T) {
	inLeases(t, rigOptions{}, func(r *rig) {
		r.submit("x3", "x3", "x3", "x3", "x3")
		all := r.take("w", 5, "x")
		r.want("got", seqs(all), "1 2 3 4 5")
		r.want("fail", r.fail(all[0].Token, &jobs.Failure{Error: "boom", RetryAfter: time.Minute}), "retrying later")
		r.want("again", r.fail(all[0].Token, &jobs.Failure{Error: "boom"}), "retrying later, repeated")
		r.want("record", jobstest.Brief(r.job(1)), "retrying 1/1 boom")
		if wait := r.job(1).DueAt.Sub(jobs.Now()); wait < 59*time.Second {
			t.Errorf("it is due in %s", wait)
		}
		r.want("for good", r.fail(all[1].Token, &jobs.Failure{Error: "boom", Permanent: true}), "failed")
		r.want("release", r.giveBack(all[2].Token, 0), "pending")
		r.want("later", r.giveBack(all[3].Token, time.Minute), "scheduled later")
		r.want("record", r.job(4).Message, "no time")
		r.want("no JSON", ending(r.pool.Leases().Done(r.t.Context(), []jobs.Done{{Token: all[4].Token, Result: json.RawMessage(`{`)}})[0]), "invalid_request")
		r.want("the lease lives", r.beats("w", all[4].Token), "30s")
		again := r.next("w", "x")
		if again.Job.Seq != 3 || again.Attempt != 1 || again.Fence <= all[2].Fence {
			t.Errorf("again: %+v", again)
		}
		r.want("the one before", r.done(all[2].Token), "lease_lost: processing 1")
		r.want("beats", r.beats("w", all[0].Token, all[1].Token, all[2].Token, again.Token, "x"), "30s, lost 0, lost 1, lost 2, lost 4")
		r.want("no token", r.done("nothing"), "not_found")
		r.want("forged", r.done(jobs.NewLeaseKey().Token(jobs.Execution{Key: 1, Run: 1, Attempt: 1, Started: all[0].Job.StartedAt})), "not_found")
		r.mu.Lock()
		delete(r.records, 2)
		r.mu.Unlock()
		r.want("deleted", r.done(all[1].Token), "not_found")
		r.want("done", r.done(all[4].Token), "completed")
		r.want("done", r.done(again.Token), "completed")
		pass(time.Minute)
		second := r.next("w", "x")
		if second.Job.Seq != 1 || second.Attempt != 2 {
			t.Errorf("second attempt: %+v", second)
		}
	})
}

func TestSilentWorkerLosesItsLease(t *testing.T) {
	inLeases(t, rigOptions{maxLost: 3}, func(r *rig) {
		var told []string
		r.revoked = func(worker, token, reason string) { told = append(told, worker+": "+reason) }
		r.submit("x3")
		first := r.next("w-1", "x")
		for range 10 {
			pass(20 * time.Second)
			r.want("beat", r.beats("w-1", first.Token), "30s")
		}
		pass(leaseSpan - time.Second)
		r.want("silent, not too long", jobstest.Brief(r.job(1)), "processing 1/0")
		pass(2 * time.Second)
		r.want("silent for too long", jobstest.Brief(r.job(1)), "retrying 1/0")
		r.want("its history", r.job(1).History[2].Text, `the worker w-1 was silent for 30s (1 of 3)`)
		r.want("told", fmt.Sprint(told), "[w-1: the worker w-1 was silent for 30s]")
		r.want("a late end", r.done(first.Token), "lease_lost: retrying 1")
		r.want("a late beat", r.beats("w-1", first.Token), "30s, lost 0")
		if w := r.pool.Waiting(r.job(1), pool.Queueing{Position: 1}); w.Reason != jobs.WaitBackoff || !strings.Contains(w.Detail, "lost its worker once") {
			t.Errorf("it waits for %+v", w)
		}
		pass(time.Second)
		second := r.next("w-2", "x")
		if second.Attempt != 1 || second.Fence <= first.Fence {
			t.Errorf("again: %+v", second)
		}
		pass(leaseSpan + 4*time.Second)
		r.next("w-3", "x")
		pass(leaseSpan + time.Second)
		r.want("in the end", r.job(1).Error, jobs.TooOftenLost(3))
		r.want("status", r.job(1).Status.String(), "failed")
		r.want("queue", r.said("ack"), "ack 1")
	})
}

func TestCancelReachesAWorker(t *testing.T) {
	inLeases(t, rigOptions{}, func(r *rig) {
		told := make(chan string, 1)
		r.revoked = func(worker, _, reason string) { told <- worker + ": " + reason }
		r.submit("x3")
		l := r.next("w", "x")
		r.cancel(1, "wrong input")
		r.want("at once", <-told, "w: wrong input")
		r.want("beat", r.beats("w", l.Token), "30s, cancel 0: wrong input")
		r.want("done", r.done(l.Token), "lease_lost: cancelled 1")
		b, err := r.pool.Leases().Progress(r.t.Context(), l.Token, &jobs.Progress{Percent: 5})
		if err != nil || b.Cancelled[l.Token] != "wrong input" {
			t.Errorf("progress: %v, %v", b, err)
		}
		r.want("queue", r.said(), "ack 1")
	})
}

func TestLeaseTimesOutThoughItsWorkerBeats(t *testing.T) {
	x := remote("x")
	x.Timeout = time.Minute
	inLeases(t, rigOptions{types: []*jobs.Type{x}}, func(r *rig) {
		r.submit("x3")
		l := r.next("w", "x")
		for range 3 {
			pass(19 * time.Second)
			r.want("beat", r.beats("w", l.Token), "30s")
		}
		pass(4 * time.Second)
		r.want("record", jobstest.Brief(r.job(1)), "retrying 1/1 timed out after 1m0s")
		r.want("beat", r.beats("w", l.Token), "30s, lost 0")
		r.want("done", r.done(l.Token), "lease_lost: retrying 1")
	})
}

// TestLeasesOutliveTheServer: a restart changes nothing for a worker that beats or ends
// its job within a lease after it.
func TestLeasesOutliveTheServer(t *testing.T) {
	for _, how := range []string{"stop", "kill", "power cut"} {
		t.Run(how, func(t *testing.T) {
			inLeases(t, rigOptions{}, func(r *rig) {
				r.submit("x3", "x3", "x3", "x3")
				all := r.take("w-1", 4, "x")
				pass(20 * time.Second)
				r.restart(how)
				r.want("record", jobstest.Brief(r.job(1)), "processing 1/0")
				r.want("done", r.done(all[0].Token), "completed")
				pass(20 * time.Second)
				r.want("beat", r.beats("w-1", all[1].Token), "30s")
				pass(5 * time.Second)
				if got := r.now(r.ask("w-2", 4, time.Second, "x")); len(got) != 0 {
					t.Errorf("another worker got %s", seqs(got))
				}
				pass(6 * time.Second)
				r.want("silent", jobstest.Brief(r.job(3)), "retrying 1/0")
				r.restart(how)
				r.want("late", r.done(all[2].Token), "lease_lost: retrying 1")
				r.want("repeated", r.done(all[0].Token), "completed, repeated")
				r.want("done", r.done(all[1].Token), "completed")
				pass(5 * time.Second)
				again := r.take("w-2", 2, "x")
				r.want("again", seqs(again), "3 4")
				for _, l := range again {
					r.want("done", r.done(l.Token), "completed")
				}
				if n := len(r.left()); n > 0 {
					t.Errorf("%d messages are left", n)
				}
			})
		})
	}
}

// TestStopLeavesLeasesAlone: a stop waits for no worker elsewhere, and takes their reports
// until its end.
func TestStopLeavesLeasesAlone(t *testing.T) {
	inLeases(t, rigOptions{}, func(r *rig) {
		r.submit("x3", "x3", "a3")
		all := r.take("w", 2, "x")
		waiting := r.ask("w", 1, time.Minute, "y")
		r.quiet()
		stopped := make(chan error, 1)
		go func() { stopped <- r.pool.Stop(r.t.Context()) }()
		r.quiet()
		a := <-waiting
		if e, _ := jobs.AsError(a.err); e.Kind != jobs.ShuttingDown || e.RetryAfter <= 0 {
			t.Errorf("the ask got %v", a.err)
		}
		_, err := r.pool.Leases().Next(r.t.Context(), &jobs.Ask{Types: []string{"x"}, Max: 1})
		if e, _ := jobs.AsError(err); e.Kind != jobs.ShuttingDown {
			t.Errorf("another ask got %v", err)
		}
		r.want("done", r.done(all[0].Token), "completed")
		r.want("beat", r.beats("w", all[1].Token), "30s")
		r.finish(3) // the local job
		if err := <-stopped; err != nil {
			t.Error(err)
		}
		r.want("after the stop", r.done(all[1].Token), "completed")
	})
}

func TestAsksAreServedInTurn(t *testing.T) {
	inLeases(t, rigOptions{}, func(r *rig) {
		var asks []chan answer
		for i := range 4 {
			asks = append(asks, r.ask(fmt.Sprint("w-", i), 1, time.Minute, "x", "y"))
			r.quiet()
		}
		r.submit("x3", "y3", "a3")
		r.quiet()
		for i, want := range []string{"1", "2"} {
			got := r.now(asks[i])
			r.want("the next ask", seqs(got), want)
			r.want("done", r.done(got[0].Token), "completed")
		}
		if len(asks[2])+len(asks[3]) > 0 {
			t.Error("others have answers, too")
		}
		r.want("the server's own", r.running(), "3")
		pass(time.Minute)
		for _, a := range asks[2:] {
			if got := r.now(a); got != nil {
				t.Errorf("got %s", seqs(got))
			}
		}
	})
}

// TestAskThatIsGoneGetsNothing: a job wakes the next ask instead.
func TestAskThatIsGoneGetsNothing(t *testing.T) {
	inLeases(t, rigOptions{}, func(r *rig) {
		gone := r.askIn(r.t.Context(), &jobs.Ask{Types: []string{"x"}, Max: 1, Wait: time.Minute, Worker: "w-1", Gone: func() bool { return true }})
		r.quiet()
		ctx, cancel := context.WithCancelCause(r.t.Context())
		left := r.askIn(ctx, &jobs.Ask{Types: []string{"x"}, Max: 1, Wait: time.Minute, Worker: "w-2"})
		r.quiet()
		cancel(errors.New("closed"))
		r.quiet()
		third := r.ask("w-3", 1, time.Minute, "x")
		r.quiet()
		r.submit("x3")
		got := r.now(third)
		r.want("third", seqs(got), "1")
		r.want("done", r.done(got[0].Token), "completed")
		if got := r.now(left); got != nil {
			t.Errorf("one whose connection was closed got %s", seqs(got))
		}
		pass(time.Minute)
		if got := r.now(gone); got != nil {
			t.Errorf("one that is gone got %s", seqs(got))
		}
		r.want("history", jobstest.Kinds(r.job(1)), "submitted started completed")
	})
}

func TestAsksOfUnknownTypes(t *testing.T) {
	inLeases(t, rigOptions{}, func(r *rig) {
		_, err := r.pool.Leases().Next(r.t.Context(), &jobs.Ask{Types: []string{"x", "a", "z"}, Max: 1})
		e, _ := jobs.AsError(err)
		if e.Kind != jobs.UnknownType || len(e.Fields) != 2 || e.Fields[0].Pointer != "/types/1" || e.Fields[1].Pointer != "/types/2" || !strings.Contains(e.Detail, "x, y") {
			t.Errorf("got %+v", e)
		}
	})
}

// TestNothingIsFetchedForNobody: without an ask a type's jobs stay in the queue, and a job
// says so.
func TestNothingIsFetchedForNobody(t *testing.T) {
	inLeases(t, rigOptions{}, func(r *rig) {
		r.submit("x3", "x3")
		pass(2 * time.Minute)
		r.want("fetched", fmt.Sprint(len(r.left())), "2")
		wait := func(reason, detail string) {
			t.Helper()
			w := r.pool.Waiting(r.job(2), pool.Queueing{Position: 1})
			if w.Reason != reason || w.Detail != detail {
				t.Errorf("it waits for %+v, want %s: %s", w, reason, detail)
			}
		}
		wait(jobs.WaitNoWorker, "no worker has asked for this type since the server started, 2m ago")
		l := r.next("w", "x")
		wait(jobs.WaitAllBusy, "1 jobs of its type are at work, and no other worker asks for one")
		r.done(l.Token)
		pass(2*time.Minute + 10*time.Second)
		wait(jobs.WaitNoWorker, "no worker has asked for this type for 2m10s")
		r.said("extend")
		pass(2 * time.Minute)
		r.want("renewed for nobody", r.said("extend"), "")
		r.want("an ask", seqs(r.now(r.ask("w", 1, time.Second, "x"))), "2")
	})
}

// TestSuspectIsLeasedAlone: a job that has lost two workers goes to one that does nothing
// else, and gets nothing else.
func TestSuspectIsLeasedAlone(t *testing.T) {
	inLeases(t, rigOptions{}, func(r *rig) {
		r.submit("x3")
		other := r.next("busy", "x")
		poison := r.preset("x1", func(j *jobs.Job) { j.Lost = 2 })
		r.submit("x3", "x3")
		r.want("a busy worker gets others", seqs(r.take("busy", 1, "x")), "3")
		r.want("one with nothing", seqs(r.now(r.ask("idle", 5, time.Second, "x"))), fmt.Sprint(poison))
		if got := r.now(r.ask("idle", 5, time.Second, "x")); got != nil {
			t.Errorf("it got %s too", seqs(got))
		}
		r.beats("busy", other.Token)
		r.want("the busy one goes on", seqs(r.take("busy", 1, "x")), "4")
	})
}

// TestSuspectGetsAWorkerThatIsNeverIdle: such a worker gets nothing more until it has
// nothing, and then the suspect.
func TestSuspectGetsAWorkerThatIsNeverIdle(t *testing.T) {
	inLeases(t, rigOptions{}, func(r *rig) {
		r.submit("x3", "x3", "x3")
		mine := r.take("w", 2, "x")
		poison := r.preset("x1", func(j *jobs.Job) { j.Lost = 2 })
		r.quiet()
		mine = append(mine, r.take("w", 1, "x")...)
		if w := r.pool.Waiting(r.job(poison), pool.Queueing{Position: 1}); w.Reason != jobs.WaitQueue || !strings.Contains(w.Detail, "lost its worker 2 times") {
			t.Errorf("it waits for %+v", w)
		}
		r.submit("x3", "x3")
		asking := r.ask("w", 5, time.Minute, "x")
		asking2 := r.ask("w", 5, time.Minute, "x")
		pass(100 * time.Millisecond)
		if len(asking)+len(asking2) == 0 {
			t.Error("nothing was given before a worker was chosen")
		}
		first := append(r.now(asking), r.now(asking2)...)
		mine = append(mine, first...)
		third := r.ask("w", 5, time.Minute, "x")
		pass(2 * time.Second)
		r.submit("x3")
		for _, l := range mine {
			r.want("done", r.done(l.Token), "completed")
		}
		got := append(append(r.now(asking), r.now(asking2)...), r.now(third)...)
		r.want("when it has nothing", seqs(got), fmt.Sprint(poison))
		// Two asks were answered before if each got one of the two jobs.
		fourth := r.ask("w", 5, time.Minute, "x")
		r.want("done", r.done(got[0].Token), "completed")
		rest := append(append(r.now(asking), r.now(asking2)...), append(r.now(third), r.now(fourth)...)...)
		r.want("then the others", seqs(rest), "7")
	})
}

func TestWorkersAreListed(t *testing.T) {
	inLeases(t, rigOptions{}, func(r *rig) {
		r.submit("x3", "y3", "a3")
		r.next("w-2", "x")
		r.next("", "y")
		r.ask("w-1", 1, time.Minute, "x", "y")
		r.quiet()
		var got []string
		for _, w := range r.pool.Leases().AtWork() {
			line := fmt.Sprintf("%s %v %v", w.Name, w.Local, w.Types)
			for _, a := range w.Work {
				line += " " + a.Type
			}
			got = append(got, line)
		}
		r.want("workers", strings.Join(got, "; "), "here true [a] a; (unnamed) false [] y; w-1 false [x y]; w-2 false [x] x")
	})
}

// TestFilesAndCheckpointsOutliveTheServer: what a worker has left counts after a restart.
func TestFilesAndCheckpointsOutliveTheServer(t *testing.T) {
	dir := jobs.NewArtifactDir(t.TempDir(), 0)
	inLeases(t, rigOptions{artifacts: dir}, func(r *rig) {
		r.submit("x3", "x3")
		all := r.take("w", 2, "x")
		leases := r.pool.Leases()
		attach := func(i int, name, content string) string {
			_, err := r.pool.Leases().Attach(r.t.Context(), all[i].Token, name, "text/plain", strings.NewReader(content))
			if err != nil {
				e, _ := jobs.AsError(err)
				return string(e.Kind)
			}
			return ""
		}
		r.want("a file", attach(0, "a", "one"), "")
		r.want("again", attach(0, "a", "one"), "")
		r.want("another one with its name", attach(0, "a", "two"), "conflict")
		r.want("another file", attach(0, "b", "two"), "")
		r.want("of the other job", attach(1, "c", "three"), "")
		message := "half"
		if _, err := leases.Progress(r.t.Context(), all[1].Token, &jobs.Progress{Percent: 50, Message: &message, Checkpoint: json.RawMessage(`{"row":7}`)}); err != nil {
			t.Error(err)
		}
		r.quiet()
		r.restart("kill")
		r.want("progress", jobstest.Brief(r.job(2)), "processing 1/0 50%")
		r.want("done", r.done(all[0].Token), "completed")
		var names []string
		for _, f := range r.job(1).Files() {
			names = append(names, f.Name)
			file, err := dir.Open(r.job(1).ID, &f)
			if err != nil {
				t.Errorf("file %s: %v", f.Name, err)
				continue
			}
			file.Close()
		}
		r.want("files", strings.Join(names, " "), "a b")
		pass(leaseSpan + 5*time.Second)
		again := r.next("w", "x")
		r.want("checkpoint", string(again.Job.Checkpoint), `{"row":7}`)
		if n := len(again.Job.Files()); n > 0 {
			t.Errorf("it begins with %d files", n)
		}
		if size, err := dir.Size(again.Job.ID); size != 0 || err != nil {
			t.Errorf("%d bytes of files are left of the lost execution (%v)", size, err)
		}
	})
}

// TestTypeThatIsRunHereNow: its leases end at once.
func TestTypeThatIsRunHereNow(t *testing.T) {
	inLeases(t, rigOptions{}, func(r *rig) {
		r.submit("x3")
		l := r.next("w", "x")
		asking := r.ask("w", 1, time.Minute, "x")
		r.quiet()
		x := typ("x")
		x.Handler = r.gate
		r.setTypes(nil, x, r.reg.Lookup("y"), r.reg.Lookup("a"))
		r.quiet()
		r.want("record", jobstest.Brief(r.job(1)), "retrying 1/0")
		r.want("done", r.done(l.Token), "lease_lost: retrying 1")
		pass(2 * time.Second)
		r.want("here", r.running(), "1")
		pass(time.Minute)
		if got := r.now(asking); got != nil {
			t.Errorf("the ask got %s", seqs(got))
		}
	})
}

// TestIdleAsksAreCheap: ten thousand workers that wait cost a hundred MiB at most, one
// more is told to come later, and a job wakes one of them.
func TestIdleAsksAreCheap(t *testing.T) {
	inLeases(t, rigOptions{}, func(r *rig) {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		all := make([]chan answer, jobs.MaxAsks)
		for i := range all {
			all[i] = r.ask(fmt.Sprint("w-", i), 1, time.Minute, "x", "y")
		}
		r.quiet()
		runtime.GC()
		runtime.ReadMemStats(&after)
		if mib := float64(after.HeapAlloc+after.StackInuse-before.HeapAlloc-before.StackInuse) / (1 << 20); mib > 100 {
			t.Errorf("they take %.0f MiB", mib)
		} else {
			t.Logf("they take %.1f MiB", mib)
		}
		_, err := r.pool.Leases().Next(r.t.Context(), &jobs.Ask{Types: []string{"x"}, Max: 1})
		if e, _ := jobs.AsError(err); e.Kind != jobs.TooMany || e.RetryAfter <= 0 {
			t.Errorf("one more gets %v", err)
		}
		r.submit("x3")
		r.quiet()
		answers := 0
		for _, got := range all {
			answers += len(got)
		}
		if answers != 1 {
			t.Errorf("a job woke %d", answers)
		}
		pass(time.Minute)
	})
}

// TestManyLeasesAreOnlyMemory: no lease has a goroutine, and beats of many are cheap.
func TestManyLeasesAreOnlyMemory(t *testing.T) {
	inLeases(t, rigOptions{}, func(r *rig) {
		const workers, each = 10, 300
		for range workers * each {
			r.submit("x3")
		}
		r.quiet()
		idle := runtime.NumGoroutine()
		tokens := make([][]string, workers)
		for w := range tokens {
			for _, l := range r.take(fmt.Sprint("w-", w), each, "x") {
				tokens[w] = append(tokens[w], l.Token)
			}
		}
		if n := runtime.NumGoroutine() - idle; n > 10 {
			t.Errorf("%d leases have %d goroutines", workers*each, n)
		}
		pass(20 * time.Second)
		for w, all := range tokens {
			r.want("beat", r.beats(fmt.Sprint("w-", w), all...), "30s")
		}
		pass(20 * time.Second)
		if n := r.pool.Living(); n != workers*each {
			t.Errorf("%d leases live, want %d", n, workers*each)
		}
		pass(20 * time.Second)
		if n := r.pool.Living(); n != 0 {
			t.Errorf("%d leases live though nobody beats", n)
		}
	})
}

// TestWorkerHoldsSoMany: its next ask is refused until it has ended some.
func TestWorkerHoldsSoMany(t *testing.T) {
	inLeases(t, rigOptions{}, func(r *rig) {
		for range jobs.MaxLeases + 5 {
			r.submit("x3")
		}
		r.quiet()
		all := r.take("w", jobs.MaxLeases, "x")
		_, err := r.pool.Leases().Next(r.t.Context(), &jobs.Ask{Types: []string{"x"}, Max: 1, Worker: "w"})
		if e, _ := jobs.AsError(err); e.Kind != jobs.TooMany {
			t.Errorf("it gets %v", err)
		}
		r.want("done", r.done(all[0].Token), "completed")
		r.want("then", fmt.Sprint(len(r.now(r.ask("w", 100, time.Second, "x")))), "1")
	})
}
