package joblog_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/joblog"
)

func texts(all []joblog.Entry) string {
	var s []string
	for _, e := range all {
		s = append(s, fmt.Sprintf("%d/%d %s%s %s", e.N, e.Attempt, e.Level, e.Stream, e.Text))
	}
	return strings.Join(s, "|")
}

func read(t *testing.T, d *joblog.Dir, id jobs.ID, q joblog.Query) []joblog.Entry {
	t.Helper()
	all, err := d.Read(t.Context(), id, q)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "logs")
	d, id := joblog.New(path, nil), jobs.NewID()
	if all := read(t, d, id, joblog.Query{}); len(all) != 0 {
		t.Errorf("a job that has said nothing has %v", all)
	}
	w := d.Open(&jobs.Job{ID: id}, 1)
	w.Log("info", "", "one")
	w.Log("warn", "stderr", "a\x1b[31m\xff b\tc")
	w.Close()
	w = joblog.New(path, nil).Open(&jobs.Job{ID: id}, 2) // another process
	w.Log("info", "", strings.Repeat("x", joblog.MaxText+1))
	w.Close()
	all := read(t, d, id, joblog.Query{})
	if got, want := texts(all[:2]), "1/1 info one|2/1 warnstderr a\\x1b[31m\ufffd b\tc"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if len(all) != 3 || all[2].N != 3 || len(all[2].Text) > joblog.MaxText+3 {
		t.Errorf("the third is %v", all[2:])
	}
	if got := texts(read(t, d, id, joblog.Query{Attempt: 1, Tail: 1})); !strings.HasPrefix(got, "2/1 ") {
		t.Errorf("the last of attempt 1 is %q", got)
	}
	freed, err := d.Remove(id)
	if left, _ := os.ReadDir(path); err != nil || freed == 0 || len(left) != 0 {
		t.Errorf("freed %d bytes, %v; %v is left", freed, err, left)
	}
}

// TestBounds writes far more than there is room for.
func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := t.TempDir()
		d, id := joblog.New(path, nil), jobs.NewID()
		w := d.Open(&jobs.Job{ID: id}, 1)
		const entries = 20_000
		for i := range entries {
			w.Log("info", "stdout", strings.Repeat("y", 200))
			if i%900 == 0 {
				time.Sleep(time.Second) // by the bubble's clock: a second has a bound of its own
			}
		}
		w.Close()
		var size int64
		files, _ := os.ReadDir(path)
		for _, f := range files {
			info, _ := f.Info()
			size += info.Size()
		}
		if most := int64(joblog.MaxHead + 2*joblog.MaxPart); size > most || size < most/2 {
			t.Errorf("%d bytes are kept, of at most %d", size, most)
		}
		all := read(t, d, id, joblog.Query{})
		gaps := 0
		for i := 1; i < len(all); i++ {
			if all[i].N != all[i-1].N+1 {
				gaps++
			}
		}
		if all[0].N != 1 || all[len(all)-1].N != entries || gaps != 1 {
			t.Errorf("kept from %d to %d with %d gaps", all[0].N, all[len(all)-1].N, gaps)
		}
		w = d.Open(&jobs.Job{ID: id}, 2) // in one second, again
		for range 3 * joblog.MaxBurst {
			w.Log("info", "", "z")
		}
		w.Close()
		if n := len(read(t, d, id, joblog.Query{Attempt: 2})); n != joblog.MaxBurst {
			t.Errorf("%d entries of a second are kept, not %d", n, joblog.MaxBurst)
		}
	})
}

// TestFollow reads along while attempts write.
func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, id := joblog.New(t.TempDir(), nil), jobs.NewID()
		ended := make(chan struct{})
		w := d.Open(&jobs.Job{ID: id}, 1)
		w.Log("info", "", "before")
		var got []string
		done := make(chan error)
		go func() {
			done <- d.Follow(context.Background(), id, joblog.Query{}, ended, func(e *joblog.Entry) error {
				got = append(got, e.Text)
				return nil
			})
		}()
		time.Sleep(time.Second) // by the bubble's clock: the follower waits by then
		w.Log("info", "", "live")
		w.Log("info", "", "more")
		time.Sleep(time.Second) // likewise
		w.Close()
		w = d.Open(&jobs.Job{ID: id}, 2)
		w.Log("info", "", "again")
		w.Close()
		close(ended)
		if err := <-done; err != nil || strings.Join(got, " ") != "before live more again" {
			t.Errorf("followed %q, %v", got, err)
		}
	})
}

// TestBadFolder loses the log, and nothing else.
func TestBadFolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d := joblog.New(filepath.Join(path, "logs"), nil)
	w := d.Open(&jobs.Job{ID: jobs.NewID()}, 1)
	w.Log("info", "", "lost")
	w.Close()
}
