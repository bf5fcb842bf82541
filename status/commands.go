package status

import (
	"encoding/json"
	"errors"
	"fmt"

	"jobstream/jobs"
	"jobstream/jobs/schedule"
	"jobstream/status/boltfile"
)

// do does a command. It decides by the command, the file and the fold's input alone. A
// command that returns a [*jobs.Error] has changed nothing.
func (f *fold) do(c jobs.Command) (jobs.Effect, error) {
	switch c := c.(type) {
	case jobs.Cancel:
		return f.change(c.Keys, func(w *work) (bool, error) { return signed(w, c.Stamp, w.edit().Cancel(c.At, c.Reason)), nil })
	case jobs.Retry:
		return f.change(c.Keys, func(w *work) (bool, error) { return f.retry(w, c.Stamp) })
	case jobs.RunNow:
		return f.change(c.Keys, func(w *work) (bool, error) { return signed(w, c.Stamp, w.edit().RunNow(c.At)), nil })
	case jobs.Revise:
		return f.change([]uint64{c.Key}, func(w *work) (bool, error) { return f.revise(w, &c) })
	case jobs.Delete:
		return f.delete(c)
	case jobs.Pause:
		return jobs.Effect{}, f.pause(c)
	case jobs.Reserve:
		return f.reserve(c)
	case jobs.ForgetTokens:
		return f.tokens.forget(c)
	case jobs.KeepInput:
		return jobs.Effect{}, f.inputs.keep(c)
	case jobs.DropInputs:
		return f.inputs.drop(c)
	case jobs.Expire:
		return f.change(c.Keys, func(w *work) (bool, error) { return w.edit().Expire(c.At), nil })
	case jobs.Lose:
		return f.change(c.Keys, func(w *work) (bool, error) { return w.edit().Lose(c.At, c.MaxLost), nil })
	case jobs.Release:
		return f.change(c.Keys, func(w *work) (bool, error) { return w.edit().Release(c.At, c.Why), nil })
	case jobs.Disable:
		return jobs.Effect{}, f.disable(c)
	case jobs.Enable:
		return jobs.Effect{}, f.enable(c)
	case jobs.Seed:
		return jobs.Effect{}, f.seed(c.Ended)
	case jobs.EndRebuild:
		f.rebuild = false
		return jobs.Effect{}, f.tx.Bucket(bucketMeta).Delete(keyRebuild)
	case jobs.Rewind:
		f.pos = c.To
		return jobs.Effect{}, nil
	case jobs.Audited:
		return f.audit(c)
	case jobs.Note:
		for _, e := range c.Entries {
			if err := f.note(e); err != nil {
				return jobs.Effect{}, err
			}
		}
		return jobs.Effect{}, nil
	case schedule.Command:
		return f.schedules.do(c)
	}
	return jobs.Effect{}, fmt.Errorf("the tracker knows no command %T", c)
}

