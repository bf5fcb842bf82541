package status

import (
	"testing"

	"jobstream/jobs"
)

// TestPosition: a job's place in its lane counts the waiting jobs of its type
// and priority before it, and nothing else.
func TestPosition(t *testing.T) {
	t.Parallel()
	tr := startTemp(t, Options{})
	type sub struct {
		typ      string
		priority jobs.Priority
		later    bool
	}
	subs := []sub{
		{"email", 3, false},
		{"email", 1, false},
		{"export", 3, false},
		{"email", 3, true},
		{"email", 3, false},
		{"email", 1, false},
		{"email", 5, false},
		{"export", 3, false},
		{"email", 3, false},
	}
	want := []int{1, 1, 1, 0, 2, 2, 1, 2, 3}
	for i, s := range subs {
		m := &jobs.Message{ID: jobs.NewID(), Seq: uint64(i + 1), At: jobs.Now(), Type: s.typ, Priority: s.priority, RetryCount: -1}
		if s.later {
			m.Terms = &jobs.Terms{RunAt: m.At.Add(1 << 40)}
		}
		tr.Submitted(m)
	}
	ctx, cancel := within(t)
	defer cancel()
	if err := tr.WaitFor(ctx, jobs.Positions{Jobs: uint64(len(subs))}); err != nil {
		t.Fatal(err)
	}
	for i := range subs {
		j, err := tr.Find(uint64(i + 1))
		if err != nil || j == nil {
			t.Fatalf("job %d: %v, %v", i+1, j, err)
		}
		if n, err := tr.Position(j); n != want[i] || err != nil {
			t.Errorf("job %d %+v is at %d (%v), want %d", i+1, subs[i], n, err, want[i])
		}
	}
}
