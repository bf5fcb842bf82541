package main

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"jobstream/cmd/jobstream/internal/bench"
)

// runBench runs the program with bench and flags and returns what it printed. Its tests
// do not run beside others: each loads the whole machine.
func runBench(ctx context.Context, flags ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(ctx, append([]string{"bench"}, flags...), nil, &out, &errs)
	return code, out.String(), errs.String()
}

// smallLoad is a run of all phases that takes a few seconds.
func smallLoad(t *testing.T) []string {
	t.Helper()
	return []string{
		"--jobs=1000", "--workers=20", "--submitters=4", "--window=16", "--connections=8", "--types=2", "--priorities=2",
		"--rate=100", "--latency-time=300ms", "--max-time=10m", "--dir=" + t.TempDir(),
	}
}

func TestBenchJSON(t *testing.T) {
	code, out, errs := runBench(t.Context(), append(smallLoad(t), "--json")...)
	if code != exitOK || errs != "" {
		t.Fatalf("exit code %d, stderr %q", code, errs)
	}
	var report map[string]any
	in := json.NewDecoder(strings.NewReader(out))
	if err := in.Decode(&report); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if in.More() {
		t.Errorf("there is more than one value in %s", out)
	}
	keys := []string{
		"raw.jobs_per_second", "submit.jobs_per_second", "drain.jobs_per_second", "sustained.jobs_per_second",
		"sustained.ratio_to_raw", "lanes.jobs_per_second", "large.jobs_per_second", "http.jobs_per_second", "nats.jobs_per_second",
		"run_exec.jobs_per_second", "run_exec.beside.jobs_per_second", "run_exec.ratio",
		"run_http.jobs_per_second", "run_http.beside.jobs_per_second", "run_http.ratio",
		"lanes.beside.jobs_per_second", "lanes.ratio", "fsyncs_per_1000_jobs", "bytes_per_job", "rss_bytes", "jobs", "workers", "submitters", "cpus",
	}
	for _, what := range []string{"accepted", "started", "visible", "notified"} {
		for _, rank := range []string{"p50", "p99", "max"} {
			keys = append(keys, "latency_ms."+what+"."+rank)
		}
	}
	for _, key := range keys {
		if n, ok := lookup(report, key).(float64); !ok || n <= 0 {
			t.Errorf("%s is %v, want a number above 0", key, lookup(report, key))
		}
	}
	for _, phase := range []string{"raw", "submit", "drain", "batch", "sustained", "lanes", "lanes.beside", "http", "nats", "run_exec", "run_exec.beside", "run_http", "run_http.beside"} {
		if n := lookup(report, phase+".jobs"); n != 1000.0 {
			t.Errorf("%s took %v jobs, want 1000", phase, n)
		}
		if cut := lookup(report, phase+".cut"); cut != nil {
			t.Errorf("%s.cut is %v", phase, cut)
		}
	}
	if n := lookup(report, "large.jobs"); n != 50.0 {
		t.Errorf("the phase with large payloads took %v jobs, want 50", n)
	}
	if why := lookup(report, "run_exec.left_out"); why != nil {
		t.Errorf("no jobs that run programs: %v", why)
	}
	if cpu, _ := lookup(report, "sustained.cpu_us_per_job").(float64); cpu <= 0 && runtime.GOOS == "linux" {
		t.Errorf("a job took %v µs of the processors", cpu)
	}
	if v := lookup(report, "go"); v == "" || v == nil {
		t.Errorf("go is %v", v)
	}
}

// lookup finds a.b.c in nested objects.
func lookup(v any, path string) any {
	for name := range strings.SplitSeq(path, ".") {
		object, _ := v.(map[string]any)
		v = object[name]
	}
	return v
}

func TestBenchProfile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cpu.prof")
	code, _, errs := runBench(t.Context(), append(smallLoad(t), "--phase=submit", "--cpu-profile="+file)...)
	if code != exitOK {
		t.Fatalf("exit code %d, stderr %q", code, errs)
	}
	if head, err := os.ReadFile(file); err != nil || !bytes.HasPrefix(head, []byte{0x1f, 0x8b}) {
		t.Errorf("%d bytes, not those of a profile: %v", len(head), err)
	}
	code, _, errs = runBench(t.Context(), append(smallLoad(t), "--cpu-profile="+filepath.Join(file, "none"))...)
	if code == exitOK || !strings.Contains(errs, "--cpu-profile") {
		t.Errorf("a file that cannot be made: exit code %d, stderr %q", code, errs)
	}
}