// change calls one for each job with one of these keys. one says whether it has changed
// the job. A [*jobs.Error] from it refuses only that job.
func (f *fold) change(keys []uint64, one func(*work) (bool, error)) (r jobs.Effect, err error) {
	for _, key := range keys {
		w, err := f.records.get(key)
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

// signed adds the actor to a change, if there is one, and returns whether there is.
func signed(w *work, by jobs.Stamp, changed bool) bool {
	if changed {
		w.job.Sign(by.Actor)
	}
	return changed
}

// retry makes a failed or cancelled job run again.
func (f *fold) retry(w *work, by jobs.Stamp) (bool, error) {
	j := w.job
	if j.Status != jobs.Failed && j.Status != jobs.Cancelled {
		return false, nil
	}
	if f.in.registry.Lookup(j.Type) == nil {
		return false, f.in.registry.Unknown(j.Type)
	}
	key := uniqueKey(j.CreatedBy, j.Terms)
	if key != "" {
		owner, err := f.unique.owner(key)
		if err != nil {
			return false, err
		}
		if owner != (jobs.ID{}) {
			return false, duplicate(key, owner)
		}
	}
	if w.dirty {
		return false, &jobs.Error{Kind: jobs.Conflict, Detail: "the job is being changed by somebody else at this moment; try again"}
	}
	if err := f.ends.keep(j, f.number); err != nil {
		return false, err
	}
	w.edit().Rerun(by.At)
	w.job.Sign(by.Actor)
	if key == "" {
		return true, nil
	}
	return true, f.unique.claim(key, j.ID) // for the next one of these keys
}

// revise changes a job that waits.
func (f *fold) revise(w *work, c *jobs.Revise) (bool, error) {
	changed, err := w.edit().Revise(c)
	w.revised = w.revised || changed
	return changed, err
}

// reserve stores a batch, and answers whoever submitted it.
func (f *fold) reserve(c jobs.Reserve) (jobs.Effect, error) {
	e, err := f.batches.reserve(c)
	if err == nil && e.Known == nil {
		f.answer(jobs.Answer{Kind: jobs.BatchStored, ID: c.Batch.ID, Batch: c.Batch})
	}
	return e, err
}

// delete removes the records of ended jobs.
func (f *fold) delete(c jobs.Delete) (r jobs.Effect, err error) {
	for _, key := range c.Keys {
		size, err := f.remove(key, c.At)
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

// remove deletes the record of an ended job, unless somebody still needs it.
func (f *fold) remove(key uint64, at jobs.Time) (size int64, err error) {
	j, err := f.records.removable(key)
	if j == nil || err != nil {
		return 0, err
	}
	if needed, err := f.batches.include(j.ID); needed || err != nil {
		return 0, err
	}
	if f.ends.mayBeUnnotified(key) {
		if err := f.ends.keep(j, f.number); err != nil {
			return 0, err
		}
	}
	if size, err = f.records.remove(j); err == nil {
		err = f.indexes.remove(j)
	}
	if err == nil {
		err = f.inputs.release(j, at)
	}
	if err != nil {
		return 0, fmt.Errorf("delete job %s: %w", j.ID, err)
	}
	return size, nil
}

// typeSettings are the settings of a type made by an operator.
type typeSettings struct {
	Paused bool `json:"paused,omitempty"`
	// Pause is the stamp of the command; earlier versions did not keep it.
	Pause jobs.Stamp `json:"pause,omitzero"`
}

// Paused are the types whose jobs wait.
func (q *Queries) Paused() (paused map[string]bool, err error) {
	all, err := q.Pauses()
	paused = make(map[string]bool, len(all))
	for name := range all {
		paused[name] = true
	}
	return paused, err
}

// Pauses are the types whose jobs wait, with who has paused them and when. The stamp is
// zero if an earlier version has not kept it.
func (q *Queries) Pauses() (paused map[string]jobs.Stamp, err error) {
	paused = make(map[string]jobs.Stamp)
	err = q.db.View(func(tx *boltfile.Tx) error {
		return tx.Bucket(bucketTypes).ForEach(func(name, v []byte) error {
			var t typeSettings
			if err := json.Unmarshal(v, &t); err != nil {
				return fmt.Errorf("settings of type %q: %w", name, err)
			}
			if t.Paused {
				paused[string(name)] = t.Pause
			}
			return nil
		})
	})
	return paused, err
}

// pause stores whether the jobs of a type wait.
func (f *fold) pause(c jobs.Pause) error {
	bucket := f.tx.Bucket(bucketTypes)
	if !c.Paused {
		return bucket.Delete([]byte(c.Type))
	}
	if v := bucket.Get([]byte(c.Type)); v != nil {
		return nil // it is paused already, since then and by that one
	}
	v, err := json.Marshal(typeSettings{Paused: true, Pause: c.Stamp})
	if err != nil {
		return err
	}
	return bucket.Put([]byte(c.Type), v)
}

// seed makes records of ended jobs from their notifications.
func (f *fold) seed(ended []*jobs.Job) error {
	f.ends.silent = true
	for _, j := range ended {
		have, err := f.records.byID(j.ID)
		if err != nil {
			return err
		}
		other, err := f.records.get(j.Key)
		if err != nil {
			return err
		}
		j := j.Clone()
		switch {
		case !j.Status.Ended():
		case have == nil && other == nil:
			j.Unlisted = f.in.registry.Lookup(j.Type) == nil
			f.records.create(j)
		case have != nil && have.job.Run < j.Run: // it ended once more
			j.Key, j.Unlisted = have.job.Key, have.job.Unlisted
			have.job, have.dirty = j, true
		}
	}
	return nil
}
