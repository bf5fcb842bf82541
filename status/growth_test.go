package status

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"jobstream/jobs"
	"jobstream/status/record"
)

// TestFileLevelsOff: while as many old jobs are deleted as new ones come, the file
// stops growing.
func TestFileLevelsOff(t *testing.T) {
	t.Parallel()
	tr := startTemp(t, Options{OutboxAge: time.Millisecond})
	tr.Notified(1 << 62)
	const each, rounds, level = 2000, 15, 5
	var sizes []int64
	for round := range uint64(rounds) {
		var events []jobs.Event
		last := (round + 1) * each
		for seq := round*each + 1; seq <= last; seq++ {
			m := message(seq)
			m.Tags = []string{"nightly"}
			if seq%10 == 0 { // some stand apart from their records
				m.Payload = []byte(`{"text":"` + strings.Repeat("x", 2*record.InlinePayload) + `"}`)
			}
			tr.Submitted(m)
			events = append(events, event(jobs.KindCompleted, m, 1))
		}
		tr.Happened(round+1, events)
		tr.wait(last, round+1)
		if round > 0 { // the ones of the round before go
			deleteUpTo(t, tr, round*each)
		}
		info, err := os.Stat(tr.o.Path)
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, info.Size())
	}
	t.Logf("sizes: %d", sizes)
	if n, err := tr.Count(jobs.Filter{}); n != each || err != nil {
		t.Errorf("%d jobs are left, %v", n, err)
	}
	if sizes[rounds-1] > sizes[level] {
		t.Errorf("the file has %d bytes after %d rounds, and %d after %d", sizes[level], level+1, sizes[rounds-1], rounds)
	}
}

// deleteUpTo deletes all jobs with a key up to last, in parts as a cleanup does.
func deleteUpTo(t *testing.T, tr *tracker, last uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	for {
		found, _, err := tr.Ended(ctx, epoch.Add(seconds(1<<30)), nil, 0, 500)
		if err != nil {
			t.Fatal(err)
		}
		var keys []uint64
		for _, j := range found {
			if j.Key <= last {
				keys = append(keys, j.Key)
			}
		}
		if len(keys) == 0 {
			return
		}
		if n, _, err := tr.Delete(ctx, keys); n != len(keys) || err != nil {
			t.Fatalf("deleted %d of %d, %v", n, len(keys), err)
		}
	}
}
