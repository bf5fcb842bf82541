package status

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"jobstream/jobs"
	"jobstream/status/index"
	"jobstream/status/record"
)

// fold is one write transaction in the making: the jobs it touches, and what
// it will publish once it is committed.
type fold struct {
	s       *Store
	in      input
	tx      *bbolt.Tx
	pos     jobs.Positions // up to which the streams are folded then
	records *bbolt.Bucket
	ids     *bbolt.Bucket
	moved   *bbolt.Bucket
	loads   *bbolt.Bucket
	bits    *bbolt.Bucket

	touched    map[uint64]*work  // by key
	newIDs     map[jobs.ID]*work // jobs that this transaction creates
	bySeq      map[uint64]*work  // touched jobs whose present message isn't their first
	order      []*work           // touched, in order of first touch; finish leaves those that changed
	removed    []*jobs.Job       // deleted records
	counters   map[string]*index.Counters
	out        jobs.Commit      // what is published of it
	batched    map[jobs.ID]bool // the jobs of batches that are not complete; nil until somebody asks
	unnotified map[uint64]bool  // see unnotifiedEnd; nil until somebody asks
	read       int              // bytes of payloads that stand beside records
	special    bool             // some of the jobs have terms
	schedules  *scheduleTotals  // nil until somebody asks
	silent     bool             // those that end are not notified: they have been
	rebuild    bool             // the file is not complete yet: take jobs from events, too
}

// work is a job on its way through a transaction.
type work struct {
	old   *jobs.Job // as committed before; nil if new. Never changed.
	job   *jobs.Job // as it will be; old itself until the first change
	dirty bool
	late  bool // made from events in an earlier transaction; now its submission is here
}

// edit gives the job for changing.
func (w *work) edit() *jobs.Job {
	if w.job == w.old {
		w.job = w.old.Clone()
	}
	return w.job
}

// recordFill is how full a page of records is made when it is split. bbolt's half
// is for keys in any order; ours come in theirs, so that a page is not written
// again once its jobs have ended. Some room is left as records grow until then.
const recordFill = 0.8

// input is what a fold goes by, besides the file and its batch or commands. It asks
// nobody while it runs: the same inputs make the same file.
type input struct {
	now      jobs.Time
	registry *jobs.Registry
	gone     *goneJobs
	notified uint64 // the number of the commit up to which notifications are stored
	outbox   uint64 // up to which entries may leave the outbox
}

// input is that of a fold which begins now.
func (s *Store) input() input {
	return input{
		now: jobs.Now(), registry: s.o.Registry, gone: &s.gone,
		notified: s.notified.Load(), outbox: s.droppable(time.Now()),
	}
}

// newFold begins a transaction that will touch about n jobs.
func (s *Store) newFold(tx *bbolt.Tx, n int, in input) *fold {
	s.encoded = s.encoded[:0]
	if cap(s.encoded) > maxEncoded {
		s.encoded = nil
	}
	f := &fold{
		s: s, in: in, tx: tx, pos: s.Positions(), rebuild: tx.Bucket(bucketMeta).Get(keyRebuild) != nil,
		records: tx.Bucket(bucketJobs), ids: tx.Bucket(bucketIDs), moved: tx.Bucket(bucketMoved),
		loads: tx.Bucket(bucketPayloads), bits: tx.Bucket(bucketBits),
		touched: make(map[uint64]*work, n), newIDs: make(map[jobs.ID]*work, n), bySeq: make(map[uint64]*work),
		order:    make([]*work, 0, n),
		counters: make(map[string]*index.Counters),
	}
	f.out.At = in.now
	f.records.FillPercent = recordFill
	return f
}

// get finds the job with this key, nil if there is none.
func (f *fold) get(key uint64) (*work, error) {
	if w, ok := f.touched[key]; ok {
		return w, nil
	}
	j := f.s.recent.get(key)
	if j == nil || j.Key != key {
		var err error
		if j, err = readJob(f.records, f.loads, key); err != nil || j == nil {
			return nil, err
		}
		if len(j.Payload) > record.InlinePayload {
			f.read += len(j.Payload)
		}
	}
	w := &work{old: j, job: j}
	f.track(key, w)
	return w, nil
}

