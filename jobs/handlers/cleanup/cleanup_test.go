package cleanup

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/handlers/internal/handlertest"
)

const now = "2024-03-01T00:00:00Z"

const day = 24 * time.Hour

// site is a tracker with artifacts and an outbox.
type site struct {
	*Handler
	tracker *handlertest.Tracker
	outbox  string
}

// newSite has these jobs. Each has an artifact of 10 bytes; the first and every second
// one after it have a mail of 5.
func newSite(t *testing.T, list ...*jobs.Job) *site {
	t.Helper()
	s := &site{tracker: handlertest.NewTracker(list...), outbox: t.TempDir()}
	s.Handler = New(s.tracker, jobs.NewArtifactDir(t.TempDir(), 0), Leftover{"its mail", s.unlinkMail})
	at := handlertest.At(t, now)
	s.now = func() jobs.Time { return at }
	for i, j := range list {
		w, err := s.files.Create(j.ID)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Commit("f", "text/plain"); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			if err := os.WriteFile(s.mail(j.ID), make([]byte, 5), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	return s
}

func (s *site) mail(id jobs.ID) string { return filepath.Join(s.outbox, id.String()+".eml") }

func (s *site) unlinkMail(id jobs.ID) (int64, error) {
	info, err := os.Stat(s.mail(id))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return info.Size(), os.Remove(s.mail(id))
}

// left lists the numbers of the jobs that still have a record, a file or a mail.
func (s *site) left(t *testing.T) (records, files, mails []int) {
	t.Helper()
	for i := range 1000 {
		id := handlertest.ID(i)
		if slices.ContainsFunc(s.tracker.Jobs, func(j *jobs.Job) bool { return j.ID == id }) {
			records = append(records, i)
		}
		if n, err := s.files.Size(id); err == nil && n > 0 {
			files = append(files, i)
		}
		if _, err := os.Stat(s.mail(id)); err == nil {
			mails = append(mails, i)
		}
	}
	return records, files, mails
}

// mixed has jobs 0 to 6: two of each ended status, 40 and 10 days ago, and one that
// waits.
func mixed(t *testing.T) []*jobs.Job {
	t.Helper()
	at := handlertest.At(t, now)
	var list []*jobs.Job
	for i, status := range []jobs.Status{jobs.Completed, jobs.Failed, jobs.Cancelled, jobs.Completed, jobs.Failed, jobs.Cancelled} {
		age := 40 * day
		if i >= 3 {
			age = 10 * day
		}
		list = append(list, &jobs.Job{ID: handlertest.ID(i), Type: "email", Status: status, CreatedAt: at.Add(-age - time.Minute), EndedAt: at.Add(-age)})
	}
	return append(list, &jobs.Job{ID: handlertest.ID(6), Type: "email", Status: jobs.Pending, CreatedAt: at.Add(-90 * day)})
}

func handle(t *testing.T, s *site, payload string) Result {
	t.Helper()
	task := handlertest.NewTask(t, payload)
	if err := s.Check(jobs.NewPayload(task.Job.Payload)); err != nil {
		t.Fatalf("Check: %v", err)
	}
	res, err := s.Handle(t.Context(), task.Task)
	if err != nil {
		t.Fatal(err)
	}
	if err := task.CheckProgress(); err != nil {
		t.Error(err)
	}
	return res.Value.(Result)
}

func TestDeletes(t *testing.T) {
	ended := []string{"completed", "failed", "cancelled"}
	const record, file, mail = handlertest.RecordSize, 10, 5
	for _, c := range []struct {
		payload string
		want    Result
		left    []int
	}{
		{
			`{"older_than":"30d"}`,
			Result{3, 3*record + 3*file + 2*mail, Criteria{"30d", "2024-01-31T00:00:00Z", ended, false}},
			[]int{3, 4, 5, 6},
		},
		{
			`{"older_than":"4w","status":"failed","dry_run":false}`,
			Result{1, record + file, Criteria{"4w", "2024-02-02T00:00:00Z", []string{"failed"}, false}},
			[]int{0, 2, 3, 4, 5, 6},
		},
		{
			`{"older_than":"10d","status":["completed","cancelled"]}`, // exactly 10 days is not more than 10 days
			Result{2, 2*record + 2*file + 2*mail, Criteria{"10d", "2024-02-20T00:00:00Z", []string{"completed", "cancelled"}, false}},
			[]int{1, 3, 4, 5, 6},
		},
		{
			`{"older_than":"0s","status":null}`,
			Result{6, 6*record + 6*file + 3*mail, Criteria{"0s", now, ended, false}},
			[]int{6},
		},
		{
			`{"older_than":0,"status":[]}`,
			Result{6, 6*record + 6*file + 3*mail, Criteria{"0", now, ended, false}},
			[]int{6},
		},
		{`{"older_than":"100d"}`, Result{0, 0, Criteria{"100d", "2023-11-22T00:00:00Z", ended, false}}, []int{0, 1, 2, 3, 4, 5, 6}},
	} {
		t.Run(c.payload, func(t *testing.T) {
			s := newSite(t, mixed(t)...)
			got := handle(t, s, c.payload)
			if text(t, got) != text(t, c.want) {
				t.Errorf("got  %s\nwant %s", text(t, got), text(t, c.want))
			}
			records, files, mails := s.left(t)
			even := slices.DeleteFunc(slices.Clone(c.left), func(i int) bool { return i%2 == 1 })
			if !slices.Equal(records, c.left) || !slices.Equal(files, c.left) || !slices.Equal(mails, even) {
				t.Errorf("left: records %v, files %v, mails %v; want %v", records, files, mails, c.left)
			}
			if again := handle(t, s, c.payload); again.DeletedCount != 0 || again.FreedBytes != 0 {
				t.Errorf("again: %+v", again)
			}
		})
	}
}

func text(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestDryRunOnlyCounts(t *testing.T) {
	list := mixed(t)
	s := newSite(t, list...)
	got := handle(t, s, `{"older_than":"30d","dry_run":true}`)
	want := int64(0)
	for _, j := range list[:3] {
		want += int64(len(j.AppendJSON(nil))) + 10
	}
	if got.DeletedCount != 3 || got.FreedBytes != want || !got.Criteria.DryRun {
		t.Errorf("got %+v, want 3 and %d bytes", got, want)
	}
	if records, files, mails := s.left(t); len(records) != 7 || len(files) != 7 || len(mails) != 4 {
		t.Errorf("something was deleted: %v %v %v", records, files, mails)
	}
	if len(s.tracker.Batches) > 0 {
		t.Error("Delete was called")
	}
}

func TestDeletesInBatches(t *testing.T) {
	at := handlertest.At(t, now)
	var list []*jobs.Job
	for i := range 1203 {
		list = append(list, &jobs.Job{ID: handlertest.ID(i), Status: jobs.Completed, CreatedAt: at.Add(time.Duration(i-5000) * time.Hour), EndedAt: at.Add(time.Duration(i-5000) * time.Hour)})
	}
	tracker := handlertest.NewTracker(list...)
	h := New(tracker, jobs.NewArtifactDir(t.TempDir(), 0))
	h.now = func() jobs.Time { return at }
	task := handlertest.NewTask(t, `{"older_than":"1h"}`)
	res, err := h.Handle(t.Context(), task.Task)
	if err != nil || res.Value.(Result).DeletedCount != 1203 {
		t.Fatalf("%+v, %v", res, err)
	}
	if want := []int{500, 500, 203}; !slices.Equal(tracker.Batches, want) {
		t.Errorf("batches %v, want %v", tracker.Batches, want)
	}
	if err := task.CheckProgress(); err != nil || len(task.Percents) != 4 {
		t.Errorf("%v: %v", task.Percents, err)
	}
}

func TestRun(t *testing.T) {
	s := newSite(t, mixed(t)...)
	deleted, freed, err := s.Run(t.Context(), 30*day, []jobs.Status{jobs.Cancelled})
	if deleted != 1 || freed != handlertest.RecordSize+15 || err != nil {
		t.Errorf("got %d, %d, %v", deleted, freed, err)
	}
	if deleted, freed, err = s.Run(t.Context(), 200*365*day, nil); deleted != 0 || freed != 0 || err != nil {
		t.Errorf("before the epoch: %d, %d, %v", deleted, freed, err)
	}
	deleted, _, err = s.Run(t.Context(), 0, nil)
	if deleted != 5 || err != nil {
		t.Errorf("all: %d, %v", deleted, err)
	}
}

// TestAnInterruptedCleanupIsMadeGood removes the files and fails at the commit. The
// next attempt finishes.
func TestAnInterruptedCleanupIsMadeGood(t *testing.T) {
	s := newSite(t, mixed(t)...)
	broken := errors.New("broken")
	s.tracker.OnDelete = func([]uint64) error {
		if _, files, _ := s.left(t); !slices.Equal(files, []int{3, 4, 5, 6}) {
			t.Errorf("the records would go before the files: %v", files)
		}
		return broken
	}
	if _, err := s.Handle(t.Context(), handlertest.NewTask(t, `{"older_than":"30d"}`).Task); !errors.Is(err, broken) || jobs.IsPermanent(err) {
		t.Fatalf("got %v", err)
	}
	s.tracker.OnDelete = nil
	if got := handle(t, s, `{"older_than":"30d"}`); got.DeletedCount != 3 || got.FreedBytes != 3*handlertest.RecordSize {
		t.Errorf("got %+v", got)
	}
}

// TestOneStubbornFile has a file that resists: its record stays, the others go.
func TestOneStubbornFile(t *testing.T) {
	s := newSite(t, mixed(t)...)
	stubborn := errors.New("stubborn")
	s.others[0].Remove = func(id jobs.ID) (int64, error) {
		if id == handlertest.ID(1) {
			return 0, stubborn
		}
		return 0, nil
	}
	deleted, _, err := s.Run(t.Context(), 30*day, nil)
	if deleted != 2 || !errors.Is(err, stubborn) {
		t.Errorf("got %d, %v", deleted, err)
	}
	if records, _, _ := s.left(t); !slices.Equal(records, []int{1, 3, 4, 5, 6}) {
		t.Errorf("left %v", records)
	}
}

func TestStopsBetweenBatches(t *testing.T) {
	s := newSite(t, mixed(t)...)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(jobs.ErrShutdown)
	if _, err := s.Handle(ctx, handlertest.NewTask(t, `{"older_than":"0s"}`).Task); !errors.Is(err, jobs.ErrShutdown) {
		t.Errorf("got %v", err)
	}
	if records, files, _ := s.left(t); len(records) != 7 || len(files) != 7 {
		t.Error("something was deleted")
	}
}

func TestCheckRefuses(t *testing.T) {
	for _, c := range []struct {
		payload  string
		pointers []string
	}{
		{``, []string{"/payload/older_than"}},
		{`null`, []string{"/payload/older_than"}},
		{`{}`, []string{"/payload/older_than"}},
		{`{"older_than":null}`, []string{"/payload/older_than"}},
		{`[]`, []string{"/payload", "/payload/older_than"}},
		{`{"older_than":"soon","status":["done","pending","failed"],"dry_run":"yes","force":true}`, []string{
			"/payload/older_than", "/payload/status/0", "/payload/status/1", "/payload/dry_run", "/payload/force",
		}},
		{`{"older_than":"-5d"}`, []string{"/payload/older_than"}},
		{`{"older_than":-5}`, []string{"/payload/older_than"}},
		{`{"older_than":true}`, []string{"/payload/older_than"}},
		{`{"older_than":["30d"]}`, []string{"/payload/older_than"}},
		{`{"older_than":"30d","status":"processing"}`, []string{"/payload/status"}},
		{`{"older_than":"30d","status":1}`, []string{"/payload/status"}},
	} {
		t.Run(c.payload, func(t *testing.T) {
			s := newSite(t)
			var e *jobs.Error
			if err := s.Check(jobs.NewPayload(json.RawMessage(c.payload))); !errors.As(err, &e) {
				t.Fatalf("got %v", err)
			}
			var got []string
			for _, f := range e.Fields {
				got = append(got, f.Pointer)
			}
			if !slices.Equal(got, c.pointers) {
				t.Errorf("got %v, want %v", got, c.pointers)
			}
			if _, err := s.Handle(t.Context(), handlertest.NewTask(t, c.payload).Task); !jobs.IsPermanent(err) {
				t.Errorf("Handle: %v, want a permanent error", err)
			}
		})
	}
}

// TestRemove deletes single jobs with their files. Jobs that have not ended stay.
func TestRemove(t *testing.T) {
	s := newSite(t, mixed(t)...)
	deleted, freed, err := s.Remove(t.Context(), s.tracker.Jobs[:2])
	if err != nil || deleted != 2 || freed != 2*handlertest.RecordSize+2*10+5 {
		t.Errorf("%d deleted, %d bytes freed, %v", deleted, freed, err)
	}
	records, files, mails := s.left(t)
	if want := []int{2, 3, 4, 5, 6}; !slices.Equal(records, want) || !slices.Equal(files, want) || !slices.Equal(mails, []int{2, 4, 6}) {
		t.Errorf("left are %v, %v and %v", records, files, mails)
	}
	boom := errors.New("boom")
	s.others[0].Remove = func(jobs.ID) (int64, error) { return 0, boom }
	if deleted, _, err := s.Remove(t.Context(), s.tracker.Jobs[:1]); deleted != 0 || !errors.Is(err, boom) {
		t.Errorf("a mail that resists: %d, %v", deleted, err)
	}
}
