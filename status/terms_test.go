package status

import (
	"bytes"
	"context"
	"encoding/binary"
	"runtime"
	"slices"
	"testing"
	"time"

	"jobstream/jobs"
	"jobstream/status/boltfile"
	"jobstream/status/index"
)

// The tests of terms, keys, batches and manual control fold by hand, one
// transaction at a time, so that they say what comes together and what does not.

var termTypes = jobs.NewRegistry(
	&jobs.Type{Name: "email", RetryCount: 3, Handler: noHandler{}},
	&jobs.Type{Name: "export", RetryCount: 3, ConcurrencyPerKey: 2, Handler: noHandler{}},
	&jobs.Type{Name: jobs.CallbackType, Internal: true, RetryCount: 9, ConcurrencyPerKey: 2, Handler: noHandler{}},
)

// byHand opens a tracker that folds only when it is asked to.
func byHand(t *testing.T) *tracker {
	t.Helper()
	tr := openTemp(t, Options{Registry: termTypes})
	tr.endsRebuild()
	return tr
}

// endsRebuild ends the rebuild that every new file begins with.
func (tr *tracker) endsRebuild() {
	tr.t.Helper()
	ctx, cancel := within(tr.t)
	defer cancel()
	tr.together(func() { tr.must(tr.EndRebuild(ctx)) })
}

func (tr *tracker) must(err error) {
	tr.t.Helper()
	if err != nil {
		tr.t.Fatalf("%v", err)
	}
}

// folds runs one transaction over messages and events.
func (tr *tracker) folds(ms []*jobs.Message, events ...jobs.Event) *jobs.Commit {
	tr.t.Helper()
	pos := tr.Positions()
	b := &batch{events: events, jobs: pos.Jobs, status: pos.Status}
	for _, m := range ms {
		m := *m
		m.Checked = tr.o.Checked != nil && tr.o.Checked(m.ID)
		b.messages = append(b.messages, m)
		b.jobs = max(b.jobs, m.Seq)
	}
	if len(events) > 0 {
		b.status++
	}
	c, rest, err := tr.fold(b, tr.input())
	if len(rest) > 0 {
		tr.t.Fatalf("%d events are left", len(rest))
	}
	tr.must(err)
	return c
}

// receives folds one message each and returns what became of the last one.
func (tr *tracker) receives(ms ...*jobs.Message) (c *jobs.Commit) {
	tr.t.Helper()
	for _, m := range ms {
		c = tr.folds([]*jobs.Message{m})
	}
	return c
}

// together runs calls that change the tracker in one transaction, in their
// order.
func (tr *tracker) together(calls ...func()) *jobs.Commit {
	tr.t.Helper()
	done := make(chan struct{}, len(calls))
	for i, call := range calls {
		go func() { call(); done <- struct{}{} }()
		for end := time.Now().Add(deadline); tr.tasks() <= i; runtime.Gosched() {
			if time.Now().After(end) {
				tr.t.Fatalf("call %d asks for nothing", i)
			}
		}
	}
	var b batch
	tr.inbox.drain(&b)
	var c *jobs.Commit
	tr.runTasks(b.tasks, func(published *jobs.Commit) { c = published })
	for range calls {
		<-done
	}
	if c == nil {
		tr.t.Fatalf("the transaction failed")
	}
	return c
}

func (tr *tracker) tasks() int {
	tr.inbox.mu.Lock()
	defer tr.inbox.mu.Unlock()
	return len(tr.inbox.filled.tasks)
}

// cancels, retries and deletes do that to jobs, in one transaction, and return
// the keys of those that it happened to.
func (tr *tracker) cancels(keys ...uint64) (changed []uint64, c *jobs.Commit) {
	tr.t.Helper()
	c = tr.together(func() {
		some, err := tr.Cancel(context.Background(), keys, "by hand")
		tr.must(err)
		changed = keysOf(some)
	})
	return changed, c
}

func (tr *tracker) retries(keys ...uint64) (changed []uint64, refused []jobs.Refusal, c *jobs.Commit) {
	tr.t.Helper()
	c = tr.together(func() {
		some, no, err := tr.Retry(context.Background(), keys)
		tr.must(err)
		changed, refused = keysOf(some), no
	})
	return changed, refused, c
}

func (tr *tracker) deletes(keys ...uint64) (n int) {
	tr.t.Helper()
	tr.together(func() {
		var err error
		n, _, err = tr.Delete(context.Background(), keys)
		tr.must(err)
	})
	return n
}