func (f *fold) track(key uint64, w *work) {
	if w.job.Terms != nil {
		f.special = true
	}
	f.touched[key] = w
	f.order = append(f.order, w)
}

// owner finds the job that the message seq belongs or belonged to.
func (f *fold) owner(seq uint64) (*work, error) {
	if w, err := f.get(seq); w != nil || err != nil {
		return w, err
	}
	if w, ok := f.bySeq[seq]; ok {
		return w, nil
	}
	if v := f.moved.Get(key8(seq)); v != nil {
		return f.get(binary.BigEndian.Uint64(v))
	}
	return nil, nil
}

func (f *fold) byID(id jobs.ID) (*work, error) {
	if w, ok := f.newIDs[id]; ok {
		return w, nil
	}
	if v := f.ids.Get(id[:]); v != nil {
		return f.get(binary.BigEndian.Uint64(v))
	}
	return nil, nil
}

// submitted folds a message of JOBS.
func (f *fold) submitted(m *jobs.Message) error {
	if f.s.onFold != nil {
		f.s.onFold(m)
	}
	w, err := f.byID(m.ID)
	if err != nil {
		return err
	}
	switch {
	case w != nil:
		err = f.submittedAgain(w, m)
	case m.Moved && f.in.gone.has(m.ID):
		// It was published again, and then ended and was deleted.
	default:
		err = f.submittedNew(m)
	}
	if err == nil && m.BatchEnd != (jobs.ID{}) {
		err = f.completeBatch(m.BatchEnd)
	}
	return err
}

// submittedNew folds the message of a job that is not known: it becomes one,
// unless a key that it has says otherwise.
func (f *fold) submittedNew(m *jobs.Message) error {
	typ := f.in.registry.Lookup(m.Type)
	if typ == nil && m.Problem == "" {
		m = withProblem(m, f.in.registry.Unknown(m.Type).Detail)
	}
	if m.Token != nil || m.Terms != nil {
		answered, taken, err := f.decideByKeys(m)
		if answered || err != nil {
			return err
		}
		if taken != nil {
			m = withProblem(m, taken.Detail)
		}
	}
	w := &work{job: jobs.NewJob(m, typ, m.Checked), dirty: true}
	f.create(w)
	if m.Terms != nil && m.Terms.Schedule != "" {
		if err := f.scheduleRan(m); err != nil {
			return err
		}
	}
	if m.Token != nil || m.Terms != nil {
		return f.claimKeys(w.job, m)
	}
	return nil
}

// withProblem is m with a problem. The batch stays as it is: it may be folded again.
func withProblem(m *jobs.Message, problem string) *jobs.Message {
	c := *m
	c.Problem = problem
	return &c
}

// submittedAgain folds another message of a known job: its own, published again,
// or a duplicate. Either can be asked for by its sequence.
func (f *fold) submittedAgain(w *work, m *jobs.Message) error {
	if w.job.Payload == nil && (w.job.Seq == m.Seq || m.Moved) {
		f.complete(w, m)
	}
	if m.Token != nil && f.rebuild {
		if err := f.rememberAgain(w.job, m); err != nil {
			return err
		}
	}
	if w.job.Seq == m.Seq {
		return nil
	}
	if err := f.alias(m.Seq, w.job); err != nil {
		return err
	}
	// Any client can write the header, so a job never moves into another lane.
	same := m.Type == w.job.Type && m.Priority == w.job.Priority
	switch {
	case !m.Moved:
		f.answer(jobs.Answer{Kind: jobs.SubmissionReplayed, ID: m.ID, Job: w.job})
	case same && !w.job.Status.Ended() && m.Seq > w.job.Seq && w.edit().Enqueue(m.Seq, m.At):
		w.dirty = true
		f.bySeq[m.Seq] = w
	}
	return nil
}

