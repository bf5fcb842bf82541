package status

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"jobstream/jobs"
	"jobstream/jobs/schedule"
)

// do does a command. What it decides by is in the command, the file and the fold's
// input. A [*jobs.Error] has changed nothing.
func (f *fold) do(c jobs.Command) (jobs.Effect, error) {
	switch c := c.(type) {
	case jobs.Cancel:
		return f.change(c.Keys, func(w *work) (bool, error) { return w.edit().Cancel(c.At, c.Reason), nil })
	case jobs.Retry:
		return f.change(c.Keys, func(w *work) (bool, error) { return f.retry(w, c.At) })
	case jobs.Delete:
		return f.delete(c.Keys)
	case jobs.Pause:
		return jobs.Effect{}, f.pause(c)
	case jobs.Reserve:
		return f.reserve(c)
	case jobs.ForgetTokens:
		return f.forget(c)
	case schedule.Command:
		return f.schedule(c)
	}
	return jobs.Effect{}, fmt.Errorf("the tracker knows no command %T", c)
}

// change calls one for the jobs with these keys, which says whether it has changed the
// job; a [*jobs.Error] of it refuses only that one.
func (f *fold) change(keys []uint64, one func(*work) (bool, error)) (r jobs.Effect, err error) {
	for _, key := range keys {
		w, err := f.get(key)
		if err != nil {
			return r, err
		}
		if w == nil {
			continue
		}
		changed, err := one(w)
		if e, ok := asRefusal(err); ok {
			r.Refused = append(r.Refused, jobs.Refusal{ID: w.job.ID, Err: e})
			continue
		}
		if err != nil {
			return r, err
		}
		if changed {
			w.dirty = true
			r.Changed = append(r.Changed, w.job)
		}
	}
	return r, nil
}

// retry makes a failed or cancelled job run again.
func (f *fold) retry(w *work, at jobs.Time) (bool, error) {
	j := w.job
	if j.Status != jobs.Failed && j.Status != jobs.Cancelled {
		return false, nil
	}
	if f.in.registry.Lookup(j.Type) == nil {
		return false, f.in.registry.Unknown(j.Type)
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
	w.edit().Rerun(at)
	if w.job.Terms != nil && w.job.Terms.UniqueKey != "" { // for the next one of these keys
		if err := f.tx.Bucket(bucketUnique).Put([]byte(w.job.Terms.UniqueKey), w.job.ID[:]); err != nil {
			return false, err
		}
	}
	return true, nil
}

// delete removes the records of ended jobs.
func (f *fold) delete(keys []uint64) (r jobs.Effect, err error) {
	for _, key := range keys {
		size, err := f.remove(key)
		if err != nil {
			return r, errors.Join(errors.New("deleting records"), err)
		}
		if size > 0 {
			r.Removed++
			r.Freed += size
		}
	}
	return r, nil
}

// typeSettings are what an operator has set for a type.
type typeSettings struct {
	Paused bool `json:"paused,omitempty"`
}

// pause stores whether the jobs of a type wait.
func (f *fold) pause(c jobs.Pause) error {
	bucket := f.tx.Bucket(bucketTypes)
	if !c.Paused {
		return bucket.Delete([]byte(c.Type))
	}
	v, err := json.Marshal(typeSettings{Paused: true})
	if err != nil {
		return err
	}
	return bucket.Put([]byte(c.Type), v)
}

// forget drops old tokens.
func (f *fold) forget(c jobs.ForgetTokens) (e jobs.Effect, err error) {
	tokens, ages := f.tx.Bucket(bucketTokens), f.tx.Bucket(bucketTokenAge)
	var old [][]byte
	cursor := ages.Cursor()
	for k, _ := cursor.First(); len(k) == 24 && len(old) < c.Most; k, _ = cursor.Next() {
		if jobs.Time(binary.BigEndian.Uint64(k)) >= c.Before {
			break
		}
		old = append(old, bytes.Clone(k))
	}
	for _, k := range old {
		if err := ages.Delete(k); err != nil {
			return e, err
		}
		// It may have been used again since.
		if v := tokens.Get(k[8:]); len(v) >= 8 && string(v[:8]) == string(k[:8]) {
			if err := tokens.Delete(k[8:]); err != nil {
				return e, err
			}
		}
	}
	return jobs.Effect{Removed: len(old)}, nil
}
