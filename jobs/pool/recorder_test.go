package pool_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/pool"
)

// eventLog keeps what is appended to it.
type eventLog struct {
	mu    sync.Mutex
	calls int
	lines []string // "kind/seq"
	times []time.Duration
	begin time.Time
	err   error // what the next calls answer
}

func (l *eventLog) Append(events []jobs.Event) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	l.calls++
	for _, e := range events {
		l.lines = append(l.lines, fmt.Sprintf("%s/%d", e.Kind, e.Seq))
		l.times = append(l.times, time.Since(l.begin))
	}
	return nil
}

func (l *eventLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, " ")
}

// sent is the number of calls, and of all events in them.
func (l *eventLog) sent() (calls, events int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.calls, len(l.lines)
}

// record runs a recorder in a bubble of its own time until f returns.
func record(t *testing.T, f func(r *pool.Recorder, log *eventLog)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		log := &eventLog{begin: time.Now()}
		r := pool.NewRecorder(log, nil)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		synctest.Wait()
		f(r, log)
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// pass lets fake time go by.
func pass(d time.Duration) {
	timer := time.NewTimer(d)
	<-timer.C
	synctest.Wait()
}

// beginning is the message that an attempt has begun at.
type beginning uint64

func (b beginning) StartEvent() *jobs.Event { return ev(jobs.KindStarted, uint64(b)) }

func begin(r *pool.Recorder, seq uint64) { r.Started(seq, jobs.Now(), beginning(seq)) }

func ev(kind jobs.Kind, seq uint64) *jobs.Event { return &jobs.Event{Kind: kind, Seq: seq} }

func TestRecorderSendsAtOnceWhenIdle(t *testing.T) {
	record(t, func(r *pool.Recorder, log *eventLog) {
		for seq := range uint64(3) {
			r.Record(ev(jobs.KindCompleted, seq))
			synctest.Wait()
			pass(10 * time.Millisecond)
		}
		if want := "completed/0 completed/1 completed/2"; log.String() != want {
			t.Errorf("got %s", log)
		}
		log.mu.Lock()
		defer log.mu.Unlock()
		if want := []time.Duration{0, 10 * time.Millisecond, 20 * time.Millisecond}; !slices.Equal(log.times, want) {
			t.Errorf("sent at %v", log.times)
		}
	})
}

// The outcome of a short job is not delayed by the deferral of its start.
func TestRecorderSendsShortJobsAtOnce(t *testing.T) {
	record(t, func(r *pool.Recorder, log *eventLog) {
		begin(r, 1)
		pass(100 * time.Microsecond)
		r.Record(ev(jobs.KindCompleted, 1))
		synctest.Wait()
		if log.String() != "completed/1" {
			t.Errorf("at once: %q", log)
		}
	})
}

func TestRecorderPacksUnderLoad(t *testing.T) {
	record(t, func(r *pool.Recorder, log *eventLog) {
		r.Record(ev(jobs.KindCompleted, 0))
		synctest.Wait() // sent at once; what follows waits for the window
		for seq := uint64(1); seq <= 100; seq++ {
			r.Record(ev(jobs.KindCompleted, seq))
			synctest.Wait()
		}
		if calls, _ := log.sent(); calls != 1 {
			t.Errorf("%d sendings within the window, want 1", calls)
		}
		pass(time.Millisecond)
		if calls, events := log.sent(); calls != 2 || events != 101 {
			t.Errorf("%d sendings with %d events, want 2 with 101", calls, events)
		}
		log.mu.Lock()
		defer log.mu.Unlock()
		for i, line := range log.lines {
			if line != fmt.Sprintf("completed/%d", i) {
				t.Fatalf("event %d is %s", i, line)
			}
		}
	})
}

func TestRecorderHoldsStartsBack(t *testing.T) {
	tests := []struct {
		name string
		does func(r *pool.Recorder)
		want string
	}{
		{name: "alone", does: func(r *pool.Recorder) { begin(r, 1) }, want: "started/1"},
		{name: "completed at once", does: func(r *pool.Recorder) {
			begin(r, 1)
			r.Record(ev(jobs.KindCompleted, 1))
		}, want: "completed/1"},
		{name: "every outcome makes it superfluous", does: func(r *pool.Recorder) {
			for i, k := range []jobs.Kind{jobs.KindCompleted, jobs.KindFailed, jobs.KindRetrying, jobs.KindReleased, jobs.KindCancelled} {
				begin(r, uint64(i))
				r.Record(ev(k, uint64(i)))
			}
		}, want: "completed/0 failed/1 retrying/2 released/3 cancelled/4"},
		{name: "another job's outcome doesn't", does: func(r *pool.Recorder) {
			begin(r, 1)
			r.Record(ev(jobs.KindCompleted, 2))
		}, want: "completed/2 started/1"},
		{name: "progress needs it first", does: func(r *pool.Recorder) {
			begin(r, 1)
			r.Record(ev(jobs.KindProgress, 1))
			r.Record(ev(jobs.KindProgress, 1))
		}, want: "started/1 progress/1 progress/1"},
		{name: "completed after 3 ms", does: func(r *pool.Recorder) {
			begin(r, 1)
			pass(3 * time.Millisecond)
			r.Record(ev(jobs.KindCompleted, 1))
		}, want: "completed/1"},
		{name: "completed after 5 ms", does: func(r *pool.Recorder) {
			begin(r, 1)
			pass(5 * time.Millisecond)
			r.Record(ev(jobs.KindCompleted, 1))
		}, want: "started/1 completed/1"},
		{name: "an attempt after another", does: func(r *pool.Recorder) {
			begin(r, 1)
			r.Record(ev(jobs.KindRetrying, 1))
			begin(r, 1)
			pass(5 * time.Millisecond)
			r.Record(ev(jobs.KindCompleted, 1))
		}, want: "retrying/1 started/1 completed/1"},
		{name: "a start with the durability of an event", does: func(r *pool.Recorder) {
			r.Record(ev(jobs.KindStarted, 1))
			r.Record(ev(jobs.KindCompleted, 1))
		}, want: "started/1 completed/1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			record(t, func(r *pool.Recorder, log *eventLog) {
				tt.does(r)
				pass(20 * time.Millisecond)
				if log.String() != tt.want {
					t.Errorf("got %q, want %q", log, tt.want)
				}
			})
		})
	}
}

