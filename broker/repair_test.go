package broker_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"jobstream/broker"
	"jobstream/broker/brokertest"
	"jobstream/jobs"
	"jobstream/jobs/jobstest"
)

// seed fills a broker in dir and closes it.
func seed(t *testing.T, dir string, lane jobs.Lane) {
	t.Helper()
	b, err := broker.Open(t.Context(), broker.Options{Dir: dir, Logger: brokertest.Logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	in := jobstest.NewInspector(100)
	if err := b.Lanes.Open(t.Context(), []jobs.Lane{lane}, in); err != nil {
		t.Fatal(err)
	}
	for range 50 {
		submit(t, b, message(lane.Type, lane.Priority))
	}
	if err := b.EventLog.Append([]jobs.Event{sampleEvent()}); err != nil {
		t.Fatal(err)
	}
	if err := b.Notifier.Notify(t.Context(), []*jobs.Job{endedJob(1)}); err != nil {
		t.Fatal(err)
	}
	if err := b.Lanes.Pull(lane, 20); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if err := b.Lanes.Ack(in.Next(t)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReopen(t *testing.T) {
	t.Parallel()
	lane := jobs.Lane{Type: "email", Priority: 3}
	tests := []struct {
		name   string
		damage func(t *testing.T, streams string)
		clean  bool
		msgs   func(n uint64) bool // that JOBS may have
	}{
		{"untouched", func(*testing.T, string) {}, false, func(n uint64) bool { return n == 50 }},
		{"untouched, clean", func(*testing.T, string) {}, true, func(n uint64) bool { return n == 50 }},
		{"empty meta.inf", func(t *testing.T, s string) { overwrite(t, s+"/JOBS/meta.inf", 0) }, false, func(n uint64) bool { return n == 50 }},
		{"torn meta.inf", func(t *testing.T, s string) { overwrite(t, s+"/JOBS/meta.inf", 40) }, false, func(n uint64) bool { return n == 50 }},
		{"torn meta.sum, clean", func(t *testing.T, s string) { overwrite(t, s+"/JOBS/meta.sum", 3) }, true, func(n uint64) bool { return n == 50 }},
		{"no meta files", func(t *testing.T, s string) { remove(t, s+"/JOBS/meta.inf"); remove(t, s+"/JOBS/meta.sum") }, false, func(n uint64) bool { return n == 50 }},
		{"all metas empty", func(t *testing.T, s string) {
			for _, name := range []string{"JOBS", "STATUS", "NOTIFICATIONS"} {
				overwrite(t, s+"/"+name+"/meta.inf", 0)
				overwrite(t, s+"/"+name+"/meta.sum", 0)
			}
		}, false, func(n uint64) bool { return n == 50 }},
		{"torn lane", func(t *testing.T, s string) { // left by a server that keeps lanes on disk
			write(t, s+"/JOBS/obs/email-3/meta.inf", `{"name":"e`)
			write(t, s+"/JOBS/obs/email-3/o.dat", "\x16\x02\x00\x00\x00")
		}, false, func(n uint64) bool { return n == 50 }},
		{"truncated block", func(t *testing.T, s string) {
			remove(t, s+"/JOBS/msgs/index.db")
			overwrite(t, s+"/JOBS/msgs/1.blk", 3000)
		}, false, func(n uint64) bool { return n > 5 && n < 50 }},
		{"no blocks", func(t *testing.T, s string) { remove(t, s+"/JOBS/msgs") }, false, func(n uint64) bool { return n == 0 }},
		{"no JOBS", func(t *testing.T, s string) { remove(t, s+"/JOBS") }, false, func(n uint64) bool { return n == 0 }},
		{"nothing left", func(t *testing.T, s string) { remove(t, filepath.Dir(filepath.Dir(s))) }, false, func(n uint64) bool { return n == 0 }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			seed(t, dir, lane)
			tt.damage(t, filepath.Join(dir, "jetstream", "$G", "streams"))
			b := brokertest.New(t, func(o *broker.Options) { o.Dir, o.Rebuild = dir, !tt.clean })
			if err := b.Healthy(); err != nil {
				t.Fatal(err)
			}
			st, err := b.Streams.Jobs(t.Context())
			if err != nil || !tt.msgs(st.Msgs) {
				t.Fatalf("%+v, %v", st, err)
			}
			in := jobstest.NewInspector(100)
			if err := b.Lanes.Open(t.Context(), []jobs.Lane{lane}, in); err != nil {
				t.Fatal(err)
			}
			if err := b.Streams.PurgeJobs(t.Context(), 100); err != nil {
				t.Fatal(err)
			}
			submit(t, b, message(lane.Type, lane.Priority))
			if err := b.Lanes.Pull(lane, 1); err != nil {
				t.Fatal(err)
			}
			if d := in.Next(t); d.Seq != 101 {
				t.Fatalf("%+v", d)
			}
		})
	}
}

func TestLanesAfterReopen(t *testing.T) {
	t.Parallel()
	lane := jobs.Lane{Type: "email", Priority: 3}
	for _, rebuild := range []bool{false, true} {
		t.Run(fmt.Sprintf("rebuild %v", rebuild), func(t *testing.T) {
			dir := t.TempDir()
			seed(t, dir, lane)
			b := brokertest.New(t, func(o *broker.Options) { o.Dir, o.Rebuild = dir, rebuild })
			in := jobstest.NewInspector(100)
			if err := b.Lanes.Open(t.Context(), []jobs.Lane{lane}, in); err != nil {
				t.Fatal(err)
			}
			if err := b.Lanes.Pull(lane, 1); err != nil {
				t.Fatal(err)
			}
			if d := in.Next(t); d.Seq != 1 {
				t.Fatalf("first delivery %d, want 1", d.Seq)
			}
		})
	}
}

func overwrite(t *testing.T, path string, size int64) {
	t.Helper()
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}
