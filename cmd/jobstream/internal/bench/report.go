package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"jobstream/jobs"
)

// Report has the results and the conditions of a run. Results of phases that did not
// run are left out. It is flat, because scripts read it in this form.
type Report struct {
	Raw        *Throughput `json:"raw,omitempty"`
	Submit     *Throughput `json:"submit,omitempty"`
	Drain      *Throughput `json:"drain,omitempty"`
	Batch      *Throughput `json:"batch,omitempty"`
	Sustained  *Sustained  `json:"sustained,omitempty"`
	Lanes      *Comparison `json:"lanes,omitempty"`   // over 20 types and 5 priorities, beside one queue
	Large      *Throughput `json:"large,omitempty"`   // with payloads of 16 KiB
	Behind     *Comparison `json:"backlog,omitempty"` // with other jobs that wait, beside none
	Aged       *Comparison `json:"history,omitempty"` // with finished jobs in the tracker, beside none
	Backups    *Backups    `json:"backup,omitempty"`  // while backups are made, beside none
	HTTP       *Throughput `json:"http,omitempty"`
	HTTPToken  *Comparison `json:"http_token,omitempty"` // with a token in each request, beside none
	NATS       *Throughput `json:"nats,omitempty"`
	RunExec    *Programs   `json:"run_exec,omitempty"`    // jobs that each run a program, beside the program alone
	RunHTTP    *Comparison `json:"run_http,omitempty"`    // jobs that an endpoint does, beside the requests alone
	Remote     *Remote     `json:"remote,omitempty"`      // done by workers elsewhere over NATS, beside jobs that the server runs
	RemoteHTTP *Comparison `json:"remote_http,omitempty"` // likewise over HTTP, one job a request
	Cluster    *Cluster    `json:"cluster,omitempty"`     // of three nodes, beside one that is alone
	// ClusterWorkers is jobs that wait, done by three nodes, beside one that is alone.
	ClusterWorkers *Comparison `json:"cluster_workers,omitempty"`
	Latency        *Latencies  `json:"latency_ms,omitempty"`

	FsyncsPer1000Jobs float64 `json:"fsyncs_per_1000_jobs,omitempty"` // of the tracker, in the sustained phase
	BytesPerJob       float64 `json:"bytes_per_job,omitempty"`        // on disk, in the sustained phase
	RSSBytes          int64   `json:"rss_bytes,omitempty"`            // the highest of the process, in the phases with one node

	Jobs        int    `json:"jobs"`
	Workers     int    `json:"workers"`
	Submitters  int    `json:"submitters"`
	Window      int    `json:"window"`
	Connections int    `json:"connections"`
	Payload     int    `json:"payload_bytes"`
	Types       int    `json:"types"`
	Priorities  int    `json:"priorities"`
	Backlog     int    `json:"waiting_jobs,omitempty"`
	History     int    `json:"finished_jobs,omitempty"`
	Rate        int    `json:"latency_jobs_per_second"`
	CPUs        int    `json:"cpus"`
	Go          string `json:"go"`
	Version     string `json:"version"`
	NATSServer  string `json:"nats_server"`
	Dir         string `json:"dir"`
	InMemory    bool   `json:"dir_in_memory,omitempty"` // on a tmpfs, so fsync costs nothing
}

func newReport(c *Options, s *Server, dir string) *Report {
	r := &Report{
		Jobs: c.Jobs, Workers: c.Workers, Submitters: c.Submitters, Window: c.Window, Connections: c.Connections,
		Payload: c.Payload, Types: c.Types, Priorities: c.Priorities, Backlog: c.Backlog, History: c.History, Rate: c.Rate, Dir: dir, InMemory: inMemory(dir),
	}
	r.Go, r.CPUs = runtime.Version(), runtime.GOMAXPROCS(0)
	r.Version, r.NATSServer = s.Version, s.NATSServer
	return r
}

// Throughput is the speed of a phase.
type Throughput struct {
	PerSecond float64 `json:"jobs_per_second"`
	Jobs      int     `json:"jobs"`
	Seconds   float64 `json:"seconds"`
	CPU       float64 `json:"cpu_us_per_job,omitempty"` // of this process, clients and server, and of programs that it has run, in microseconds
	Cut       bool    `json:"cut,omitempty"`            // the time was up before all jobs had ended
}

func newThroughput(done, want int, took time.Duration) *Throughput {
	s := took.Seconds()
	return &Throughput{PerSecond: float64(done) / s, Jobs: done, Seconds: s, Cut: done < want}
}

// add adds a later part of the same measurement.
func (t *Throughput) add(p *Throughput) {
	all := t.Jobs + p.Jobs
	cpu := (t.CPU*float64(t.Jobs) + p.CPU*float64(p.Jobs)) / float64(max(all, 1))
	seconds := t.Seconds + p.Seconds
	*t = Throughput{PerSecond: float64(all) / seconds, Jobs: all, Seconds: seconds, CPU: cpu, Cut: t.Cut || p.Cut}
}

