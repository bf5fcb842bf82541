package intake_test

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/intake"
)

// releases is a releaser with an agenda and a queue in memory around it. The
// bubble's time starts at its beginning.
type releases struct {
	*intake.Releaser
	t     *testing.T
	begin jobs.Time
	done  chan error

	mu         sync.Mutex
	due        map[uint64]*jobs.Job
	keys       map[jobs.ID]uint64
	limits     []jobs.Time
	expired    []jobs.Time // limits that were reported as over
	sent       []sentJob
	refuse     []func(error)
	full       error // the queue's answer
	broken     error // the agenda's error
	unfinished int
	callbacks  bool                  // all jobs are, so that unfinished counts all of them
	looked     int                   // jobs that the agenda named
	meanwhile  func(due []*jobs.Job) // between the agenda's look and its answer
}

type sentJob struct {
	key uint64
	at  time.Duration // since the beginning
}

// inReleases runs f with a releaser for a queue of that room.
func inReleases(t *testing.T, room, unfinished int, f func(r *releases)) {
	t.Helper()
	inReleasesOf(t, false, room, unfinished, f)
}

// inReleasesOf is inReleases, for callbacks or for jobs.
func inReleasesOf(t *testing.T, callbacks bool, room, unfinished int, f func(r *releases)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &releases{t: t, begin: jobs.Now(), due: make(map[uint64]*jobs.Job), keys: make(map[jobs.ID]uint64), unfinished: unfinished, callbacks: callbacks, done: make(chan error, 1)}
		r.Releaser = intake.NewReleaser(intake.ReleaserOptions{
			Agenda: r, Inbox: r, Room: room, Callbacks: callbacks, Logger: slog.New(slog.DiscardHandler),
		}, unfinished)
		ctx, stop := context.WithCancel(context.Background())
		go func() { r.done <- r.Run(ctx) }()
		synctest.Wait()
		f(r)
		stop()
		if err := <-r.done; err != nil {
			t.Error(err)
		}
	})
}

func (r *releases) Due(now jobs.Time, limit, scheduled int) (due []*jobs.Job, next jobs.Time, err error) {
	r.mu.Lock()
	all := make([]*jobs.Job, 0, len(r.due))
	for _, j := range r.due {
		if j.DueAt <= now {
			all = append(all, j)
		} else if next == 0 || j.DueAt < next {
			next = j.DueAt
		}
	}
	slices.SortFunc(all, func(a, b *jobs.Job) int {
		if a.Status != b.Status {
			return -cmp.Compare(a.Status, b.Status) // scheduled is the lowest
		}
		return cmp.Or(cmp.Compare(a.DueAt, b.DueAt), cmp.Compare(a.Key, b.Key))
	})
	for _, j := range all {
		if j.Status == jobs.Scheduled || r.callbacks {
			if scheduled--; scheduled < 0 {
				break
			}
		}
		if len(due) == limit {
			break
		}
		due = append(due, j)
	}
	r.looked += len(due)
	hook, err := r.meanwhile, r.broken
	r.mu.Unlock()
	if hook != nil {
		hook(due)
	}
	return due, next, err
}

// lookedAt is how many jobs Due has named so far.
func (r *releases) lookedAt() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.looked
}

// Whole gives the payload that Due has left out.
func (r *releases) Whole(j *jobs.Job) (*jobs.Job, error) {
	c := *j
	c.Payload = []byte(`"whole"`)
	return &c, nil
}

// Overdue gives limits as keys.
func (r *releases) Overdue(now jobs.Time) (keys []uint64, next jobs.Time, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, at := range r.limits {
		if at <= now {
			keys = append(keys, uint64(at))
		} else if next == 0 || at < next {
			next = at
		}
	}
	return keys, next, r.broken
}