// alias makes a job known by one more sequence.
func (f *fold) alias(seq uint64, j *jobs.Job) error {
	key := key8(j.Key)
	if err := f.moved.Put(key8(seq), key); err != nil {
		return err
	}
	return f.tx.Bucket(bucketAliases).Put(append(key, key8(seq)...), nil)
}

// complete gives a record that was made from events what its submission says.
// For a record that only had no payload it changes nothing.
func (f *fold) complete(w *work, m *jobs.Message) {
	submission := *m
	if m.Moved {
		submission.At = w.job.CreatedAt // the message is younger than the job
	}
	jobs.Merge(w.edit(), &submission)
	w.dirty, w.late = true, w.old != nil
	f.special = f.special || w.job.Terms != nil
}

func (f *fold) create(w *work) {
	f.track(w.job.Key, w)
	f.newIDs[w.job.ID] = w
}

// answer tells whoever submitted something what became of it.
func (f *fold) answer(a jobs.Answer) { f.out.Answers = append(f.out.Answers, a) }

// happened folds an event of STATUS.
func (f *fold) happened(e *jobs.Event) error {
	if e.Kind.Settles() {
		f.out.Outcomes = append(f.out.Outcomes, *e)
	}
	return f.apply(e)
}

// apply has an event change its job. A job runs only after its record has been
// committed, and of what a start finds JOBS is read first. So an event of a job that has
// no record belongs to one that was deleted, or is made up by somebody: it makes a job
// only while a lost tracker is made again from what the streams still have.
func (f *fold) apply(e *jobs.Event) error {
	if f.s.onFold != nil {
		f.s.onFold(e)
	}
	w, err := f.owner(e.Seq)
	if err == nil && (w == nil || w.job.ID != e.ID) {
		w, err = f.byID(e.ID)
	}
	if err != nil {
		return err
	}
	if w == nil {
		if !f.rebuild || f.touched[e.Seq] != nil || e.Seq == 0 || !e.Priority.Valid() {
			return nil
		}
		w = &work{job: e.Stub(), dirty: true}
		w.job.Unlisted = f.in.registry.Lookup(e.Type) == nil
		f.create(w)
	}
	if w.job.Status.Ended() {
		return nil
	}
	if jobs.Apply(w.edit(), e) {
		w.dirty = true
	}
	return nil
}

// finish writes what the transaction has come to. The order of its steps matters:
//
//  1. The last edits: turns of concurrency keys are passed on, and who has ended waits
//     nowhere. Passing on touches more jobs. No job is edited after this.
//  2. The list of changes, which is what is published of the commit.
//  3. What each change means for indexes, spans, bitmaps and counters.
//  4. The records, by key, and what step 3 has gathered in memory.
//  5. The outbox, which lists those that end.
//  6. The commit's number, and the positions.
func (f *fold) finish(pos jobs.Positions) error {
	if err := f.lastEdits(); err != nil {
		return err
	}
	f.listChanges()
	spans := make(map[uint32]index.Span)
	for _, w := range f.order {
		if err := f.write(w, spans); err != nil {
			return err
		}
	}
	if err := f.writeRecords(); err != nil {
		return err
	}
	if err := f.writeGathered(spans); err != nil {
		return err
	}
	if err := f.writeOutbox(); err != nil {
		return err
	}
	return f.writePosition(pos)
}

// lastEdits changes jobs for the last time, and leaves those in order that have changed.
func (f *fold) lastEdits() error {
	if f.special {
		if err := f.balance(); err != nil {
			return err
		}
	}
	changed := f.order[:0]
	for _, w := range f.order {
		if !w.dirty {
			continue
		}
		if w.job.Place != jobs.InQueue && w.job.Status.Ended() {
			w.edit().Place = jobs.InQueue
		}
		changed = append(changed, w)
	}
	f.order = changed
	return nil
}

