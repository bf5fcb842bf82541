package status

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/jobstest"
	"jobstream/status/boltfile"
	"jobstream/status/record"
)

// ends are the jobs in the outbox as they ended, without their being notified.
func (tr *tracker) ends() (ended []*jobs.Job) {
	tr.t.Helper()
	err := tr.db.View(func(tx *boltfile.Tx) error {
		var at outboxPlace
		for {
			some, next, err := readOutbox(tx, at)
			if err != nil || len(some) == 0 {
				return err
			}
			ended, at = append(ended, some...), next
		}
	})
	if err != nil {
		tr.t.Fatalf("the outbox: %v", err)
	}
	return ended
}

// outbox are the keys of ends.
func (tr *tracker) outbox() []uint64 {
	tr.t.Helper()
	return keysOf(tr.ends())
}

// entries counts what stands in the outbox, without its being published.
func (tr *tracker) entries() (n int) {
	tr.t.Helper()
	err := tr.db.View(func(tx *boltfile.Tx) error {
		return tx.Bucket(bucketOutbox).ForEach(func(_, _ []byte) error { n++; return nil })
	})
	if err != nil {
		tr.t.Fatalf("%v", err)
	}
	return n
}

// end submits and completes the jobs with these sequences, one commit each, and
// returns the last commit's number.
func (tr *tracker) end(seqs ...uint64) (number uint64) {
	tr.t.Helper()
	for _, seq := range seqs {
		number = 0
		m := message(seq)
		tr.submit(m)
		tr.wait(seq, 0)
		tr.Happened(seq, []jobs.Event{event(jobs.KindCompleted, m, 1)})
		tr.wait(seq, seq)
		tr.until("the end", func(cs []jobs.Commit) bool {
			return slices.ContainsFunc(cs, func(c jobs.Commit) bool {
				for j := range c.Ended() {
					if j.Key == seq {
						number = c.Number
					}
				}
				return number != 0
			})
		})
	}
	return number
}

// An end stays in the outbox until its notification has been stored for long enough.
func TestOutboxDrops(t *testing.T) {
	t.Parallel()
	tr := byHand(t)
	now := time.Now()
	later := func() uint64 {
		now = now.Add(tr.o.OutboxAge)
		return tr.droppable(now)
	}
	if tr.droppable(now) != 0 {
		t.Error("something may go at once")
	}
	tr.Notified(7)
	if later() != 0 {
		t.Error("what was notified just now may go")
	}
	if tr.Notified(9); later() != 7 || tr.droppable(now.Add(tr.o.OutboxAge-1)) != 7 {
		t.Error("what was notified for long enough stays, or what was not may go")
	}
	tr.KeepOutbox(true)
	if later() != 0 {
		t.Error("something may go while all is held")
	}
	tr.KeepOutbox(false)
	if later() != 9 {
		t.Error("it may not go after that")
	}
}

// Only entries that may go are dropped, and an idle tracker drops them, too.
func TestOutboxDropsInOrder(t *testing.T) {
	t.Parallel()
	tr := startTemp(t, Options{OutboxAge: 10 * time.Millisecond})
	first := tr.end(1)
	tr.end(2, 3)
	emptied := func(left int) {
		t.Helper()
		ctx, cancel := within(t)
		defer cancel()
		tr.must(tr.Store.until(ctx, "entries to be dropped", func() bool { return tr.entries() <= left }))
	}
	tr.Notified(first)
	emptied(2)
	if got := tr.outbox(); !slices.Equal(got, []uint64{2, 3}) {
		t.Errorf("left are %v", got)
	}
	tr.Notified(tr.Number())
	emptied(0)
}

// After a crash everything in the outbox is to be published again, in its order, and what
// has ended since then comes behind it.
func TestOutboxAfterCrash(t *testing.T) {
	t.Parallel()
	tr := startTemp(t, Options{})
	tr.Notified(tr.end(1, 2))
	tr.reopen()
	tr.run(idle{})
	tr.end(3)
	if n, err := tr.Unnotified(); n != 3 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	o := tr.Outbox()
	got, err := o.Read()
	if tr.must(err); !slices.Equal(keysOf(got), []uint64{1, 2, 3}) {
		t.Errorf("%v", keysOf(got))
	}
}

