package jobs_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"jobstream/jobs"
	"jobstream/jobs/jobstest"
)

// born is a moment long enough ago for any event to come after it.
const born = jobs.Time(1_700_000_000_000_000_000)

var subjectID = jobs.DerivedID(7, born)

// submission is the message behind the events of these tests.
func submission() *jobs.Message {
	return &jobs.Message{
		Seq: 7, At: born, ID: subjectID, Type: "email", Priority: 2, RetryCount: 3,
		Payload: json.RawMessage(`{"to":"a@b.c"}`), Tags: []string{"x"}, Timeout: 5e9,
	}
}

func submitted() *jobs.Job {
	return jobs.NewJob(submission(), &jobs.Type{Name: "email"}, true)
}

// event is an event of the submitted job, at born + at, of the execution that
// began at born + started (0 = not said).
func event(kind jobs.Kind, attempt int, at, started jobs.Time) jobs.Event {
	e := jobs.Event{
		Kind: kind, ID: subjectID, Seq: 7, Type: "email", Priority: 2, CreatedAt: born, MaxAttempts: 4,
		Run: 1, Attempt: attempt, At: born + at, Node: "n1",
	}
	if started != 0 {
		e.StartedAt = born + started
	}
	switch kind {
	case jobs.KindStarted:
		e.At = e.StartedAt
	case jobs.KindProgress:
		e.Progress, e.Message = int(at%100), fmt.Sprintf("at %d", at)
	case jobs.KindCompleted:
		e.Result = json.RawMessage(fmt.Sprintf(`{"at":%d}`, at))
	case jobs.KindFailed, jobs.KindRetrying:
		e.Error = fmt.Sprintf("error of attempt %d", attempt)
		e.Due = e.At + 1000
	case jobs.KindReleased:
		e.Error = "stopped"
	case jobs.KindLost:
		e.Error, e.Due, e.Lost = "its worker was silent", e.At+1000, 1
	}
	return e
}

func apply(j *jobs.Job, events ...jobs.Event) *jobs.Job {
	for i := range events {
		jobs.Apply(j, &events[i])
	}
	return j
}

