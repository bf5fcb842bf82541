package status

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"jobstream/jobs"
	"jobstream/jobs/jobstest"
	"jobstream/status/record"
)

// model is the tracker as a person would think of it: a list of jobs.
type model struct {
	jobs  map[uint64]*jobs.Job // by key
	owner map[uint64]jobs.ID   // by sequence of any of their messages
	sent  []*jobs.Message      // the first message of every job that ever was
	ever  map[string]*[jobs.NumStatus]int
	pos   jobs.Positions
}

func newModel() *model {
	return &model{jobs: make(map[uint64]*jobs.Job), owner: make(map[uint64]jobs.ID), ever: make(map[string]*[jobs.NumStatus]int)}
}

func (m *model) byID(id jobs.ID) *jobs.Job {
	for _, j := range m.jobs {
		if j.ID == id {
			return j
		}
	}
	return nil
}

func (m *model) bySeq(seq uint64) *jobs.Job {
	if id, ok := m.owner[seq]; ok {
		return m.byID(id)
	}
	return nil
}

func (m *model) count(j *jobs.Job) {
	if m.ever[j.ListedAs()] == nil {
		m.ever[j.ListedAs()] = &[jobs.NumStatus]int{}
	}
	if j.Status.Ended() {
		m.ever[j.ListedAs()][j.Status]++
	}
}

func (m *model) submitted(msg *jobs.Message) {
	m.pos.Jobs = msg.Seq
	j := m.byID(msg.ID)
	m.owner[msg.Seq] = msg.ID
	switch {
	case j == nil:
		typ := testTypes.Lookup(msg.Type)
		if typ == nil {
			named := *msg
			named.Problem = testTypes.Unknown(msg.Type).Detail
			msg = &named
		}
		j = jobs.NewJob(msg, typ, false)
		m.jobs[j.Key] = j
		m.count(j)
	case j.Seq == msg.Seq: // it was known from events
		jobs.Merge(j, msg)
	case msg.Moved && !j.Status.Ended():
		j.Seq = msg.Seq
	}
}

func (m *model) happened(e jobs.Event) {
	j := m.byID(e.ID)
	if j == nil {
		return
	}
	ended := j.Status.Ended()
	if jobs.Apply(j, &e); j.Status.Ended() && !ended {
		m.count(j)
	}
}

func (m *model) deleted(key uint64) bool {
	j := m.jobs[key]
	if j == nil || !j.Status.Ended() {
		return false
	}
	delete(m.jobs, key)
	return true
}

// list is what a filter chooses, in the order of keys.
func (m *model) list(f jobs.Filter, asc bool) (found []*jobs.Job) {
	for _, j := range m.jobs {
		if f.Match(j) {
			found = append(found, j)
		}
	}
	slices.SortFunc(found, func(a, b *jobs.Job) int {
		if (a.Key < b.Key) == asc {
			return -1
		}
		return 1
	})
	return found
}

// machine drives a tracker and its model with the same random steps. The
// streams are independent, so what comes from both in one batch may be folded in
// any order; the machine waits between them to know which it was.
type machine struct {
	*tracker
	rt *rapid.T
	m  *model
}

func (m *machine) sync() { m.wait(m.m.pos.Jobs, m.m.pos.Status) }

// newMessage is the next message of JOBS, of a new job.
func (m *machine) newMessage() *jobs.Message {
	seq := m.m.pos.Jobs + 1
	// Now and then JOBS has a gap, and so the tracker has several chunks.
	seq += rapid.SampledFrom([]uint64{0, 0, 0, 0, 1, 5000, 50000}).Draw(m.rt, "gap")
	msg := message(seq)
	msg.At = epoch.Add(seconds(rapid.IntRange(1, 60).Draw(m.rt, "at")))
	msg.Type = rapid.SampledFrom([]string{"email", "email", "export", "unknown"}).Draw(m.rt, "type")
	msg.Priority = jobs.Priority(rapid.IntRange(1, 5).Draw(m.rt, "priority"))
	msg.RetryCount = rapid.IntRange(-1, 2).Draw(m.rt, "retries")
	msg.Tags = rapid.SliceOfN(rapid.SampledFrom([]string{"red", "green", "blue"}), 0, 3).Draw(m.rt, "tags")
	switch rapid.IntRange(0, 4).Draw(m.rt, "payload") {
	case 0:
		msg.Payload = nil
	case 1:
		msg.Payload = []byte(`"` + strings.Repeat("p", record.InlinePayload+1) + `"`)
	}
	m.m.sent = append(m.m.sent, msg)
	return msg
}

func (m *machine) put(msg *jobs.Message) {
	m.submit(msg)
	m.m.submitted(msg)
}

