package status

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"

	"jobstream/jobs"
)

// Keys that submissions may have: idempotency tokens, unique keys, concurrency
// keys. Whether a submission becomes a job because of them is decided where its
// record would be made, so that of any number of equal ones in any order exactly
// one does, and a repeated fold decides the same.

// decideByKeys says whether the keys of a message keep it from becoming a job; if
// so, whoever submitted it has been answered. taken says that it becomes one that has
// failed for that.
func (f *fold) decideByKeys(m *jobs.Message) (answered bool, taken *jobs.Error, err error) {
	if m.Token != nil {
		known, err := f.recall(m.Token, m.At)
		if wrong, ok := asRefusal(err); ok {
			f.answer(jobs.Answer{Kind: jobs.SubmissionRefused, ID: m.ID, Err: wrong})
			return true, nil, nil
		}
		if err != nil {
			return false, nil, err
		}
		if known != nil {
			j := known[0]
			if j.Key == 0 {
				j = m.Forgotten(j.ID, j.CreatedAt, f.in.registry.Lookup(m.Type))
			} else if err := f.alias(m.Seq, j); err != nil {
				return false, nil, err
			}
			f.answer(jobs.Answer{Kind: jobs.SubmissionReplayed, ID: m.ID, Job: j})
			return true, nil, nil
		}
	}
	if m.Terms == nil || m.Terms.UniqueKey == "" || m.Problem != "" {
		return false, nil, nil
	}
	owner, err := f.uniqueOwner(m.Terms.UniqueKey)
	if err != nil || owner == (jobs.ID{}) || owner == m.ID {
		return false, nil, err
	}
	taken = duplicate(m.Terms.UniqueKey, owner)
	if m.Checked {
		f.answer(jobs.Answer{Kind: jobs.SubmissionRefused, ID: m.ID, Err: taken})
		return true, nil, nil
	}
	return false, taken, nil // nobody waits for an answer: the record tells
}

func asRefusal(err error) (*jobs.Error, bool) {
	if err == nil {
		return nil, false
	}
	e, ok := jobs.AsError(err)
	return e, ok
}

func duplicate(key string, owner jobs.ID) *jobs.Error {
	return &jobs.Error{
		Kind: jobs.Duplicate, JobID: owner,
		Detail: fmt.Sprintf("job %s has the unique key %q and has not ended", owner, key),
	}
}

// claimKeys stores the keys of a job that was just made of a message.
func (f *fold) claimKeys(j *jobs.Job, m *jobs.Message) error {
	if m.Token != nil {
		if err := f.remember(m.Token, m.At, []jobs.ID{j.ID}); err != nil {
			return err
		}
	}
	if m.Terms == nil || m.Terms.UniqueKey == "" {
		return nil
	}
	unique, key := f.tx.Bucket(bucketUnique), []byte(m.Terms.UniqueKey)
	if !j.Status.Ended() {
		return unique.Put(key, j.ID[:])
	}
	if v := unique.Get(key); len(v) >= 16 && jobs.ID(v[:16]) == j.ID {
		return unique.Delete(key) // its batch had reserved it
	}
	return nil
}

// rememberAgain gives a new tracker the token of a job that it knew before its
// submission came, unless that is known.
func (f *fold) rememberAgain(j *jobs.Job, m *jobs.Message) error {
	if m.Moved || f.tx.Bucket(bucketTokens).Get(m.Token.Key[:]) != nil {
		return nil
	}
	return f.remember(m.Token, m.At, []jobs.ID{j.ID})
}

// A token's entry: when (8 bytes), the hash of what was asked for (16), and the
// ids of the jobs (16 each).
const tokenHead = 8 + 16

// remember stores what a token stands for.
func (f *fold) remember(t *jobs.Token, at jobs.Time, ids []jobs.ID) error {
	tokens, ages := f.tx.Bucket(bucketTokens), f.tx.Bucket(bucketTokenAge)
	if old := tokens.Get(t.Key[:]); len(old) >= tokenHead {
		if err := ages.Delete(slices.Concat(old[:8], t.Key[:])); err != nil {
			return err
		}
	}
	v := binary.BigEndian.AppendUint64(make([]byte, 0, tokenHead+16*len(ids)), uint64(at))
	v = append(v, t.Body[:]...)
	for _, id := range ids {
		v = append(v, id[:]...)
	}
	if err := tokens.Put(t.Key[:], v); err != nil {
		return err
	}
	return ages.Put(slices.Concat(v[:8], t.Key[:]), nil)
}

