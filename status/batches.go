package status

import (
	"fmt"

	"jobstream/jobs"
	"jobstream/status/boltfile"
	"jobstream/status/record"
)

// A batch is stored before its messages are published. It is removed when all of its
// jobs have records. So a process that dies in between leaves all of them or none.

// batches are the incomplete batches, as a transaction sees and changes them.
type batches struct {
	tx      *boltfile.Tx
	records *records
	tokens  tokens
	unique  uniqueKeys
	inputs  inputs

	members map[jobs.ID]bool // the jobs of all of them; nil until somebody asks
}

// reserve stores the batch of a command, unless its token is known.
func (b *batches) reserve(c jobs.Reserve) (e jobs.Effect, err error) {
	if t := c.Batch.Token; t != nil {
		if e.Known, err = b.tokens.recall(t, c.At); err != nil || e.Known != nil {
			return e, err
		}
		underway, err := b.tokens.underway(t, c.At)
		if err != nil {
			return e, err
		}
		if underway {
			return e, jobs.ErrUnderway
		}
	}
	return e, b.store(c.Batch, c.At)
}

// store stores a batch and reserves its unique keys. It changes nothing if one of them
// has an owner already, or if an input is not there.
func (b *batches) store(batch *jobs.Batch, now jobs.Time) error {
	for i, m := range batch.Messages {
		if refusal := b.inputs.missing(m.Terms, fmt.Sprintf("/jobs/%d", i)); refusal != nil {
			return refusal
		}
		key := uniqueKey(m.CreatedBy, m.Terms)
		if key == "" {
			continue
		}
		owner, err := b.unique.owner(key)
		if err != nil {
			return err
		}
		if owner != (jobs.ID{}) {
			refusal := duplicate(key, owner)
			refusal.Fields = []jobs.FieldError{{Pointer: fmt.Sprintf("/jobs/%d/unique_key", i), Detail: refusal.Detail}}
			return refusal
		}
	}
	ids := make([]jobs.ID, len(batch.Messages))
	for i, m := range batch.Messages {
		ids[i] = m.ID
		key := uniqueKey(m.CreatedBy, m.Terms)
		if key == "" {
			continue
		}
		if err := b.unique.reserve(key, m.ID, batch.ID); err != nil {
			return err
		}
	}
	if batch.Token != nil {
		if err := b.tokens.remember(batch.Token, now, ids); err != nil {
			return err
		}
	}
	return b.tx.Bucket(bucketBatches).Put(batch.ID[:], record.AppendBatch(nil, batch))
}

// complete removes a batch if all of its jobs are there.
func (b *batches) complete(id jobs.ID) (done bool, err error) {
	bucket := b.tx.Bucket(bucketBatches)
	v := bucket.Get(id[:])
	if v == nil {
		return false, nil
	}
	batch, err := record.DecodeBatch(id, v)
	if err != nil {
		return false, err
	}
	for _, m := range batch.Messages {
		if w, err := b.records.byID(m.ID); w == nil || err != nil {
			return false, err // it is published again
		}
	}
	// Another client may have submitted one of its ids first, without the key.
	for _, m := range batch.Messages {
		if key := uniqueKey(m.CreatedBy, m.Terms); key != "" {
			if err := b.unique.releaseReserved(key, id); err != nil {
				return false, err
			}
		}
	}
	return true, bucket.Delete(id[:])
}

// include says whether a job belongs to an incomplete batch. The message of such a job
// is published again, and would make a new job of a deleted one.
func (b *batches) include(id jobs.ID) (bool, error) {
	if b.members == nil {
		b.members = make(map[jobs.ID]bool)
		all, err := readBatches(b.tx)
		if err != nil {
			return false, err
		}
		for _, batch := range all {
			for _, m := range batch.Messages {
				b.members[m.ID] = true
			}
		}
	}
	return b.members[id], nil
}

// Batches are the stored batches that are not complete.
func (q *Queries) Batches() (all []*jobs.Batch, err error) {
	err = q.db.View(func(tx *boltfile.Tx) (err error) {
		all, err = readBatches(tx)
		return err
	})
	return all, err
}

func readBatches(tx *boltfile.Tx) (all []*jobs.Batch, err error) {
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
