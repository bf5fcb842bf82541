package status

import (
	"context"
	"errors"
	"slices"
	"testing"

	"jobstream/jobs"
)

// batchOf makes a batch of messages as a door would.
func batchOf(token *jobs.Token, ms ...*jobs.Message) *jobs.Batch {
	b := &jobs.Batch{ID: ms[0].ID, Token: token, Messages: ms}
	ms[len(ms)-1].BatchEnd = b.ID
	return b
}

func (tr *tracker) reserves(b *jobs.Batch) (known []*jobs.Job, err error, c *jobs.Commit) { //nolint:revive,staticcheck // what Reserve says, then what the commit does
	tr.t.Helper()
	c = tr.together(func() { known, err = tr.Reserve(context.Background(), b) })
	return known, err, c
}

// pending are the ids of the batches that are not complete.
func (tr *tracker) pending() (ids []jobs.ID) {
	tr.t.Helper()
	all, err := tr.Batches()
	tr.must(err)
	for _, b := range all {
		ids = append(ids, b.ID)
	}
	return ids
}

// A batch is kept until all of its jobs have records, however its messages come.
func TestBatchCompletes(t *testing.T) {
	t.Parallel()
	fill := func(seqs ...uint64) (ms []*jobs.Message) {
		for _, seq := range seqs {
			m := message(seq)
			m.ID = jobs.DerivedID((seq-1)%3+1, 1) // the same three again and again
			ms = append(ms, m)
		}
		return ms
	}
	for name, tt := range map[string]struct {
		rounds [][]uint64 // those of the messages that come
		last   int        // the round that completes it
	}{
		"at once":                    {[][]uint64{{1, 2, 3}}, 0},
		"one by one":                 {[][]uint64{{1}, {2}, {3}}, 2},
		"the last one alone":         {[][]uint64{{3}, {4, 5, 6}}, 1},
		"the first one is refused":   {[][]uint64{{2, 3}, {4, 5, 6}}, 1},
		"refused twice":              {[][]uint64{{1}, {5}, {7, 8, 9}}, 2},
		"all of them and once more":  {[][]uint64{{1, 2, 3}, {4, 5, 6}}, 0},
		"without the last, then all": {[][]uint64{{1, 2}, {4, 5, 6}}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			tr := byHand(t)
			b := batchOf(nil, fill(1, 2, 3)...)
			known, err, c := tr.reserves(b)
			if known != nil || err != nil || len(answers(c, jobs.BatchStored)) != 1 || answers(c, jobs.BatchStored)[0].Batch != b {
				t.Fatalf("%v, %v, %+v", known, err, c)
			}
			for i, round := range tt.rounds {
				if i <= tt.last {
					tr.everywhere(func() {
						if got := tr.pending(); !slices.Equal(got, []jobs.ID{b.ID}) {
							t.Fatalf("before round %d: %v", i, got)
						}
					})
				}
				ms := fill(round...)
				for k, seq := range round {
					if seq%3 == 0 {
						ms[k].BatchEnd = b.ID
					}
				}
				c := tr.folds(ms)
				if done := len(answers(c, jobs.BatchDone)) == 1 && answers(c, jobs.BatchDone)[0].ID == b.ID; done != (i == tt.last) {
					t.Fatalf("round %d: completed %v", i, answers(c, jobs.BatchDone))
				}
			}
			tr.everywhere(func() {
				if got := tr.pending(); len(got) != 0 {
					t.Fatalf("still pending: %v", got)
				}
				if n := tr.count(jobs.Filter{}); n != 3 {
					t.Errorf("%d jobs", n)
				}
			})
		})
	}
}

// The unique keys of a batch are its own from the moment it is stored.
func TestBatchUniqueKeys(t *testing.T) {
	t.Parallel()
	tr := byHand(t)
	a, b := unique(10, "a"), unique(11, "b")
	if _, err, _ := tr.reserves(batchOf(nil, a, b)); err != nil {
		t.Fatal(err)
	}
	tr.everywhere(func() {
		// Reserved, and not published: nobody else gets one.
		seq := tr.Positions().Jobs + 1
		if tr.receives(unique(seq, "b")); tr.find(seq).Status != jobs.Failed {
			t.Fatalf("another one got the key: %+v", tr.find(seq))
		}
		_, err, c := tr.reserves(batchOf(nil, message(20), unique(21, "b"), unique(22, "new")))
		if e, ok := jobs.AsError(err); !ok || e.Kind != jobs.Duplicate || e.JobID != b.ID || len(e.Fields) != 1 || e.Fields[0].Pointer != "/jobs/1/unique_key" {
			t.Fatalf("another batch: %v", err)
		}
		if len(answers(c, jobs.BatchStored)) != 0 || len(tr.pending()) != 1 {
			t.Fatalf("it is stored: %+v", answers(c, jobs.BatchStored))
		}
		// The other keys of the refused batch are free.
		if tr.receives(unique(seq+1, "new")); tr.find(seq+1).Status != jobs.Pending {
			t.Fatalf("%+v", tr.find(seq+1))
		}
		tr.cancels(seq + 1)
	})
	tr.folds(placed(tr.Positions().Jobs+1, a, b))
	j := tr.job(b.ID)
	tr.everywhere(func() {
		if j := tr.job(b.ID); j.Status != jobs.Pending || len(tr.pending()) != 0 {
			t.Fatalf("%+v", j)
		}
	})
	tr.cancels(j.Key)
	if _, err, _ := tr.reserves(batchOf(nil, unique(30, "b"))); err != nil {
		t.Errorf("the key of an ended job: %v", err)
	}
	if _, err, _ := tr.reserves(batchOf(nil, unique(31, "a"))); err == nil {
		t.Error("the key of an unfinished job is free")
	}
}

