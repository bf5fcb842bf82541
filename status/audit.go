package status

import (
	"encoding/binary"
	"encoding/json"
	"fmt"

	"jobstream/jobs"
	"jobstream/status/boltfile"
)

// The audit log is kept here, so that a change and its entry are one transaction. Refusals
// have a bucket and a bound of their own: a flood of them pushes no other entry out.
// Submissions are not in it, because the records of jobs say the same.

// audit does a command, and notes who asked for it unless it has changed nothing.
func (f *fold) audit(c jobs.Audited) (jobs.Effect, error) {
	e, err := f.do(c.Command)
	if err != nil {
		return e, err
	}
	switch c.Command.(type) {
	case jobs.Cancel, jobs.Retry, jobs.RunNow, jobs.Revise, jobs.Delete:
		if len(e.Changed) == 0 && e.Removed == 0 {
			return e, nil
		}
	}
	e.Noted = true
	return e, f.note(jobs.AuditEntry{At: c.Origin().At, Act: c.Act})
}

// note adds an entry, and drops those that are too old or too many.
func (f *fold) note(entry jobs.AuditEntry) error {
	bucket, most := f.tx.Bucket(bucketAudit), uint64(jobs.MaxAudit)
	if entry.Refused {
		bucket, most = f.tx.Bucket(bucketRefusals), jobs.MaxRefusals
	}
	v, err := json.Marshal(entry)
	if err != nil {
		return err
	}
	n, err := bucket.NextSequence()
	if err == nil {
		err = bucket.Put(key8(n), v)
	}
	for err == nil {
		k, v := bucket.Cursor().First()
		var old jobs.AuditEntry
		if len(k) == 8 && n-binary.BigEndian.Uint64(k) < most && json.Unmarshal(v, &old) == nil && entry.At.Sub(old.At) < jobs.AuditTime {
			return nil
		}
		err = bucket.Delete(k)
	}
	return err
}

// Audit lists the entries before one of them, the youngest first, until yield returns
// false. before is the sequence of that entry; 0 = from the end. Refusals are a list of their
// own.
func (q *Queries) Audit(refusals bool, before uint64, yield func(jobs.AuditEntry) bool) error {
	return q.db.View(func(tx *boltfile.Tx) error {
		name := bucketAudit
		if refusals {
			name = bucketRefusals
		}
		c := tx.Bucket(name).Cursor()
		k, v := c.Last()
		if before != 0 {
			if k, _ = c.Seek(key8(before)); k == nil {
				k, v = c.Last()
			} else {
				k, v = c.Prev()
			}
		}
		for ; len(k) == 8; k, v = c.Prev() {
			e := jobs.AuditEntry{Seq: binary.BigEndian.Uint64(k)}
			if err := json.Unmarshal(v, &e); err != nil {
				return fmt.Errorf("entry %d of the audit log: %w", e.Seq, err)
			}
			if !yield(e) {
				return nil
			}
		}
		return nil
	})
}
