package envelope

import (
	"maps"
	"testing"
	"time"

	"jobstream/jobs"
)

func TestHeaders(t *testing.T) {
	id := jobs.NewID()
	j := &jobs.Job{ID: id, Type: "thumb", Run: 2, MaxAttempts: 4}
	task := jobs.NewTask(j, 3, nil)
	got := maps.Collect(Headers(task))
	if _, there := got["Jobstream-Deadline"]; there {
		t.Error("there is a deadline that nobody knows")
	}
	task.Until = time.Date(2026, 1, 2, 4, 4, 5, 0, time.FixedZone("", 3600))
	got = maps.Collect(Headers(task))
	if _, err := jobs.ParseMoment(got["ce-time"]); err != nil {
		t.Error(err)
	}
	delete(got, "ce-time")
	want := map[string]string{
		"Content-Type": "application/json", "ce-specversion": "1.0", "ce-type": "jobstream.job.run", "ce-source": "jobstream",
		"ce-id": id.String() + ".2.3", "ce-subject": id.String(), "Idempotency-Key": id.String() + ".2",
		"Jobstream-Job-Id": id.String(), "Jobstream-Job-Type": "thumb", "Jobstream-Attempt": "3", "Jobstream-Max-Attempts": "4",
		"Jobstream-Deadline": "2026-01-02T03:04:05Z",
	}
	if !maps.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if got := string(Payload(j)); got != "null" {
		t.Errorf("a job without payload sends %q", got)
	}
}