func TestApply(t *testing.T) {
	const (
		started, progress, completed, failed     = jobs.KindStarted, jobs.KindProgress, jobs.KindCompleted, jobs.KindFailed
		retrying, released, lost, cancelled, sub = jobs.KindRetrying, jobs.KindReleased, jobs.KindLost, jobs.KindCancelled, jobs.KindSubmitted
	)
	ev := event
	tests := []struct {
		name   string
		before []jobs.Event
		event  jobs.Event
		same   bool // it changes nothing
		want   string
		kinds  string // of the history; "" = not looked at
	}{
		{name: "start", event: ev(started, 1, 1, 1), want: "processing 1/0", kinds: "submitted started"},
		{name: "completed", before: []jobs.Event{ev(started, 1, 1, 1)}, event: ev(completed, 1, 2, 1), want: "completed 1/0 100%", kinds: "submitted started completed"},
		{name: "completed, its start dropped", event: ev(completed, 1, 2, 1), want: "completed 1/0 100%", kinds: "submitted started completed"},
		{name: "failed", before: []jobs.Event{ev(started, 1, 1, 1)}, event: ev(failed, 1, 2, 1), want: "failed 1/1 error of attempt 1", kinds: "submitted started failed"},
		{name: "failed, its start dropped", event: ev(failed, 1, 2, 1), want: "failed 1/1 error of attempt 1", kinds: "submitted started failed"},
		{name: "retrying", before: []jobs.Event{ev(started, 1, 1, 1)}, event: ev(retrying, 1, 2, 1), want: "retrying 1/1 error of attempt 1", kinds: "submitted started retrying"},
		{name: "retrying, its start dropped", event: ev(retrying, 1, 2, 1), want: "retrying 1/1 error of attempt 1", kinds: "submitted started retrying"},
		{name: "second attempt", before: []jobs.Event{ev(retrying, 1, 2, 1)}, event: ev(started, 2, 3, 3), want: "processing 2/1 error of attempt 1"},
		{name: "second attempt completes", before: []jobs.Event{ev(retrying, 1, 2, 1)}, event: ev(completed, 2, 4, 3), want: "completed 2/1 100%"},
		{name: "progress", before: []jobs.Event{ev(started, 1, 1, 1)}, event: ev(progress, 1, 45, 1), want: "processing 1/0 45%", kinds: "submitted started progress"},
		{name: "progress before its start is known", event: ev(progress, 1, 45, 1), want: "processing 1/0 45%", kinds: "submitted started progress"},
		{name: "released", before: []jobs.Event{ev(started, 1, 1, 1), ev(progress, 1, 45, 1)}, event: ev(released, 1, 50, 1), want: "pending 1/0", kinds: "submitted started progress released"},
		{name: "released before anybody heard of the start", event: ev(released, 1, 50, 1), same: true, want: "pending 0/0"},
		{name: "again after a release", before: []jobs.Event{ev(started, 1, 1, 1), ev(released, 1, 2, 1)}, event: ev(started, 1, 3, 3), want: "processing 1/0", kinds: "submitted started released started"},
		{name: "again after a crash nobody noted", before: []jobs.Event{ev(started, 1, 1, 1), ev(progress, 1, 45, 1)}, event: ev(started, 1, 60, 60), want: "processing 1/0"},
		{name: "cancelled while pending", event: ev(cancelled, 0, 2, 0), want: "cancelled 0/0"},
		{name: "cancelled while processing", before: []jobs.Event{ev(started, 1, 1, 1)}, event: ev(cancelled, 1, 2, 1), want: "cancelled 1/0"},
		{name: "cancelled while retrying", before: []jobs.Event{ev(retrying, 1, 2, 1)}, event: ev(cancelled, 1, 3, 0), want: "cancelled 1/1"},

		{name: "start repeated", before: []jobs.Event{ev(started, 1, 1, 1)}, event: ev(started, 1, 1, 1), same: true, want: "processing 1/0"},
		{name: "start repeated after progress", before: []jobs.Event{ev(progress, 1, 45, 1)}, event: ev(started, 1, 1, 1), same: true, want: "processing 1/0 45%"},
		{name: "start repeated after its release", before: []jobs.Event{ev(started, 1, 1, 1), ev(released, 1, 2, 1)}, event: ev(started, 1, 1, 1), same: true, want: "pending 1/0"},
		{name: "start repeated after its failure", before: []jobs.Event{ev(started, 1, 1, 1), ev(retrying, 1, 2, 1)}, event: ev(started, 1, 1, 1), same: true, want: "retrying 1/1 error of attempt 1"},
		{name: "progress repeated", before: []jobs.Event{ev(progress, 1, 45, 1)}, event: ev(progress, 1, 45, 1), same: true, want: "processing 1/0 45%"},
		{name: "older progress repeated", before: []jobs.Event{ev(progress, 1, 20, 1), ev(progress, 1, 45, 1)}, event: ev(progress, 1, 20, 1), same: true, want: "processing 1/0 45%"},
		{name: "progress of a released execution", before: []jobs.Event{ev(started, 1, 1, 1), ev(released, 1, 50, 1)}, event: ev(progress, 1, 45, 1), same: true, want: "pending 1/0"},
		{name: "progress of an execution before this one", before: []jobs.Event{ev(started, 1, 1, 1), ev(released, 1, 50, 1), ev(started, 1, 60, 60)}, event: ev(progress, 1, 45, 1), same: true, want: "processing 1/0"},
		{name: "release repeated", before: []jobs.Event{ev(started, 1, 1, 1), ev(released, 1, 2, 1)}, event: ev(released, 1, 2, 1), same: true, want: "pending 1/0"},
		{name: "release of an execution before this one", before: []jobs.Event{ev(started, 1, 1, 1), ev(released, 1, 2, 1), ev(started, 1, 3, 3)}, event: ev(released, 1, 2, 1), same: true, want: "processing 1/0"},
		{name: "retrying repeated", before: []jobs.Event{ev(retrying, 1, 2, 1)}, event: ev(retrying, 1, 2, 1), same: true, want: "retrying 1/1 error of attempt 1"},
		{name: "retrying repeated during the next attempt", before: []jobs.Event{ev(retrying, 1, 2, 1), ev(started, 2, 3, 3)}, event: ev(retrying, 1, 2, 1), same: true, want: "processing 2/1 error of attempt 1"},
		{name: "start of an attempt whose follower runs", before: []jobs.Event{ev(started, 2, 3, 3)}, event: ev(started, 1, 1, 1), same: true, want: "processing 2/1"},
		{name: "completed repeated", before: []jobs.Event{ev(completed, 1, 2, 1)}, event: ev(completed, 1, 3, 1), same: true, want: "completed 1/0 100%"},
		{name: "failed after completed", before: []jobs.Event{ev(completed, 1, 2, 1)}, event: ev(failed, 1, 3, 1), same: true, want: "completed 1/0 100%"},
		{name: "cancelled after failed", before: []jobs.Event{ev(failed, 1, 2, 1)}, event: ev(cancelled, 1, 3, 1), same: true, want: "failed 1/1 error of attempt 1"},
		{name: "a later attempt after the end", before: []jobs.Event{ev(completed, 1, 2, 1)}, event: ev(started, 2, 3, 3), same: true, want: "completed 1/0 100%"},
		{name: "another run", event: func() jobs.Event { e := ev(started, 1, 1, 1); e.Run = 2; return e }(), same: true, want: "pending 0/0"},
		{name: "no run", event: func() jobs.Event { e := ev(completed, 1, 1, 1); e.Run = 0; return e }(), same: true, want: "pending 0/0"},
		{name: "attempt 0", event: ev(started, 0, 1, 1), same: true, want: "pending 0/0"},
		{name: "a kind that is no event", event: ev(sub, 1, 1, 1), same: true, want: "pending 0/0"},
		{name: "lost", before: []jobs.Event{ev(started, 1, 1, 1), ev(progress, 1, 45, 1)}, event: ev(lost, 1, 50, 1), want: "retrying 1/0", kinds: "submitted started progress lost"},
		{name: "lost, its start dropped", event: ev(lost, 1, 50, 1), want: "retrying 1/0", kinds: "submitted started lost"},
		{name: "lost repeated", before: []jobs.Event{ev(lost, 1, 50, 1)}, event: ev(lost, 1, 50, 1), same: true, want: "retrying 1/0"},
		{name: "start repeated after its loss", before: []jobs.Event{ev(started, 1, 1, 1), ev(lost, 1, 2, 1)}, event: ev(started, 1, 1, 1), same: true, want: "retrying 1/0"},
		{name: "again after a loss", before: []jobs.Event{ev(lost, 1, 2, 1)}, event: ev(started, 1, 3, 3), want: "processing 1/0"},
		{name: "lost after the next one has begun", before: []jobs.Event{ev(started, 1, 1, 1), ev(released, 1, 2, 1), ev(started, 1, 3, 3)}, event: ev(lost, 1, 4, 1), same: true, want: "processing 1/0"},
		{name: "completed by an execution before this one", before: []jobs.Event{ev(started, 1, 1, 1), ev(lost, 1, 2, 1), ev(started, 1, 3, 3)}, event: ev(completed, 1, 4, 1), same: true, want: "processing 1/0"},
		{name: "failed by an execution before this one", before: []jobs.Event{ev(started, 1, 1, 1), ev(lost, 1, 2, 1), ev(started, 1, 3, 3)}, event: ev(failed, 1, 4, 1), same: true, want: "processing 1/0"},
		{name: "retrying by an execution before this one", before: []jobs.Event{ev(started, 1, 1, 1), ev(lost, 1, 2, 1), ev(started, 1, 3, 3)}, event: ev(retrying, 1, 4, 1), same: true, want: "processing 1/0"},
		{name: "an unknown kind", event: ev(99, 1, 1, 1), same: true, want: "pending 0/0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			j := apply(submitted(), tt.before...)
			before := j.Clone()
			if changed := jobs.Apply(j, &tt.event); changed == tt.same {
				t.Errorf("Apply says %v", changed)
			}
			if tt.same && !reflect.DeepEqual(j, before) {
				t.Errorf("changed\n%+v to\n%+v", before, j)
			}
			if got := jobstest.Brief(j); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if got := jobstest.Kinds(j); tt.kinds != "" && got != tt.kinds {
				t.Errorf("history is %q, want %q", got, tt.kinds)
			}
		})
	}
}