// tokenIDs are the jobs that a token stands for at a moment, nil if it is new, and
// when they were made.
func tokenIDs(tokens *bbolt.Bucket, t *jobs.Token, now jobs.Time) (ids []jobs.ID, at jobs.Time, err error) {
	v := tokens.Get(t.Key[:])
	if len(v) < tokenHead+16 {
		return nil, 0, nil
	}
	at = jobs.Time(binary.BigEndian.Uint64(v))
	if now.Sub(at) >= jobs.TokenTime {
		return nil, 0, nil
	}
	if !t.Same([16]byte(v[8:tokenHead])) {
		return nil, 0, &jobs.Error{
			Kind:   jobs.IdempotencyMismatch,
			Detail: "this idempotency key was used for another request in the last 24 hours; use a new key for a new request",
			Fields: []jobs.FieldError{{Pointer: "header/Idempotency-Key", Detail: "was used for another request"}},
		}
	}
	for v = v[tokenHead:]; len(v) >= 16; v = v[16:] {
		ids = append(ids, jobs.ID(v[:16]))
	}
	return ids, at, nil
}

// recallBy finds the jobs that a token stands for by find, which gives nil for one
// that was deleted. While the batch that they make is not complete, they are not
// there yet, and it finds none.
func recallBy(tx *bbolt.Tx, t *jobs.Token, now jobs.Time, find func(jobs.ID) (*jobs.Job, error)) (known []*jobs.Job, err error) {
	ids, at, err := tokenIDs(tx.Bucket(bucketTokens), t, now)
	if err != nil || len(ids) == 0 || tx.Bucket(bucketBatches).Get(ids[0][:]) != nil {
		return nil, err
	}
	for _, id := range ids {
		j, err := find(id)
		if err != nil {
			return nil, err
		}
		if j == nil {
			j = &jobs.Job{ID: id, CreatedAt: at}
		}
		known = append(known, j)
	}
	return known, nil
}

// recall finds the jobs that a token stands for, within the transaction.
func (f *fold) recall(t *jobs.Token, now jobs.Time) (known []*jobs.Job, err error) {
	return recallBy(f.tx, t, now, func(id jobs.ID) (*jobs.Job, error) {
		w, err := f.byID(id)
		if err != nil || w == nil {
			return nil, err
		}
		return w.job, nil
	})
}

