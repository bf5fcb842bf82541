package status

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"jobstream/jobs"
	"jobstream/jobs/jobstest"
	"jobstream/status/boltfile"
)

// termsModel is what jobs with terms come to, as a person would work it out: a
// list of jobs, changed by one message, event or click after the other. Only who
// gets a turn of a concurrency key is taken from the tracker, and checked.
type termsModel struct {
	*tracker
	rt     *rapid.T
	jobs   map[jobs.ID]*jobs.Job
	gone   map[jobs.ID]bool // deleted since the tracker was opened
	tokens map[[16]byte]*modelToken
	stored map[jobs.ID]*jobs.Batch // not complete
	wire   []*jobs.Message         // in JOBS and not folded
	folded []*jobs.Message
	past   []jobs.Event
	now    jobs.Time
	seq    uint64 // the last in JOBS
	drawn  uint64 // messages
}

type modelToken struct {
	at   jobs.Time
	body [16]byte
	ids  []jobs.ID
}

// token says whether the token counts at a moment; known are its jobs, nil if they
// are not all there yet. Of one that was deleted only the id is known.
func (m *termsModel) token(t *jobs.Token, at jobs.Time) (known []*jobs.Job, mismatch bool) {
	have := m.tokens[t.Key]
	if have == nil || at.Sub(have.at) >= jobs.TokenTime {
		return nil, false
	}
	for _, id := range have.ids {
		j := m.jobs[id]
		if j == nil {
			j = &jobs.Job{ID: id}
		}
		known = append(known, j)
	}
	if m.stored[have.ids[0]] != nil {
		known = nil
	}
	return known, have.body != t.Body
}

// owner is who has a unique key, the zero id if nobody does.
func (m *termsModel) owner(by string, t *jobs.Terms) jobs.ID {
	if t == nil || t.UniqueKey == "" {
		return jobs.ID{}
	}
	for id, j := range m.jobs {
		if !j.Status.Ended() && j.CreatedBy == by && j.Terms != nil && j.Terms.UniqueKey == t.UniqueKey {
			return id
		}
	}
	for _, b := range m.stored {
		for _, msg := range b.Messages {
			if msg.CreatedBy == by && msg.Terms != nil && msg.Terms.UniqueKey == t.UniqueKey && m.jobs[msg.ID] == nil {
				return msg.ID
			}
		}
	}
	return jobs.ID{}
}

func (m *termsModel) inBatch(id jobs.ID) bool {
	for _, b := range m.stored {
		if slices.ContainsFunc(b.Messages, func(msg *jobs.Message) bool { return msg.ID == id }) {
			return true
		}
	}
	return false
}

// submitted is what becomes of a message: a job, a replay or a refusal.
func (m *termsModel) submitted(msg jobs.Message) (replay, refusal bool) {
	defer m.completes(msg.BatchEnd)
	if j := m.jobs[msg.ID]; j != nil {
		if !msg.Moved {
			return true, false
		}
		if !j.Status.Ended() && msg.Seq > j.Seq && msg.Priority == j.Priority { // else it waits for another lane by now
			j.Enqueue(msg.Seq, msg.At)
		}
		return false, false
	}
	if msg.Moved && m.gone[msg.ID] {
		return false, false
	}
	if msg.Token != nil {
		known, mismatch := m.token(msg.Token, msg.At)
		if mismatch {
			return false, true
		}
		if known != nil {
			return true, false
		}
	}
	typ := termTypes.Lookup(msg.Type)
	if typ == nil {
		msg.Problem = termTypes.Unknown(msg.Type).Detail
	} else if owner := m.owner(msg.CreatedBy, msg.Terms); owner != (jobs.ID{}) && owner != msg.ID {
		msg.Problem = duplicate(msg.Terms.UniqueKey, owner).Detail
	}
	m.jobs[msg.ID] = jobs.NewJob(&msg, typ, false)
	if msg.Token != nil {
		m.tokens[msg.Token.Key] = &modelToken{msg.At, msg.Token.Body, []jobs.ID{msg.ID}}
	}
	return false, false
}

// completes forgets a batch if all of its jobs are there.
func (m *termsModel) completes(id jobs.ID) {
	b := m.stored[id]
	if b == nil {
		return
	}
	for _, msg := range b.Messages {
		if m.jobs[msg.ID] == nil {
			return
		}
	}
	delete(m.stored, id)
}

