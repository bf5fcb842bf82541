package status

import (
	"encoding/binary"
	"time"

	"jobstream/jobs"
	"jobstream/status/boltfile"
)

// fold is one write transaction in the making. It decides what messages, events and
// commands change, part by part:
//
//	records    the jobs themselves (records.go)
//	indexes    what finds and counts them (indexes.go)
//	agenda     what has to happen at a moment (agenda.go)
//	tokens     idempotency keys (tokens.go)
//	unique     unique keys (unique.go)
//	turns      concurrency keys (turns.go)
//	inputs     files that jobs get (inputs.go)
//	batches    batches that are not complete (batches.go)
//	schedules  (schedules.go)
//	callbacks  jobs that notify URLs of the ends (callbacks.go)
//	ends       what there is to notify (outbox.go)
//
// All parts find and change jobs in records. Only finish writes them, in the order that
// stands there.
type fold struct {
	in      input
	tx      *boltfile.Tx
	pos     jobs.Positions // up to which the streams are folded then
	number  uint64         // of the commit, if there is anything in it
	rebuild bool           // the file is not complete yet: jobs are made from events, too
	began   time.Time
	out     jobs.Commit // what is published of it
	onFold  func(any)   // see Projector

	records   *records
	indexes   *indexes
	tokens    tokens
	unique    uniqueKeys
	turns     turns
	inputs    inputs
	batches   batches
	schedules schedules
	ends      *ends
}

// input is all that a fold decides by, besides the file and its batch or commands. A
// fold asks nobody while it runs: the same inputs make the same file.
type input struct {
	now      jobs.Time
	registry *jobs.Registry
	webhooks jobs.Webhooks
	gone     *goneJobs
	refused  *refusals
	notified uint64 // the number of the commit up to which notifications are stored
	outbox   uint64 // up to which entries may leave the outbox
}

// input is that of a fold which begins now.
func (p *Projector) input() input {
	return input{
		now: jobs.Now(), registry: p.registry.Now(), webhooks: p.webhooks, gone: &p.gone, refused: &p.refused,
		notified: p.notifications.notified.Load(), outbox: p.notifications.droppable(time.Now()),
	}
}

// newFold begins a transaction that will touch about n jobs.
func (p *Projector) newFold(tx *boltfile.Tx, n int, in input) *fold {
	p.encoder.reset()
	r := newRecords(tx, n, &p.latest.recent, &p.encoder)
	f := &fold{
		in: in, tx: tx, began: time.Now(), pos: p.latest.Positions(), number: p.latest.Number() + 1,
		rebuild: tx.Bucket(bucketMeta).Get(keyRebuild) != nil, onFold: p.onFold,
		records: r, indexes: newIndexes(tx, &p.bits, p.latest),
		tokens: tokens{tx, r}, unique: uniqueKeys{tx, r}, turns: turns{tx, in.registry, r},
		schedules: schedules{tx: tx, log: p.log}, ends: newEnds(tx, in),
	}
	f.inputs = inputs{tx: tx, rebuild: &f.rebuild}
	f.batches = batches{tx: tx, records: r, tokens: f.tokens, unique: f.unique, inputs: f.inputs}
	f.out.At = in.now
	return f
}

// submitted folds a message of JOBS.
func (f *fold) submitted(m *jobs.Message) error {
	if f.onFold != nil {
		f.onFold(m)
	}
	w, err := f.records.byID(m.ID)
	if err != nil {
		return err
	}
	switch {
	case w != nil:
		err = f.submittedAgain(w, m)
	case m.Moved && f.in.gone.has(m.ID):
		// It was published again, and then ended and was deleted.
	case m.Again && !f.rebuild && f.answered(m):
	default:
		err = f.submittedNew(m)
	}
	if err == nil && m.BatchEnd != (jobs.ID{}) {
		err = f.batchEnd(m.BatchEnd)
	}
	return err
}