func TestApplyKeepsWhatEventsSay(t *testing.T) {
	j := apply(submitted(), event(jobs.KindStarted, 1, 1, 1), event(jobs.KindRetrying, 1, 10, 1))
	if j.DueAt != born+1010 || j.StartedAt != born+1 || j.UpdatedAt != born+10 || j.EndedAt != 0 || j.Node != "n1" || j.Progress != 0 {
		t.Errorf("retrying: %+v", j)
	}
	if want := []jobs.AttemptError{{Attempt: 1, Error: "error of attempt 1", At: born + 10}}; !slices.Equal(j.Errors, want) {
		t.Errorf("errors %v, want %v", j.Errors, want)
	}
	apply(j, event(jobs.KindStarted, 2, 2000, 2000))
	if j.DueAt != 0 || j.StartedAt != born+2000 {
		t.Errorf("second attempt: due %s, started %s", j.DueAt, j.StartedAt)
	}
	end := event(jobs.KindCompleted, 2, 3000, 2000)
	end.Artifact = &jobs.Artifact{Name: "a.csv", Size: 5}
	end.Message = "all done"
	apply(j, end)
	if j.EndedAt != born+3000 || j.UpdatedAt != born+3000 || string(j.Result) != `{"at":3000}` || j.Artifact == nil ||
		j.Artifact.Name != "a.csv" || j.Message != "all done" || j.Error != "" || len(j.Errors) != 1 {
		t.Errorf("completed: %+v", j)
	}
	if want := "submitted started retrying started completed"; jobstest.Kinds(j) != want {
		t.Errorf("history %q, want %q", jobstest.Kinds(j), want)
	}
}