// known draws a job that was submitted at some time; it may be deleted.
func (m *machine) known() *jobs.Message {
	if len(m.m.sent) == 0 {
		m.rt.Skip("no jobs yet")
	}
	// Recent jobs more often, which are more often unfinished.
	n := min(len(m.m.sent), rapid.SampledFrom([]int{1, 4, 1000}).Draw(m.rt, "of the last"))
	return rapid.SampledFrom(m.m.sent[len(m.m.sent)-n:]).Draw(m.rt, "job")
}

func (m *machine) drawEvent(msg *jobs.Message) jobs.Event {
	kinds := []jobs.Kind{
		jobs.KindStarted, jobs.KindProgress, jobs.KindCompleted, jobs.KindFailed, jobs.KindRetrying,
		jobs.KindRetrying, jobs.KindReleased, jobs.KindCancelled,
	}
	e := event(rapid.SampledFrom(kinds).Draw(m.rt, "kind"), msg, rapid.IntRange(1, 3).Draw(m.rt, "attempt"))
	if j := m.m.byID(msg.ID); j != nil && rapid.Bool().Draw(m.rt, "present seq") {
		e.Seq = j.Seq
	}
	return e
}

func (m *machine) happen(events ...jobs.Event) {
	m.m.pos.Status++
	m.Happened(m.m.pos.Status, events)
	for _, e := range events {
		m.m.happened(e)
	}
}

func (m *machine) actions() map[string]func(*rapid.T) {
	as := func(f func()) func(*rapid.T) {
		return func(rt *rapid.T) {
			m.rt, m.t = rt, rt
			f()
			m.sync()
		}
	}
	return map[string]func(*rapid.T){
		"submit": as(func() {
			for range rapid.IntRange(1, 10).Draw(m.rt, "n") {
				m.put(m.newMessage())
			}
		}),
		"again": as(func() { // a duplicate, or published again
			again := *m.known()
			if m.m.byID(again.ID) == nil {
				m.rt.Skip("was deleted; would be a new job")
			}
			again.Seq = m.m.pos.Jobs + 1
			again.Moved = rapid.Bool().Draw(m.rt, "moved")
			m.put(&again)
		}),
		"events": as(func() {
			for range rapid.IntRange(1, 8).Draw(m.rt, "messages") {
				var events []jobs.Event
				for range rapid.IntRange(0, 3).Draw(m.rt, "events") {
					events = append(events, m.drawEvent(m.known()))
				}
				m.happen(events...)
			}
		}),
		"complete": as(func() {
			for _, j := range m.m.jobs {
				if !j.Status.Ended() && j.Key%3 == 0 {
					e := jobs.Event{
						Kind: jobs.KindCompleted, ID: j.ID, Seq: j.Seq, Type: j.Type, Priority: j.Priority,
						Run: 1, Attempt: j.Failures + 1, At: j.UpdatedAt.Add(1), StartedAt: j.UpdatedAt,
					}
					m.happen(e)
				}
			}
		}),
		"early": as(func() { // events before their submission
			msg := m.newMessage()
			if msg.Type == "unknown" || len(msg.Payload) == 0 {
				msg.Type, msg.Payload = "export", []byte(`{}`) // one that can have run
			}
			m.happen(m.drawEvent(msg), m.drawEvent(msg))
			m.sync()
			m.put(msg)
		}),
		"delete": as(m.delete),
		"retention": as(func() {
			ctx, cancel := within(m.rt)
			defer cancel()
			before := epoch.Add(seconds(rapid.IntRange(0, 200).Draw(m.rt, "before")))
			statuses := drawStatuses(m.rt, []jobs.Status{jobs.Completed, jobs.Failed, jobs.Cancelled})
			limit := rapid.IntRange(1, 7).Draw(m.rt, "limit")
			var want []uint64
			for _, j := range m.m.list(jobs.Filter{Statuses: statuses}, true) {
				if j.Status.Ended() && j.EndedAt < before {
					want = append(want, j.Key)
				}
			}
			var got []uint64
			for after := uint64(0); ; {
				some, next, err := m.Ended(ctx, before, statuses, after, limit)
				if err != nil || len(some) > limit || next != 0 && next <= after {
					m.rt.Fatalf("Ended after %d: %d jobs, next %d, %v", after, len(some), next, err)
				}
				got = append(got, keysOf(some)...)
				if after = next; next == 0 {
					break
				}
			}
			if !slices.Equal(got, want) {
				m.rt.Fatalf("ended before %v: %v, want %v", before, got, want)
			}
		}),
		"restart": as(func() {
			m.reopen()
			m.run(idle{})
		}),
		"": func(rt *rapid.T) {
			m.rt, m.t = rt, rt
			m.check()
		},
	}
}

func (m *machine) delete() {
	var keys []uint64
	for range rapid.IntRange(1, 6).Draw(m.rt, "n") {
		keys = append(keys, m.known().Seq)
	}
	keys = append(keys, 999_999_999) // never was
	want := 0
	for _, k := range keys {
		if m.m.deleted(k) {
			want++
		}
	}
	ctx, cancel := within(m.rt)
	defer cancel()
	n, size, err := m.Delete(ctx, keys)
	if err != nil || n != want || (size > 0) != (n > 0) {
		m.rt.Fatalf("Delete(%v) = %d, %d bytes, %v; want %d", keys, n, size, err, want)
	}
}