// submittedNew folds the message of an unknown job. It becomes a job, unless one of its
// keys forbids that.
func (f *fold) submittedNew(m *jobs.Message) error {
	typ := f.in.registry.Lookup(m.Type)
	if typ == nil && m.Checked && (m.Terms == nil || m.Terms.Schedule == "") {
		// The type was removed after the submission was checked. The job waits until it
		// is back. Schedules check nothing when they fire.
		typ = f.in.registry.Admitted(m.Type)
	}
	if typ == nil && m.Problem == "" {
		m = withProblem(m, f.in.registry.Unknown(m.Type).Detail)
	}
	if m.Type == jobs.CallbackType && !f.rebuild { // else anybody could have requests signed
		m = withProblem(m, "only the server itself makes callbacks")
	}
	if m.Token != nil || m.Terms != nil {
		answered, refusal, err := f.decideByKeys(m)
		if answered || err != nil {
			return err
		}
		if refusal != nil {
			m = withProblem(m, refusal.Detail)
		}
	}
	j := jobs.NewJob(m, typ, m.Checked)
	f.records.create(j)
	if m.Terms != nil && m.Terms.Schedule != "" {
		if err := f.schedules.ran(m); err != nil {
			return err
		}
	}
	if m.Token != nil || m.Terms != nil {
		return f.claimKeys(j, m)
	}
	return nil
}

// withProblem is m with a problem. m stays as it is, because its batch may be folded
// again.
func withProblem(m *jobs.Message, problem string) *jobs.Message {
	c := *m
	c.Problem = problem
	return &c
}

// submittedAgain folds another message of a known job: its own, published again, or a
// duplicate. A lookup finds the job by either sequence.
func (f *fold) submittedAgain(w *work, m *jobs.Message) error {
	// Any client can write the header of a job that is published again. So a job gets no
	// content by it, unless its record is being made of events, and never moves into another
	// lane.
	same := m.Type == w.job.Type && m.Priority == w.job.Priority
	if w.job.Payload == nil && (w.job.Seq == m.Seq || m.Moved && same && f.rebuild) {
		f.records.complete(w, m)
	}
	if m.Token != nil && f.rebuild {
		if err := f.tokens.rememberAgain(w.job, m); err != nil {
			return err
		}
	}
	if w.job.Seq == m.Seq {
		return nil
	}
	if err := f.records.alias(m.Seq, w.job); err != nil {
		return err
	}
	switch {
	case !m.Moved:
		f.answer(jobs.Answer{Kind: jobs.SubmissionReplayed, ID: m.ID, Job: w.job})
	case same && !w.job.Status.Ended() && m.Seq > w.job.Seq && w.edit().Enqueue(m.Seq, m.At):
		w.dirty = true
		f.records.bySeq[m.Seq] = w
	}
	return nil
}

// batchEnd folds the arrival of a batch's last message.
func (f *fold) batchEnd(id jobs.ID) error {
	done, err := f.batches.complete(id)
	if done {
		f.answer(jobs.Answer{Kind: jobs.BatchDone, ID: id})
	}
	return err
}

// answer answers whoever submitted something.
func (f *fold) answer(a jobs.Answer) { f.out.Answers = append(f.out.Answers, a) }

// happened folds an event of STATUS.
func (f *fold) happened(e *jobs.Event) error {
	if e.Kind.EndsAttempt() {
		f.out.Outcomes = append(f.out.Outcomes, *e)
	}
	return f.apply(e)
}

// apply lets an event change its job. A job runs only after its record is committed, and
// a start reads JOBS before STATUS. So an event without a record belongs to a deleted
// job, or is forged. Only while a lost tracker is rebuilt from the streams does it make
// a job.
func (f *fold) apply(e *jobs.Event) error {
	if f.onFold != nil {
		f.onFold(e)
	}
	w, err := f.records.owner(e.Seq)
	if err == nil && (w == nil || w.job.ID != e.ID) {
		w, err = f.records.byID(e.ID)
	}
	if err != nil {
		return err
	}
	if w == nil {
		if !f.rebuild || f.records.byKey[e.Seq] != nil || e.Seq == 0 || !e.Priority.Valid() {
			return nil
		}
		stub := e.Stub()
		stub.Unlisted = f.in.registry.Lookup(e.Type) == nil
		w = f.records.create(stub)
	}
	if w.job.Status.Ended() {
		return nil
	}
	if jobs.Apply(w.edit(), e) {
		w.dirty = true
	}
	return nil
}

