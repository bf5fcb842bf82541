package intake_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"jobstream/jobs"
	"jobstream/jobs/intake"
	"jobstream/status"
)

// streams are JOBS and STATUS in memory: a submission reaches the tracker at once.
type streams struct {
	mu     sync.Mutex
	jobs   uint64
	status uint64
	now    func() jobs.Time
	sink   jobs.Sink
	ready  chan struct{}
}

func (s *streams) Read(ctx context.Context, _ jobs.Positions, sink jobs.Sink) error {
	s.mu.Lock()
	s.sink = sink
	s.mu.Unlock()
	close(s.ready)
	<-ctx.Done()
	return ctx.Err()
}

func (s *streams) Submit(m *jobs.Message, _ func(error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.jobs++
	sent := *m
	sent.Seq, sent.At = s.jobs, s.now()
	s.sink.Submitted(&sent)
	return nil
}

func (s *streams) happened(e jobs.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status++
	s.sink.Happened(s.status, []jobs.Event{e})
}

// inputsModel is what the inputs of jobs come to, as a person would work it out.
type inputsModel struct {
	rt    *rapid.T
	dir   string
	clock jobs.Time
	types *jobs.Registry

	*streams
	store  *status.Store
	files  *jobs.ArtifactDir
	inputs *intake.Inputs
	sub    *intake.Submitter
	stop   context.CancelFunc
	ended  sync.WaitGroup

	content map[jobs.ID]string            // of every input that ever was
	since   map[jobs.ID]jobs.Time         // those that are there: since when no job has them
	owners  map[jobs.ID]map[jobs.ID]bool  // of them, the jobs that have them
	outputs map[jobs.ID]map[string]string // the files that jobs have left, by name
	records map[jobs.ID]bool              // the jobs that have a record; true = ended
	doubt   map[jobs.ID]bool              // dropped in the tracker, and their files perhaps not
}

func (m *inputsModel) must(err error) {
	m.rt.Helper()
	if err != nil {
		m.rt.Fatal(err)
	}
}

// open starts a process on the folder.
func (m *inputsModel) open() {
	m.ready = make(chan struct{})
	var err error
	m.store, err = status.Open(status.Options{
		Path: filepath.Join(m.dir, "status.db"), Registry: m.types, Spacing: time.Microsecond,
		Checked: func(id jobs.ID) bool { return m.sub.Checked(id) },
	})
	m.must(err)
	_, err = m.store.Prepare(jobs.EndRebuild{Stamp: jobs.By("test")})
	m.must(err)
	m.files = jobs.NewArtifactDir(filepath.Join(m.dir, "artifacts"), 1<<20)
	m.must(m.files.Sweep())
	m.inputs = intake.NewInputs(m.files, m.store, nil)
	m.inputs.SetClock(m.now)
	m.must(m.inputs.Sweep())
	clear(m.doubt)
	m.sub = intake.NewSubmitter(intake.SubmitterOptions{
		Inbox: m.streams, Ledger: m.store, Registry: m.types, Inputs: m.inputs, QueueSize: 1e6, MaxScheduled: 1e6,
		Healthy: func() error { return nil },
	}, 0, 0)
	m.store.Listen(m.sub.Committed)
	var ctx context.Context
	ctx, m.stop = context.WithCancel(context.Background())
	m.ended.Go(func() { _ = m.sub.Run(ctx) })
	m.ended.Go(func() { _ = m.store.Run(ctx, m.streams) })
	<-m.ready
}

// close ends the process.
func (m *inputsModel) close() {
	m.stop()
	m.ended.Wait()
	m.must(m.store.Close())
}

func (m *inputsModel) upload(*rapid.T) {
	content := rapid.StringMatching(`[a-c]{0,3}`).Draw(m.rt, "content")
	made, err := m.inputs.Upload(m.rt.Context(), strings.NewReader(content), intake.Upload{Name: "f", ContentType: "text/plain"})
	m.must(err)
	if made.Expires != m.clock.Add(jobs.InputTime) {
		m.rt.Fatalf("it expires at %v", made.Expires)
	}
	m.content[made.ID], m.since[made.ID], m.owners[made.ID] = content, m.clock, map[jobs.ID]bool{}
}

// brokenUpload is cut off, or has another content than was said.
func (m *inputsModel) brokenUpload(*rapid.T) {
	cut := errors.New("cut off")
	_, err := m.inputs.Upload(m.rt.Context(), io.MultiReader(strings.NewReader("abc"), errReader{cut}), intake.Upload{})
	if !errors.Is(err, cut) {
		m.rt.Fatalf("cut off: %v", err)
	}
	if _, err = m.inputs.Upload(m.rt.Context(), strings.NewReader("abc"), intake.Upload{SHA256: strings.Repeat("0", 64)}); err == nil {
		m.rt.Fatal("any content is taken for any sum")
	}
}

type errReader struct{ error }

func (e errReader) Read([]byte) (int, error) { return 0, e.error }

// drawInput draws an input for a submission, and says whether it can be used.
func (m *inputsModel) drawInput(name string) (in jobs.Input, content string, usable bool) {
	in.Name = name
	makers := slices.SortedFunc(maps.Keys(m.outputs), compareIDs)
	if len(makers) > 0 && rapid.Bool().Draw(m.rt, "of a job") {
		in.Job = rapid.SampledFrom(makers).Draw(m.rt, "maker")
		in.File.Name = rapid.SampledFrom([]string{"x", "y", "z"}).Draw(m.rt, "file")
		content, usable = m.outputs[in.Job][in.File.Name]
		_, kept := m.records[in.Job]
		return in, content, usable && kept
	}
	all := slices.SortedFunc(maps.Keys(m.content), compareIDs)
	if len(all) == 0 {
		in.ID = jobs.NewID()
		return in, "", false
	}
	in.ID = rapid.SampledFrom(all).Draw(m.rt, "upload")
	_, usable = m.since[in.ID]
	return in, m.content[in.ID], usable
}

func compareIDs(a, b jobs.ID) int { return bytes.Compare(a[:], b[:]) }

// submit submits one to three jobs, in a batch or not.
func (m *inputsModel) submit(*rapid.T) {
	var subs []*jobs.Submission
	var contents []string
	usable := true
	for range rapid.IntRange(1, 3).Draw(m.rt, "jobs") {
		in, content, ok := m.drawInput("a")
		subs = append(subs, &jobs.Submission{Type: "takes", Priority: 3, RetryCount: -1, Terms: &jobs.Terms{Inputs: []jobs.Input{in}}})
		contents, usable = append(contents, content), usable && ok
	}
	var made []*jobs.Job
	var err error
	if len(subs) == 1 {
		var j *jobs.Job
		j, _, err = m.sub.Submit(m.rt.Context(), subs[0])
		made = []*jobs.Job{j}
	} else {
		made, _, err = m.sub.SubmitBatch(m.rt.Context(), subs, nil)
	}
	if e, _ := jobs.AsError(err); usable != (err == nil) || err != nil && e.Kind != jobs.InvalidRequest {
		m.rt.Fatalf("submit gives %v, should it be taken? %v", err, usable)
	}
	if err != nil {
		m.adopt() // a batch may have linked files of jobs before its mistake was found
		return
	}
	for i, j := range made {
		in := j.Inputs()[0]
		m.content[in.ID] = contents[i]
		if m.owners[in.ID] == nil {
			m.since[in.ID], m.owners[in.ID] = m.clock, map[jobs.ID]bool{}
		}
		m.owners[in.ID][j.ID] = true
		m.records[j.ID] = false
		sum := sha256.Sum256([]byte(contents[i]))
		if in.File.SHA256 != hex.EncodeToString(sum[:]) {
			m.rt.Fatalf("the job got %+v, not %q", in, contents[i])
		}
	}
	m.adopt()
}

// adopt takes up inputs that nobody was told of: the files of jobs that a refused batch
// had named.
func (m *inputsModel) adopt() {
	all, err := m.files.Inputs().IDs()
	m.must(err)
	for _, id := range all {
		if _, known := m.since[id]; known || m.doubt[id] {
			continue
		}
		file, err := m.store.Input(id)
		m.must(err)
		if file == nil {
			m.rt.Fatalf("the file of input %s is there, and the tracker does not know it", id)
		}
		b, err := os.ReadFile(m.files.Inputs().Path(id, file))
		m.must(err)
		m.content[id], m.since[id], m.owners[id] = string(b), m.clock, map[jobs.ID]bool{}
	}
}

// produce has a job leave files.
func (m *inputsModel) produce(*rapid.T) {
	j, _, err := m.sub.Submit(m.rt.Context(), &jobs.Submission{Type: "makes", Priority: 3, RetryCount: -1})
	m.must(err)
	left := map[string]string{}
	var made []jobs.Artifact
	for _, name := range []string{"x", "y"} {
		left[name] = rapid.StringMatching(`[a-c]{0,3}`).Draw(m.rt, "content of "+name)
		w, err := m.files.Create(j.ID)
		m.must(err)
		_, err = io.WriteString(w, left[name])
		m.must(err)
		a, err := w.Commit(name, "text/plain")
		m.must(err)
		made = append(made, *a)
	}
	m.outputs[j.ID] = left
	m.end(j, made)
}

// end completes a job.
func (m *inputsModel) end(j *jobs.Job, files []jobs.Artifact) {
	e := jobs.Event{Kind: jobs.KindCompleted, ID: j.ID, Seq: j.Seq, Type: j.Type, Priority: j.Priority, CreatedAt: j.CreatedAt, MaxAttempts: j.MaxAttempts, Run: 1, Attempt: 1, At: m.clock, StartedAt: m.clock}
	e.SetFiles(files)
	m.happened(e)
	m.must(m.store.WaitFor(m.rt.Context(), jobs.Positions{Jobs: m.jobs, Status: m.status}))
	m.records[j.ID] = true
}

// finish ends one of the jobs.
func (m *inputsModel) finish(*rapid.T) {
	var running []jobs.ID
	for _, id := range slices.SortedFunc(maps.Keys(m.records), compareIDs) {
		if !m.records[id] {
			running = append(running, id)
		}
	}
	if len(running) == 0 {
		return
	}
	j, err := m.store.Job(m.rt.Context(), rapid.SampledFrom(running).Draw(m.rt, "job"))
	m.must(err)
	m.end(j, nil)
}

// remove deletes some of the ended jobs with their files.
func (m *inputsModel) remove(*rapid.T) {
	var ended []*jobs.Job
	for _, id := range slices.SortedFunc(maps.Keys(m.records), compareIDs) {
		if m.records[id] && rapid.IntRange(0, 2).Draw(m.rt, "delete") == 0 {
			j, err := m.store.Job(m.rt.Context(), id)
			m.must(err)
			ended = append(ended, j)
		}
	}
	for _, j := range ended {
		_, err := m.store.Do(m.rt.Context(), jobs.Delete{Stamp: jobs.Stamp{Actor: "test", At: m.clock}, Keys: []uint64{j.Key}})
		m.must(err)
		_, err = m.files.Remove(j.ID)
		m.must(err)
		delete(m.records, j.ID)
		for _, in := range j.Inputs() {
			if delete(m.owners[in.ID], j.ID); len(m.owners[in.ID]) == 0 {
				m.since[in.ID] = m.clock
			}
		}
	}
}

func (m *inputsModel) wait(*rapid.T) {
	m.clock = m.clock.Add(time.Duration(rapid.IntRange(1, 30).Draw(m.rt, "hours")) * time.Hour)
}

// old are the inputs that nobody has had for a day.
func (m *inputsModel) old() (all []jobs.ID) {
	for id, since := range m.since {
		if len(m.owners[id]) == 0 && m.clock.Sub(since) > jobs.InputTime {
			all = append(all, id)
		}
	}
	return all
}

func (m *inputsModel) forget(ids []jobs.ID) {
	for _, id := range ids {
		delete(m.since, id)
		delete(m.owners, id)
	}
}

func (m *inputsModel) drop(*rapid.T) {
	old := m.old()
	n, freed, err := m.inputs.Drop(m.rt.Context())
	m.must(err)
	var size int
	for _, id := range old {
		size += len(m.content[id])
	}
	if n != len(old) || freed != int64(size) {
		m.rt.Fatalf("dropped %d with %d bytes, not %d with %d", n, freed, len(old), size)
	}
	m.forget(old)
}

// restart ends the process at any moment of a change of an input, and starts another one.
func (m *inputsModel) restart(*rapid.T) {
	dir := m.files.Inputs()
	switch rapid.IntRange(0, 3).Draw(m.rt, "died") {
	case 0: // in an upload
		w, err := dir.Create(jobs.NewID())
		m.must(err)
		_, err = w.Write([]byte("half"))
		m.must(err)
	case 1: // between an upload and its description
		w, err := dir.Create(jobs.NewID())
		m.must(err)
		_, err = w.Commit("x", "text/plain")
		m.must(err)
	case 2: // between the end of a description and that of the file
		old := m.old()
		_, err := m.store.Do(m.rt.Context(), jobs.DropInputs{Stamp: jobs.Stamp{At: m.clock}, Before: m.clock.Add(-jobs.InputTime), Most: 1000})
		m.must(err)
		m.forget(old)
		for _, id := range old {
			m.doubt[id] = true
		}
	}
	m.close()
	m.open()
}

// check compares files and tracker with the model.
func (m *inputsModel) check(*rapid.T) {
	dir := m.files.Inputs()
	for id := range m.since {
		file, err := m.store.Input(id)
		m.must(err)
		if file == nil {
			m.rt.Fatalf("the tracker does not know input %s; jobs %v have it", id, m.owners[id])
		}
		b, err := os.ReadFile(dir.Path(id, file))
		if err != nil || string(b) != m.content[id] {
			m.rt.Fatalf("input %s is %q, %v; not %q", id, b, err, m.content[id])
		}
	}
	all, err := dir.IDs()
	m.must(err)
	for _, id := range all {
		if _, known := m.since[id]; !known && !m.doubt[id] {
			m.rt.Fatalf("the file of input %s is there, and nobody needs it", id)
		}
	}
	entries, err := os.ReadDir(filepath.Join(m.dir, "artifacts", "in"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		m.rt.Fatal(err)
	}
	if len(entries) != len(all) {
		m.rt.Fatalf("there are %d folders, and %d entries", len(all), len(entries))
	}
}

// TestInputsModel: whatever the order of uploads, submissions, deletions and ends of the
// process, no file is missing that a job has, and none is kept for more than a day that no
// job has.
func TestInputsModel(t *testing.T) {
	t.Parallel()
	nothing := jobs.HandlerFunc(func(context.Context, *jobs.Task) (jobs.Result, error) { return jobs.Result{}, nil })
	types := jobs.NewRegistry(
		&jobs.Type{Name: "takes", Handler: nothing, Inputs: []jobs.InputRule{{Name: "a"}}},
		&jobs.Type{Name: "makes", Handler: nothing},
	)
	rapid.Check(t, func(rt *rapid.T) {
		m := &inputsModel{
			rt: rt, dir: t.TempDir(), clock: jobs.Now(), types: types, streams: &streams{},
			content: map[jobs.ID]string{}, since: map[jobs.ID]jobs.Time{}, owners: map[jobs.ID]map[jobs.ID]bool{},
			outputs: map[jobs.ID]map[string]string{}, records: map[jobs.ID]bool{}, doubt: map[jobs.ID]bool{},
		}
		m.now = func() jobs.Time { return m.clock }
		m.open()
		defer m.close()
		rt.Repeat(map[string]func(*rapid.T){
			"upload": m.upload, "broken upload": m.brokenUpload, "submit": m.submit, "submit more": m.submit, "produce": m.produce,
			"finish": m.finish, "delete": m.remove, "wait": m.wait, "drop": m.drop, "restart": m.restart, "": m.check,
		})
	})
}
