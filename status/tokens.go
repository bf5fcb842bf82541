package status

import (
	"bytes"
	"encoding/binary"
	"slices"

	"jobstream/jobs"
	"jobstream/status/boltfile"
)

// tokens are the idempotency keys, as a transaction sees and changes them.
type tokens struct {
	tx      *boltfile.Tx
	records *records
}

// A token's entry has its moment (8 bytes), the hash of its request (16), and the ids of
// its jobs (16 each).
const tokenHead = 8 + 16

// remember stores what a token stands for.
func (k tokens) remember(t *jobs.Token, at jobs.Time, ids []jobs.ID) error {
	entries, ages := k.tx.Bucket(bucketTokens), k.tx.Bucket(bucketTokenAge)
	if old := entries.Get(t.Key[:]); len(old) >= tokenHead {
		if err := ages.Delete(slices.Concat(old[:8], t.Key[:])); err != nil {
			return err
		}
	}
	v := binary.BigEndian.AppendUint64(make([]byte, 0, tokenHead+16*len(ids)), uint64(at))
	v = append(v, t.Body[:]...)
	for _, id := range ids {
		v = append(v, id[:]...)
	}
	if err := entries.Put(t.Key[:], v); err != nil {
		return err
	}
	return ages.Put(slices.Concat(v[:8], t.Key[:]), nil)
}

// rememberAgain stores the token of a job that a new tracker knew before its submission,
// unless it is known.
func (k tokens) rememberAgain(j *jobs.Job, m *jobs.Message) error {
	if m.Moved || k.tx.Bucket(bucketTokens).Get(m.Token.Key[:]) != nil {
		return nil
	}
	return k.remember(m.Token, m.At, []jobs.ID{j.ID})
}

// recall finds the jobs that a token stands for, within the transaction.
func (k tokens) recall(t *jobs.Token, now jobs.Time) (known []*jobs.Job, err error) {
	return recallBy(k.tx, t, now, func(id jobs.ID) (*jobs.Job, error) {
		w, err := k.records.byID(id)
		if err != nil || w == nil {
			return nil, err
		}
		return w.job, nil
	})
}

// underway says whether a token stands for a batch that is not complete.
func (k tokens) underway(t *jobs.Token, now jobs.Time) (bool, error) {
	ids, _, err := tokenIDs(k.tx.Bucket(bucketTokens), t, now)
	return len(ids) > 0 && k.tx.Bucket(bucketBatches).Get(ids[0][:]) != nil, err
}

// forget drops old tokens.
func (k tokens) forget(c jobs.ForgetTokens) (e jobs.Effect, err error) {
	entries, ages := k.tx.Bucket(bucketTokens), k.tx.Bucket(bucketTokenAge)
	var old [][]byte
	cursor := ages.Cursor()
	for key, _ := cursor.First(); len(key) == 24 && len(old) < c.Most; key, _ = cursor.Next() {
		if jobs.Time(binary.BigEndian.Uint64(key)) >= c.Before {
			break
		}
		old = append(old, bytes.Clone(key))
	}
	for _, key := range old {
		if err := ages.Delete(key); err != nil {
			return e, err
		}
		// It may have been used again since.
		if v := entries.Get(key[8:]); len(v) >= 8 && string(v[:8]) == string(key[:8]) {
			if err := entries.Delete(key[8:]); err != nil {
				return e, err
			}
		}
	}
	return jobs.Effect{Removed: len(old)}, nil
}

// tokenIDs are the jobs that a token stands for at a moment, and when they were made.
// They are nil if the token is new.
func tokenIDs(tokens boltfile.Bucket, t *jobs.Token, now jobs.Time) (ids []jobs.ID, at jobs.Time, err error) {
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

// recallBy finds the jobs that a token stands for. find gives nil for a deleted job.
// While their batch is not complete the jobs are not there yet, and it finds none.
func recallBy(tx *boltfile.Tx, t *jobs.Token, now jobs.Time, find func(jobs.ID) (*jobs.Job, error)) (known []*jobs.Job, err error) {
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

// Recall finds the jobs that a token stands for; see [jobs.Ledger].
func (q *Queries) Recall(t *jobs.Token) (known []*jobs.Job, err error) {
	err = q.db.View(func(tx *boltfile.Tx) error {
		ids, records, payloads := tx.Bucket(bucketIDs), tx.Bucket(bucketJobs), tx.Bucket(bucketPayloads)
		known, err = recallBy(tx, t, jobs.Now(), func(id jobs.ID) (*jobs.Job, error) {
			key := ids.Get(id[:])
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

// OldestToken is the moment of the oldest idempotency token, 0 if there is none.
func (q *Queries) OldestToken() (at jobs.Time, err error) {
	err = q.db.View(func(tx *boltfile.Tx) error {
		if k, _ := tx.Bucket(bucketTokenAge).Cursor().First(); len(k) == 24 {
			at = jobs.Time(binary.BigEndian.Uint64(k))
		}
		return nil
	})
	return at, err
}
