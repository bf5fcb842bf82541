package status

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"jobstream/jobs"
	"jobstream/status/boltfile"
	"jobstream/status/record"
)

// records are the jobs that a transaction works on. Each is read once, changed in
// memory by any part of the fold, and written at its end. They are the projector's.
type records struct {
	jobs, payloads, ids, moved, aliases boltfile.Bucket

	recent  *recentJobs
	encoder *encoder

	byKey   map[uint64]*work
	byNewID map[jobs.ID]*work // jobs that this transaction makes
	bySeq   map[uint64]*work  // jobs whose present message is not their first
	order   []*work           // in order of their first touch; those that changed after keepChanged
	removed []*jobs.Job       // whose records are deleted

	payloadBytes int  // of the payloads read that stand beside their records
	terms        bool // some of the jobs have terms
}

// work is a job on its way through a transaction.
type work struct {
	old     *jobs.Job // as committed before; nil if new. Never changed.
	job     *jobs.Job // as it will be; old itself until the first change
	dirty   bool
	revised bool // by hand: attributes of its submission may have changed
	late    bool // made from events in an earlier transaction; now its submission is here
}

// edit gives the job for changing.
func (w *work) edit() *jobs.Job {
	if w.job == w.old {
		w.job = w.old.Clone()
	}
	return w.job
}

// recordFill is how full a page of records is when it is split. bbolt splits in halves,
// for keys in any order. Our keys come in order, so a fuller page is not written again
// once its jobs have ended. Some room is left because records grow until then.
const recordFill = 0.8

// newRecords is for a transaction that will touch about n jobs.
func newRecords(tx *boltfile.Tx, n int, recent *recentJobs, e *encoder) *records {
	r := &records{
		jobs: tx.Bucket(bucketJobs), payloads: tx.Bucket(bucketPayloads), ids: tx.Bucket(bucketIDs),
		moved: tx.Bucket(bucketMoved), aliases: tx.Bucket(bucketAliases),
		recent: recent, encoder: e,
		byKey: make(map[uint64]*work, n), byNewID: make(map[jobs.ID]*work, n), bySeq: make(map[uint64]*work),
		order: make([]*work, 0, n),
	}
	r.jobs.Fill(recordFill)
	return r
}

// get finds the job with this key, nil if there is none.
func (r *records) get(key uint64) (*work, error) {
	if w, ok := r.byKey[key]; ok {
		return w, nil
	}
	j := r.recent.get(key)
	if j == nil || j.Key != key {
		var err error
		if j, err = readJob(r.jobs, r.payloads, key); err != nil || j == nil {
			return nil, err
		}
		if len(j.Payload) > record.InlinePayload {
			r.payloadBytes += len(j.Payload)
		}
	}
	w := &work{old: j, job: j}
	r.track(key, w)
	return w, nil
}

// owner finds the job that the message seq belongs or belonged to.
func (r *records) owner(seq uint64) (*work, error) {
	if w, err := r.get(seq); w != nil || err != nil {
		return w, err
	}
	if w, ok := r.bySeq[seq]; ok {
		return w, nil
	}
	if v := r.moved.Get(key8(seq)); v != nil {
		return r.get(binary.BigEndian.Uint64(v))
	}
	return nil, nil
}

// byID finds the job with this id, nil if there is none.
func (r *records) byID(id jobs.ID) (*work, error) {
	if w, ok := r.byNewID[id]; ok {
		return w, nil
	}
	if v := r.ids.Get(id[:]); v != nil {
		return r.get(binary.BigEndian.Uint64(v))
	}
	return nil, nil
}

// create makes a job known that has no record yet.
func (r *records) create(j *jobs.Job) *work {
	w := &work{job: j, dirty: true}
	r.track(j.Key, w)
	r.byNewID[j.ID] = w
	return w
}

func (r *records) track(key uint64, w *work) {
	r.terms = r.terms || w.job.Terms != nil
	r.byKey[key] = w
	r.order = append(r.order, w)
}

// complete adds the content of a submission to a record made of events. It changes
// nothing but the payload of a record that lacked only that.
func (r *records) complete(w *work, m *jobs.Message) {
	submission := *m
	if m.Moved {
		submission.At = w.job.CreatedAt // the message is younger than the job
	}
	jobs.Merge(w.edit(), &submission)
	w.dirty, w.late = true, w.old != nil
	r.terms = r.terms || w.job.Terms != nil
}