func TestBenchTable(t *testing.T) {
	flags := append(smallLoad(t), "--no-http")
	code, out, errs := runBench(t.Context(), flags...)
	if code != exitOK || errs != "" {
		t.Fatalf("exit code %d, stderr %q", code, errs)
	}
	for _, want := range []string{
		"1,000 of 200 bytes", "20 workers", "raw JetStream", "submit: until durable", "drain:", "sustained:",
		"  in turns with it: one queue", "  ratio to that", "  of raw JetStream", "bare NATS", "jobs that run true", "  in turns with it: bare spawns", "submit → notified, p99", "per 1,000 jobs", "bytes per job", "MiB resident",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing", want)
		}
	}
	if strings.Contains(out, "REST") {
		t.Error("REST was measured with --no-http")
	}
	if t.Failed() {
		t.Log(out)
	}
}

func TestBenchSomePhases(t *testing.T) {
	for _, c := range []struct {
		phases string
		want   []string
	}{
		{"raw", []string{"raw"}},
		{"submit", []string{"submit"}},
		{"drain", []string{"submit", "drain"}},
		{"http,sustained", []string{"sustained", "http"}},
		{"lanes,large", []string{"lanes", "large"}},
		{"run-exec", []string{"run_exec"}},
		{"run-http", []string{"run_http"}},
	} {
		t.Run(c.phases, func(t *testing.T) {
			code, out, errs := runBench(t.Context(), append(smallLoad(t), "--json", "--jobs=300", "--phase="+c.phases)...)
			if code != exitOK {
				t.Fatalf("exit code %d, stderr %q", code, errs)
			}
			var report map[string]any
			if err := json.Unmarshal([]byte(out), &report); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, name := range append(bench.Phases, "latency_ms", "run_exec", "run_http") {
				if report[name] != nil {
					got = append(got, name)
				}
			}
			if strings.Join(got, " ") != strings.Join(c.want, " ") {
				t.Errorf("measured %v, want %v", got, c.want)
			}
			if lookup(report, "sustained.ratio_to_raw") != nil {
				t.Error("there is a ratio to what was not measured")
			}
		})
	}
}

// The two sides of a comparison are measured in turns, with as many jobs each. Jobs
// that finished before, and those that only wait, do not count.
func TestBenchCompares(t *testing.T) {
	flags := append(smallLoad(t), "--json", "--jobs=303", "--history=12345", "--backlog=1234", "--backup-rate=1000", "--phase=lanes,backlog,history,backup")
	code, out, errs := runBench(t.Context(), flags...)
	if code != exitOK || errs != "" {
		t.Fatalf("exit code %d, stderr %q", code, errs)
	}
	var report map[string]any
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatal(err)
	}
	for _, phase := range []string{"lanes", "backlog", "history", "backup"} {
		number := func(name string) float64 {
			n, _ := lookup(report, phase+"."+name).(float64)
			return n
		}
		if this, other := number("jobs"), number("beside.jobs"); this != 303 || other != 303 {
			t.Errorf("%s: %v jobs were done, and %v beside, want 303 each", phase, this, other)
		}
		this, other := number("jobs_per_second"), number("beside.jobs_per_second")
		if this <= 0 || other <= 0 || math.Abs(number("ratio")-this/other) > 1e-9 {
			t.Errorf("%s: %v jobs/s to %v beside, ratio %v", phase, this, other, number("ratio"))
		}
		if took := 303 / this; math.Abs(took-number("seconds")) > 1e-9 {
			t.Errorf("%s: %v seconds at %v jobs/s", phase, number("seconds"), this)
		}
	}
}

// The processor time of a job that runs a program has that of the program in it, as that
// of a bare program has.
func TestBenchRunsPrograms(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("processor time is known on Linux only")
	}
	code, out, errs := runBench(t.Context(), append(smallLoad(t), "--json", "--jobs=101", "--phase=run-exec")...)
	if code != exitOK || errs != "" {
		t.Fatalf("exit code %d, stderr %q", code, errs)
	}
	var report map[string]any
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatal(err)
	}
	number := func(name string) float64 {
		n, _ := lookup(report, "run_exec."+name).(float64)
		return n
	}
	if this, other := number("jobs"), number("beside.jobs"); this != 101 || other != 101 {
		t.Errorf("%v jobs ran a program, and %v programs ran beside, want 101 each", this, other)
	}
	this, other := number("cpu_us_per_job"), number("beside.cpu_us_per_job")
	if other < 50 || math.Abs(number("cpu_ratio")-this/other) > 1e-9 {
		t.Errorf("a job took %v µs, a program %v µs, ratio %v", this, other, number("cpu_ratio"))
	}
}