func (r *releases) Do(_ context.Context, c jobs.Command) (jobs.Effect, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := c.(jobs.Expire)
	r.limits = slices.DeleteFunc(r.limits, func(at jobs.Time) bool {
		over := slices.Contains(e.Keys, uint64(at))
		if over {
			r.expired = append(r.expired, e.At-r.begin)
		}
		return over
	})
	return jobs.Effect{}, r.broken
}

func (r *releases) Submit(m *jobs.Message, refused func(error)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.full != nil {
		return r.full
	}
	if !m.Moved {
		r.t.Errorf("it is not said that the job is known: %+v", m)
	}
	r.sent = append(r.sent, sentJob{r.keys[m.ID], jobs.Now().Sub(r.begin)})
	r.refuse = append(r.refuse, refused)
	return nil
}

// put makes jobs that are due some time after the beginning.
func (r *releases) put(status jobs.Status, at time.Duration, keys ...uint64) {
	c := &jobs.Commit{}
	r.mu.Lock()
	for _, key := range keys {
		j := &jobs.Job{Key: key, ID: jobs.DerivedID(key, 0), Type: "a", Priority: 3, Status: status, Place: jobs.Due, DueAt: r.begin.Add(at), MaxAttempts: 1}
		r.due[key], r.keys[j.ID] = j, key
		c.Changes = append(c.Changes, jobs.Change{After: j})
		if status != jobs.Scheduled && !r.callbacks { // a callback counts once it is in the queue
			r.unfinished++
		}
	}
	r.load(c)
	r.mu.Unlock()
	r.Committed(c)
	synctest.Wait()
}

// load sets what a commit says of the queue. r.mu is locked.
func (r *releases) load(c *jobs.Commit) {
	if c.Load.Unfinished = r.unfinished; r.callbacks {
		c.Load = jobs.Load{Unfinished: 1_000_000, Callbacks: r.unfinished} // jobs do not count
	}
}

// take hands out what was published since the last time, by keys.
func (r *releases) take() (keys []uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.sent {
		keys = append(keys, s.key)
	}
	r.sent, r.refuse = nil, nil
	return keys
}

// arrive commits published messages, and the end of so many other jobs.
func (r *releases) arrive(ended int, keys ...uint64) {
	c := &jobs.Commit{}
	r.mu.Lock()
	for _, key := range keys {
		j := r.due[key]
		if j == nil {
			continue // it was in already
		}
		if j.Status == jobs.Scheduled || r.callbacks {
			r.unfinished++
		}
		delete(r.due, key)
		c.Changes = append(c.Changes, arrival(j))
	}
	r.unfinished -= ended
	r.load(c)
	r.mu.Unlock()
	r.Committed(c)
	synctest.Wait()
}

// arrival is the change that the message of a job makes.
func arrival(j *jobs.Job) jobs.Change {
	queued := j.Clone()
	queued.Enqueue(j.Seq+1, jobs.Now())
	return jobs.Change{Before: j, After: queued}
}

func (r *releases) want(what string, got []uint64, want ...uint64) {
	r.t.Helper()
	if !slices.Equal(got, want) {
		r.t.Fatalf("%s: released %v, want %v", what, got, want)
	}
}

func upTo(n uint64) (keys []uint64) {
	for key := uint64(1); key <= n; key++ {
		keys = append(keys, key)
	}
	return keys
}

// Every job is released at its time: never before, and within a millisecond.
func TestReleasedOnTime(t *testing.T) {
	inReleases(t, 1000, 0, func(r *releases) {
		at := map[uint64]time.Duration{}
		for i, d := range []time.Duration{0, 1, time.Microsecond, time.Millisecond, 999 * time.Millisecond, time.Second, time.Second + 1, 1500 * time.Millisecond, 61 * time.Second, time.Hour + 3} {
			key := uint64(i + 1)
			at[key] = d
			r.put(jobs.Scheduled, d, key)
		}
		time.Sleep(2 * time.Hour)
		first := make(map[uint64]time.Duration)
		r.mu.Lock()
		for _, s := range r.sent {
			if _, ok := first[s.key]; !ok {
				first[s.key] = s.at
			}
		}
		r.mu.Unlock()
		for key, due := range at {
			if got, ok := first[key]; !ok || got < due || got > due+time.Millisecond {
				t.Errorf("due after %s, released after %s (%v)", due, got, ok)
			}
		}
	})
}

