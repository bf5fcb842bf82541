package jobs_test

import (
	"strings"
	"testing"

	"jobstream/jobs"
)

func TestNormalError(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                              "(no message)",
		"550 5.1.1 no such user":        "550 5.1.1 no such user",
		"row 123456 is bad":             "row … is bad",
		"job 0193a5b2-7c3d-7e11-9a2b-1": "job …",
		"größe 12 ü":                    "größe 12 ü",
		strings.Repeat("ä", 200):        strings.Repeat("ä", 100) + "…",
		"\xff\xfe":                      "",
	} {
		if got := jobs.NormalError(in); got != want {
			t.Errorf("NormalError(%q) = %q, want %q", in, got, want)
		}
	}
}

// The tracker and links keep fingerprints, so they stay what they are.
func TestFingerprint(t *testing.T) {
	t.Parallel()
	j := &jobs.Job{Type: "email", Status: jobs.Failed, Error: "row 123456 is bad"}
	want := j.Fingerprint()
	if want != "9210b5fd617a09d9" || !jobs.IsFingerprint(want) {
		t.Errorf("it is %q", want)
	}
	for name, change := range map[string]func(j *jobs.Job){
		"type":   func(j *jobs.Job) { j.Type = "export" },
		"error":  func(j *jobs.Job) { j.Error = "row 1 is bad" },
		"status": func(j *jobs.Job) { j.Status = jobs.Cancelled },
		"listed": func(j *jobs.Job) { j.Unlisted = true },
	} {
		other := *j
		if change(&other); other.Fingerprint() == want {
			t.Errorf("another %s changes nothing", name)
		}
	}
	same := *j
	same.Error, same.Payload = "row 99999 is bad", []byte(`{}`)
	if same.Fingerprint() != want {
		t.Error("another number makes another one")
	}
}