// stopwatch measures a phase from its beginning.
type stopwatch struct {
	begun time.Time
	cpu   time.Duration
}

func startWatch() stopwatch { return stopwatch{begun: time.Now(), cpu: cpuTime()} }

func (w stopwatch) throughput(done, want int) *Throughput {
	t := newThroughput(done, want, time.Since(w.begun))
	t.CPU = float64((cpuTime() - w.cpu).Microseconds()) / float64(max(done, 1))
	return t
}

// Comparison is a throughput and the one that it is compared with. The two are measured
// in turns.
type Comparison struct {
	Throughput
	Beside Throughput `json:"beside"`
	Ratio  float64    `json:"ratio,omitempty"` // to the other one
}

// Programs is the throughput of jobs that each run a program, and of the bare program.
type Programs struct {
	Comparison
	CPURatio float64 `json:"cpu_ratio,omitempty"` // of a job to a bare program
	LeftOut  string  `json:"left_out,omitempty"`  // why nothing was measured
}

// Sustained is a throughput that can be compared with raw JetStream's.
type Sustained struct {
	Throughput
	RatioToRaw float64 `json:"ratio_to_raw,omitempty"`
}

// Latencies are times since the submission, in milliseconds.
type Latencies struct {
	Accepted Spreading `json:"accepted"` // the submission was answered
	Started  Spreading `json:"started"`  // its handler was called
	Visible  Spreading `json:"visible"`  // a lookup shows it completed
	Notified Spreading `json:"notified"` // a subscriber on the NATS port has the notification
	Jobs     int       `json:"jobs"`
}

// Spreading is the distribution of a time, in milliseconds.
type Spreading struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

func newLatencies(all []moments) *Latencies {
	var accepted, started, visible, notified []int64
	for i := range all {
		m := &all[i]
		accepted = append(accepted, m.accepted)
		started = append(started, m.started.Load())
		visible = append(visible, m.visible)
		notified = append(notified, m.notified.Load())
	}
	return &Latencies{
		Accepted: newSpreading(accepted), Started: newSpreading(started),
		Visible: newSpreading(visible), Notified: newSpreading(notified), Jobs: len(all),
	}
}

// newSpreading takes nanoseconds, and sorts them.
func newSpreading(all []int64) Spreading {
	slices.Sort(all)
	rank := func(percent int) float64 { // the nearest rank
		i := (len(all)*percent + 99) / 100
		return float64(all[max(i, 1)-1]) / 1e6
	}
	return Spreading{P50: rank(50), P99: rank(99), Max: rank(100)}
}