func TestCancelledKeepsNoResult(t *testing.T) {
	e := event(jobs.KindCancelled, 1, 5, 1)
	e.Error, e.Result = "cancelled by somebody", json.RawMessage(`1`)
	j := apply(submitted(), event(jobs.KindProgress, 1, 3, 1), e)
	if j.Result != nil || j.Error != "cancelled by somebody" || j.Failures != 0 || j.EndedAt != born+5 {
		t.Errorf("got %+v", j)
	}
}

func TestLose(t *testing.T) {
	j := submitted()
	if j.Lose(born+1, 3) {
		t.Error("a pending job lost a worker")
	}
	for n := 1; n <= 3; n++ {
		at := jobs.Time(10 * n)
		apply(j, event(jobs.KindStarted, 1, at, at))
		if j.Status != jobs.Processing {
			t.Fatalf("after %d losses it does not start: %s", n-1, jobstest.Brief(j))
		}
		if !j.Lose(born+at+1, 3) || j.Lost != n {
			t.Fatalf("loss %d: %+v", n, j)
		}
		if n < 3 && (j.Status != jobs.Pending || j.Failures != 0 || j.Attempt != 1) {
			t.Fatalf("loss %d: %s", n, jobstest.Brief(j))
		}
	}
	if j.Status != jobs.Failed || !strings.Contains(j.Error, "worker.max_lost") || j.Lost != 3 || j.EndedAt != born+31 {
		t.Errorf("got %+v", j)
	}
	if want := "submitted started lost started lost started lost failed"; jobstest.Kinds(j) != want {
		t.Errorf("history %q, want %q", jobstest.Kinds(j), want)
	}
	if j.Lose(born+99, 3) {
		t.Error("an ended job lost a worker")
	}
	repeat := event(jobs.KindStarted, 1, 20, 20)
	if jobs.Apply(j, &repeat) {
		t.Error("a start after the end counted")
	}
}

// TestFilesOfAnExecution: files are in the record while it runs, so that they outlive the
// server, and are the job's only if it completes.
func TestFilesOfAnExecution(t *testing.T) {
	files := []jobs.Artifact{{Name: "a", Size: 1}, {Name: "b", Size: 2}}
	report := func(n int) jobs.Event {
		e := event(jobs.KindProgress, 1, jobs.Time(1+n), 1)
		e.Progress, e.Message = 0, ""
		e.SetFiles(files[:n])
		return e
	}
	for kind, kept := range map[jobs.Kind]int{jobs.KindRetrying: 0, jobs.KindReleased: 0, jobs.KindLost: 0, jobs.KindCancelled: 0, jobs.KindSnoozed: 0, jobs.KindCompleted: 2} {
		j := apply(submitted(), event(jobs.KindStarted, 1, 1, 1), report(2))
		one, end := report(1), event(kind, 1, 9, 1)
		if jobs.Apply(j, &one) || len(j.Files()) != 2 {
			t.Errorf("a repeat of an earlier report changes the files to %v", j.Files())
		}
		if kind == jobs.KindCompleted {
			end.SetFiles(files)
		}
		if apply(j, end); len(j.Files()) != kept {
			t.Errorf("%s leaves %v", kind, j.Files())
		}
	}
	again := apply(submitted(), event(jobs.KindStarted, 1, 1, 1), report(2), event(jobs.KindStarted, 1, 20, 20))
	if len(again.Files()) != 0 {
		t.Errorf("another execution begins with %v", again.Files())
	}
}