// send puts a message into JOBS.
func (m *termsModel) send(msg *jobs.Message) {
	m.seq++
	out := *msg
	out.Seq, out.At = m.seq, m.now
	m.wire = append(m.wire, &out)
}

func (m *termsModel) drawTerms() *jobs.Terms {
	var t jobs.Terms
	if rapid.IntRange(0, 2).Draw(m.rt, "unique") == 0 {
		t.UniqueKey = rapid.SampledFrom([]string{"u", "v"}).Draw(m.rt, "unique key")
	}
	if rapid.IntRange(0, 2).Draw(m.rt, "keyed") > 0 {
		t.ConcurrencyKey = rapid.SampledFrom([]string{"a", "b"}).Draw(m.rt, "concurrency key")
	}
	if rapid.IntRange(0, 3).Draw(m.rt, "later") == 0 {
		t.RunAt = m.now.Add(seconds(rapid.IntRange(0, 20).Draw(m.rt, "delay")))
	}
	if rapid.IntRange(0, 5).Draw(m.rt, "expires") == 0 {
		t.ExpiresAt = max(m.now, t.RunAt).Add(seconds(rapid.IntRange(1, 40).Draw(m.rt, "ttl")))
	}
	if rapid.IntRange(0, 5).Draw(m.rt, "limited") == 0 {
		t.Deadline = max(m.now, t.RunAt).Add(seconds(rapid.IntRange(1, 60).Draw(m.rt, "deadline")))
	}
	if jobs.AllZero(jobs.TermsFields, &t) {
		return nil
	}
	return &t
}

func (m *termsModel) drawMessage() *jobs.Message {
	m.drawn++
	return &jobs.Message{
		ID: jobs.DerivedID(m.drawn, 1), RetryCount: -1, Payload: []byte(`{}`), Terms: m.drawTerms(),
		Type:      rapid.SampledFrom([]string{"email", "email", "email", "export", "export", "unknown"}).Draw(m.rt, "type"),
		Priority:  jobs.Priority(rapid.SampledFrom([]int{1, 3, 3, 5}).Draw(m.rt, "priority")),
		CreatedBy: rapid.SampledFrom([]string{"", "", "ci", "u"}).Draw(m.rt, "principal"),
	}
}

func (m *termsModel) submit() {
	for range rapid.IntRange(1, 6).Draw(m.rt, "n") {
		msg := m.drawMessage()
		if rapid.IntRange(0, 3).Draw(m.rt, "with a token") == 0 {
			msg.Token = m.drawToken("single")
		}
		m.send(msg)
		if rapid.IntRange(0, 5).Draw(m.rt, "twice") == 0 {
			m.send(msg)
		}
	}
}

func (m *termsModel) drawToken(realm string) *jobs.Token {
	return jobs.NewToken(realm, rapid.SampledFrom([]string{"k", "l"}).Draw(m.rt, "token"),
		rapid.SampledFrom([][]byte{[]byte("x"), []byte("x"), []byte("y")}).Draw(m.rt, "body"))
}

