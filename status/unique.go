package status

import (
	"fmt"
	"strings"

	"jobstream/jobs"
	"jobstream/jobs/access"
	"jobstream/status/boltfile"
)

// uniqueKeys are the unique keys of unfinished jobs and of incomplete batches, as a
// transaction sees and changes them. A value has the id of the job, and behind it that
// of the batch if a batch has reserved the key.
type uniqueKeys struct {
	tx      *boltfile.Tx
	records *records
}

// uniqueKey is the unique key in some terms as it is stored; "" if there is none. Each
// token has keys of its own, behind its name. Those of bare messages and of everybody without
// a token stand alone, which no others do: a key has no zero byte.
func uniqueKey(by string, t *jobs.Terms) string {
	switch {
	case t == nil || t.UniqueKey == "":
		return ""
	case by == "" || by == access.Anonymous:
		return t.UniqueKey
	}
	return "\x00" + by + "\x00" + t.UniqueKey
}

func (k uniqueKeys) bucket() boltfile.Bucket { return k.tx.Bucket(bucketUnique) }

// owner is the job that has a unique key, the zero id if none has.
func (k uniqueKeys) owner(key string) (jobs.ID, error) {
	v := k.bucket().Get([]byte(key))
	if len(v) < 16 {
		return jobs.ID{}, nil
	}
	owner := jobs.ID(v[:16])
	w, err := k.records.byID(owner)
	switch {
	case err != nil:
		return jobs.ID{}, err
	case w != nil && !w.job.Status.Ended():
		return owner, nil
	case w == nil && len(v) == 32 && k.tx.Bucket(bucketBatches).Get(v[16:]) != nil:
		return owner, nil // a batch has reserved it
	}
	return jobs.ID{}, nil
}

// claim gives a unique key to a job.
func (k uniqueKeys) claim(key string, id jobs.ID) error { return k.bucket().Put([]byte(key), id[:]) }

// reserve gives a unique key to a job of a batch that is not complete.
func (k uniqueKeys) reserve(key string, job, batch jobs.ID) error {
	return k.bucket().Put([]byte(key), append(job[:], batch[:]...))
}

// release frees a unique key if a job has it.
func (k uniqueKeys) release(key string, id jobs.ID) error {
	if v := k.bucket().Get([]byte(key)); len(v) >= 16 && jobs.ID(v[:16]) == id {
		return k.bucket().Delete([]byte(key))
	}
	return nil
}

// releaseReserved frees a unique key if a batch has still reserved it.
func (k uniqueKeys) releaseReserved(key string, batch jobs.ID) error {
	if v := k.bucket().Get([]byte(key)); len(v) == 32 && jobs.ID(v[16:]) == batch {
		return k.bucket().Delete([]byte(key))
	}
	return nil
}

// update frees a unique key with the end of its job, and claims it for one that runs
// again.
func (k uniqueKeys) update(old, j *jobs.Job) error {
	key := uniqueKey(j.CreatedBy, j.Terms)
	switch {
	case key == "":
	case j.Status.Ended():
		return k.release(key, j.ID)
	case old == nil || old.Status.Ended() || old.Terms == nil: // new, again, or known from events alone before
		return k.claim(key, j.ID)
	}
	return nil
}

func duplicate(key string, owner jobs.ID) *jobs.Error {
	key = key[strings.LastIndexByte(key, 0)+1:]
	return &jobs.Error{
		Kind: jobs.Duplicate, JobID: owner,
		Detail: fmt.Sprintf("job %s has the unique key %q and has not ended", owner, key),
	}
}