// TestReportedCheckpoint: a checkpoint that is reported while the job runs is there for the
// next execution, even if nothing else was reported with it.
func TestReportedCheckpoint(t *testing.T) {
	report := func(at jobs.Time, checkpoint string) jobs.Event {
		e := event(jobs.KindProgress, 1, at, 1)
		e.Progress, e.Message, e.Checkpoint = 0, "", json.RawMessage(checkpoint)
		return e
	}
	j := apply(submitted(), event(jobs.KindStarted, 1, 1, 1), report(5, `5`), report(7, `7`))
	if repeat := report(5, `5`); jobs.Apply(j, &repeat) || string(j.Checkpoint) != `7` {
		t.Errorf("a repeat of an earlier report changes the checkpoint to %s", j.Checkpoint)
	}
	if apply(j, event(jobs.KindLost, 1, 9, 1)); string(j.Checkpoint) != `7` || j.Lost != 1 || j.DueAt != born+1009 {
		t.Errorf("got %+v", j)
	}
}

func TestLoseForgetsARepeatedStart(t *testing.T) {
	j := apply(submitted(), event(jobs.KindStarted, 1, 1, 1))
	j.Lose(born+5, 5)
	repeat := event(jobs.KindStarted, 1, 1, 1)
	if jobs.Apply(j, &repeat) || j.Status != jobs.Pending {
		t.Errorf("the start of the lost execution counted again: %s", jobstest.Brief(j))
	}
	if e := event(jobs.KindCompleted, 1, 20, 10); !jobs.Apply(j, &e) || j.Lost != 1 {
		t.Errorf("got %s, lost %d", jobstest.Brief(j), j.Lost)
	}
}

func TestHistoryIsBounded(t *testing.T) {
	j := submitted()
	apply(j, event(jobs.KindStarted, 1, 1, 1))
	for i := range 5 * jobs.MaxHistory {
		apply(j, event(jobs.KindProgress, 1, jobs.Time(i+2), 1))
		if len(j.History) > jobs.MaxHistory {
			t.Fatalf("%d entries", len(j.History))
		}
	}
	if j.History[0].Kind != jobs.KindSubmitted || j.History[1].Kind != jobs.KindStarted {
		t.Errorf("progress drove out %v", j.History[:2])
	}
	if last := j.History[len(j.History)-1]; last.At != born+jobs.Time(5*jobs.MaxHistory+1) {
		t.Errorf("the last entry is of %s", last.At)
	}
	for n := 1; n <= jobs.MaxHistory; n++ {
		at := jobs.Time(10_000 * n)
		apply(j, event(jobs.KindRetrying, n, at+1, at))
		if len(j.History) > jobs.MaxHistory {
			t.Fatalf("%d entries", len(j.History))
		}
	}
	if first := j.History[0]; first.Kind != jobs.KindSubmitted || first.At != born {
		t.Errorf("the first entry is %v", first)
	}
	if last := j.History[len(j.History)-1]; last.Kind != jobs.KindRetrying || last.Attempt != jobs.MaxHistory {
		t.Errorf("the last entry is %v", last)
	}
	if len(j.Errors) != jobs.MaxErrors || j.Errors[jobs.MaxErrors-1].Attempt != jobs.MaxHistory {
		t.Errorf("%d errors, the last %v", len(j.Errors), j.Errors[len(j.Errors)-1])
	}
}