// listChanges numbers the commit, if there is anything in it.
func (f *fold) listChanges() {
	n := len(f.order) + len(f.removed)
	if n == 0 {
		return
	}
	f.out.Number = f.s.number.Load() + 1
	f.out.Changes = make([]jobs.Change, 0, n)
	for _, w := range f.order {
		f.out.Changes = append(f.out.Changes, jobs.Change{Before: w.old, After: w.job})
	}
	for _, j := range f.removed {
		f.out.Changes = append(f.out.Changes, jobs.Change{Before: j})
	}
}

// write stores what belongs to one job, but for its record.
func (f *fold) write(w *work, spans map[uint32]index.Span) error {
	j := w.job
	key := key8(j.Key)
	if special(j) || special(w.old) {
		if err := f.index(w.old, j); err != nil {
			return err
		}
	}
	c := f.counter(j.ListedAs())
	if w.old == nil {
		if err := f.writeNew(j, key); err != nil {
			return err
		}
	} else if w.old.Status != j.Status {
		c.Now[w.old.Status]--
		if err := f.s.bits.Change(f.bits, index.OfStatus(w.old.Status), j.Key, false); err != nil {
			return err
		}
	}
	if w.late {
		if err := f.writeSubmitted(j, key); err != nil {
			return err
		}
	}
	if w.old == nil || w.late {
		sp := spans[index.Chunk(j.Key)]
		sp.Include(j.CreatedAt)
		spans[index.Chunk(j.Key)] = sp
	}
	if w.old == nil || w.old.Status != j.Status {
		c.Now[j.Status]++
		if j.Status.Ended() {
			c.Ended[j.Status]++
		}
		return f.s.bits.Change(f.bits, index.OfStatus(j.Status), j.Key, true)
	}
	return nil
}

// writeGathered stores spans, bitmaps and counters.
func (f *fold) writeGathered(spans map[uint32]index.Span) error {
	times := f.tx.Bucket(bucketTimes)
	for chunk, sp := range spans {
		if err := index.PutSpan(times, chunk, sp); err != nil {
			return err
		}
	}
	if err := f.s.bits.Flush(f.bits); err != nil {
		return err
	}
	meta := f.tx.Bucket(bucketMeta)
	for name, c := range f.counters {
		if err := meta.Put([]byte(prefixType+name), c.Encode()); err != nil {
			return err
		}
	}
	return nil
}

// writePosition stores which commit this is, and how far the streams are folded.
func (f *fold) writePosition(pos jobs.Positions) error {
	f.out.Positions = pos
	meta := f.tx.Bucket(bucketMeta)
	if f.out.Number != 0 {
		if err := meta.Put(keyNumber, key8(f.out.Number)); err != nil {
			return err
		}
	}
	var v [16]byte
	binary.BigEndian.PutUint64(v[:8], pos.Jobs)
	binary.BigEndian.PutUint64(v[8:], pos.Status)
	return meta.Put(keyPositions, v[:])
}

// writeRecords stores the records of what has changed, by key: jobs that end together
// lie all over the file if there are priorities, and so each page is looked for and
// filled while the processor still has it at hand.
func (f *fold) writeRecords() error {
	byKey := slices.Clone(f.order)
	slices.SortFunc(byKey, func(a, b *work) int { return cmp.Compare(a.job.Key, b.job.Key) })
	for _, w := range byKey {
		if err := f.records.Put(key8(w.job.Key), f.encode(w.job)); err != nil {
			return err
		}
	}
	return nil
}

// maxEncoded bounds the memory for records that a transaction leaves to the next.
const maxEncoded = 4 << 20

// encode gives the record of j. bbolt keeps it until the commit: where the memory for all
// of them has to grow, those before stay where they are.
func (f *fold) encode(j *jobs.Job) []byte {
	from := len(f.s.encoded)
	f.s.encoded = record.Append(f.s.encoded, j)
	return slices.Clip(f.s.encoded[from:])
}