// Recall finds the jobs that a token stands for; see [jobs.Ledger].
func (s *Store) Recall(t *jobs.Token) (known []*jobs.Job, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		index, records, payloads := tx.Bucket(bucketIDs), tx.Bucket(bucketJobs), tx.Bucket(bucketPayloads)
		known, err = recallBy(tx, t, jobs.Now(), func(id jobs.ID) (*jobs.Job, error) {
			key := index.Get(id[:])
			if len(key) != 8 {
				return nil, nil
			}
			return readJob(records, payloads, binary.BigEndian.Uint64(key))
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	return known, nil
}

// uniqueOwner is the job that has a unique key, the zero id if none has.
func (f *fold) uniqueOwner(key string) (jobs.ID, error) {
	v := f.tx.Bucket(bucketUnique).Get([]byte(key))
	if len(v) < 16 {
		return jobs.ID{}, nil
	}
	owner := jobs.ID(v[:16])
	w, err := f.byID(owner)
	switch {
	case err != nil:
		return jobs.ID{}, err
	case w != nil && !w.job.Status.Ended():
		return owner, nil
	case w == nil && len(v) == 32 && f.tx.Bucket(bucketBatches).Get(v[16:]) != nil:
		return owner, nil // a batch has reserved it
	}
	return jobs.ID{}, nil
}

// indexUnique frees a unique key with the end of its job, and takes it for one
// that runs again.
func (f *fold) indexUnique(old, j *jobs.Job) error {
	if j.Terms == nil || j.Terms.UniqueKey == "" {
		return nil
	}
	bucket, key := f.tx.Bucket(bucketUnique), []byte(j.Terms.UniqueKey)
	switch {
	case j.Status.Ended():
		if v := bucket.Get(key); len(v) >= 16 && jobs.ID(v[:16]) == j.ID {
			return bucket.Delete(key)
		}
	case old == nil || old.Status.Ended() || old.Terms == nil: // new, again, or known from events alone before
		return bucket.Put(key, j.ID[:])
	}
	return nil
}

// balance gives the turns of concurrency keys to jobs and takes them back, for
// all jobs that the transaction has touched and that it touches by this.
func (f *fold) balance() error {
	for i := 0; i < len(f.order); i++ {
		w := f.order[i]
		if !w.dirty || w.job.Terms == nil || w.job.Terms.ConcurrencyKey == "" {
			continue
		}
		if err := f.balanceOne(w); err != nil {
			return err
		}
	}
	return nil
}

func (f *fold) balanceOne(w *work) error {
	j := w.job
	if j.Status == jobs.Retrying && j.Place == jobs.InQueue && failedAnew(w) {
		// While it waits for its next attempt another one has its turn.
		j = w.edit()
		j.Place = jobs.Due
	}
	if w.old != nil && w.old.Place == jobs.Held && j.Place != jobs.Held || j.Status.Ended() {
		if err := f.tx.Bucket(bucketHeld).Delete(heldKey(j)); err != nil {
			return err
		}
	}
	switch {
	case (j.Slot || w.old != nil && w.old.Slot) && (j.Status.Ended() || j.Place == jobs.Due && j.DueAt != 0):
		w.edit().Slot = false
		return f.pass(j, j.Key, 0)
	case !j.Slot && inQueue(j):
		return f.pass(j, 0, j.Key)
	}
	return nil
}

// failedAnew says whether a retrying job has come to wait for its next attempt
// in this transaction, rather than waited for it before.
func failedAnew(w *work) bool {
	return w.old == nil || w.old.Terms == nil || w.old.Status != jobs.Retrying || w.old.DueAt != w.job.DueAt
}

// pass takes a turn of j's concurrency key from the job out (0 = none), and gives
// what is free to the job in (0 = none) and to those that are held.
func (f *fold) pass(j *jobs.Job, out, in uint64) error {
	name := slotName(j)
	slots := f.tx.Bucket(bucketSlots)
	var taken []uint64
	for v := slots.Get(name); len(v) >= 8; v = v[8:] {
		if key := binary.BigEndian.Uint64(v); key != out && key != in {
			taken = append(taken, key)
		}
	}
	limit := 1
	if t := f.in.registry.Lookup(j.Type); t != nil {
		limit = max(limit, t.ConcurrencyPerKey)
	}
	for len(taken) < limit {
		w, err := f.firstHeld(name)
		if err != nil {
			return err
		}
		if w == nil {
			break
		}
		h := w.edit()
		h.Slot, h.Place, h.DueAt = true, jobs.Due, 0
		w.dirty = true
		taken = append(taken, h.Key)
	}
	if in != 0 {
		w := f.touched[in]
		h := w.edit()
		if len(taken) < limit {
			h.Slot = true
			taken = append(taken, in)
		} else {
			h.Place = jobs.Held
			if err := f.tx.Bucket(bucketHeld).Put(heldKey(h), nil); err != nil {
				return err
			}
		}
	}
	if len(taken) == 0 {
		return slots.Delete(name)
	}
	var v []byte
	for _, key := range taken {
		v = binary.BigEndian.AppendUint64(v, key)
	}
	return slots.Put(name, v)
}

// firstHeld takes out the job that has waited longest for a turn, of the best
// priority; nil if there is none.
func (f *fold) firstHeld(name []byte) (*work, error) {
	c := f.tx.Bucket(bucketHeld).Cursor()
	for k, _ := c.Seek(name); bytes.HasPrefix(k, name) && len(k) == len(name)+9; k, _ = c.Seek(name) {
		key := binary.BigEndian.Uint64(k[len(name)+1:])
		if err := c.Delete(); err != nil {
			return nil, err
		}
		w, err := f.get(key)
		if err != nil {
			return nil, err
		}
		if w != nil && w.job.Place == jobs.Held && !w.job.Status.Ended() {
			return w, nil
		}
	}
	return nil, nil
}

// slotName begins the entries of a concurrency key. Neither part has a NUL.
func slotName(j *jobs.Job) []byte {
	b := append(make([]byte, 0, len(j.Type)+len(j.Terms.ConcurrencyKey)+11), j.Type...)
	b = append(append(b, 0), j.Terms.ConcurrencyKey...)
	return append(b, 0)
}

func heldKey(j *jobs.Job) []byte {
	return binary.BigEndian.AppendUint64(append(slotName(j), byte(j.Priority)), j.Key)
}