// A commit that puts a job off to an earlier moment than all others wakes the releaser.
func TestReleaserWakes(t *testing.T) {
	inReleases(t, 10, 0, func(r *releases) {
		r.put(jobs.Scheduled, time.Hour, 1)
		time.Sleep(10*time.Minute + 300*time.Millisecond)
		r.put(jobs.Pending, -time.Hour, 2)
		r.want("one that is due", r.take(), 2)
		r.arrive(0, 2)
		r.put(jobs.Scheduled, 10*time.Minute+310*time.Millisecond, 3)
		r.want("before its time", r.take())
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
		r.want("one that is due soon", r.take(), 3)
	})
}

// A message that does not arrive is published again after ten seconds. One that the
// queue refuses is published again within one. One that arrives is not.
func TestReleasedAgain(t *testing.T) {
	inReleases(t, 10, 0, func(r *releases) {
		r.put(jobs.Scheduled, 0, 1)
		r.want("at once", r.take(), 1)
		time.Sleep(9900 * time.Millisecond)
		r.put(jobs.Scheduled, 0, 2)
		r.want("while the first is on its way", r.take(), 2)
		time.Sleep(1200 * time.Millisecond)
		synctest.Wait()
		r.want("after ten seconds", r.take(), 1)
		r.arrive(0, 1, 2)
		time.Sleep(time.Minute)
		r.want("after they arrived", r.take())

		// The queue refuses one afterwards.
		r.put(jobs.Scheduled, 0, 3)
		r.mu.Lock()
		refuse := r.refuse[0]
		r.mu.Unlock()
		r.want("the third", r.take(), 3)
		refuse(errors.New("full"))
		r.put(jobs.Scheduled, time.Hour, 4) // a wake-up: nothing is to be hurried
		r.want("right after a refusal", r.take())
		time.Sleep(1001 * time.Millisecond)
		synctest.Wait()
		r.want("after a refusal", r.take(), 3)
		r.arrive(0, 3)

		// It cannot even be asked.
		r.full = errors.New("no connection")
		r.put(jobs.Scheduled, 0, 5)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		r.mu.Lock()
		r.full = nil
		r.mu.Unlock()
		r.want("without a connection", r.take())
		time.Sleep(1001 * time.Millisecond)
		synctest.Wait()
		r.want("with one again", r.take(), 5)
	})
}

// The queue's room bounds scheduled jobs, those on their way included. Jobs that count
// already need no room. Free room is used at once.
func TestReleaserRoom(t *testing.T) {
	inReleases(t, 5, 3, func(r *releases) {
		r.put(jobs.Scheduled, 0, 1, 2, 3, 4)
		r.want("with two places", r.take(), 1, 2)
		r.put(jobs.Retrying, 0, 10, 11)
		r.want("jobs that count already", r.take(), 10, 11)
		begin := time.Now()
		r.arrive(0, 10, 11, 1, 2)
		r.want("with no place", r.take()) // 7 unfinished
		r.arrive(2)
		r.want("still none", r.take())
		r.arrive(1)
		r.want("one is free", r.take(), 3)
		r.arrive(1, 3) // it came, and another one ended with it
		r.want("one is free in the commit of the last", r.take(), 4)
		r.arrive(0, 4)
		if took := time.Since(begin); took != 0 {
			t.Errorf("it took %s, though all was said by commits", took)
		}
	})
	inReleases(t, 2, 2, func(r *releases) {
		r.put(jobs.Scheduled, 0, 1)
		time.Sleep(time.Minute)
		r.want("a full queue", r.take())
		if looked := r.lookedAt(); looked != 0 {
			t.Errorf("the agenda named %d jobs for which there is no room", looked)
		}
		r.put(jobs.Pending, time.Minute+300*time.Millisecond, 2)
		time.Sleep(300 * time.Millisecond)
		synctest.Wait()
		r.want("one that needs no room, on time", r.take(), 2)
	})
}

