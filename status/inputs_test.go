package status

import (
	"slices"
	"strings"
	"testing"

	"jobstream/jobs"
	"jobstream/status/boltfile"
)

// inputTypes has a type whose jobs need a file.
var inputTypes = jobs.NewRegistry(&jobs.Type{Name: "email", RetryCount: 3, Handler: noHandler{}, Inputs: []jobs.InputRule{{Name: "file"}}})

// inputID is the id of one of a test's inputs.
func inputID(n uint64) jobs.ID { return jobs.DerivedID(n, 7) }

func inputFile(n uint64) jobs.Artifact {
	return jobs.Artifact{Name: "a.csv", ContentType: "text/csv", Size: int64(n), SHA256: strings.Repeat("0a", 32)}
}

// withInput is a submission with an input.
func withInput(seq, n uint64) *jobs.Message {
	m := message(seq)
	m.Terms = &jobs.Terms{Inputs: []jobs.Input{{Name: "file", ID: inputID(n), File: inputFile(n)}}}
	return m
}

func (tr *tracker) keeps(n uint64, at jobs.Time) {
	tr.t.Helper()
	_, err := tr.Prepare(jobs.KeepInput{Stamp: jobs.Stamp{At: at}, ID: inputID(n), File: inputFile(n)})
	tr.must(err)
}

// drops drops what nobody has had since before a moment.
func (tr *tracker) drops(before jobs.Time) []jobs.ID {
	tr.t.Helper()
	e, err := tr.Prepare(jobs.DropInputs{Before: before, Most: 10})
	tr.must(err)
	ids, _ := e.Value.([]jobs.ID)
	return ids
}

// TestInputDropped: an input that was dropped since the door looked makes no job, but a
// refusal; and a failed job of a message that nobody waits for.
func TestInputDropped(t *testing.T) {
	t.Parallel()
	checked := true
	tr := openTemp(t, Options{Registry: inputTypes, Checked: func(jobs.ID) bool { return checked }})
	tr.endsRebuild()
	tr.keeps(1, 1000)
	if got := tr.drops(1000); len(got) != 0 {
		t.Fatalf("dropped %v", got)
	}
	if got := tr.drops(1001); !slices.Equal(got, []jobs.ID{inputID(1)}) {
		t.Fatalf("dropped %v", got)
	}
	refused := answers(tr.receives(withInput(1, 1)), jobs.SubmissionRefused)
	if len(refused) != 1 || refused[0].Err.Kind != jobs.InvalidRequest || refused[0].Err.Fields[0].Pointer != "/inputs/file" {
		t.Errorf("refused are %+v", refused)
	}
	tr.none(1)
	checked = false
	tr.receives(withInput(2, 1))
	if j := tr.find(2); j.Status != jobs.Failed || !strings.Contains(j.Error, inputID(1).String()) {
		t.Errorf("the job is %s: %s", j.Status, j.Error)
	}
	_, err, _ := tr.reserves(batchOf(nil, message(3), withInput(4, 1)))
	if e, _ := jobs.AsError(err); err == nil || e.Fields[0].Pointer != "/jobs/1/inputs/file" {
		t.Errorf("a batch: %v", err)
	}
	tr.verify()
}

// TestInputNeeded: an input stays as long as a job has it, or a batch that is not complete.
func TestInputNeeded(t *testing.T) {
	t.Parallel()
	tr := openTemp(t, Options{Registry: inputTypes, Checked: func(jobs.ID) bool { return true }})
	tr.endsRebuild()
	tr.keeps(1, 1000)
	b := batchOf(nil, withInput(1, 1), withInput(2, 1))
	_, err, _ := tr.reserves(b)
	tr.must(err)
	dropped := func(want ...jobs.ID) {
		t.Helper()
		if got := tr.drops(1 << 62); !slices.Equal(got, want) {
			t.Fatalf("dropped %v, want %v", got, want)
		}
	}
	dropped()
	tr.receives(b.Messages...)
	if got := tr.pending(); len(got) != 0 {
		t.Fatalf("the batch is not complete: %v", got)
	}
	dropped()
	tr.cancels(1, 2)
	dropped() // they may run again
	tr.everywhere(func() {
		if in := tr.find(1).Inputs(); len(in) != 1 || in[0].ID != inputID(1) || in[0].File != inputFile(1) {
			t.Errorf("its inputs are %+v", in)
		}
	})
	remove := func(key uint64, at jobs.Time) {
		t.Helper()
		_, err := tr.Prepare(jobs.Delete{Stamp: jobs.Stamp{At: at}, Keys: []uint64{key}})
		tr.must(err)
	}
	remove(1, 5000)
	dropped()
	remove(2, 6000)
	if at, err := tr.OldestInput(); at != 6000 || err != nil {
		t.Errorf("it is not needed since %v, %v", at, err)
	}
	dropped(inputID(1))
	for _, bucket := range [][]byte{bucketInputs, bucketInputJobs, bucketInputAge} {
		if keys, _ := tr.rows(bucket); len(keys) != 0 {
			t.Errorf("%s: %d entries are left", bucket, len(keys))
		}
	}
}

// TestInputsOfALostTracker: a tracker that is rebuilt has the inputs of the jobs that the
// streams still have.
func TestInputsOfALostTracker(t *testing.T) {
	t.Parallel()
	tr := openTemp(t, Options{Registry: inputTypes})
	m := withInput(1, 1)
	tr.folds(nil, event(jobs.KindStarted, m, 1)) // STATUS may come first
	tr.receives(m)
	ended := jobs.NewJob(withInput(2, 2), inputTypes.Lookup("email"), true)
	ended.Cancel(epoch, "")
	seed := &jobs.Job{}
	tr.must(seed.UnmarshalJSON(ended.AppendJSON(nil)))
	_, err := tr.Prepare(jobs.Seed{Ended: []*jobs.Job{seed}})
	tr.must(err)
	tr.endsRebuild()
	for n := uint64(1); n <= 2; n++ {
		file, err := tr.Input(inputID(n))
		if err != nil || file == nil || *file != inputFile(n) {
			t.Errorf("input %d is %+v, %v", n, file, err)
		}
	}
	if got := tr.drops(1 << 62); len(got) != 0 {
		t.Errorf("dropped %v", got)
	}
	var keys int
	tr.must(tr.db.View(func(tx *boltfile.Tx) error {
		return tx.Bucket(bucketInputJobs).ForEach(func(_, _ []byte) error { keys++; return nil })
	}))
	if keys != 2 {
		t.Errorf("%d jobs have an input", keys)
	}
}