// alias makes a job known by one more sequence.
func (r *records) alias(seq uint64, j *jobs.Job) error {
	key := key8(j.Key)
	if err := r.moved.Put(key8(seq), key); err != nil {
		return err
	}
	return r.aliases.Put(append(key, key8(seq)...), nil)
}

// keepChanged leaves in order only the jobs that have changed. An ended one waits
// nowhere.
func (r *records) keepChanged() {
	changed := r.order[:0]
	for _, w := range r.order {
		if !w.dirty {
			continue
		}
		if w.job.Place != jobs.InQueue && w.job.Status.Ended() {
			w.edit().Place = jobs.InQueue
		}
		changed = append(changed, w)
	}
	r.order = changed
}

// writeSubmitted stores the attributes of a submission that stand outside the record:
// the id of a new job, and a large payload.
func (r *records) writeSubmitted(w *work) error {
	j, key := w.job, key8(w.job.Key)
	if w.old == nil {
		if err := r.ids.Put(j.ID[:], key); err != nil {
			return err
		}
	}
	switch apart := len(j.Payload) > record.InlinePayload; {
	case apart && (w.old == nil || w.late || w.revised):
		return r.payloads.Put(key, j.Payload)
	case !apart && w.revised && w.old != nil && len(w.old.Payload) > record.InlinePayload:
		return r.payloads.Delete(key)
	}
	return nil
}

// write stores the records of all changed jobs, by key. Jobs that end together lie all
// over the file if there are priorities. In order of their keys, each page is found and
// filled while it is in the processor's cache.
func (r *records) write() error {
	byKey := slices.Clone(r.order)
	slices.SortFunc(byKey, func(a, b *work) int { return cmp.Compare(a.job.Key, b.job.Key) })
	for _, w := range byKey {
		if err := r.jobs.Put(key8(w.job.Key), r.encoder.encode(w.job)); err != nil {
			return err
		}
	}
	return nil
}

// removable is the ended job with this key, nil if there is none. A job that has changed
// in this transaction stays, because somebody wants it.
func (r *records) removable(key uint64) (*jobs.Job, error) {
	if w := r.byKey[key]; w != nil {
		if w.dirty {
			return nil, nil
		}
		delete(r.byKey, key)
	}
	j, err := readJob(r.jobs, r.payloads, key)
	if err != nil || j == nil || !j.Status.Ended() {
		return nil, err
	}
	return j, nil
}

// remove deletes the record of a job and all other keys that lead to it. It returns the
// bytes freed.
func (r *records) remove(j *jobs.Job) (size int64, err error) {
	key := key8(j.Key)
	size = int64(len(r.jobs.Get(key)))
	if len(j.Payload) > record.InlinePayload {
		size += int64(len(j.Payload))
		if err := r.payloads.Delete(key); err != nil {
			return 0, err
		}
	}
	if err := r.jobs.Delete(key); err != nil {
		return 0, err
	}
	if err := r.ids.Delete(j.ID[:]); err != nil {
		return 0, err
	}
	if err := r.removeAliases(key); err != nil {
		return 0, err
	}
	r.removed = append(r.removed, j)
	return size, nil
}

// removeAliases deletes all further sequences of a job.
func (r *records) removeAliases(key []byte) error {
	c := r.aliases.Cursor()
	for k, _ := c.Seek(key); bytes.HasPrefix(k, key); k, _ = c.Seek(key) {
		if err := r.moved.Delete(k[len(key):]); err != nil {
			return err
		}
		if err := r.aliases.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

// encoder has the memory for the records of a transaction. The next transaction uses it
// again.
type encoder struct{ memory []byte }

// maxEncoded bounds the memory that a transaction leaves to the next.
const maxEncoded = 4 << 20

func (e *encoder) reset() {
	e.memory = e.memory[:0]
	if cap(e.memory) > maxEncoded {
		e.memory = nil
	}
}

// encode gives the record of j. bbolt keeps the slice until the commit. If the memory
// has to grow, earlier records stay where they are.
func (e *encoder) encode(j *jobs.Job) []byte {
	from := len(e.memory)
	e.memory = record.Append(e.memory, j)
	return slices.Clip(e.memory[from:])
}

// readJob reads a record with its payload; nil if there is none.
func readJob(records, payloads boltfile.Bucket, key uint64) (*jobs.Job, error) {
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

// key8 is n as a bucket key: big endian, so that keys sort as numbers do.
func key8(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