// reserve stores a batch, and sends some of its messages.
func (m *termsModel) reserve() {
	var ms []*jobs.Message
	keys := make(map[string]bool)
	by := rapid.SampledFrom([]string{"", "", "ci", "u"}).Draw(m.rt, "whose")
	for range rapid.IntRange(1, 4).Draw(m.rt, "n") {
		msg := m.drawMessage()
		msg.CreatedBy = by
		if msg.Type == "unknown" || msg.Terms != nil && keys[msg.Terms.UniqueKey] {
			continue
		}
		if msg.Terms != nil && msg.Terms.UniqueKey != "" {
			keys[msg.Terms.UniqueKey] = true
		}
		ms = append(ms, msg)
	}
	if len(ms) == 0 {
		m.rt.Skip("an empty batch")
	}
	b := batchOf(nil, ms...)
	if rapid.Bool().Draw(m.rt, "with a token") {
		b.Token = m.drawToken("batch")
	}
	want := "stored"
	if b.Token != nil {
		known, mismatch := m.token(b.Token, m.now)
		have := m.tokens[b.Token.Key]
		switch {
		case mismatch:
			want = string(jobs.IdempotencyMismatch)
		case known != nil:
			want = "known"
		case have != nil && m.now.Sub(have.at) < jobs.TokenTime && m.stored[have.ids[0]] != nil:
			want = "underway"
		}
	}
	for key := range keys {
		if want == "stored" && m.owner(by, &jobs.Terms{UniqueKey: key}) != (jobs.ID{}) {
			want = string(jobs.Duplicate)
		}
	}
	known, err, c := m.reserves(b)
	got := "stored"
	switch {
	case err == jobs.ErrUnderway: //nolint:errorlint // as it comes
		got = "underway"
	case err != nil:
		got = string(failsAs(err))
	case known != nil:
		got = "known"
	}
	if got != want || (len(answers(c, jobs.BatchStored)) == 1) != (want == "stored") {
		m.rt.Fatalf("a batch is %s (%v), want %s", got, err, want)
	}
	if want != "stored" {
		return
	}
	m.stored[b.ID] = b
	if b.Token != nil {
		t := &modelToken{at: m.now, body: b.Token.Body}
		for _, msg := range ms {
			t.ids = append(t.ids, msg.ID)
		}
		m.tokens[b.Token.Key] = t
	}
	m.publish(b)
}

// publish sends the messages of a batch, as far as the queue takes them.
func (m *termsModel) publish(b *jobs.Batch) {
	for _, msg := range b.Messages {
		if rapid.IntRange(0, 9).Draw(m.rt, "refused") > 0 {
			m.send(msg)
		}
	}
}

// release publishes some of what is due, perhaps twice, perhaps to be folded
// much later.
func (m *termsModel) release() {
	due, next, err := m.Due(m.now, 1000, 1000)
	m.must(err)
	want := 0
	for _, j := range m.jobs {
		if j.Place == jobs.Due && !j.Status.Ended() {
			if j.DueAt <= m.now {
				want++
			} else if next == 0 || next > j.DueAt {
				m.rt.Fatalf("the next one is due at %v, but %v", next, j.DueAt)
			}
		}
	}
	if len(due) != want {
		m.rt.Fatalf("%d are due, want %d", len(due), want)
	}
	for _, j := range due {
		for range rapid.SampledFrom([]int{1, 1, 1, 0, 2}).Draw(m.rt, "copies") {
			m.send(j.Again())
		}
	}
}

// ordered are the jobs by their keys.
func (m *termsModel) ordered() []*jobs.Job {
	return slices.SortedFunc(maps.Values(m.jobs), func(a, b *jobs.Job) int { return cmp.Compare(a.Key, b.Key) })
}

// drawEvents is what a pool says, and what it says again.
func (m *termsModel) drawEvents() (events []jobs.Event) {
	running := slices.DeleteFunc(m.ordered(), func(j *jobs.Job) bool { return !inQueue(j) })
	for range rapid.IntRange(0, 5).Draw(m.rt, "events") {
		if len(m.past) > 0 && rapid.IntRange(0, 3).Draw(m.rt, "repeat") == 0 {
			events = append(events, rapid.SampledFrom(m.past).Draw(m.rt, "event"))
			continue
		}
		if len(running) == 0 {
			break
		}
		j := rapid.SampledFrom(running).Draw(m.rt, "job")
		kind := rapid.SampledFrom([]jobs.Kind{
			jobs.KindStarted, jobs.KindCompleted, jobs.KindRetrying, jobs.KindRetrying, jobs.KindSnoozed, jobs.KindFailed, jobs.KindReleased, jobs.KindCancelled,
		}).Draw(m.rt, "kind")
		e := of(kind, j, m.now)
		if j.Status == jobs.Processing && kind != jobs.KindStarted {
			e.StartedAt = j.StartedAt
		}
		events = append(events, e)
		m.past = append(m.past, e)
		m.now++
	}
	return events
}