// writeNew stores what only a new job needs.
func (f *fold) writeNew(j *jobs.Job, key []byte) error {
	if err := f.ids.Put(j.ID[:], key); err != nil {
		return err
	}
	if err := f.s.bits.Change(f.bits, index.OfType(j.ListedAs()), j.Key, true); err != nil {
		return err
	}
	if j.Priority != jobs.DefaultPriority {
		if err := f.s.bits.Change(f.bits, index.OfPriority(j.Priority), j.Key, true); err != nil {
			return err
		}
	}
	return f.writeSubmitted(j, key)
}

// writeSubmitted stores what only a submission says, beside the record.
func (f *fold) writeSubmitted(j *jobs.Job, key []byte) error {
	if len(j.Payload) > record.InlinePayload {
		if err := f.loads.Put(key, j.Payload); err != nil {
			return err
		}
	}
	for _, t := range j.Tags {
		if err := f.s.bits.Change(f.bits, index.OfTag(t), j.Key, true); err != nil {
			return err
		}
	}
	return nil
}

// counter gives the type's counters for changing.
func (f *fold) counter(name string) *index.Counters {
	c, ok := f.counters[name]
	if !ok {
		c = &index.Counters{}
		f.s.mu.RLock()
		if have := f.s.counters[name]; have != nil {
			*c = *have
		}
		f.s.mu.RUnlock()
		f.counters[name] = c
	}
	return c
}

// remove deletes the record of an ended job.
func (f *fold) remove(key uint64) (size int64, err error) {
	if w := f.touched[key]; w != nil {
		if w.dirty {
			return 0, nil // it has changed in this transaction, so somebody wants it
		}
		delete(f.touched, key)
	}
	raw := f.records.Get(key8(key))
	if raw == nil {
		return 0, nil
	}
	j, err := readJob(f.records, f.loads, key)
	if err != nil || !j.Status.Ended() {
		return 0, err
	}
	if wanted, err := f.inBatch(j.ID); wanted || err != nil {
		return 0, err
	}
	if f.unnotifiedEnd(key) {
		if err := f.keepEnd(j); err != nil {
			return 0, err
		}
	}
	size = int64(len(raw))
	k := key8(key)
	if len(j.Payload) > record.InlinePayload {
		size += int64(len(j.Payload))
		err = f.loads.Delete(k)
	}
	if err == nil {
		err = f.records.Delete(k)
	}
	if err == nil {
		err = f.ids.Delete(j.ID[:])
	}
	if err == nil {
		err = f.removeAliases(key)
	}
	attrs := []string{index.OfStatus(j.Status), index.OfType(j.ListedAs()), index.OfPriority(j.Priority)}
	for _, t := range j.Tags {
		attrs = append(attrs, index.OfTag(t))
	}
	for _, a := range attrs {
		if err == nil {
			err = f.s.bits.Change(f.bits, a, key, false)
		}
	}
	if err != nil {
		return 0, fmt.Errorf("delete job %s: %w", j.ID, err)
	}
	f.counter(j.ListedAs()).Now[j.Status]--
	f.removed = append(f.removed, j)
	return size, nil
}

// removeAliases deletes all further sequences by which a job is known.
func (f *fold) removeAliases(key uint64) error {
	prefix := key8(key)
	c := f.tx.Bucket(bucketAliases).Cursor()
	for k, _ := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = c.Seek(prefix) {
		if err := f.moved.Delete(k[len(prefix):]); err != nil {
			return err
		}
		if err := c.Delete(); err != nil {
			return err
		}
	}
	return nil
}

// readJob reads a record with its payload; nil if there is none.
func readJob(records, payloads *bbolt.Bucket, key uint64) (*jobs.Job, error) {
	k := key8(key)
	raw := records.Get(k)
	if raw == nil {
		return nil, nil
	}
	j, apart, err := record.Decode(raw)
	if err != nil {
		return nil, fmt.Errorf("record %d: %w", key, err)
	}
	if apart {
		j.Payload = slices.Clone(payloads.Get(k))
	}
	return j, nil
}
