package status

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"jobstream/jobs"
	"jobstream/status/boltfile"
)

// endedSince reads the whole log from a commit on, in pieces of most jobs.
func (tr *tracker) endedSince(number uint64, most int) (all []jobs.EndedJob, last jobs.Ends) {
	tr.t.Helper()
	for at := (jobs.EndedPlace{Number: number}); ; at = last.Next {
		var err error
		last, err = tr.EndedSince(at, most, 1<<20)
		tr.must(err)
		if all = append(all, last.Jobs...); last.Whole {
			return all, last
		}
		if len(last.Jobs) > most || last.Next == at {
			tr.t.Fatalf("a piece of %d has %d jobs, and goes on at %v", most, len(last.Jobs), last.Next)
		}
	}
}

// TestLogOfEnds asks what has ended since, over a restart and changes of what has ended.
func TestLogOfEnds(t *testing.T) {
	t.Parallel()
	tr := startTemp(t, Options{})
	first := tr.end(1)
	tr.end(2)
	third := tr.end(3)
	all, last := tr.endedSince(0, 2)
	if len(all) != 3 || all[0].Number != first || all[2].Number != third || all[2].Key != 3 || last.Number != third || last.Floor != 0 {
		t.Fatalf("the log has %v, %+v", all, last)
	}
	if since, _ := tr.endedSince(first+1, 10); len(since) != 2 || since[0].Key != 2 {
		t.Errorf("since the first there are %v", since)
	}
	if since, _ := tr.endedSince(third+1, 10); len(since) != 0 {
		t.Errorf("since the last there are %v", since)
	}
	ctx, cancel := within(t)
	defer cancel()
	tr.submit(message(4))
	tr.wait(4, 0)
	_, err := tr.Cancel(ctx, []uint64{4}, "")
	tr.must(err)
	tr.Notified(tr.Number())
	_, _, err = tr.Delete(ctx, []uint64{2})
	tr.must(err)
	_, _, err = tr.Retry(ctx, []uint64{4})
	tr.must(err)
	tr.must(tr.halt())
	tr.must(tr.MarkClean(Clean{}))
	tr.reopen()
	if all, _ = tr.endedSince(0, 1); len(all) != 3 || all[1].Key != 3 || all[2].Key != 4 || all[2].Status != jobs.Pending {
		t.Errorf("after a restart the log has %v", all)
	}
}

// TestLogOfEndsBounds adds random ends to a log with a bound, which keeps the latest of them
// and knows where it begins.
func TestLogOfEndsBounds(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	tr := byHand(t)
	const most = 100
	type entry struct {
		number uint64
		at     jobs.Time
		keys   []uint64
	}
	var all []entry
	count, floor := 0, entry{}
	at := jobs.Now()
	for number := uint64(1); number < 500; number += 1 + r.Uint64N(3) {
		at = at.Add(time.Duration(r.Int64N(int64(endedAge / 20))))
		e := entry{number: number, at: at}
		for range 1 + r.IntN(20) {
			e.keys = append(e.keys, r.Uint64()>>r.IntN(64))
		}
		tr.must(tr.db.Update(func(tx *boltfile.Tx) error {
			return logEnded(tx.Bucket(bucketEnded), e.number, e.at, slices.Clone(e.keys), most)
		}))
		all, count = append(all, e), count+len(e.keys)
		for count > most || all[0].at < at.Add(-endedAge) {
			floor, count, all = all[0], count-len(all[0].keys), all[1:]
		}
		tr.must(tr.db.View(func(tx *boltfile.Tx) error {
			log := tx.Bucket(bucketEnded)
			if n := log.Sequence(); n != uint64(count) {
				t.Fatalf("it counts %d ends of %d", n, count)
			}
			c := log.Cursor()
			for k, _ := c.Seek(key8(1)); len(all) > 0 && k != nil && slices.Compare(k, key8(all[0].number)) < 0; {
				t.Fatalf("it has the commit %v, and %d is the oldest that it may have", k, all[0].number)
			}
			for _, e := range all {
				if v := log.Get(key8(e.number)); endsIn(v) != len(e.keys) {
					t.Fatalf("commit %d has %d ends in it, not %d", e.number, endsIn(v), len(e.keys))
				}
			}
			return nil
		}))
	}
	if _, last := tr.endedSince(0, 10); last.Floor != floor.number || last.FloorAt != floor.at || floor.number == 0 {
		t.Errorf("it begins behind %d, %v; want %d, %v", last.Floor, last.FloorAt, floor.number, floor.at)
	}
}
