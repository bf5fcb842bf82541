package joblog_test

import (
	"testing"
	"time"

	"jobstream/jobs/joblog"
)

// TestParts merges what two nodes have of a log. One has dropped entries, and its clock was
// set back.
func TestParts(t *testing.T) {
	at := func(second int) time.Time { return time.Unix(int64(second), 0) }
	parts := joblog.Parts{
		{{N: 1, At: at(20), Attempt: 2, Level: "info", Text: "b1"}, {N: 4, At: at(10), Attempt: 2, Level: "info", Text: "b2"}},
		{{N: 1, At: at(30), Attempt: 1, Level: "info", Text: "a1"}, {N: 2, At: at(31), Attempt: 1, Level: "info", Text: "a2"}, {N: 3, At: at(40), Attempt: 2, Level: "info", Text: "c1"}},
		nil,
	}
	if got, want := texts(parts.Merge()), "1/1 info a1|2/1 info a2|3/2 info b1|6/2 info b2|7/2 info c1"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := (joblog.Parts{nil, nil}).Merge(); len(got) != 0 {
		t.Errorf("nothing is merged to %v", got)
	}
}
