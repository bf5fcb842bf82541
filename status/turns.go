package status

import (
	"bytes"
	"encoding/binary"

	"jobstream/jobs"
	"jobstream/status/boltfile"
)

// turns gives the turns of concurrency keys to jobs and takes them back.
type turns struct {
	tx       *boltfile.Tx
	registry *jobs.Registry
	records  *records
}

// balance does that for all jobs touched by the transaction, and for those that it
// touches itself.
func (t turns) balance() error {
	if !t.records.terms {
		return nil
	}
	for i := 0; i < len(t.records.order); i++ {
		w := t.records.order[i]
		if !w.dirty || w.job.Terms == nil || w.job.Terms.ConcurrencyKey == "" {
			continue
		}
		if err := t.balanceOne(w); err != nil {
			return err
		}
	}
	return nil
}

func (t turns) balanceOne(w *work) error {
	j := w.job
	if j.Status == jobs.Retrying && j.Place == jobs.InQueue && failedAnew(w) {
		// While the job waits for its next attempt, another one has its turn.
		j = w.edit()
		j.Place = jobs.Due
	}
	if w.old != nil && w.old.Place == jobs.Held && j.Place != jobs.Held || j.Status.Ended() {
		held := j
		if w.old != nil {
			held = w.old // its priority may have changed since
		}
		if err := t.tx.Bucket(bucketHeld).Delete(heldKey(held)); err != nil {
			return err
		}
	}
	switch {
	case (j.Slot || w.old != nil && w.old.Slot) && (j.Status.Ended() || j.Place == jobs.Due && j.DueAt != 0):
		w.edit().Slot = false
		return t.pass(j, j.Key, 0)
	case !j.Slot && inQueue(j):
		return t.pass(j, 0, j.Key)
	}
	return nil
}

// failedAnew says whether a job began to wait for its next attempt in this transaction.
func failedAnew(w *work) bool {
	return w.old == nil || w.old.Terms == nil || w.old.Status != jobs.Retrying || w.old.DueAt != w.job.DueAt
}

// pass takes the turn of j's concurrency key from the job out, and gives free turns to
// held jobs and to the job in. The keys out and in are 0 for none.
func (t turns) pass(j *jobs.Job, out, in uint64) error {
	name := slotName(j)
	have := t.holders(name, out, in)
	limit := t.limit(j.Type)
	for len(have) < limit {
		w, err := t.firstHeld(name)
		if err != nil {
			return err
		}
		if w == nil {
			break
		}
		h := w.edit()
		h.Slot, h.Place, h.DueAt = true, jobs.Due, 0
		w.dirty = true
		have = append(have, h.Key)
	}
	if in != 0 {
		h := t.records.byKey[in].edit()
		if len(have) < limit {
			h.Slot = true
			if h.Seq == 0 { // a callback, which has no message yet
				h.Place = jobs.Due
			}
			have = append(have, in)
		} else {
			h.Place = jobs.Held
			if err := t.tx.Bucket(bucketHeld).Put(heldKey(h), nil); err != nil {
				return err
			}
		}
	}
	return t.store(name, have)
}

// limit is how many jobs of a type have a turn of one key at a time.
func (t turns) limit(typ string) int {
	if known := t.registry.Lookup(typ); known != nil {
		return max(1, known.ConcurrencyPerKey)
	}
	return 1
}

// holders are the jobs with a turn, without out and in.
func (t turns) holders(name []byte, out, in uint64) (have []uint64) {
	for v := t.tx.Bucket(bucketSlots).Get(name); len(v) >= 8; v = v[8:] {
		if key := binary.BigEndian.Uint64(v); key != out && key != in {
			have = append(have, key)
		}
	}
	return have
}

// store writes which jobs have a turn.
func (t turns) store(name []byte, have []uint64) error {
	slots := t.tx.Bucket(bucketSlots)
	if len(have) == 0 {
		return slots.Delete(name)
	}
	var v []byte
	for _, key := range have {
		v = binary.BigEndian.AppendUint64(v, key)
	}
	return slots.Put(name, v)
}

// firstHeld takes a job off the list of held ones and returns it, nil if there is none.
// The best priority comes first, then the longest wait.
func (t turns) firstHeld(name []byte) (*work, error) {
	held := t.tx.Bucket(bucketHeld)
	c := held.Cursor()
	for k, _ := c.Seek(name); bytes.HasPrefix(k, name) && len(k) == len(name)+9; k, _ = c.Seek(name) {
		key := binary.BigEndian.Uint64(k[len(name)+1:])
		if err := held.Delete(k); err != nil {
			return nil, err
		}
		w, err := t.records.get(key)
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