// Ten thousand due jobs are released once each, a bounded number at a time. They are
// not all read again for each that arrives.
func TestReleaseOfVeryMany(t *testing.T) {
	const n, most = 10_000, 4096
	inReleases(t, 1_000_000, 0, func(r *releases) {
		r.put(jobs.Scheduled, time.Second, upTo(n)...)
		time.Sleep(time.Second)
		synctest.Wait()
		seen := make(map[uint64]bool)
		var way []uint64 // what is on its way
		for rounds := 0; len(seen) < n || len(way) > 0; rounds++ {
			if rounds > 10*n {
				t.Fatalf("%d were released, %d are on their way", len(seen), len(way))
			}
			for _, key := range r.take() {
				if seen[key] {
					t.Fatalf("job %d was released twice", key)
				}
				seen[key] = true
				way = append(way, key)
			}
			if len(way) > most {
				t.Fatalf("%d are on their way", len(way))
			}
			some := min(len(way), 100)
			r.arrive(some, way[:some]...)
			way = way[some:]
		}
		if took := time.Since(r.begin.Std()); took > time.Second+time.Millisecond {
			t.Errorf("it waited for %s", took-time.Second)
		}
		if looked := r.lookedAt(); looked > 5*n {
			t.Errorf("%d jobs were read for %d", looked, n)
		}
	})
}

// A job whose message arrives while the agenda answers is not published again.
func TestReleasedWhileItArrives(t *testing.T) {
	inReleases(t, 100, 0, func(r *releases) {
		r.put(jobs.Scheduled, 0, 1)
		r.want("at once", r.take(), 1)
		r.meanwhile = func(due []*jobs.Job) {
			r.meanwhile = nil
			r.want("the agenda", keys(due), 1)
			c := &jobs.Commit{Changes: []jobs.Change{arrival(due[0])}, Load: jobs.Load{Unfinished: 1}}
			r.mu.Lock()
			delete(r.due, 1)
			r.mu.Unlock()
			r.Committed(c)
		}
		r.put(jobs.Scheduled, time.Hour, 2) // makes it look
		if r.want("it has arrived", r.take()); r.meanwhile != nil {
			t.Fatal("it did not look")
		}
		// Put off once more it is due once more, also at once.
		r.put(jobs.Scheduled, 0, 1)
		r.want("again", r.take(), 1)
	})
}

func keys(js []*jobs.Job) (all []uint64) {
	for _, j := range js {
		all = append(all, j.Key)
	}
	return all
}

// Jobs that end before their arrival is known do not use up the room of those on their
// way.
func TestReleaserForgets(t *testing.T) {
	inReleases(t, 1_000_000, 0, func(r *releases) {
		r.meanwhile = func(due []*jobs.Job) { // each is cancelled between the look and the answer
			r.mu.Lock()
			clear(r.due)
			r.mu.Unlock()
			c := &jobs.Commit{}
			for _, j := range due {
				cancelled := j.Clone()
				jobs.Apply(cancelled, &jobs.Event{Kind: jobs.KindCancelled, Run: j.Run, At: jobs.Now()})
				c.Changes = append(c.Changes, jobs.Change{Before: j, After: cancelled})
			}
			r.Committed(c)
		}
		for round := range uint64(3) {
			var some []uint64
			for _, key := range upTo(3000) {
				some = append(some, 3000*round+key)
			}
			r.put(jobs.Scheduled, 0, some...)
			r.take()
			time.Sleep(11 * time.Second)
			synctest.Wait()
		}
		r.mu.Lock()
		r.meanwhile = nil
		r.mu.Unlock()
		r.take()
		r.put(jobs.Scheduled, 0, 100_001)
		r.want("after all that", r.take(), 100_001)
	})
}

