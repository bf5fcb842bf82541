package status

import (
	"context"
	"maps"
	"slices"
	"testing"

	"jobstream/jobs"
)

// everyStatus makes a job of each status, and returns their keys by its name and
// place.
func everyStatus(tr *tracker) map[string]uint64 {
	tr.t.Helper()
	at := epoch.Add(seconds(100))
	ms := []*jobs.Message{
		message(1), message(2), message(3), message(4), message(5), message(6), later(7, 1000), keyed(8, "export", "k", 3),
		keyed(9, "email", "h", 1), keyed(10, "email", "h", 1), message(11), keyed(12, "email", "r", 1), message(13),
	}
	tr.folds(ms)
	tr.folds(nil,
		of(jobs.KindStarted, tr.find(2), at), of(jobs.KindRetrying, tr.find(3), at), of(jobs.KindCompleted, tr.find(4), at),
		of(jobs.KindFailed, tr.find(5), at), of(jobs.KindStarted, tr.find(8), at), of(jobs.KindSnoozed, tr.find(11), at),
		of(jobs.KindRetrying, tr.find(12), at))
	tr.cancels(6, 13)
	tr.retries(13)
	byState := make(map[string]uint64)
	for seq := uint64(1); seq <= 13; seq++ {
		s := tr.state(seq)
		if seq == 11 {
			s += " snoozed"
		}
		byState[s] = seq
	}
	if want := 13; len(byState) != want {
		tr.t.Fatalf("%d states, want %d: %v", len(byState), want, byState)
	}
	return byState
}

func TestCancelEveryStatus(t *testing.T) {
	t.Parallel()
	tr := byHand(t)
	byState := everyStatus(tr)
	keys := slices.Sorted(maps.Values(byState))
	changed, c := tr.cancels(append(keys, 999, 1)...)
	var want []uint64
	for _, state := range slices.Collect(maps.Keys(byState)) {
		switch state {
		case "completed", "failed", "cancelled":
		default:
			want = append(want, byState[state])
		}
	}
	slices.Sort(want)
	if !slices.Equal(changed, want) || len(slices.Collect(c.Ended())) != len(want) {
		t.Fatalf("cancelled %v, ended %v, want %v", changed, keysOf(slices.Collect(c.Ended())), want)
	}
	tr.everywhere(func() {
		for state, key := range byState {
			j := tr.find(key)
			if slices.Contains(want, key) {
				if h := j.History[len(j.History)-1]; j.Status != jobs.Cancelled || j.Error != "by hand" || h.Kind != jobs.KindCancelled || h.Text != "by hand" {
					t.Errorf("%s became %+v", state, j)
				}
			} else if j.Status.String() != state {
				t.Errorf("%s became %s", state, j.Status)
			}
		}
		if n, scheduled := tr.Totals(); n+scheduled != 0 {
			t.Errorf("%d unfinished, %d scheduled", n, scheduled)
		}
		if due := tr.dueKeys(1 << 62); len(due) != 0 {
			t.Errorf("due: %v", due)
		}
	})
	// What a worker says after that counts for nothing, but its delivery is settled.
	late := of(jobs.KindCompleted, tr.find(2), epoch.Add(seconds(200)))
	if c := tr.folds(nil, late); len(c.Outcomes) != 1 || len(slices.Collect(c.Ended())) != 0 || tr.find(2).Status != jobs.Cancelled {
		t.Errorf("%+v", c)
	}
}

func TestRetryEveryStatus(t *testing.T) {
	t.Parallel()
	tr := byHand(t)
	byState := everyStatus(tr)
	changed, refused, c := tr.retries(slices.Sorted(maps.Values(byState))...)
	want := []uint64{byState["failed"], byState["cancelled"]}
	slices.Sort(want)
	if !slices.Equal(changed, want) || len(refused) != 0 || c.Due() != 1 {
		t.Fatalf("retried %v, refused %v, due %v; want %v", changed, refused, c.Due(), want)
	}
	key := byState["failed"]
	tr.everywhere(func() {
		j := tr.find(key)
		if tr.state(key) != "pending due" || j.Run != 2 || j.Attempt != 0 || j.Failures != 0 || j.Error != "" || j.EndedAt != 0 {
			t.Errorf("%+v", j)
		}
		if len(j.Errors) != 1 || j.History[len(j.History)-1].Kind != jobs.KindRerun {
			t.Errorf("its past is not kept: %+v", j)
		}
	})
	// An end of the run before that counts for nothing.
	before := tr.find(key).Clone()
	before.Run = 1
	tr.folds(nil, of(jobs.KindCompleted, before, epoch.Add(seconds(300))))
	tr.folds(tr.released(epoch.Add(seconds(400)), 20))
	if j := tr.find(key); j.Status != jobs.Pending || j.Place != jobs.InQueue {
		t.Fatalf("%+v", j)
	}
	tr.folds(nil, of(jobs.KindCompleted, tr.find(key), epoch.Add(seconds(500))))
	if f := tr.Figures()["email"]; f.Ever[jobs.Failed] != 1 || f.Ever[jobs.Completed] != 2 || f.Now[jobs.Failed] != 0 {
		t.Errorf("%+v", f)
	}
	tr.verify()
}