func (tr *tracker) expires(now jobs.Time) (next jobs.Time, c *jobs.Commit) {
	tr.t.Helper()
	keys, next, err := tr.Overdue(now)
	tr.must(err)
	if len(keys) == 0 {
		return next, &jobs.Commit{}
	}
	c = tr.together(func() {
		_, err := tr.Do(context.Background(), jobs.Expire{Stamp: jobs.Stamp{At: now}, Keys: keys})
		tr.must(err)
	})
	return next, c
}

// dueKeys are the keys of all that is due.
func (tr *tracker) dueKeys(now jobs.Time) []uint64 {
	tr.t.Helper()
	return keysOf(tr.due(now))
}

// due is all that is due, callbacks last.
func (tr *tracker) due(now jobs.Time) []*jobs.Job {
	tr.t.Helper()
	due, _, err := tr.Due(now, 1000, 1000)
	tr.must(err)
	callbacks, _, err := CallbackAgenda{tr.Store}.Due(now, 1000, 1000)
	tr.must(err)
	return append(due, callbacks...)
}

// released are the messages that a releaser would publish now, from seq on.
func (tr *tracker) released(now jobs.Time, seq uint64) (ms []*jobs.Message) {
	tr.t.Helper()
	for i, j := range tr.due(now) {
		ms = append(ms, again(j, seq+uint64(i), now))
	}
	return ms
}

// again is the message that puts j into the queue again.
func again(j *jobs.Job, seq uint64, at jobs.Time) *jobs.Message {
	m := j.Again()
	m.Seq, m.At = seq, at
	return m
}

// with is message(seq) with terms.
func with(seq uint64, t jobs.Terms) *jobs.Message {
	m := message(seq)
	m.Terms = &t
	return m
}

// of is an event of the job as it is now, for the attempt that would be made.
func of(kind jobs.Kind, j *jobs.Job, at jobs.Time) jobs.Event {
	e := jobs.Event{
		Kind: kind, ID: j.ID, Seq: j.Seq, Type: j.Type, Priority: j.Priority, CreatedAt: j.CreatedAt, MaxAttempts: j.MaxAttempts,
		Run: j.Run, Attempt: j.Failures + 1, StartedAt: at, At: at, Node: "node-a",
	}
	switch kind {
	case jobs.KindFailed:
		e.Error = "it broke for good"
	case jobs.KindRetrying:
		e.Error, e.Due = "it broke", at.Add(seconds(10))
	case jobs.KindSnoozed:
		e.Due = at.Add(seconds(20))
	case jobs.KindReleased:
		if j.Status == jobs.Processing {
			e.StartedAt = j.StartedAt
		}
	}
	return e
}

// state is the status, place and turn of a job, in a word.
func (tr *tracker) state(key uint64) string {
	tr.t.Helper()
	j := tr.find(key)
	s := j.Status.String() + [...]string{"", " due", " held"}[j.Place]
	if j.Slot {
		s += " turn"
	}
	return s
}

func (tr *tracker) states(want ...string) {
	tr.t.Helper()
	for i, w := range want {
		if got := tr.state(uint64(i + 1)); got != w {
			tr.t.Fatalf("job %d is %q, want %q", i+1, got, w)
		}
	}
}

// rows are all keys and values of a bucket.
func (tr *tracker) rows(bucket []byte) (keys, values [][]byte) {
	tr.t.Helper()
	tr.must(tr.db.View(func(tx *boltfile.Tx) error {
		return tx.Bucket(bucket).ForEach(func(k, v []byte) error {
			keys, values = append(keys, bytes.Clone(k)), append(values, bytes.Clone(v))
			return nil
		})
	}))
	return keys, values
}