func TestRecorderHoldsNoStartForLong(t *testing.T) {
	record(t, func(r *pool.Recorder, log *eventLog) {
		for seq := range uint64(20) {
			begin(r, seq)
			pass(time.Millisecond)
		}
		pass(20 * time.Millisecond)
		log.mu.Lock()
		defer log.mu.Unlock()
		if len(log.times) != 20 {
			t.Fatalf("%d starts sent, want 20", len(log.times))
		}
		for i, line := range log.lines {
			var seq int
			if _, err := fmt.Sscanf(line, "started/%d", &seq); err != nil {
				t.Fatal(err)
			}
			if late := log.times[i] - time.Duration(seq)*time.Millisecond; late < 0 || late > 5*time.Millisecond {
				t.Errorf("%s was sent after %s", line, late)
			}
		}
	})
}

func TestRecorderSendsEverythingAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &eventLog{}
		r := pool.NewRecorder(log, nil)
		begin(r, 1)
		r.Record(ev(jobs.KindCompleted, 2))
		r.Record(ev(jobs.KindRetrying, 3))
		begin(r, 4)
		ctx, stop := context.WithCancel(t.Context())
		stop()
		if err := r.Run(ctx); err != nil {
			t.Fatal(err)
		}
		got := strings.Fields(log.String())
		slices.Sort(got)
		if want := "completed/2 retrying/3 started/1 started/4"; strings.Join(got, " ") != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestRecorderTellsOfFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("no connection")
		log := &eventLog{err: broken}
		heard := make(chan error, 1)
		r := pool.NewRecorder(log, func(err error) { heard <- err })
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		r.Record(ev(jobs.KindCompleted, 1))
		if err := <-heard; !errors.Is(err, broken) {
			t.Errorf("heard %v", err)
		}
		log.mu.Lock()
		log.err = nil
		log.mu.Unlock()
		r.Record(ev(jobs.KindCompleted, 2))
		stop()
		<-done
		if log.String() != "completed/2" {
			t.Errorf("afterwards it sent %q", log)
		}
	})
}

// TestRecorderKeepsOrder: the events of one job come in their order, whatever
// many goroutines record at the same time.
func TestRecorderKeepsOrder(t *testing.T) {
	log := &eventLog{}
	r := pool.NewRecorder(log, nil)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	const writers, rounds = 8, 300
	var wg sync.WaitGroup
	for seq := range uint64(writers) {
		wg.Go(func() {
			for range rounds {
				begin(r, seq)
				r.Record(ev(jobs.KindProgress, seq))
				r.Record(ev(jobs.KindRetrying, seq))
			}
		})
	}
	wg.Wait()
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	cycle := []string{"started", "progress", "retrying"}
	next := make(map[string]int)
	for _, line := range log.lines {
		kind, seq, _ := strings.Cut(line, "/")
		if kind != cycle[next[seq]%3] {
			t.Fatalf("event %d of job %s is %s, want %s", next[seq], seq, kind, cycle[next[seq]%3])
		}
		next[seq]++
	}
	for seq, n := range next {
		if n != 3*rounds {
			t.Errorf("job %s has %d events, want %d", seq, n, 3*rounds)
		}
	}
}
