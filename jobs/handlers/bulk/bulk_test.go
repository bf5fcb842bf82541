package bulk_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"jobstream/jobs"
	"jobstream/jobs/api"
	"jobstream/jobs/handlers/bulk"
	"jobstream/jobs/handlers/internal/handlertest"
)

const submitted = "2024-03-01T00:00:00Z" // of the bulk job

// mixed has n jobs of every status from before the bulk job, one of every status from
// after it, and two bulk jobs.
func mixed(t *testing.T, n int) *handlertest.Tracker {
	t.Helper()
	at := handlertest.At(t, submitted)
	var list []*jobs.Job
	add := func(typ string, status jobs.Status, created jobs.Time) {
		j := &jobs.Job{ID: handlertest.ID(len(list)), Type: typ, Status: status, Run: 1, Attempt: 1, MaxAttempts: 1, CreatedAt: created}
		if status.Ended() {
			j.EndedAt = created + 1
		}
		list = append(list, j)
	}
	for i := range n {
		for s := jobs.Scheduled; int(s) < jobs.NumStatus; s++ {
			add("email", s, at-jobs.Time(1000-i))
		}
	}
	add(api.BulkType, jobs.Processing, at-1)
	add(api.BulkType, jobs.Failed, at-1)
	for s := jobs.Scheduled; int(s) < jobs.NumStatus; s++ {
		add("email", s, at)
	}
	return handlertest.NewTracker(list...)
}

// counts are the numbers of jobs by status, without the server's own.
func counts(tr *handlertest.Tracker) (n [jobs.NumStatus]int) {
	for _, j := range tr.Jobs {
		if j.Type != api.BulkType {
			n[j.Status]++
		}
	}
	return n
}

func newHandler(tr *handlertest.Tracker) *bulk.Handler {
	return bulk.New(tr, func(ctx context.Context, ended []*jobs.Job) (int, int64, error) {
		var keys []uint64
		for _, j := range ended {
			keys = append(keys, j.Key)
		}
		r, err := tr.Do(ctx, jobs.Delete{Keys: keys})
		return r.Removed, r.Freed, err
	})
}

// handle runs one attempt.
func handle(t *testing.T, h *bulk.Handler, payload string) (bulk.Result, *handlertest.Task, error) {
	t.Helper()
	task := handlertest.NewTask(t, payload)
	task.Job.CreatedAt = handlertest.At(t, submitted)
	if err := h.Check(jobs.NewPayload(task.Job.Payload)); err != nil {
		t.Fatal(err)
	}
	res, err := h.Handle(t.Context(), task.Task)
	r, _ := res.Value.(bulk.Result)
	return r, task, err
}