func TestKindsAndStatusesHaveNames(t *testing.T) {
	for k := jobs.KindSubmitted; k <= jobs.KindCancelled; k++ {
		if got, ok := jobs.ParseKind(k.String()); !ok || got != k {
			t.Errorf("kind %d: %q is read back as %d, %v", k, k, got, ok)
		}
	}
	for _, name := range jobs.StatusNames() {
		if s, ok := jobs.ParseStatus(name); !ok || s.String() != name {
			t.Errorf("status %q is read back as %v, %v", name, s, ok)
		}
	}
	if _, ok := jobs.ParseKind(""); ok {
		t.Error("the empty kind has a value")
	}
	if _, ok := jobs.ParseStatus(""); ok {
		t.Error("the empty status has a value")
	}
	if jobs.Kind(77).String() != "kind(77)" || jobs.Status(77).String() != "status(77)" {
		t.Error("unknown values have no name")
	}
}

// legalHistory draws what may really happen to a job: executions with or without
// a recorded start, progress, and one end each. An unfinished history is legal.
func legalHistory(t *rapid.T) []jobs.Event {
	clock := jobs.Time(0)
	tick := func() jobs.Time { clock += jobs.Time(rapid.IntRange(1, 50).Draw(t, "pause")); return clock }
	var events []jobs.Event
	attempt := 1
	for range rapid.IntRange(1, 8).Draw(t, "executions") {
		started := tick()
		held := rapid.Bool().Draw(t, "start recorded")
		if held {
			events = append(events, event(jobs.KindStarted, attempt, started, started))
			for range rapid.IntRange(0, 3).Draw(t, "reports") {
				events = append(events, event(jobs.KindProgress, attempt, tick(), started))
			}
		}
		end := rapid.SampledFrom([]jobs.Kind{
			jobs.KindRetrying, jobs.KindRetrying, jobs.KindReleased, jobs.KindReleased, jobs.KindLost,
			jobs.KindCompleted, jobs.KindFailed, jobs.KindCancelled, jobs.KindStarted,
		}).Draw(t, "end")
		if end == jobs.KindStarted {
			continue // its worker died, and nobody recorded that
		}
		events = append(events, event(end, attempt, tick(), started))
		switch end {
		case jobs.KindRetrying:
			attempt++
		case jobs.KindCompleted, jobs.KindFailed, jobs.KindCancelled:
			return events
		}
	}
	return events
}

// TestRepeatsChangeNothing: an event repeated at any later point, or the whole
// log read again from any point, gives the same record.
func TestRepeatsChangeNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		events := legalHistory(t)
		once := apply(submitted(), events...)

		var repeated []jobs.Event
		for i, e := range events {
			repeated = append(repeated, e)
			for range rapid.IntRange(0, 2).Draw(t, "repeats") {
				repeated = append(repeated, events[rapid.IntRange(0, i).Draw(t, "which")])
			}
		}
		if got := apply(submitted(), repeated...); !reflect.DeepEqual(got, once) {
			t.Fatalf("single repeats give\n%+v, not\n%+v", got, once)
		}

		upto := rapid.IntRange(0, len(events)).Draw(t, "read up to")
		from := rapid.IntRange(0, upto).Draw(t, "and again from")
		replayed := slices.Concat(events[:upto], events[from:])
		if got := apply(submitted(), replayed...); !reflect.DeepEqual(got, once) {
			t.Fatalf("a replay of %d to %d gives\n%+v, not\n%+v", from, upto, got, once)
		}
	})
}

// anyEvent draws an event that need not make sense after those before it.
func anyEvent(t *rapid.T) jobs.Event {
	kind := jobs.Kind(rapid.IntRange(0, 10).Draw(t, "kind"))
	e := event(kind, rapid.IntRange(0, 5).Draw(t, "attempt"), jobs.Time(rapid.IntRange(1, 300).Draw(t, "at")), jobs.Time(rapid.IntRange(0, 30).Draw(t, "started")))
	if rapid.IntRange(0, 3).Draw(t, "says nothing") == 0 {
		e.Progress, e.Message = 0, ""
	}
	if rapid.IntRange(0, 9).Draw(t, "other run") == 0 {
		e.Run = rapid.IntRange(0, 2).Draw(t, "run")
	}
	return e
}