func drawStatuses(t *rapid.T, from []jobs.Status) []jobs.Status {
	return rapid.SliceOfNDistinct(rapid.SampledFrom(from), 0, len(from), rapid.ID).Draw(t, "statuses")
}

func (m *machine) drawFilter() (f jobs.Filter) {
	f.Statuses = drawStatuses(m.rt, []jobs.Status{jobs.Scheduled, jobs.Pending, jobs.Processing, jobs.Retrying, jobs.Completed, jobs.Failed, jobs.Cancelled})
	f.Types = rapid.SliceOfN(rapid.SampledFrom([]string{"email", "export", "unknown", "never"}), 0, 2).Draw(m.rt, "types")
	f.Tags = rapid.SliceOfN(rapid.SampledFrom([]string{"red", "green", "blue", "never"}), 0, 2).Draw(m.rt, "tags")
	if rapid.Bool().Draw(m.rt, "in time") {
		f.CreatedAfter = epoch.Add(seconds(rapid.IntRange(0, 61).Draw(m.rt, "after")))
		f.CreatedBefore = epoch.Add(seconds(rapid.IntRange(0, 61).Draw(m.rt, "before")))
	}
	return f
}

// check compares all that can be asked.
func (m *machine) check() {
	m.verify()
	if got := m.Positions(); got != m.m.pos {
		m.rt.Fatalf("positions %+v, want %+v", got, m.m.pos)
	}
	want := m.m.list(jobs.Filter{}, true)
	all := m.all(jobs.Filter{})
	if len(all) != len(want) {
		m.rt.Fatalf("%d jobs, want %d", len(all), len(want))
	}
	for i, j := range all {
		if !jobstest.Same(j, want[i]) {
			m.rt.Fatalf("job %d\ngot  %+v\nwant %+v", want[i].Key, j, want[i])
		}
	}
	for seq, id := range m.m.owner {
		j, err := m.JobBySeq(context.Background(), seq)
		if err != nil || !jobstest.Same(j, m.m.bySeq(seq)) {
			m.rt.Fatalf("JobBySeq(%d) = %+v, %v; want %+v", seq, j, err, m.m.bySeq(seq))
		}
		if j == nil && m.job(id) != nil {
			m.rt.Fatalf("Job(%s) is still there", id)
		}
	}
	for name, ever := range m.m.ever {
		if got := m.Figures()[name].Ever; got != *ever {
			m.rt.Fatalf("%s ever: %v, want %v", name, got, *ever)
		}
	}
	m.checkList(m.drawFilter())
}

// checkList reads a list page by page.
func (m *machine) checkList(f jobs.Filter) {
	asc := rapid.Bool().Draw(m.rt, "asc")
	limit := rapid.IntRange(1, 7).Draw(m.rt, "limit")
	want := m.m.list(f, asc)
	timed := f.CreatedAfter != 0 || f.CreatedBefore != 0
	if n := m.count(f); n != len(want) && !(timed && n > len(want)) {
		m.rt.Fatalf("Count(%+v) = %d, want %d", f, n, len(want))
	}
	p := jobs.Page{Filter: f, Limit: limit, Asc: asc}
	var got []*jobs.Job
	for {
		page, next, err := m.List(context.Background(), p)
		if err != nil || len(page) > limit {
			m.rt.Fatalf("List(%+v) = %d jobs, %v", p, len(page), err)
		}
		got = append(got, page...)
		if next == "" {
			break
		}
		if len(page) < limit || !timed && len(got) >= len(want) {
			m.rt.Fatalf("a page of %d with limit %d, %d of %d so far, has a next one", len(page), limit, len(got), len(want))
		}
		p.Cursor = next
	}
	if !slices.EqualFunc(got, want, jobstest.Same) {
		m.rt.Fatalf("List(%+v): %v, want %v", p, keysOf(got), keysOf(want))
	}
}

// The tracker answers as its model does, in any order of submissions, events, deletions
// and restarts.
func TestModel(t *testing.T) {
	t.Parallel()
	dir, n := t.TempDir(), 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		tr := open(rt, Options{Path: filepath.Join(dir, fmt.Sprint(n))})
		m := &machine{tracker: tr, rt: rt, m: newModel()}
		defer func() {
			_ = m.halt()
			_ = m.Close()
		}()
		m.run(idle{})
		// From here on it is no rebuild, in which events alone make jobs.
		ctx, cancel := within(rt)
		defer cancel()
		if err := m.EndRebuild(ctx); err != nil {
			rt.Fatalf("%v", err)
		}
		rt.Repeat(m.actions())
	})
}