// step folds a part of what is in JOBS together with events.
func (m *termsModel) step() {
	n := rapid.IntRange(0, len(m.wire)).Draw(m.rt, "messages")
	if rapid.Bool().Draw(m.rt, "all") {
		n = len(m.wire)
	}
	ms, events := m.wire[:n:n], m.drawEvents()
	m.wire = m.wire[n:]
	m.folded = append(m.folded, ms...)
	replays, refusals := 0, 0
	pending := len(m.stored)
	for _, msg := range ms {
		replay, refusal := m.submitted(*msg)
		if replay {
			replays++
		}
		if refusal {
			refusals++
		}
	}
	for _, e := range events {
		if j := m.jobs[e.ID]; j != nil {
			jobs.Apply(j, &e)
		}
	}
	before := m.held()
	c := m.folds(ms, events...)
	if len(answers(c, jobs.SubmissionReplayed)) != replays || len(answers(c, jobs.SubmissionRefused)) != refusals || len(answers(c, jobs.BatchDone)) != pending-len(m.stored) {
		m.rt.Fatalf("%d replayed, %d refused, %d batches complete; want %d, %d, %d",
			len(answers(c, jobs.SubmissionReplayed)), len(answers(c, jobs.SubmissionRefused)), len(answers(c, jobs.BatchDone)), replays, refusals, pending-len(m.stored))
	}
	m.check(c, before)
}

// held are the jobs that wait for a turn, by the tracker.
func (m *termsModel) held() map[uint64]*jobs.Job {
	held := make(map[uint64]*jobs.Job)
	for _, j := range m.all(jobs.Filter{}) {
		if j.Place == jobs.Held {
			held[j.Key] = j
		}
	}
	return held
}

// control does something by hand, some of it at once.
func (m *termsModel) control() {
	if len(m.jobs) == 0 {
		m.rt.Skip("no jobs yet")
	}
	var calls []func()
	touched := make(map[jobs.ID]bool)
	all := m.ordered()
	for range rapid.IntRange(1, 3).Draw(m.rt, "calls") {
		j := rapid.SampledFrom(all[max(len(all)-10, 0):]).Draw(m.rt, "job")
		keys := []uint64{j.Key}
		there := m.jobs[j.ID] != nil
		switch rapid.SampledFrom([]string{"cancel", "retry", "retry", "delete", "run", "revise", "revise"}).Draw(m.rt, "call") {
		case "cancel":
			want := there && j.Cancel(m.now, "by hand")
			if want {
				j.Sign("test")
			}
			touched[j.ID] = touched[j.ID] || want
			calls = append(calls, func() {
				changed, err := m.Cancel(context.Background(), keys, "by hand")
				m.says("Cancel", err, len(changed) == 1, want)
			})
		case "retry":
			want := there && !touched[j.ID] && (j.Status == jobs.Failed || j.Status == jobs.Cancelled) && termTypes.Lookup(j.Type) != nil &&
				m.owner(j.CreatedBy, j.Terms) == jobs.ID{}
			if want {
				j.Rerun(m.now)
				j.Sign("test")
				touched[j.ID] = true
			}
			calls = append(calls, func() {
				changed, _, err := m.Retry(context.Background(), keys)
				m.says("Retry", err, len(changed) == 1, want)
			})
		case "run":
			want := there && j.RunNow(m.now)
			if want {
				j.Sign("test")
			}
			touched[j.ID] = touched[j.ID] || want
			calls = append(calls, func() {
				e, err := m.Do(context.Background(), jobs.RunNow{Stamp: m.by(), Keys: keys})
				m.says("RunNow", err, len(e.Changed) == 1, want)
			})
		case "revise":
			c := drawRevision(m.rt, m.by(), j)
			changed, refused := false, error(nil)
			if there {
				changed, refused = j.Revise(&c)
			}
			touched[j.ID] = touched[j.ID] || changed
			calls = append(calls, func() {
				e, err := m.Do(context.Background(), c)
				m.says("Revise", err, len(e.Changed) == 1, changed)
				m.says("Revise refused", err, len(e.Refused) == 1, refused != nil)
			})
		default:
			want := there && j.Status.Ended() && !touched[j.ID] && !m.inBatch(j.ID)
			if want {
				delete(m.jobs, j.ID)
				m.gone[j.ID] = true
			}
			calls = append(calls, func() {
				n, _, err := m.Delete(context.Background(), keys)
				m.says("Delete", err, n == 1, want)
			})
		}
	}
	before := m.held()
	c := m.together(calls...)
	m.check(c, before)
}

