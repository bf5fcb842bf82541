package status

import (
	"testing"
	"time"

	"jobstream/jobs"
)

func TestPace(t *testing.T) {
	t.Parallel()
	const spacing = 5 * time.Millisecond
	begun := time.Now()
	after := func(ms int) time.Time { return begun.Add(time.Duration(ms) * time.Millisecond) }
	type commit struct{ begun, ended, n int }
	for name, tt := range map[string]struct {
		before []commit
		now    int
		want   time.Duration
	}{
		"the first":                       {nil, 0, 0},
		"after one job":                   {[]commit{{0, 1, 1}}, 1, 0},
		"after many":                      {[]commit{{0, 1, busy}}, 1, 4 * time.Millisecond},
		"after many, later":               {[]commit{{0, 1, busy}}, 5, 0},
		"after a slow one":                {[]commit{{0, 20, busy}}, 20, spacing / 2},
		"after one job that follows many": {[]commit{{0, 1, busy}, {5, 6, 1}}, 6, 4 * time.Millisecond},
		"after a large one":               {[]commit{{0, 1, large}}, 1, largeSpace*spacing - time.Millisecond},
		"after many that follow a large":  {[]commit{{0, 1, large}, {20, 21, busy}}, 21, 4 * time.Millisecond},
		"when the load is over":           {[]commit{{0, 1, busy}, {5, 6, 1}, {60, 61, 1}}, 61, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var p pace
			for _, c := range tt.before {
				p.done(after(c.begun), after(c.ended), c.n)
			}
			if got := max(p.wait(after(tt.now), spacing), 0); got != tt.want {
				t.Errorf("waits %v, want %v", got, tt.want)
			}
		})
	}
}

// TestInboxSignal: what is taken leaves no signal behind, which would make the
// projector commit nothing.
func TestInboxSignal(t *testing.T) {
	t.Parallel()
	i := newInbox()
	var b batch
	i.submitted(&jobs.Message{Seq: 1})
	<-i.ready
	i.submitted(&jobs.Message{Seq: 2}) // before the projector takes what it was woken for
	i.drain(&b)
	if len(b.messages) != 2 {
		t.Fatalf("%d messages taken, want 2", len(b.messages))
	}
	select {
	case <-i.ready:
		t.Error("an empty inbox says that there is something")
	default:
	}
	i.submitted(&jobs.Message{Seq: 3})
	select {
	case <-i.ready:
	default:
		t.Error("an inbox with a message says nothing")
	}
}

// TestTaskAlone: a task by itself costs one commit.
func TestTaskAlone(t *testing.T) {
	t.Parallel()
	tr := startTemp(t, Options{})
	before := commitsOf(t, tr.Store)
	const tasks = 5
	for range tasks {
		if err := tr.SetPaused(t.Context(), "email", true); err != nil {
			t.Fatal(err)
		}
	}
	if n := commitsOf(t, tr.Store) - before; n != tasks {
		t.Errorf("%d commits for %d tasks", n, tasks)
	}
}

// commitsOf is how many commits the file of a tracker that does not sync has had: bbolt
// numbers them, and would sync twice in each.
func commitsOf(t *testing.T, s *Store) (n int) {
	t.Helper()
	syncs, err := s.Syncs()
	if err != nil {
		t.Fatal(err)
	}
	return int(syncs / 2)
}
