// Package handlertest has the helpers that the tests of the built-in jobs share: a
// tracker in memory and jobs to fill it with. Start at [Tracker].
package handlertest

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"jobstream/jobs"
)

// Tracker is a [jobs.History] and a [jobs.Cleaner] over a list of jobs in the order of
// their keys. Jobs without a key get one.
type Tracker struct {
	Jobs []*jobs.Job
	// OnDelete, if set, is called before each Delete, which returns its error.
	OnDelete func(keys []uint64) error
	// OnChange, if set, is called before each Cancel and Retry, which return its error.
	OnChange func(keys []uint64) error
	// Taken are the keys of jobs that Retry refuses.
	Taken   map[uint64]bool
	Batches []int // the number of keys of each Delete, Cancel and Retry
}

var (
	_ jobs.History = (*Tracker)(nil)
	_ jobs.Cleaner = (*Tracker)(nil)
)

// NewTracker makes a tracker of these jobs.
func NewTracker(list ...*jobs.Job) *Tracker {
	for i, j := range list {
		if j.Key == 0 {
			j.Key = uint64(i + 1)
			j.Seq = j.Key
		}
	}
	return &Tracker{Jobs: list}
}

// Count is an upper bound if f has a time range; the interface allows that.
func (t *Tracker) Count(f jobs.Filter) (int, error) {
	f.CreatedAfter, f.CreatedBefore = 0, 0
	n := 0
	for _, j := range t.Jobs {
		if f.Match(j) {
			n++
		}
	}
	return n, nil
}

// Scan calls yield for the jobs that f chooses.
func (t *Tracker) Scan(ctx context.Context, f jobs.Filter, yield func(*jobs.Job) error) error {
	for _, j := range slices.Clone(t.Jobs) { // yield may change or delete jobs
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !f.Match(j) {
			continue
		}
		if err := yield(j); err != nil {
			return err
		}
	}
	return nil
}

// Ended lists ended jobs.
func (t *Tracker) Ended(_ context.Context, before jobs.Time, statuses []jobs.Status, after uint64, limit int) ([]*jobs.Job, uint64, error) {
	var found []*jobs.Job
	for _, j := range t.Jobs {
		switch {
		case j.Key <= after, !j.Status.Ended(), j.EndedAt >= before,
			len(statuses) > 0 && !slices.Contains(statuses, j.Status):
			continue
		}
		found = append(found, j)
		if len(found) == limit {
			return found, j.Key, nil
		}
	}
	return found, 0, nil
}

// RecordSize is the size of each record that a [jobs.Delete] reports, in bytes.
const RecordSize = 100

// Do does [jobs.Cancel], [jobs.Retry] (unless the job is Taken) and [jobs.Delete].
func (t *Tracker) Do(_ context.Context, c jobs.Command) (r jobs.Effect, err error) {
	switch c := c.(type) {
	case jobs.Cancel:
		err = t.change(c.Keys, func(j *jobs.Job) {
			if j.Cancel(c.At, c.Reason) {
				r.Changed = append(r.Changed, j)
			}
		})
	case jobs.Retry:
		err = t.change(c.Keys, func(j *jobs.Job) {
			switch {
			case j.Status != jobs.Failed && j.Status != jobs.Cancelled:
			case t.Taken[j.Key]:
				r.Refused = append(r.Refused, jobs.Refusal{ID: j.ID, Err: &jobs.Error{Kind: jobs.Duplicate, Detail: "its unique key is taken"}})
			default:
				j.Rerun(c.At)
				r.Changed = append(r.Changed, j)
			}
		})
	case jobs.Delete:
		r, err = t.remove(c.Keys)
	default:
		err = fmt.Errorf("%T is not known here", c)
	}
	return r, err
}

func (t *Tracker) remove(keys []uint64) (r jobs.Effect, err error) {
	t.Batches = append(t.Batches, len(keys))
	if t.OnDelete != nil {
		if err := t.OnDelete(keys); err != nil {
			return r, err
		}
	}
	t.Jobs = slices.DeleteFunc(t.Jobs, func(j *jobs.Job) bool {
		if !j.Status.Ended() || !slices.Contains(keys, j.Key) {
			return false
		}
		r.Removed++
		r.Freed += RecordSize
		return true
	})
	return r, nil
}

// change calls f for copies of the jobs with these keys, and replaces the jobs by them.
func (t *Tracker) change(keys []uint64, f func(j *jobs.Job)) error {
	t.Batches = append(t.Batches, len(keys))
	if t.OnChange != nil {
		if err := t.OnChange(keys); err != nil {
			return err
		}
	}
	for i, j := range t.Jobs {
		if slices.Contains(keys, j.Key) {
			t.Jobs[i] = j.Clone()
			f(t.Jobs[i])
		}
	}
	return nil
}