func TestBenchRefusesFlags(t *testing.T) {
	for _, c := range []struct {
		flags []string
		want  string
	}{
		{[]string{"--jobs=0"}, "--jobs is 0; it must be 1 to"},
		{[]string{"--jobs=many"}, "--jobs"},
		{[]string{"--workers=-1"}, "--workers is -1"},
		{[]string{"--payload=3"}, "--payload is 3; it must be 26 to 1048576"},
		{[]string{"--priorities=6"}, "--priorities is 6; it must be 1 to 5"},
		{[]string{"--max-time=0s"}, "--max-time is 0s"},
		{[]string{"--types=0", "--rate=0"}, "--rate is 0; it must be 1 to 10000; --types is 0"},
		{[]string{"--phase=raw,sleep"}, `--phase names "sleep"; there are latency, raw, submit`},
		{[]string{"--phase=http", "--no-http"}, "contradict"},
		{[]string{"--phase=history"}, "--phase=history needs --history"},
		{[]string{"--history=-1"}, "--history is -1; it must be 0 to"},
		{[]string{"--phase=backup"}, "--phase=backup needs --backup-rate"},
		{[]string{"--phase=backlog"}, "--phase=backlog needs --backlog"},
		{[]string{"--backlog=-1"}, "--backlog is -1; it must be 0 to"},
		{[]string{"--colour"}, "unknown flag --colour"},
	} {
		t.Run(strings.Join(c.flags, " "), func(t *testing.T) {
			code, out, errs := runBench(t.Context(), c.flags...)
			if code != exitUsage || out != "" || !strings.Contains(errs, c.want) {
				t.Errorf("exit code %d, stdout %q, stderr %q, want %q", code, out, errs, c.want)
			}
		})
	}
}

// A phase that has hardly any time says so, too.
func TestBenchWithoutTime(t *testing.T) {
	code, out, errs := runBench(t.Context(), "--jobs=100000000", "--max-time=10ms", "--backlog=1", "--phase=raw,drain,batch,sustained,lanes,large,backlog,http,nats", "--json", "--dir="+t.TempDir())
	if code != exitOK {
		t.Fatalf("exit code %d, stderr %q", code, errs)
	}
	var report map[string]any
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatal(err)
	}
	for _, phase := range []string{"raw", "submit", "drain", "batch", "sustained", "lanes", "large", "backlog", "http", "nats"} {
		if lookup(report, phase+".cut") != true {
			t.Errorf("%s: %v", phase, report[phase])
		}
	}
}

// A phase that has no time for all jobs stops and says what it got through. A machine
// that gets nothing done in that time gets twice as much.
func TestBenchStopsInTime(t *testing.T) {
	dir := t.TempDir()
	for most, idle := 300*time.Millisecond, true; idle; most *= 2 {
		if most > patience {
			t.Fatal("a phase gets nothing done")
		}
		code, out, errs := runBench(t.Context(), "--jobs=100000000", "--max-time="+most.String(), "--phase=raw,drain,batch,sustained,lanes,large,http,nats", "--json", "--dir="+dir)
		if code != exitOK {
			t.Fatalf("exit code %d, stderr %q", code, errs)
		}
		var report map[string]any
		if err := json.Unmarshal([]byte(out), &report); err != nil {
			t.Fatal(err)
		}
		idle = false
		for _, phase := range []string{"raw", "submit", "drain", "batch", "sustained", "lanes", "lanes.beside", "http", "nats"} {
			n, _ := lookup(report, phase+".jobs").(float64)
			idle = idle || n < 1
			if n >= 100_000_000 || lookup(report, phase+".cut") != true {
				t.Errorf("%s: %v", phase, lookup(report, phase))
			}
		}
		checkEmpty(t, dir)
	}
}

func TestBenchInterrupted(t *testing.T) {
	for _, phase := range bench.Phases {
		t.Run(phase, func(t *testing.T) {
			dir := t.TempDir()
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			code, out, errs := runBench(ctx, "--jobs=100000000", "--history=100000000", "--backlog=100000000", "--backup-rate=1000", "--latency-time=1h", "--phase="+phase, "--dir="+dir)
			if code != exitBroken || out != "" || !strings.Contains(errs, "stopped before the end") {
				t.Errorf("exit code %d, stdout %q, stderr %q", code, out, errs)
			}
			checkEmpty(t, dir)
		})
	}
}

// checkEmpty fails if a run has left something behind.
func checkEmpty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range left {
		t.Errorf("%s was left behind", e.Name())
	}
}

func TestBenchNoFolder(t *testing.T) {
	code, out, errs := runBench(t.Context(), "--dir="+t.TempDir()+"/missing")
	if code != exitBroken || out != "" || !strings.Contains(errs, "--dir") {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, out, errs)
	}
}
