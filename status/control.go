package status

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"

	"go.etcd.io/bbolt"

	"jobstream/jobs"
)

// What people do to jobs and types by hand. Each call is one transaction, and
// durable when it returns; [Store.Run] must be running.

// Cancel ends those of the jobs with these keys that have not ended, and returns
// them. Workers that run them hear of it by the commit.
func (s *Store) Cancel(ctx context.Context, keys []uint64, reason string) (changed []*jobs.Job, err error) {
	changed, _, err = s.change(ctx, keys, func(_ *fold, w *work) (bool, error) {
		return jobs.Cancel(w.edit(), jobs.Now(), reason), nil
	})
	return changed, err
}

// Retry makes those of the jobs with these keys run again that have failed or
// were cancelled, and returns them as they are then: waiting for the queue. Those
// that cannot, because their type is not known or their unique key taken, are
// refused.
func (s *Store) Retry(ctx context.Context, keys []uint64) (changed []*jobs.Job, refused []jobs.Refusal, err error) {
	return s.change(ctx, keys, func(f *fold, w *work) (bool, error) {
		j := w.job
		if j.Status != jobs.Failed && j.Status != jobs.Cancelled {
			return false, nil
		}
		if s.o.Registry.Lookup(j.Type) == nil {
			return false, s.o.Registry.Unknown(j.Type)
		}
		if j.Terms != nil && j.Terms.UniqueKey != "" {
			owner, err := f.uniqueOwner(j.Terms.UniqueKey)
			if err != nil {
				return false, err
			}
			if owner != (jobs.ID{}) {
				return false, duplicate(j.Terms.UniqueKey, owner)
			}
		}
		if w.dirty {
			return false, &jobs.Error{Kind: jobs.Conflict, Detail: "the job is being changed by somebody else at this moment; try again"}
		}
		if err := f.keepEnd(j); err != nil {
			return false, err
		}
		jobs.Rerun(w.edit(), jobs.Now())
		if w.job.Terms != nil && w.job.Terms.UniqueKey != "" { // for the next one of these keys
			if err := f.tx.Bucket(bucketUnique).Put([]byte(w.job.Terms.UniqueKey), w.job.ID[:]); err != nil {
				return false, err
			}
		}
		return true, nil
	})
}

// change runs one transaction over the jobs with these keys. do says whether it
// has changed one; a [*jobs.Error] of it refuses only that one.
func (s *Store) change(ctx context.Context, keys []uint64, do func(*fold, *work) (bool, error)) ([]*jobs.Job, []jobs.Refusal, error) {
	type result struct {
		changed []*jobs.Job
		refused []jobs.Refusal
	}
	var r result // read only when s.do has returned without an error
	err := s.do(ctx, func(f *fold) error {
		r = result{}
		for _, key := range keys {
			w, err := f.get(key)
			if err != nil {
				return err
			}
			if w == nil {
				continue
			}
			changed, err := do(f, w)
			if e, ok := asRefusal(err); ok {
				r.refused = append(r.refused, jobs.Refusal{ID: w.job.ID, Err: e})
				continue
			}
			if err != nil {
				return err
			}
			if changed {
				w.dirty = true
				r.changed = append(r.changed, w.job)
			}
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	return r.changed, r.refused, nil
}

// typeSettings are what an operator has set for a type.
type typeSettings struct {
	Paused bool `json:"paused,omitempty"`
}

// SetPaused stores whether the jobs of a type wait.
func (s *Store) SetPaused(ctx context.Context, typ string, paused bool) error {
	return s.do(ctx, func(f *fold) error {
		bucket := f.tx.Bucket(bucketTypes)
		if !paused {
			return bucket.Delete([]byte(typ))
		}
		v, err := json.Marshal(typeSettings{Paused: true})
		if err != nil {
			return err
		}
		return bucket.Put([]byte(typ), v)
	})
}

// Paused are the types whose jobs wait.
func (s *Store) Paused() (paused map[string]bool, err error) {
	paused = make(map[string]bool)
	err = s.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketTypes).ForEach(func(name, v []byte) error {
			var t typeSettings
			if err := json.Unmarshal(v, &t); err != nil {
				return fmt.Errorf("settings of type %q: %w", name, err)
			}
			if t.Paused {
				paused[string(name)] = true
			}
			return nil
		})
	})
	return paused, err
}

// forgetBatch is how many tokens one transaction drops at most.
const forgetBatch = 10_000

// ForgetTokens drops the idempotency tokens from before a moment, a bounded
// number, and returns how many those were.
func (s *Store) ForgetTokens(ctx context.Context, before jobs.Time) (n int, err error) {
	var old [][]byte
	err = s.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketTokenAge).Cursor()
		for k, _ := c.First(); len(k) == 24 && len(old) < forgetBatch; k, _ = c.Next() {
			if jobs.Time(binary.BigEndian.Uint64(k)) >= before {
				break
			}
			old = append(old, append([]byte(nil), k...))
		}
		return nil
	})
	if err != nil || len(old) == 0 {
		return 0, err
	}
	err = s.do(ctx, func(f *fold) error {
		tokens, ages := f.tx.Bucket(bucketTokens), f.tx.Bucket(bucketTokenAge)
		for _, k := range old {
			if err := ages.Delete(k); err != nil {
				return err
			}
			// It may have been used again since.
			if v := tokens.Get(k[8:]); len(v) >= 8 && string(v[:8]) == string(k[:8]) {
				if err := tokens.Delete(k[8:]); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return len(old), nil
}
