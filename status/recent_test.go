package status

import (
	"encoding/json"
	"strings"
	"testing"

	"jobstream/jobs"
	"jobstream/status/record"
)

// Where one job has to be read, those behind it are read with it, and all of them
// are as the next commits leave them.
func TestFindReadsAhead(t *testing.T) {
	t.Parallel()
	tr := startTemp(t, Options{})
	var ms []*jobs.Message
	for seq := uint64(1); seq <= 2*prefetchRecords; seq++ {
		m := message(seq)
		if seq == 5 {
			m.Payload = []byte(`"` + strings.Repeat("x", record.InlinePayload) + `"`)
		}
		ms = append(ms, m)
	}
	tr.submit(ms...)
	tr.wait(uint64(len(ms)), 0)
	tr.reopen() // nothing is kept now
	tr.run(idle{})
	if j := tr.seek(2); j == nil || j.Seq != 2 || j.Status != jobs.Pending {
		t.Fatalf("found %+v", j)
	}
	// the large one is looked at, but not kept
	for seq, want := range map[uint64]bool{1: false, 2: true, 3: true, 5: false, 2 + prefetchRecords: true, 3 + prefetchRecords: false} {
		if got := tr.recent.get(seq) != nil; got != want {
			t.Errorf("job %d kept: %v", seq, got)
		}
	}
	if j := tr.seek(5); j == nil || string(j.Payload) != string(ms[4].Payload) {
		t.Errorf("the large one: %+v", j)
	}
	tr.Happened(1, []jobs.Event{event(jobs.KindStarted, ms[2], 1)})
	tr.Happened(2, []jobs.Event{event(jobs.KindCompleted, ms[3], 1)})
	tr.wait(0, 2)
	if j := tr.seek(3); j.Status != jobs.Processing {
		t.Errorf("job 3 is %s after its start", j.Status)
	}
	if j := tr.seek(4); j.Status != jobs.Completed {
		t.Errorf("job 4 is %s after its end", j.Status)
	}
	if tr.recent.get(4) != nil {
		t.Error("an ended job is kept")
	}
	tr.verify()
}

// A job whose payload stands apart is found for the same however many such jobs
// are behind it: none of them is kept, and once all were looked at for each.
func TestFindCostsNothingForABacklog(t *testing.T) {
	tr := startTemp(t, Options{})
	find := func() float64 { return testing.AllocsPerRun(10, func() { tr.seek(1) }) }
	grow := func(from, to uint64) {
		var ms []*jobs.Message
		for seq := from; seq <= to; seq++ {
			m := message(seq)
			m.Payload = []byte(`"` + strings.Repeat("x", record.InlinePayload) + `"`)
			ms = append(ms, m)
		}
		tr.submit(ms...)
		tr.wait(to, 0)
	}
	grow(1, 2*prefetchRecords)
	few := find()
	grow(2*prefetchRecords+1, 40*prefetchRecords)
	if many := find(); many > few+100 {
		t.Errorf("finding a job takes %v allocations before %d others, %v before %d", many, 40*prefetchRecords, few, 2*prefetchRecords)
	}
}

// seek is Find without an error.
func (tr *tracker) seek(seq uint64) *jobs.Job {
	tr.t.Helper()
	j, err := tr.Find(seq)
	if err != nil {
		tr.t.Fatalf("find %d: %v", seq, err)
	}
	return j
}

// A job that was read before a commit is not kept after it.
func TestPrefetchIsNotLate(t *testing.T) {
	t.Parallel()
	var r recentJobs
	r.init()
	read := &jobs.Job{Key: 1, Seq: 1}
	version := r.version()
	ended := &jobs.Job{Key: 1, Seq: 1, Status: jobs.Completed}
	r.update([]*work{{old: read, job: ended}})
	r.keep([]*jobs.Job{read}, version)
	if r.get(1) != nil {
		t.Error("a job is kept as it was before its end")
	}
	r.keep([]*jobs.Job{read}, r.version())
	if r.get(1) != read {
		t.Error("a job that was read after the last commit is not kept")
	}
}

// kib is what a job with this filling weighs.
const kib = 1024

var filling = json.RawMessage(strings.Repeat("1", kib-jobWeight))

// All that a job has counts, not only its payload: jobs that have failed often, with
// long errors, do not take more room than others.
func TestRecentCountsAllOfAJob(t *testing.T) {
	t.Parallel()
	var r recentJobs
	r.init()
	text := strings.Repeat("x", 4096)
	bare := func(seq uint64) *jobs.Job {
		return &jobs.Job{Key: seq, Seq: seq, Type: "a", Status: jobs.Processing, Place: jobs.InQueue}
	}
	real := 0
	for seq := uint64(1); seq <= 1000; seq++ {
		j := bare(seq)
		r.update([]*work{{job: j}})
		grown := j.Clone()
		for range jobs.MaxErrors {
			grown.Errors = append(grown.Errors, jobs.AttemptError{Error: text})
			grown.History = append(grown.History, jobs.HistoryEntry{Text: text})
		}
		r.update([]*work{{old: j, job: grown}})
		if r.get(seq) == grown {
			real += 2 * jobs.MaxErrors * len(text)
		}
	}
	if real == 0 || real > maxRecent+prefetchRoom || r.size > maxRecent+prefetchRoom {
		t.Errorf("texts of %d bytes are kept, counted as %d", real, r.size)
	}
}

// The memory of kept jobs is bounded. An idle queue and sleeping jobs may fill it but
// for the part of running and prefetched jobs. Ended jobs make room.
func TestRecentIsBounded(t *testing.T) {
	t.Parallel()
	for status, want := range map[jobs.Status]int{jobs.Pending: maxRecent, jobs.Retrying: maxRecent, jobs.Processing: maxRecent + prefetchRoom} {
		var r recentJobs
		r.init()
		commit := func(status jobs.Status, from, to uint64) {
			for seq := from; seq < to; seq++ {
				old := r.get(seq)
				r.update([]*work{{old: old, job: &jobs.Job{Key: seq, Seq: seq, Type: "a", Status: status, Place: jobs.InQueue, Payload: filling}}})
			}
		}
		check := func(what string, want int) {
			t.Helper()
			if r.size != want {
				t.Errorf("%s: %d bytes are kept, want %d", what, r.size, want)
			}
		}
		const most = 2 * (maxRecent + prefetchRoom) / kib
		commit(status, 1, most)
		check(status.String(), want)
		if kept := r.get(1); kept == nil || kept.Status != status {
			t.Errorf("the first job is kept as %+v", kept)
		}
		commit(jobs.Processing, 1, most)
		check("all run", maxRecent+prefetchRoom)
		if kept := r.get(1); kept == nil || kept.Status != jobs.Processing {
			t.Errorf("a job that runs is kept as %+v", kept)
		}
		commit(jobs.Retrying, 1, most)
		check("all sleep", maxRecent)
		read := &jobs.Job{Key: most, Seq: most, Type: "b", Place: jobs.InQueue, Payload: filling}
		r.keep([]*jobs.Job{read}, r.version())
		if r.get(most) != read {
			t.Error("a job that is prefetched is not kept")
		}
		commit(jobs.Completed, 1, most+1)
		check("all ended", 0)
	}
}