// placed are messages as they would come from the stream, from seq on.
func placed(seq uint64, ms ...*jobs.Message) (out []*jobs.Message) {
	for i, m := range ms {
		p := *m
		p.Seq = seq + uint64(i)
		p.At = epoch.Add(seconds(int(p.Seq)))
		out = append(out, &p)
	}
	return out
}

// A job of a batch that cannot be one after all gives its key back.
func TestBatchKeyOfARefusedJob(t *testing.T) {
	t.Parallel()
	tr := byHand(t)
	m := unique(1, "k")
	m.Type = "gone"
	if _, err, _ := tr.reserves(batchOf(nil, m)); err != nil {
		t.Fatal(err)
	}
	tr.folds([]*jobs.Message{m})
	tr.everywhere(func() { tr.states("failed") })
	if keys, _ := tr.rows(bucketUnique); len(keys) != 0 {
		t.Errorf("%q are still taken", keys)
	}
}

// A key is given back whose job somebody else has submitted without it.
func TestBatchKeyOfAnotherJob(t *testing.T) {
	t.Parallel()
	tr := byHand(t)
	b := batchOf(nil, unique(1, "u"), message(2))
	if _, err, _ := tr.reserves(b); err != nil {
		t.Fatal(err)
	}
	other := message(3)
	other.ID = b.Messages[0].ID
	tr.folds([]*jobs.Message{other})
	tr.folds(placed(4, b.Messages...))
	if len(tr.pending()) != 0 {
		t.Fatal("the batch is not complete")
	}
	tr.folds([]*jobs.Message{unique(6, "u")})
	if got := tr.state(6); got != "pending" {
		t.Errorf("the next job with the key is %s", got)
	}
}

// The token of a batch stands for all of its jobs, from the moment that it is
// stored.
func TestBatchTokens(t *testing.T) {
	t.Parallel()
	tr := byHand(t)
	key := func(body string) *jobs.Token { return jobs.NewToken("http", "k", []byte(body)) }
	a, b := message(1), message(2)
	if _, err, _ := tr.reserves(batchOf(key("body"), a, b)); err != nil {
		t.Fatal(err)
	}
	twin := func(body string) *jobs.Batch {
		x, y := message(1), message(2)
		x.ID, y.ID = jobs.NewID(), jobs.NewID()
		return batchOf(key(body), x, y)
	}
	mismatch := func() {
		t.Helper()
		if _, err, _ := tr.reserves(twin("other")); failsAs(err) != jobs.IdempotencyMismatch {
			t.Errorf("another body: %v", err)
		}
	}
	tr.everywhere(func() {
		if known, err, c := tr.reserves(twin("body")); known != nil || !errors.Is(err, jobs.ErrUnderway) || len(answers(c, jobs.BatchStored)) != 0 {
			t.Errorf("while it is on its way: %v, %v", known, err)
		}
		mismatch()
	})
	tr.receives(a)
	if known, err, _ := tr.reserves(twin("body")); known != nil || !errors.Is(err, jobs.ErrUnderway) {
		t.Errorf("with half of it: %v, %v", known, err)
	}
	tr.receives(b)
	tr.everywhere(func() {
		known, err, c := tr.reserves(twin("body"))
		if err != nil || len(known) != 2 || known[0].ID != a.ID || known[1].ID != b.ID || len(answers(c, jobs.BatchStored)) != 0 {
			t.Errorf("once it is complete: %v, %v", known, err)
		}
		if known, err := tr.Recall(key("body")); err != nil || len(known) != 2 || known[1].ID != b.ID {
			t.Errorf("Recall: %v, %v", known, err)
		}
		mismatch()
	})
	tr.cancels(2)
	tr.deletes(2)
	if known, err, c := tr.reserves(twin("body")); err != nil || len(known) != 2 || known[0].Key == 0 || known[1].ID != b.ID || known[1].Key != 0 || len(answers(c, jobs.BatchStored)) != 0 {
		t.Errorf("with one of its jobs gone: %v, %v", known, err)
	}
}

func failsAs(err error) jobs.ErrorKind {
	if e, ok := jobs.AsError(err); ok {
		return e.Kind
	}
	return ""
}

// Two equal batches that are stored in one transaction are one.
func TestBatchesTogether(t *testing.T) {
	t.Parallel()
	tr := byHand(t)
	errs := make([]error, 10)
	var calls []func()
	for i := range errs {
		m := message(uint64(i + 1))
		b := batchOf(jobs.NewToken("http", "k", nil), m)
		calls = append(calls, func() { _, errs[i] = tr.Reserve(context.Background(), b) })
	}
	c := tr.together(calls...)
	underway := 0
	for _, err := range errs {
		if errors.Is(err, jobs.ErrUnderway) {
			underway++
		} else if err != nil {
			t.Error(err)
		}
	}
	if len(answers(c, jobs.BatchStored)) != 1 || underway != 9 || len(tr.pending()) != 1 {
		t.Errorf("%d are stored, %d were refused for another", len(answers(c, jobs.BatchStored)), underway)
	}
}

// A job stays until its batch is complete: what is published again would bring it
// back.
func TestBatchKeepsItsJobs(t *testing.T) {
	t.Parallel()
	tr := byHand(t)
	a, b := message(1), message(2)
	if _, err, _ := tr.reserves(batchOf(nil, a, b)); err != nil {
		t.Fatal(err)
	}
	tr.receives(a)
	tr.cancels(1)
	if n := tr.deletes(1); n != 0 {
		t.Fatal("it is deleted while its batch is not complete")
	}
	tr.folds(placed(2, a, b))
	tr.everywhere(func() { tr.states("cancelled") })
	if n := tr.deletes(1); n != 1 {
		t.Error("it cannot be deleted once its batch is complete")
	}
	tr.verify()
}