func TestActions(t *testing.T) {
	const n = 300 // of each status: some pages
	for _, tt := range []struct {
		payload       string
		matched, left int
		pages         []int
		want          [jobs.NumStatus]int
	}{
		{
			payload: `{"action":"cancel","all":true}`, matched: 4 * n, pages: []int{500, 500, 200},
			want: [jobs.NumStatus]int{0, 1, 1, 1, 1, n + 1, n + 1, 5*n + 1},
		},
		{
			payload: `{"action":"retry","all":true}`, matched: 2 * n, pages: []int{500, 100},
			want: [jobs.NumStatus]int{0, n + 1, 3*n + 1, n + 1, n + 1, n + 1, 1, 1},
		},
		{
			payload: `{"action":"delete","all":true}`, matched: 3 * n, pages: []int{500, 400},
			want: [jobs.NumStatus]int{0, n + 1, n + 1, n + 1, n + 1, 1, 1, 1},
		},
		{
			payload: `{"action":"delete","filter":{"status":["failed","pending"],"type":"email"}}`, matched: n, pages: []int{n},
			want: [jobs.NumStatus]int{0, n + 1, n + 1, n + 1, n + 1, n + 1, 1, n + 1},
		},
		{
			payload: `{"action":"cancel","filter":{"status":"failed"}}`,
			want:    [jobs.NumStatus]int{0, n + 1, n + 1, n + 1, n + 1, n + 1, n + 1, n + 1},
		},
		{
			payload: `{"action":"delete","all":true,"dry_run":true}`, matched: 3 * n,
			want: [jobs.NumStatus]int{0, n + 1, n + 1, n + 1, n + 1, n + 1, n + 1, n + 1},
		},
	} {
		t.Run(tt.payload, func(t *testing.T) {
			tr := mixed(t, n)
			got, task, err := handle(t, newHandler(tr), tt.payload)
			if err != nil {
				t.Fatal(err)
			}
			if err := task.CheckProgress(); err != nil {
				t.Error(err)
			}
			dry := strings.Contains(tt.payload, "dry_run")
			changed := tt.matched
			if dry {
				changed = 0
			}
			if got.Matched != tt.matched || got.Changed != changed || got.Refused != 0 || got.DryRun != dry || got.Refusals != nil {
				t.Errorf("the result is %+v", got)
			}
			if c := counts(tr); c != tt.want {
				t.Errorf("now there are %v, want %v", c, tt.want)
			}
			if !slices.Equal(tr.Batches, tt.pages) {
				t.Errorf("pages of %v, want %v", tr.Batches, tt.pages)
			}
			for _, j := range tr.Jobs {
				if j.Type == api.BulkType && j.Status != jobs.Processing && j.Status != jobs.Failed {
					t.Errorf("bulk job %d became %s", j.Key, j.Status)
				}
			}
		})
	}
}

func TestReasonAndResult(t *testing.T) {
	tr := mixed(t, 1)
	res, task, err := handle(t, newHandler(tr), `{"action":"cancel","filter":{"status":"pending"},"reason":"no need"}`)
	if err != nil {
		t.Fatal(err)
	}
	if j := tr.Jobs[1]; j.Status != jobs.Cancelled || j.Error != "no need" {
		t.Errorf("the job is %+v", j)
	}
	if b, err := json.Marshal(res); err != nil || string(b) != `{"action":"cancel","matched":1,"changed":1,"refused":0}` {
		t.Errorf("the result is %s, %v", b, err)
	}
	if said := task.Messages[len(task.Messages)-1]; said != "cancelled 1 jobs" {
		t.Errorf("it says %q", said)
	}
}

// TestRefused has more refusals than the result lists.
func TestRefused(t *testing.T) {
	const n = 20
	tr := mixed(t, n)
	tr.Taken = make(map[uint64]bool)
	for _, j := range tr.Jobs {
		if j.Status == jobs.Failed {
			tr.Taken[j.Key] = true
		}
	}
	got, _, err := handle(t, newHandler(tr), `{"action":"retry","all":true}`)
	if err != nil {
		t.Fatal(err)
	}
	if got.Matched != 2*n || got.Changed != n || got.Refused != n || len(got.Refusals) != 10 {
		t.Errorf("the result is %+v", got)
	}
	if r := got.Refusals[0]; r.ID != tr.Jobs[5].ID || r.Error != "its unique key is taken" {
		t.Errorf("the first refusal is %+v", r)
	}
}

