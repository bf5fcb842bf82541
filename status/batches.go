package status

import (
	"fmt"

	"go.etcd.io/bbolt"

	"jobstream/jobs"
	"jobstream/jobs/intake"
	"jobstream/status/record"
)

// A batch is stored before its messages are published and removed when all of
// its jobs have records, so that a process that dies in between leaves all of
// them or none.

// reserve stores the batch of a command, unless its token is known.
func (f *fold) reserve(c jobs.Reserve) (e jobs.Effect, err error) {
	if t := c.Batch.Token; t != nil {
		if e.Known, err = f.recall(t, c.At); err != nil || e.Known != nil {
			return e, err
		}
		underway, err := f.underway(t, c.At)
		if err != nil {
			return e, err
		}
		if underway {
			return e, intake.ErrUnderway
		}
	}
	return e, f.store(c.Batch, c.At)
}

// underway says whether the batch that a token stands for is not complete.
func (f *fold) underway(t *jobs.Token, now jobs.Time) (bool, error) {
	ids, _, err := tokenIDs(f.tx.Bucket(bucketTokens), t, now)
	return len(ids) > 0 && f.tx.Bucket(bucketBatches).Get(ids[0][:]) != nil, err
}

// store checks the unique keys of a batch, takes them and stores it. It changes
// nothing if one is taken.
func (f *fold) store(b *jobs.Batch, now jobs.Time) error {
	for i, m := range b.Messages {
		if m.Terms == nil || m.Terms.UniqueKey == "" {
			continue
		}
		owner, err := f.uniqueOwner(m.Terms.UniqueKey)
		if err != nil {
			return err
		}
		if owner != (jobs.ID{}) {
			taken := duplicate(m.Terms.UniqueKey, owner)
			taken.Fields = []jobs.FieldError{{Pointer: fmt.Sprintf("/jobs/%d/unique_key", i), Detail: taken.Detail}}
			return taken
		}
	}
	ids := make([]jobs.ID, len(b.Messages))
	for i, m := range b.Messages {
		ids[i] = m.ID
		if m.Terms == nil || m.Terms.UniqueKey == "" {
			continue
		}
		if err := f.tx.Bucket(bucketUnique).Put([]byte(m.Terms.UniqueKey), append(m.ID[:], b.ID[:]...)); err != nil {
			return err
		}
	}
	if b.Token != nil {
		if err := f.remember(b.Token, now, ids); err != nil {
			return err
		}
	}
	f.answer(jobs.Answer{Kind: jobs.BatchStored, ID: b.ID, Batch: b})
	return f.tx.Bucket(bucketBatches).Put(b.ID[:], record.AppendBatch(nil, b))
}

// completeBatch removes a batch if all of its jobs are there.
func (f *fold) completeBatch(id jobs.ID) error {
	bucket := f.tx.Bucket(bucketBatches)
	v := bucket.Get(id[:])
	if v == nil {
		return nil
	}
	b, err := record.DecodeBatch(id, v)
	if err != nil {
		return err
	}
	for _, m := range b.Messages {
		if w, err := f.byID(m.ID); w == nil || err != nil {
			return err // it is published again
		}
	}
	if err := f.freeReserved(b); err != nil {
		return err
	}
	f.answer(jobs.Answer{Kind: jobs.BatchDone, ID: id})
	return bucket.Delete(id[:])
}

// freeReserved frees the unique keys that no job of a complete batch has taken: another
// client may have submitted one of its ids first, without the key.
func (f *fold) freeReserved(b *jobs.Batch) error {
	unique := f.tx.Bucket(bucketUnique)
	for _, m := range b.Messages {
		if m.Terms == nil || m.Terms.UniqueKey == "" {
			continue
		}
		key := []byte(m.Terms.UniqueKey)
		if v := unique.Get(key); len(v) == 32 && jobs.ID(v[16:]) == b.ID {
			if err := unique.Delete(key); err != nil {
				return err
			}
		}
	}
	return nil
}

// inBatch says whether a job belongs to a batch that is not complete. Its message
// is published again then, and would make a new job of one that was deleted.
func (f *fold) inBatch(id jobs.ID) (bool, error) {
	if f.batched == nil {
		f.batched = make(map[jobs.ID]bool)
		all, err := readBatches(f.tx)
		if err != nil {
			return false, err
		}
		for _, b := range all {
			for _, m := range b.Messages {
				f.batched[m.ID] = true
			}
		}
	}
	return f.batched[id], nil
}

// Batches are those that are stored and not complete.
func (s *Store) Batches() (all []*jobs.Batch, err error) {
	err = s.db.View(func(tx *bbolt.Tx) (err error) {
		all, err = readBatches(tx)
		return err
	})
	return all, err
}

func readBatches(tx *bbolt.Tx) (all []*jobs.Batch, err error) {
	err = tx.Bucket(bucketBatches).ForEach(func(id, v []byte) error {
		if len(id) != 16 {
			return record.ErrBatch
		}
		b, err := record.DecodeBatch(jobs.ID(id), v)
		all = append(all, b)
		return err
	})
	return all, err
}