// The expiry and deadline of the first run do not bound the second.
func TestRetryAfterExpiry(t *testing.T) {
	t.Parallel()
	tr := byHand(t)
	tr.receives(with(1, jobs.Terms{ExpiresAt: epoch.Add(seconds(10)), Deadline: epoch.Add(seconds(20)), UniqueKey: "u"}))
	tr.expires(epoch.Add(seconds(11)))
	tr.retries(1)
	if _, c := tr.expires(epoch.Add(seconds(1000))); len(slices.Collect(c.Ended())) != 0 {
		t.Errorf("%+v", slices.Collect(c.Ended()))
	}
	tr.everywhere(func() { tr.states("pending due") })
}

func TestRetryOfAnUnknownType(t *testing.T) {
	t.Parallel()
	tr := byHand(t)
	tr.receives(message(1))
	tr.cancels(1)
	tr.o.Registry = jobs.NewRegistry(termTypes.Lookup("export"))
	tr.reopen()
	changed, refused, _ := tr.retries(1)
	if len(changed) != 0 || len(refused) != 1 || refused[0].Err.Kind != jobs.UnknownType {
		t.Errorf("%v, %+v", changed, refused)
	}
	tr.verify()
}

func TestDeleteEveryStatus(t *testing.T) {
	t.Parallel()
	tr := byHand(t)
	byState := everyStatus(tr)
	if n := tr.deletes(slices.Sorted(maps.Values(byState))...); n != 3 {
		t.Errorf("deleted %d", n)
	}
	tr.everywhere(func() {
		for state, key := range byState {
			switch j, err := tr.Find(key); state {
			case "completed", "failed", "cancelled":
				if j != nil || err != nil {
					t.Errorf("%s: %+v, %v", state, j, err)
				}
			default:
				if j == nil || err != nil {
					t.Errorf("%s: %+v, %v", state, j, err)
				}
			}
		}
	})
}

// Changes by several people at the same moment happen one after the other, in one
// transaction.
func TestControlTogether(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	type call func(tr *tracker)
	cancel := func(tr *tracker) { _, err := tr.Cancel(ctx, []uint64{1}, ""); tr.must(err) }
	retry := func(tr *tracker) { _, _, err := tr.Retry(ctx, []uint64{1}); tr.must(err) }
	remove := func(tr *tracker) { _, _, err := tr.Delete(ctx, []uint64{1}); tr.must(err) }
	for name, tt := range map[string]struct {
		ended bool
		calls []call
		want  string // "" = gone
	}{
		"cancel, retry":         {false, []call{cancel, retry}, "cancelled"},
		"retry, cancel":         {true, []call{retry, cancel}, "cancelled"},
		"retry, delete":         {true, []call{retry, remove}, "pending due"},
		"delete, retry":         {true, []call{remove, retry}, ""},
		"cancel, delete":        {false, []call{cancel, remove}, "cancelled"},
		"cancel, delete, retry": {true, []call{cancel, remove, retry}, ""},
		"retry, retry":          {true, []call{retry, retry}, "pending due"},
	} {
		t.Run(name, func(t *testing.T) {
			tr := byHand(t)
			tr.receives(keyed(1, "email", "k", 3), message(2))
			if tt.ended {
				tr.cancels(1)
			}
			var calls []func()
			for _, c := range tt.calls {
				calls = append(calls, func() { c(tr) })
			}
			tr.together(calls...)
			tr.everywhere(func() {
				if tt.want == "" {
					tr.none(1)
				} else {
					tr.states(tt.want)
				}
			})
		})
	}
}

func TestPausedTypes(t *testing.T) {
	t.Parallel()
	tr := byHand(t)
	ctx := context.Background()
	set := func(typ string, paused bool) {
		tr.together(func() { tr.must(tr.SetPaused(ctx, typ, paused)) })
	}
	want := func(types ...string) {
		t.Helper()
		paused, err := tr.Paused()
		if got := slices.Sorted(maps.Keys(paused)); err != nil || !slices.Equal(got, types) {
			t.Errorf("paused are %v, %v; want %v", got, err, types)
		}
	}
	want()
	set("email", true)
	set("email", true)
	set("export", true)
	tr.everywhere(func() { want("email", "export") })
	set("email", false)
	set("never", false)
	tr.everywhere(func() { want("export") })
}