// drawRevision is a change of j, as somebody may wish it.
func drawRevision(rt *rapid.T, by jobs.Stamp, j *jobs.Job) jobs.Revise {
	c := jobs.Revise{Stamp: by, Key: j.Key}
	if rapid.Bool().Draw(rt, "another priority") {
		c.Priority = jobs.Priority(rapid.IntRange(1, 5).Draw(rt, "priority"))
	}
	if rapid.Bool().Draw(rt, "another moment") {
		c.RunAt = by.At.Add(seconds(rapid.SampledFrom([]int{-5, 0, 5, 30, 7200}).Draw(rt, "run at")))
	}
	c.Payload = rapid.SampledFrom([][]byte{nil, []byte(`{}`), []byte(`{"a":1}`), fmt.Appendf(nil, `"%2000d"`, 1)}).Draw(rt, "payload")
	c.Tags = rapid.SampledFrom([][]string{nil, {}, {"x"}, {"x", "y"}}).Draw(rt, "tags")
	return c
}

func (m *termsModel) says(what string, err error, got, want bool) {
	if err != nil || got != want {
		m.rt.Errorf("%s: %v, %v; want %v", what, got, err, want)
	}
}

func (m *termsModel) expire() {
	first := jobs.Time(0)
	for _, j := range m.jobs {
		at := j.LimitAt()
		if at != 0 && mayHaveStarted(j, at) && at <= m.now {
			at = at.Add(startGrace)
		}
		if at != 0 && at <= m.now && j.Expire(m.now) || j.Status == jobs.Processing {
			continue
		}
		if at != 0 && (first == 0 || at < first) {
			first = at
		}
	}
	before := m.held()
	next, c := m.expires(m.now)
	if first != 0 && (next == 0 || next > first) {
		m.rt.Fatalf("the next limit is at %v, but %v", next, first)
	}
	if c.Positions.Jobs != 0 { // there was a transaction
		m.check(c, before)
	}
}

// check compares the tracker with the model, and takes from it who got a turn.
func (m *termsModel) check(c *jobs.Commit, before map[uint64]*jobs.Job) {
	all := m.all(jobs.Filter{})
	if len(all) != len(m.jobs) {
		m.rt.Fatalf("%d jobs, want %d", len(all), len(m.jobs))
	}
	var unfinished, scheduled, queued int
	for _, j := range all {
		want := m.jobs[j.ID]
		if want == nil {
			m.rt.Fatalf("nobody knows of %+v", j)
		}
		if want.Status.Ended() {
			want.Place, want.Slot = jobs.InQueue, false
		} else if want.Terms != nil && want.Terms.ConcurrencyKey != "" {
			if j.Place == jobs.Due && (want.Place != jobs.Due || j.DueAt != want.DueAt) && (c.Due() == 0 || c.Due() > max(j.DueAt, 1)) {
				m.rt.Fatalf("nobody was notified that it is due: %+v", j)
			}
			want.Place, want.Slot, want.DueAt = j.Place, j.Slot, j.DueAt
		}
		if !jobstest.Same(j, want) {
			m.rt.Fatalf("job %d is\n%+v %+v\nwant\n%+v %+v", want.Key, j, j.Terms, want, want.Terms)
		}
		switch {
		case j.Status.Ended():
		case j.Status == jobs.Scheduled:
			scheduled++
		default:
			unfinished++
		}
		if inQueue(j) {
			queued++
		}
	}
	if c.Load.Unfinished != unfinished || c.Load.Scheduled != scheduled || c.Load.Queued != queued {
		m.rt.Fatalf("%d unfinished, %d scheduled, %d in the queue; want %d, %d, %d", c.Load.Unfinished, c.Load.Scheduled, c.Load.Queued, unfinished, scheduled, queued)
	}
	m.checkOrder(all, before)
	m.verify()
}

// checkOrder checks that of the held jobs those got their turns that have waited
// longest, of the best priority.
func (m *termsModel) checkOrder(all []*jobs.Job, before map[uint64]*jobs.Job) {
	for _, granted := range all {
		if before[granted.Key] == nil || !granted.Slot {
			continue
		}
		for _, j := range all {
			if before[j.Key] != nil && j.Place == jobs.Held && bytes.Equal(slotName(j), slotName(granted)) && bytes.Compare(heldKey(j), heldKey(granted)) < 0 {
				m.rt.Fatalf("job %d got a turn before job %d", granted.Key, j.Key)
			}
		}
	}
}