// finish writes what the transaction has come to, in this order:
//
//  0. Callbacks. The ends are known by now; their callbacks are more jobs.
//  1. Turns. Those of concurrency keys are passed on, which changes more jobs.
//  2. The last edit. Jobs that have not changed are dropped from the list, and an ended
//     one waits nowhere. No job is edited after this.
//  3. The list of changes, with the commit's number. It is what is published, and step 7
//     reads it.
//  4. For each change, what follows from it: ids and large payloads, agenda, unique
//     keys, inputs. Its spans, bitmaps and counters are gathered in memory.
//  5. The records, by key.
//  6. The spans, bitmaps and counters of step 4, and of the jobs that were deleted.
//  7. The outbox, with those that end under the number of step 3.
//  8. The commit's number and the positions.
//
// If any step fails, nothing is committed, and nothing in memory counts but the
// bitmaps, which are reset.
func (f *fold) finish() error {
	if err := f.makeCallbacks(); err != nil { // 0
		return err
	}
	if err := f.turns.balance(); err != nil { // 1
		return err
	}
	f.records.keepChanged() // 2
	f.listChanges()         // 3
	for _, w := range f.records.order {
		if err := f.writeFollowing(w); err != nil { // 4
			return err
		}
	}
	if err := f.records.write(); err != nil { // 5
		return err
	}
	if err := f.indexes.write(); err != nil { // 6
		return err
	}
	if err := f.ends.write(&f.out); err != nil { // 7
		return err
	}
	return f.writePositions() // 8
}

// result is what is kept in memory once the transaction is committed.
func (f *fold) result() *result {
	return &result{commit: &f.out, changed: f.records.order, removed: f.records.removed, counters: f.indexes.counters, rebuild: f.rebuild}
}

// listChanges numbers the commit, if there is anything in it.
func (f *fold) listChanges() {
	n := len(f.records.order) + len(f.records.removed)
	if n == 0 {
		return
	}
	f.out.Number = f.number
	f.out.Changes = make([]jobs.Change, 0, n)
	for _, w := range f.records.order {
		f.out.Changes = append(f.out.Changes, jobs.Change{Before: w.old, After: w.job})
	}
	for _, j := range f.records.removed {
		f.out.Changes = append(f.out.Changes, jobs.Change{Before: j})
	}
	for i := range f.out.Answers { // a job may have changed after the answer
		a := &f.out.Answers[i]
		if a.Job == nil {
			continue
		}
		if w := f.records.byKey[a.Job.Key]; w != nil && w.job.ID == a.Job.ID {
			a.Job = w.job
		}
	}
}

// writeFollowing stores the consequences of one change, but not its record.
func (f *fold) writeFollowing(w *work) error {
	if err := f.records.writeSubmitted(w); err != nil {
		return err
	}
	if special(w.job) || special(w.old) {
		if err := updateAgenda(f.tx, w.old, w.job); err != nil {
			return err
		}
		if err := f.unique.update(w.old, w.job); err != nil {
			return err
		}
		if err := f.inputs.update(w.old, w.job); err != nil {
			return err
		}
	}
	return f.indexes.update(w)
}

// writePositions stores the commit's number and the positions of the streams.
func (f *fold) writePositions() error {
	f.out.Positions = f.pos
	meta := f.tx.Bucket(bucketMeta)
	if f.out.Number != 0 {
		if err := meta.Put(keyNumber, key8(f.out.Number)); err != nil {
			return err
		}
	}
	var v [16]byte
	binary.BigEndian.PutUint64(v[:8], f.pos.Jobs)
	binary.BigEndian.PutUint64(v[8:], f.pos.Status)
	return meta.Put(keyPositions, v[:])
}