// A read is bounded in jobs and bytes, however much ended with one commit. It returns
// the same jobs until they are stored. The number moves with the whole commit.
func TestOutboxPieces(t *testing.T) {
	t.Parallel()
	tr := byHand(t)
	large := []byte(`"` + strings.Repeat("x", 1<<20) + `"`)
	var ms []*jobs.Message
	var events []jobs.Event
	var want []uint64
	const few, many = 10, 3 * pieceJobs
	for seq := uint64(1); seq <= few+many; seq++ {
		m := message(seq)
		if seq <= few {
			m.Payload = large
		}
		ms, events, want = append(ms, m), append(events, event(jobs.KindCompleted, m, 1)), append(want, seq)
	}
	c := tr.folds(ms, events...)
	o := tr.Outbox()
	var got []uint64
	for pieces := 0; ; pieces++ {
		some, err := o.Read()
		tr.must(err)
		again, err := o.Read()
		if tr.must(err); !slices.EqualFunc(again, some, jobstest.Same) {
			t.Fatal("it is not the same when it is read again")
		}
		size := 0
		for _, j := range some {
			size += len(j.Payload)
			if (j.Key <= few) != bytes.Equal(j.Payload, large) {
				t.Fatalf("job %d has a payload of %d bytes", j.Key, len(j.Payload))
			}
		}
		if len(some) > pieceJobs || size > pieceBytes+len(large) {
			t.Fatalf("%d jobs, %d bytes of payloads", len(some), size)
		}
		got = append(got, keysOf(some)...)
		o.Stored()
		if len(some) == 0 {
			if pieces < many/pieceJobs+few*len(large)/pieceBytes {
				t.Errorf("%d pieces", pieces)
			}
			break
		}
		if notified := tr.notified.Load(); (notified >= c.Number) != (len(got) == len(want)) {
			t.Fatalf("notified up to %d of %d with %d jobs of %d", notified, c.Number, len(got), len(want))
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d jobs, want %d, or in another order", len(got), len(want))
	}
	// Commits that end nothing leave nothing to notify.
	tr.receives(message(few + many + 1))
	if some, err := o.Read(); len(some) != 0 || err != nil {
		t.Errorf("%v, %v", some, err)
	}
	if o.Stored(); tr.notified.Load() != tr.Number() {
		t.Errorf("notified up to %d of %d", tr.notified.Load(), tr.Number())
	}
}

// Jobs are notified as they ended, each time, though they run again or are deleted by then.
func TestEndsOfJobsThatRunAgain(t *testing.T) {
	t.Parallel()
	for name, pad := range map[string]int{"small": 1, "large": record.InlinePayload} {
		t.Run(name, func(t *testing.T) {
			tr := byHand(t)
			m := message(1)
			m.Payload = []byte(`"` + strings.Repeat("x", pad) + `"`)
			tr.receives(m, message(2))
			at := epoch.Add(seconds(100))
			for run := 1; run <= 2; run++ {
				tr.folds(nil, of(jobs.KindFailed, tr.find(1), at))
				tr.retries(1)
				tr.folds(tr.released(at, uint64(10*run)))
			}
			tr.cancels(1, 2)
			want := []string{"1.failed.1", "1.failed.2", "1.cancelled.3", "2.cancelled.1"}
			check := func(when string) {
				t.Helper()
				var got []string
				for _, j := range tr.ends() {
					if j.Key == 1 && string(j.Payload) != string(m.Payload) {
						t.Errorf("%s: its payload has %d bytes", when, len(j.Payload))
					}
					got = append(got, fmt.Sprintf("%d.%s.%d", j.Key, j.Status, j.Run))
				}
				if !slices.Equal(got, want) {
					t.Errorf("%s: %v, want %v", when, got, want)
				}
			}
			check("at once")
			tr.everywhere(func() { check("later") })
			if n := tr.deletes(1); n != 1 {
				t.Fatalf("%d deleted", n)
			}
			tr.everywhere(func() { check("deleted") })
			// Once the outbox may forget them the copies go, too.
			tr.Notified(tr.Number())
			tr.young, tr.since = tr.Number(), time.Time{}
			tr.folds(nil)
			for _, bucket := range [][]byte{bucketOutbox, bucketCopies, bucketCopyAges} {
				if keys, _ := tr.rows(bucket); len(keys) != 0 {
					t.Errorf("%s has %d entries left", bucket, len(keys))
				}
			}
		})
	}
}

// A job that is deleted after its end was notified leaves no copy, unless nobody knows.
func TestDeletedEnds(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		notified bool
		others   int
		want     int
	}{
		"notified":             {true, 0, 0},
		"notified, others not": {true, 10, 0},
		"not notified":         {false, 0, 1},
		"nobody knows":         {true, listMost + 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			tr := byHand(t)
			ended := tr.folds([]*jobs.Message{message(1)}, event(jobs.KindCompleted, message(1), 1))
			if c.notified {
				tr.Notified(ended.Number)
			}
			if c.others > 0 {
				v := key8(0)
				for key := range uint64(c.others) {
					v = append(v, key8(key+100)...)
				}
				tr.must(tr.db.Update(func(tx *boltfile.Tx) error { return tx.Bucket(bucketOutbox).Put(key8(ended.Number+1), v) }))
			}
			if n := tr.deletes(1); n != 1 {
				t.Fatalf("%d deleted", n)
			}
			if keys, _ := tr.rows(bucketCopies); len(keys) != c.want {
				t.Errorf("%d copies, want %d", len(keys), c.want)
			}
		})
	}
}

// Copies of ends that an earlier version has left are notified first.
func TestOlderCopies(t *testing.T) {
	t.Parallel()
	tr := byHand(t)
	tr.folds([]*jobs.Message{message(1), message(2)}, event(jobs.KindFailed, message(1), 1), event(jobs.KindCompleted, message(2), 1))
	was := tr.find(1)
	tr.must(tr.db.Update(func(tx *boltfile.Tx) error {
		if err := tx.Create(bucketEnds); err != nil {
			return err
		}
		return tx.Bucket(bucketEnds).Put(momentKey(was.EndedAt, 1), record.Append(nil, was))
	}))
	tr.reopen()
	o := tr.Outbox()
	for i, want := range [][]uint64{{1}, {1, 2}, nil} {
		got, err := o.Read()
		if tr.must(err); !slices.Equal(keysOf(got), want) {
			t.Errorf("piece %d: %v, want %v", i, keysOf(got), want)
		}
		o.Stored()
	}
	tr.must(tr.MarkClean(Clean{}))
	tr.reopen()
	if got, err := tr.Outbox().Read(); len(got) != 0 || err != nil {
		t.Errorf("after a clean stop: %v, %v", got, err)
	}
}