// Print writes a table, or one JSON object.
func (r *Report) Print(w io.Writer, asJSON bool) error {
	if r.Raw != nil && r.Raw.Jobs > 0 && r.Sustained != nil {
		r.Sustained.RatioToRaw = r.Sustained.PerSecond / r.Raw.PerSecond
	}
	if !asJSON {
		_, err := io.WriteString(w, r.table())
		return err
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	_, err = w.Write(append(text, '\n'))
	return err
}

// table is one line per figure.
func (r *Report) table() string {
	var t table
	t.text("jobs", fmt.Sprintf("%s of %s bytes, %d type(s) × %d priority(s)", grouped(float64(r.Jobs), 0), grouped(float64(r.Payload), 0), r.Types, r.Priorities))
	t.text("load", fmt.Sprintf("%d workers, %d submitters × %d in flight, %d connections", r.Workers, r.Submitters, r.Window, r.Connections))
	t.text("machine", fmt.Sprintf("%d CPU(s), %s, nats-server %s", r.CPUs, r.Go, r.NATSServer))
	folder := r.Dir
	if r.InMemory {
		folder += " (in memory: fsync costs nothing there)"
	}
	t.text("folder", folder)
	t.gap()
	t.throughput("raw JetStream: publish, consume, ack", r.Raw)
	t.throughput("submit: until durable", r.Submit)
	t.throughput("drain: backlog, until notified", r.Drain)
	t.throughput("batches of 1,000, until durable", r.Batch)
	if s := r.Sustained; s != nil {
		t.throughput("sustained: submit, run, notify", &s.Throughput)
		if s.RatioToRaw > 0 {
			t.figure("  of raw JetStream", s.RatioToRaw, 3, "ratio")
		}
	}
	t.comparison(fmt.Sprintf("the same over %d × %d queues", manyTypes, jobs.LowestPriority), r.Lanes, "one queue")
	t.throughput("the same with payloads of 16 KiB", r.Large)
	t.comparison(fmt.Sprintf("the same beside %s waiting jobs", grouped(float64(r.Backlog), 0)), r.Behind, "none")
	t.comparison(fmt.Sprintf("the same behind %s finished jobs", grouped(float64(r.History), 0)), r.Aged, "none")
	if r.Backups != nil {
		t.comparison(fmt.Sprintf("the same while backups are read, %d MiB/s", r.Backups.Rate), &r.Backups.Comparison, "without")
		t.figure("  backups", float64(r.Backups.Made), 0, fmt.Sprintf("made, %.0f MiB", float64(r.Backups.Bytes)/(1<<20)))
	}
	t.throughput("REST, end to end", r.HTTP)
	t.comparison("the same with a token in each request", r.HTTPToken, "without one")
	t.throughput("bare NATS, end to end", r.NATS)
	t.programs(r.RunExec)
	t.comparison("jobs that an endpoint does", r.RunHTTP, "the requests alone")
	t.remote(r.Remote)
	t.comparison("workers over HTTP, one job a request", r.RemoteHTTP, "own workers")
	r.Cluster.addTo(&t)
	t.comparison("jobs of 20 ms, 20 workers on each of three nodes", r.ClusterWorkers, "one node")
	if l := r.Latency; l != nil {
		t.gap()
		t.spreading("submit → accepted", l.Accepted)
		t.spreading("submit → started", l.Started)
		t.spreading("submit → visible", l.Visible)
		t.spreading("submit → notified", l.Notified)
	}
	t.gap()
	if r.Sustained != nil {
		if r.Sustained.CPU > 0 {
			t.figure("CPU, submitting included", r.Sustained.CPU, 1, "µs per job")
		}
		t.figure("tracker's fsyncs", r.FsyncsPer1000Jobs, 1, "per 1,000 jobs")
		t.figure("disk", r.BytesPerJob, 0, "bytes per job")
	}
	if r.RSSBytes > 0 {
		t.figure("memory, at most", float64(r.RSSBytes)/(1<<20), 1, "MiB resident")
	}
	return t.b.String()
}

// table is a text in columns.
type table struct {
	b strings.Builder
}

func (t *table) text(name, text string) { _, _ = fmt.Fprintf(&t.b, "%-8s %s\n", name, text) }

func (t *table) gap() { t.b.WriteByte('\n') }

func (t *table) figure(name string, v float64, decimals int, unit string) {
	// not by %-38s, which counts bytes
	pad := max(0, 38-len([]rune(name)))
	_, _ = fmt.Fprintf(&t.b, "%s%s %12s  %s\n", name, strings.Repeat(" ", pad), grouped(v, decimals), unit)
}

func (t *table) throughput(name string, v *Throughput) {
	if v == nil {
		return
	}
	unit := "jobs/s"
	if v.Cut {
		unit += fmt.Sprintf(" (stopped after %s jobs, %.1f s)", grouped(float64(v.Jobs), 0), v.Seconds)
	}
	t.figure(name, v.PerSecond, 0, unit)
}

func (t *table) comparison(name string, c *Comparison, beside string) {
	if c == nil {
		return
	}
	t.throughput(name, &c.Throughput)
	t.throughput("  in turns with it: "+beside, &c.Beside)
	if c.Ratio > 0 {
		t.figure("  ratio to that", c.Ratio, 3, "ratio")
	}
}

func (t *table) programs(p *Programs) {
	switch {
	case p == nil:
		return
	case p.LeftOut != "":
		_, _ = fmt.Fprintf(&t.b, "jobs that run a program are left out: %s\n", p.LeftOut)
		return
	}
	t.comparison("jobs that run "+program, &p.Comparison, "bare spawns")
	if p.CPURatio > 0 {
		t.figure("  CPU of a job, its program included", p.CPU, 0, "µs per job")
		t.figure("  CPU of a bare spawn", p.Beside.CPU, 0, "µs per program")
		t.figure("  ratio to that", p.CPURatio, 3, "ratio")
	}
}

func (t *table) remote(r *Remote) {
	if r == nil {
		return
	}
	t.comparison("workers over NATS, one job a request", &r.One, "own workers")
	t.comparison(fmt.Sprintf("the same with %d jobs a request", manyAtOnce), &r.Many, "own workers")
	t.spreading("submit → leased by one that waits", r.Leased)
	t.spreading("ask → leased, of a job that waits", r.Asked)
	t.spreading("fsync there", r.Fsync)
}

func (t *table) spreading(name string, s Spreading) {
	t.figure(name+", p50", s.P50, 2, "ms")
	t.figure(name+", p99", s.P99, 2, "ms")
	t.figure(name+", max", s.Max, 2, "ms")
}

// grouped writes a number with a comma at every thousand.
func grouped(v float64, decimals int) string {
	text := strconv.FormatFloat(v, 'f', decimals, 64)
	whole, rest, _ := strings.Cut(text, ".")
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if rest != "" {
		whole += "." + rest
	}
	return whole
}