// TestApplyHoldsItsInvariants: whatever comes, in whatever order.
func TestApplyHoldsItsInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		j := submitted()
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			before := j.Clone()
			var changed bool
			if rapid.IntRange(0, 9).Draw(t, "lose") == 0 {
				changed = j.Lose(born+jobs.Time(rapid.IntRange(1, 300).Draw(t, "lost at")), 3)
			} else {
				e := anyEvent(t)
				changed = jobs.Apply(j, &e)
			}
			switch {
			case changed != !reflect.DeepEqual(j, before):
				t.Fatalf("reported change %v:\n%+v\n%+v", changed, before, j)
			case before.Status.Ended() && changed:
				t.Fatalf("an ended job changed:\n%+v\n%+v", before, j)
			case j.Attempt < before.Attempt, j.Failures < before.Failures, j.Lost < before.Lost, j.UpdatedAt < before.UpdatedAt:
				t.Fatalf("went back:\n%+v\n%+v", before, j)
			case j.Failures > j.Attempt:
				t.Fatalf("%d failures in %d attempts", j.Failures, j.Attempt)
			case !j.Status.Ended() && j.Failures < j.Attempt-1:
				t.Fatalf("the next attempt would be %d, though %d has begun", j.Failures+1, j.Attempt)
			case j.Status.Ended() != (j.EndedAt != 0):
				t.Fatalf("status %s, ended at %q", j.Status, j.EndedAt)
			case (j.Status == jobs.Retrying) != (j.DueAt != 0):
				t.Fatalf("status %s, due at %q", j.Status, j.DueAt)
			case j.History[0].Kind != jobs.KindSubmitted || j.Run != 1:
				t.Fatalf("got %+v", j)
			}
		}
	})
}

// TestStubAndMerge: it makes no difference whether the submission or the events
// are read first.
func TestStubAndMerge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		events := legalHistory(t)
		if len(events) == 0 {
			return // it has no events
		}
		want := apply(submitted(), events...)
		stub := events[0].Stub()
		apply(stub, events...)
		jobs.Merge(stub, submission())
		if !reflect.DeepEqual(stub, want) {
			t.Fatalf("events first:\n%+v\nsubmission first:\n%+v", stub, want)
		}
	})
}

func TestCloneOwnsItsLists(t *testing.T) {
	j := apply(submitted(), event(jobs.KindRetrying, 1, 2, 1))
	before := jobstest.Brief(j) + jobstest.Kinds(j)
	c := j.Clone()
	if !reflect.DeepEqual(j, c) {
		t.Fatalf("the clone differs:\n%+v\n%+v", j, c)
	}
	apply(c, event(jobs.KindFailed, 2, 20, 10))
	c.Errors[0].Error, c.History[0].Text = "x", "x"
	if jobstest.Brief(j)+jobstest.Kinds(j) != before || j.Errors[0].Error == "x" || j.History[0].Text == "x" {
		t.Errorf("the original changed: %+v", j)
	}
}

// TestFailedBetweenAttempts: time may be over when no attempt runs; then none has
// failed that had not.
func TestFailedBetweenAttempts(t *testing.T) {
	over := func(attempt int) jobs.Event {
		e := event(jobs.KindFailed, attempt, 50, 0)
		e.StartedAt, e.Error = 0, "deadline exceeded"
		return e
	}
	started, retrying := event(jobs.KindStarted, 1, 1, 1), event(jobs.KindRetrying, 1, 2, 1)
	for name, tt := range map[string]struct {
		before  []jobs.Event
		attempt int
		want    string
	}{
		"before the first":               {want: "failed 0/0 deadline exceeded"},
		"before the second":              {before: []jobs.Event{retrying}, attempt: 1, want: "failed 1/1 deadline exceeded"},
		"while the second runs":          {before: []jobs.Event{retrying, event(jobs.KindStarted, 2, 3, 3)}, attempt: 1, want: "processing 2/1 error of attempt 1"},
		"of an attempt that is over":     {before: []jobs.Event{retrying, event(jobs.KindRetrying, 2, 4, 3)}, attempt: 1, want: "retrying 2/2 error of attempt 2"},
		"while the attempt itself runs":  {before: []jobs.Event{started}, attempt: 1, want: "failed 1/1 deadline exceeded"},
		"before the first, after an end": {before: []jobs.Event{event(jobs.KindCompleted, 1, 2, 1)}, want: "completed 1/0 100%"},
	} {
		t.Run(name, func(t *testing.T) {
			j := apply(submitted(), append(tt.before, over(tt.attempt))...)
			if got := jobstest.Brief(j); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