// TestAgain breaks an attempt in the middle and repeats it. Jobs of its first pages
// have failed again meanwhile, and must not be retried twice.
func TestAgain(t *testing.T) {
	const n = 600
	for _, action := range []string{"cancel", "retry", "delete"} {
		t.Run(action, func(t *testing.T) {
			tr := mixed(t, n)
			boom := errors.New("boom")
			broken := func([]uint64) error {
				if len(tr.Batches) == 2 {
					return boom
				}
				return nil
			}
			tr.OnChange, tr.OnDelete = broken, broken
			payload := `{"action":"` + action + `","all":true}`
			if _, _, err := handle(t, newHandler(tr), payload); !errors.Is(err, boom) {
				t.Fatalf("a broken tracker: %v", err)
			}
			if action == "delete" {
				tr.OnDelete = nil // the pages after the broken one have been deleted already
			}
			tr.OnChange = nil
			for _, j := range tr.Jobs {
				if j.Run == 2 {
					jobs.Apply(j, &jobs.Event{Kind: jobs.KindFailed, Run: 2, Attempt: 1, At: jobs.Now(), Error: "again"})
				}
			}
			first := sum(tr.Batches[:1])
			if action == "delete" {
				first = sum(tr.Batches) - tr.Batches[1]
			}
			got, _, err := handle(t, newHandler(tr), payload)
			all := map[string]int{"cancel": 4 * n, "retry": 2 * n, "delete": 3 * n}[action]
			if err != nil || got.Changed != all-first || got.Matched != all-first {
				t.Errorf("the second attempt: %+v, %v; want %d of %d", got, err, all-first, all)
			}
			for _, j := range tr.Jobs {
				if j.Run > 2 {
					t.Fatalf("job %d runs for the time %d", j.Key, j.Run)
				}
			}
		})
	}
}

func sum(list []int) (n int) {
	for _, i := range list {
		n += i
	}
	return n
}

// TestStuck has a page that resists: the others are deleted.
func TestStuck(t *testing.T) {
	const n = 400
	tr := mixed(t, n)
	boom := errors.New("a file resists")
	tr.OnDelete = func(keys []uint64) error {
		if keys[0] < 500 {
			return boom
		}
		return nil
	}
	_, _, err := handle(t, newHandler(tr), `{"action":"delete","all":true}`)
	if !errors.Is(err, boom) || !strings.Contains(err.Error(), fmt.Sprintf("deleted %d jobs", 3*n-500)) {
		t.Errorf("it says %v", err)
	}
	if c := counts(tr); c[jobs.Completed]+c[jobs.Failed]+c[jobs.Cancelled] != 500+3 {
		t.Errorf("now there are %v", c)
	}
}

// TestInterrupted ends the context while pages are changed.
func TestInterrupted(t *testing.T) {
	for _, action := range []string{"cancel", "retry", "delete"} {
		tr := mixed(t, 600)
		ctx, cancel := context.WithCancelCause(t.Context())
		stop := func([]uint64) error { cancel(jobs.ErrShutdown); return nil }
		tr.OnChange, tr.OnDelete = stop, stop
		task := handlertest.NewTask(t, `{"action":"`+action+`","all":true}`)
		task.Job.CreatedAt = handlertest.At(t, submitted)
		if _, err := newHandler(tr).Handle(ctx, task.Task); !errors.Is(err, jobs.ErrShutdown) || len(tr.Batches) != 1 {
			t.Errorf("%s: %v after %d pages", action, err, len(tr.Batches))
		}
		cancel(nil)
	}
}

func TestCheck(t *testing.T) {
	h := newHandler(handlertest.NewTracker())
	for payload, pointer := range map[string]string{
		`{"action":"cancel","all":true}`: "", ``: "/payload", `{"action":"cancel"}`: "/payload/filter",
		`{"action":"stop","all":true}`: "/payload/action", `{"action":"retry","filter":{"status":"x"}}`: "/payload/filter/status",
	} {
		err := h.Check(jobs.NewPayload(json.RawMessage(payload)))
		if pointer == "" {
			if err != nil {
				t.Errorf("%s: %v", payload, err)
			}
			continue
		}
		e, ok := jobs.AsError(err)
		if !ok || len(e.Fields) != 1 || e.Fields[0].Pointer != pointer {
			t.Errorf("%s: %v, want %s", payload, err, pointer)
		}
		task := handlertest.NewTask(t, payload)
		if _, err := h.Handle(t.Context(), task.Task); !jobs.IsPermanent(err) {
			t.Errorf("%s is tried again: %v", payload, err)
		}
	}
}
