package pool_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/jobstest"
)

// leave has a task leave a file whose content is its name.
func leave(task *jobs.Task, name string) (*jobs.Artifact, error) {
	w, err := task.Artifact()
	if err != nil {
		return nil, err
	}
	defer w.Abort()
	if _, err := w.Write([]byte(name)); err != nil {
		return nil, err
	}
	return w.Commit(name, "text/plain")
}

// filed is a rig whose handlers can leave files, and a function that lists the content of
// all files.
func filed(t *testing.T, o rigOptions, f func(r *rig, files func() string)) {
	t.Helper()
	dir := t.TempDir()
	o.artifacts = jobs.NewArtifactDir(dir, 0)
	files := func() string {
		var all []string
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.Type().IsRegular() {
				var b []byte
				b, err = os.ReadFile(path)
				all = append(all, string(b))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(all, " ")
	}
	inRig(t, o, func(r *rig) { f(r, files) })
}

func names(j *jobs.Job) string {
	var all []string
	for _, a := range j.Files() {
		all = append(all, a.Name)
	}
	return strings.Join(all, " ")
}

// TestFiles: only the attempt that completes a job leaves files.
func TestFiles(t *testing.T) {
	for name, err := range map[string]error{
		"an error": errors.New("no luck"), "a snooze": jobs.Snooze(time.Second, "later"), "a panic": nil,
	} {
		t.Run(name, func(t *testing.T) {
			filed(t, rigOptions{}, func(r *rig, files func() string) {
				r.submitWith("a3", func(m *jobs.Message) { m.RetryCount = 1 })
				r.quiet()
				r.end(verdict{files: []string{"first", "other"}, err: err, panics: err == nil}, 1)
				r.want("the record", names(r.job(1)), "")
				r.want("the folder", files(), "")
				pass(time.Second)
				next := uint64(1)
				if r.job(1).Status == jobs.Scheduled {
					next = r.publish(1)
				}
				r.quiet()
				r.end(verdict{files: []string{"b", "a", "b"}}, next)
				j := r.job(1)
				r.want("the record", names(j), "b a b")
				r.want("the first", j.Artifact.Name, "b")
				if got := len(strings.Fields(files())); got != 2 { // equal ones are one file
					t.Errorf("the folder has %s", files())
				}
			})
		})
	}
}

// TestFilesOfAnEnd: a job that fails for good leaves none, nor does a cancelled one.
func TestFilesOfAnEnd(t *testing.T) {
	filed(t, rigOptions{}, func(r *rig, files func() string) {
		r.submit("a3", "a3")
		r.quiet()
		r.end(verdict{files: []string{"x"}, err: jobs.Permanentf("no such file")}, 1)
		r.want("failed", jobstest.Brief(r.job(1))+names(r.job(1)), "failed 1/1 no such file")
		if _, err := leave(r.passage(2).task, "y"); err != nil {
			t.Fatal(err)
		}
		r.want("while it runs", files(), "y")
		r.cancel(2, "by hand")
		r.want("cancelled", names(r.job(2)), "")
		r.want("the folder", files(), "")
	})
}

// TestFilesOfAnAttemptThatWasGivenUp: neither the record nor the folder has them, and
// those of the next attempt stay.
func TestFilesOfAnAttemptThatWasGivenUp(t *testing.T) {
	slow := typ("a")
	slow.Timeout = 10 * time.Second
	filed(t, rigOptions{types: []*jobs.Type{slow}}, func(r *rig, files func() string) {
		r.gate.deaf = true
		r.submit("a3")
		r.quiet()
		late := r.passage(1)
		if _, err := leave(late.task, "early"); err != nil {
			t.Fatal(err)
		}
		half, err := late.task.Artifact()
		if err != nil {
			t.Fatal(err)
		}
		pass(11 * time.Second)
		r.want("given up", jobstest.Brief(r.job(1)), "retrying 1/1 timed out after 10s")
		if _, err := half.Commit("half", ""); err == nil || !strings.Contains(err.Error(), "given up") {
			t.Errorf("it commits a file: %v", err)
		}
		if _, err := leave(late.task, "late"); err == nil {
			t.Error("it makes another one")
		}
		r.want("the folder", files(), "")
		pass(time.Second)
		r.end(verdict{files: []string{"good"}}, 1)
		late.end <- verdict{files: []string{"late"}}
		r.quiet()
		r.want("the record", names(r.job(1)), "good")
		r.want("the folder", files(), "good")
	})
}

// TestFilesOfADeadProcess: the next attempt removes them, even if it leaves none itself.
func TestFilesOfADeadProcess(t *testing.T) {
	for _, own := range []string{"", "own"} {
		filed(t, rigOptions{}, func(r *rig, files func() string) {
			seq := r.preset("a3", func(j *jobs.Job) {
				j.Lost = 1
				w, err := r.artifacts.Create(j.ID)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := w.Write([]byte("dead")); err != nil {
					t.Fatal(err)
				}
				if _, err := w.Commit("dead", ""); err != nil {
					t.Fatal(err)
				}
			})
			r.quiet()
			r.want("while it runs", files(), "dead")
			r.end(verdict{files: strings.Fields(own)}, seq)
			r.want("the record", names(r.job(seq)), own)
			r.want("the folder", files(), own)
		})
	}
}