// verifyTerms checks that what the tracker keeps for jobs with terms is what
// their records say, and that nobody waits for a turn that is free.
func (tr *tracker) verifyTerms(all []*jobs.Job) {
	tr.t.Helper()
	var due, limits, held, owned []string
	turns := make(map[string][]uint64)
	waiting := make(map[string]*jobs.Job)
	away := 0
	for _, j := range all {
		if j.Status.Ended() {
			if j.Place != jobs.InQueue || j.Slot || j.DueAt != 0 {
				tr.t.Fatalf("an ended job is still somewhere: %+v", j)
			}
			continue
		}
		if j.Place == jobs.Due {
			part := "u"
			switch {
			case j.Type == jobs.CallbackType:
				part = "c"
			case j.Status == jobs.Scheduled:
				part = "s"
			}
			due = append(due, part+string(momentKey(j.DueAt, j.Key)))
		}
		if at := j.LimitAt(); at != 0 {
			limits = append(limits, string(momentKey(at, j.Key)))
		}
		if tr.live.Has(j.Seq) != (j.Place == jobs.InQueue) {
			tr.t.Fatalf("its message is live: %v, but %+v", tr.live.Has(j.Seq), j)
		}
		if j.Place != jobs.InQueue {
			away++
		}
		if j.Terms == nil {
			continue
		}
		if j.Terms.UniqueKey != "" {
			owned = append(owned, uniqueKey(j.CreatedBy, j.Terms)+"\x00"+string(j.ID[:]))
		}
		if j.Terms.ConcurrencyKey == "" {
			continue
		}
		name := string(slotName(j))
		switch {
		case j.Slot:
			turns[name] = append(turns[name], j.Key)
			if j.Place == jobs.Held || j.Place == jobs.Due && j.DueAt != 0 {
				tr.t.Fatalf("it has a turn and waits: %+v", j)
			}
		case j.Place == jobs.InQueue:
			tr.t.Fatalf("it is in the queue without a turn: %+v", j)
		case j.Place == jobs.Held:
			held = append(held, string(heldKey(j)))
			waiting[name] = j
		}
	}
	for what, want := range map[string]struct {
		bucket []byte
		want   []string
	}{"due": {bucketDue, due}, "limits": {bucketLimits, limits}, "held": {bucketHeld, held}} {
		keys, _ := tr.rows(want.bucket)
		got := make([]string, len(keys))
		for i, k := range keys {
			got[i] = string(k)
		}
		if slices.Sort(want.want); !slices.Equal(got, want.want) {
			tr.t.Fatalf("%s: %q, want %q", what, got, want.want)
		}
	}
	callbacks := 0
	for _, j := range all {
		if j.Type == jobs.CallbackType && inQueue(j) {
			callbacks++
		}
	}
	if n := tr.QueuedCallbacks(); n != callbacks {
		tr.t.Fatalf("%d callbacks are in the queue, counted %d", callbacks, n)
	}
	tr.verifyUnique(owned)
	tr.verifyTurns(turns, waiting)
	if n := tr.awayJobs(); n != away {
		tr.t.Fatalf("%d jobs are marked as away, want %d", n, away)
	}
}

// verifyUnique checks that every unfinished job with a unique key has it alone.
func (tr *tracker) verifyUnique(owned []string) {
	tr.t.Helper()
	var got []string
	keys, values := tr.rows(bucketUnique)
	for i, v := range values {
		if len(v) == 32 {
			batches, _ := tr.rows(bucketBatches)
			if !slices.ContainsFunc(batches, func(id []byte) bool { return bytes.Equal(id, v[16:]) }) {
				tr.t.Fatalf("%q is reserved for no batch", keys[i])
			}
			continue
		}
		got = append(got, string(keys[i])+"\x00"+string(v))
	}
	slices.Sort(owned)
	if slices.Sort(got); !slices.Equal(got, owned) {
		tr.t.Fatalf("unique keys: %q, want %q", got, owned)
	}
}

// verifyTurns checks who has a turn against the limits, and who waits for one.
func (tr *tracker) verifyTurns(turns map[string][]uint64, waiting map[string]*jobs.Job) {
	tr.t.Helper()
	names, values := tr.rows(bucketSlots)
	stored := make(map[string][]uint64)
	for i, name := range names {
		for v := values[i]; len(v) >= 8; v = v[8:] {
			stored[string(name)] = append(stored[string(name)], binary.BigEndian.Uint64(v))
		}
		slices.Sort(stored[string(name)])
	}
	limit := func(name string) int {
		typ, _, _ := bytes.Cut([]byte(name), []byte{0})
		if t := tr.o.Registry.Lookup(string(typ)); t != nil {
			return max(t.ConcurrencyPerKey, 1)
		}
		return 1
	}
	for name, keys := range turns {
		if slices.Sort(keys); !slices.Equal(keys, stored[name]) || len(keys) > limit(name) {
			tr.t.Fatalf("turns of %q: stored %v, by the records %v, at most %d", name, stored[name], keys, limit(name))
		}
		delete(stored, name)
	}
	if len(stored) > 0 {
		tr.t.Fatalf("turns of nobody: %v", stored)
	}
	for name, j := range waiting {
		if len(turns[name]) < limit(name) {
			tr.t.Fatalf("a turn of %q is free, and it waits: %+v", name, j)
		}
	}
}

// awayJobs is how many jobs the bitmaps mark as not in the queue.
func (tr *tracker) awayJobs() (n int) {
	tr.t.Helper()
	tr.must(tr.db.View(func(tx *boltfile.Tx) error {
		return index.EachChunk(tx.Bucket(bucketBits), index.Away, func(_ uint32, m *index.Bitmap) error {
			n += m.Count()
			return nil
		})
	}))
	return n
}

// everywhere runs f on a tracker as it is, and on the same file opened again.
func (tr *tracker) everywhere(f func()) {
	tr.t.Helper()
	for range 2 {
		f()
		tr.verify()
		tr.reopen()
	}
	f()
	tr.verify()
}