// ID is the n-th of a series of ids for tests.
func ID(n int) jobs.ID {
	var id jobs.ID
	binary.BigEndian.PutUint64(id[8:], uint64(n))
	id[6], id[8] = 0x70, 0x80
	return id
}

// At reads an RFC 3339 time or a date.
func At(tb testing.TB, s string) jobs.Time {
	tb.Helper()
	t, err := jobs.ParseMoment(s)
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

// Task is a first attempt at a job with this payload, with its progress reports and its
// files.
type Task struct {
	*jobs.Task
	Percents []int
	Messages []string
	Logged   []string

	mu     sync.Mutex
	tb     testing.TB
	inputs map[string]string // paths by name
	Folder string            // of its files; made with the first one
	Token  string            // of its lease; "" = it has none
}

// Lend gives its lease, for a minute.
func (t *Task) Lend(context.Context) (token string, span time.Duration, err error) {
	if t.Token == "" {
		err = errors.New("there is no lease")
	}
	return t.Token, time.Minute, err
}

// Report notes progress.
func (t *Task) Report(percent int, message string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.Percents = append(t.Percents, percent)
	t.Messages = append(t.Messages, message)
}

// Log notes an entry of the log.
func (t *Task) Log(level jobs.Level, _, text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.Logged = append(t.Logged, string(level)+" "+text)
}

// Create begins a file.
func (t *Task) Create() (jobs.ArtifactWriter, error) {
	if t.Folder == "" {
		t.Folder = t.tb.TempDir()
	}
	return jobs.NewArtifactDir(t.Folder, 0).Create(t.Job.ID)
}

// Give gives the task an input with this content.
func (t *Task) Give(name, file, contentType string, content []byte) {
	t.tb.Helper()
	dir := jobs.NewArtifactDir(t.tb.TempDir(), 0).Inputs()
	in := jobs.Input{Name: name, ID: jobs.NewID()}
	w, err := dir.Create(in.ID)
	if err != nil {
		t.tb.Fatal(err)
	}
	defer w.Abort()
	if _, err := w.Write(content); err != nil {
		t.tb.Fatal(err)
	}
	made, err := w.Commit(file, contentType)
	if err != nil {
		t.tb.Fatal(err)
	}
	in.File = *made
	if t.Job.Terms == nil {
		t.Job.Terms = &jobs.Terms{}
	}
	t.Job.Terms.Inputs = append(t.Job.Terms.Inputs, in)
	if t.inputs == nil {
		t.inputs = make(map[string]string)
	}
	t.inputs[name] = dir.Path(in.ID, made)
}

// InputPath is the path of an input.
func (t *Task) InputPath(in *jobs.Input) (string, error) { return t.inputs[in.Name], nil }

// Open ends the task and opens its only file.
func (t *Task) Open() (*jobs.Artifact, jobs.ArtifactFile) {
	t.tb.Helper()
	all := t.End()
	if len(all) != 1 {
		t.tb.Fatalf("it has left %d files: %+v", len(all), all)
	}
	f, err := jobs.NewArtifactDir(t.Folder, 0).Open(t.Job.ID, &all[0])
	if err != nil {
		t.tb.Fatal(err)
	}
	return &all[0], f
}

// NewTask makes one.
func NewTask(tb testing.TB, payload string) *Task {
	t := &Task{tb: tb}
	j := &jobs.Job{ID: jobs.NewID(), Type: "under-test", Status: jobs.Processing, Attempt: 1, MaxAttempts: 1, CreatedAt: jobs.Now()}
	if payload != "" {
		j.Payload = json.RawMessage(payload)
	}
	t.Task = jobs.NewTask(j, 1, t)
	return t
}

// CheckProgress returns an error if a report goes back, or one but the last is 100.
func (t *Task) CheckProgress() error {
	if len(t.Percents) == 0 {
		return fmt.Errorf("no progress was reported")
	}
	for i, p := range t.Percents {
		if i > 0 && p < t.Percents[i-1] {
			return fmt.Errorf("progress went back: %v", t.Percents)
		}
		if (p == 100) != (i == len(t.Percents)-1) {
			return fmt.Errorf("100 %% must come last, and only there: %v", t.Percents)
		}
	}
	return nil
}

// kind of synthetic job.
type kind struct {
	name   string
	share  float64
	run    time.Duration // median
	spread float64       // of the logarithm
	fails  float64
	errs   []string
}

var kinds = []kind{
	{"email", 0.52, 180 * time.Millisecond, 0.6, 0.021, []string{"dial tcp 10.0.4.17:25: connect: connection refused", "550 5.1.1 <user#@example.com>: no such user", "451 4.7.1 greylisted, try again in # seconds"}},
	{"resize-image", 0.24, 900 * time.Millisecond, 0.5, 0.008, []string{"unsupported format: heic", "image is # pixels wide, at most 8192 are allowed"}},
	{"export", 0.11, 6 * time.Second, 1.1, 0.03, []string{"timed out", "write artifacts/export-#: no space left on device"}},
	{"webhook", 0.08, 320 * time.Millisecond, 0.9, 0.14, []string{"POST https://hooks.example.org/in: 503 Service Unavailable", "timed out", "tls: <handshake> failure & \"bad\" certificate"}},
	{"report", 0.04, 2500 * time.Millisecond, 0.5, 0, nil},
	{"cleanup", 0.01, 1500 * time.Millisecond, 0.3, 0, nil},
}

// failure is one of the kind's errors, the first ones most often.
func (k *kind) failure(r *rand.Rand) string {
	if len(k.errs) == 0 {
		return "failed"
	}
	return strings.ReplaceAll(k.errs[int(r.ExpFloat64())%len(k.errs)], "#", strconv.Itoa(1000+r.IntN(9000)))
}

// Synthetic makes n jobs like those of a busy site, submitted in the span before end,
// oldest first. The same seed makes the same jobs.
func Synthetic(seed uint64, n int, end jobs.Time, span time.Duration) []*jobs.Job {
	r := rand.New(rand.NewPCG(seed, seed))
	list := make([]*jobs.Job, 0, n)
	for len(list) < n {
		at := end.Add(-time.Duration(r.Float64() * float64(span)))
		if r.Float64() > busy(at.Std()) {
			continue
		}
		list = append(list, synthetic(r, len(list), at, end))
	}
	slices.SortFunc(list, func(a, b *jobs.Job) int { return int(min(max(a.CreatedAt-b.CreatedAt, -1), 1)) })
	for i, j := range list {
		j.Key, j.Seq = uint64(i+1), uint64(i+1)
	}
	return list
}

// busy is the load at an hour of the week, 0 to 1.
func busy(t time.Time) float64 {
	level := 0.35 + 0.65*math.Exp(-math.Pow((float64(t.Hour())-14)/5, 2))
	if t.Weekday() == time.Saturday || t.Weekday() == time.Sunday {
		level *= 0.4
	}
	return level
}

func synthetic(r *rand.Rand, n int, at, now jobs.Time) *jobs.Job {
	k := kinds[len(kinds)-1]
	for x, i := r.Float64(), 0; i < len(kinds); i++ {
		if x -= kinds[i].share; x < 0 {
			k = kinds[i]
			break
		}
	}
	j := &jobs.Job{
		ID: ID(n), Type: k.name, Priority: jobs.DefaultPriority, Status: jobs.Pending, Run: 1, MaxAttempts: 4,
		CreatedAt: at, UpdatedAt: at, Payload: json.RawMessage(fmt.Sprintf(`{"n":%d}`, n)), Tags: []string{"synthetic"},
		History: []jobs.HistoryEntry{{Kind: jobs.KindSubmitted, At: at}},
	}
	start := at.Add(lognormal(r, 4*time.Millisecond, 1.3))
	for attempt := 1; start < now; attempt++ {
		e := &jobs.Event{ID: j.ID, Run: 1, Attempt: attempt, StartedAt: start, At: start.Add(lognormal(r, k.run, k.spread)), Node: "node-1"}
		if e.At >= now {
			e.Kind, e.At = jobs.KindStarted, start
			jobs.Apply(j, e)
			break
		}
		chance := k.fails
		if attempt > 1 {
			chance = 0.8
		}
		switch {
		case r.Float64() < 0.004:
			e.Kind = jobs.KindCancelled
		case r.Float64() >= chance:
			e.Kind, e.Result = jobs.KindCompleted, json.RawMessage(`{"ok":true}`)
		default:
			e.Kind, e.Error = jobs.KindRetrying, k.failure(r)
			if attempt == j.MaxAttempts {
				e.Kind = jobs.KindFailed
			}
			e.Due = e.At.Add(time.Duration(attempt) * time.Second)
			start = e.Due
		}
		jobs.Apply(j, e)
		if j.Status.Ended() {
			break
		}
	}
	return j
}

func lognormal(r *rand.Rand, median time.Duration, spread float64) time.Duration {
	return time.Duration(float64(median) * math.Exp(r.NormFloat64()*spread))
}