// dump is everything in the file, but the positions.
func (m *termsModel) dump() (all []string) {
	m.must(m.db.View(func(tx *boltfile.Tx) error {
		return tx.ForEach(func(name []byte, b boltfile.Bucket) error {
			return b.ForEach(func(k, v []byte) error {
				if !bytes.Equal(k, keyPositions) {
					all = append(all, fmt.Sprintf("%s %x %x", name, k, v))
				}
				return nil
			})
		})
	}))
	return all
}

// repeat folds what was folded before once more.
func (m *termsModel) repeat() {
	before := m.dump()
	// A job that was deleted and submitted anew takes the events of its namesake.
	events := slices.DeleteFunc(slices.Clone(m.past), func(e jobs.Event) bool {
		j := m.jobs[e.ID]
		return j != nil && e.Seq < j.Key
	})
	m.folds(m.folded, events...)
	// The very messages of jobs again are nothing new. (The last one of a batch may
	// complete it.)
	pos := m.Positions()
	var own []*jobs.Message
	for _, msg := range m.folded {
		if j := m.jobs[msg.ID]; j != nil && j.Seq == msg.Seq && msg.BatchEnd == (jobs.ID{}) {
			own = append(own, msg)
		}
	}
	m.Latest.jobs.Store(0)
	m.folds(own)
	m.Latest.jobs.Store(pos.Jobs)
	m.folds(nil) // for the file
	after := m.dump()
	for _, row := range before {
		if !slices.Contains(after, row) {
			m.rt.Fatalf("a repeated fold has changed or removed %s", row)
		}
	}
	if len(after) != len(before) {
		m.rt.Fatalf("a repeated fold has added to %d rows: %d", len(before), len(after))
	}
}

func (m *termsModel) actions() map[string]func(*rapid.T) {
	as := func(f func()) func(*rapid.T) {
		return func(rt *rapid.T) {
			m.rt, m.t = rt, rt
			f()
		}
	}
	return map[string]func(*rapid.T){
		"submit":  as(m.submit),
		"step":    as(m.step),
		"step2":   as(m.step),
		"release": as(m.release),
		"control": as(m.control),
		"expire":  as(m.expire),
		"reserve": as(m.reserve),
		"repeat":  as(m.repeat),
		"publish": as(func() {
			for _, b := range slices.SortedFunc(maps.Values(m.stored), func(a, b *jobs.Batch) int { return bytes.Compare(a.ID[:], b.ID[:]) }) {
				m.publish(b)
			}
		}),
		"later": as(func() {
			m.now = m.now.Add(seconds(rapid.SampledFrom([]int{1, 5, 10, 30, 30, 13 * 3600}).Draw(m.rt, "seconds")))
		}),
		"restart": as(func() {
			m.reopen()
			m.gone = make(map[jobs.ID]bool)
			m.verify()
			for id, j := range m.jobs {
				if got := m.job(id); !jobstest.Same(got, j) {
					m.rt.Fatalf("after a restart\n%+v\nwant\n%+v", got, j)
				}
			}
			if got := m.pending(); len(got) != len(m.stored) {
				m.rt.Fatalf("%d batches, want %d", len(got), len(m.stored))
			}
		}),
	}
}

// The tracker follows its rules in any order of submissions, moments, keys, late or
// double messages, attempts, cancellations, retries, deletions and restarts.
func TestTermsModel(t *testing.T) {
	t.Parallel()
	dir, n := t.TempDir(), 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		tr := open(rt, Options{Path: filepath.Join(dir, fmt.Sprint(n)), Registry: termTypes})
		defer func() { _ = tr.Close() }()
		tr.endsRebuild()
		m := &termsModel{
			tracker: tr, rt: rt, now: jobs.Now(), jobs: make(map[jobs.ID]*jobs.Job), gone: make(map[jobs.ID]bool),
			tokens: make(map[[16]byte]*modelToken), stored: make(map[jobs.ID]*jobs.Batch),
		}
		tr.clock = func() jobs.Time { return m.now }
		rt.Repeat(m.actions())
	})
}