// A job that is put off again has nothing to do with its earlier message.
func TestReleasedForAnotherMoment(t *testing.T) {
	inReleases(t, 100, 0, func(r *releases) {
		r.put(jobs.Scheduled, 0, 1)
		r.want("at once", r.take(), 1)
		r.put(jobs.Scheduled, time.Second, 1) // its arrival is not known
		time.Sleep(time.Second)
		synctest.Wait()
		r.want("for its new time", r.take(), 1)
	})
}

// The wall clock is set forward or back. The agenda follows it, so all jobs are due
// earlier or later, without any notice.
func TestReleaserAndTheClock(t *testing.T) {
	shift := func(r *releases, by time.Duration) {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, j := range r.due {
			j.DueAt = j.DueAt.Add(by)
		}
		for i := range r.limits {
			r.limits[i] = r.limits[i].Add(by)
		}
	}
	inReleases(t, 100, 0, func(r *releases) {
		r.limits = []jobs.Time{r.begin.Add(time.Hour)}
		r.put(jobs.Scheduled, time.Hour, 1)
		shift(r, -time.Hour)
		time.Sleep(time.Second)
		synctest.Wait()
		r.want("set forward", r.take(), 1)
		if len(r.expired) != 1 {
			t.Errorf("limits: %v", r.expired)
		}
	})
	inReleases(t, 100, 0, func(r *releases) {
		r.put(jobs.Scheduled, 500*time.Millisecond, 1)
		time.Sleep(400 * time.Millisecond)
		shift(r, time.Hour)
		time.Sleep(time.Hour + 99*time.Millisecond)
		synctest.Wait()
		r.want("set back", r.take())
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		r.want("when it is due by the new clock", r.take(), 1)
	})
}

// Jobs expire at their moment, and an agenda that fails is asked again.
func TestReleaserExpires(t *testing.T) {
	inReleases(t, 100, 0, func(r *releases) {
		r.mu.Lock()
		r.limits = []jobs.Time{r.begin.Add(3 * time.Second), r.begin.Add(7300 * time.Millisecond), r.begin.Add(20 * time.Second)}
		r.mu.Unlock()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		r.mu.Lock()
		for i, want := range []time.Duration{3 * time.Second, 7300 * time.Millisecond} {
			if got := time.Duration(r.expired[i]); got < want || got > want+time.Millisecond {
				t.Errorf("expired after %s, want %s", got, want)
			}
		}
		r.broken = errors.New("a damaged page")
		r.mu.Unlock()
		time.Sleep(15 * time.Second)
		synctest.Wait()
		r.put(jobs.Scheduled, 0, 1)
		r.want("from a broken agenda", r.take())
		r.mu.Lock()
		r.broken = nil
		r.mu.Unlock()
		time.Sleep(time.Second)
		synctest.Wait()
		r.want("from one that works again", r.take(), 1)
	})
}

// Callbacks have a room of their own: others wait until some have left the queue, whatever
// else is in it.
func TestReleasedCallbacks(t *testing.T) {
	inReleasesOf(t, true, 3, 1, func(r *releases) {
		r.put(jobs.Pending, 0, 1, 2, 3, 4, 5)
		r.want("as there is room", r.take(), 1, 2)
		r.arrive(0, 1, 2)
		time.Sleep(time.Minute)
		synctest.Wait()
		r.want("while the queue is full of them", r.take())
		r.arrive(2)
		r.want("after two have ended", r.take(), 3, 4)
		r.arrive(0, 3, 4)
		r.put(jobs.Pending, time.Hour, 6)
		r.arrive(3)
		r.want("after all have ended", r.take(), 5)
		r.arrive(1, 5)
		time.Sleep(59*time.Minute + time.Second)
		synctest.Wait()
		r.want("at its time", r.take(), 6)
	})
}
