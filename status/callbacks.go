package status

import (
	"encoding/json"
	"fmt"
	"time"

	"jobstream/jobs"
	"jobstream/status/boltfile"
	"jobstream/status/index"
)

// Callbacks are made in the transaction of the end that they are about. So they exist
// together with it or not at all. Their first place is [jobs.Due] or [jobs.Held]: no
// message of JOBS has made them.

// callbackKeys is the first key of callbacks. JOBS never gets so far.
const callbackKeys = index.MaxKey/2 + 1

// rebuiltCallbacks is how old an end may be that makes callbacks while a lost tracker is
// rebuilt. Ends that were notified make none: the lost tracker had them, and their
// callbacks. This bounds what the loss of the notifications could repeat.
const rebuiltCallbacks = time.Hour

// makeCallbacks makes the callbacks of all ends in this transaction.
func (f *fold) makeCallbacks() error {
	if len(f.in.webhooks) == 0 && !f.records.terms || f.ends.silent {
		return nil
	}
	typ := f.in.registry.Lookup(jobs.CallbackType)
	if typ == nil {
		return nil
	}
	for _, w := range f.records.order { // without those that are made here
		if !f.callsBack(w) {
			continue
		}
		for _, c := range f.in.webhooks.Callbacks(w.job) {
			if err := f.makeCallback(w.job, &c, typ); err != nil {
				return err
			}
		}
	}
	return nil
}

// callsBack says whether a change is an end that may have callbacks. While a tracker is
// rebuilt, the submission may come after the end, with the URL.
func (f *fold) callsBack(w *work) bool {
	j := w.job
	return w.dirty && j.Status.Ended() && j.Type != jobs.CallbackType && f.in.webhooks.WithCallbacks(j) &&
		(w.old == nil || !w.old.Status.Ended() || w.late) &&
		!(f.rebuild && f.in.now.Sub(j.EndedAt) > rebuiltCallbacks)
}

// makeCallback makes one, unless it is known or its URL is disabled.
func (f *fold) makeCallback(of *jobs.Job, c *jobs.Callback, typ *jobs.Type) error {
	bucket := f.tx.Bucket(bucketDisabled)
	if bucket.Get([]byte(c.URL)) != nil {
		return nil
	}
	known, err := f.records.byID(jobs.CallbackID(of.ID, of.Run, c.URL))
	if known != nil || err != nil {
		return err
	}
	number, err := bucket.NextSequence()
	if err == nil {
		f.records.create(c.NewJob(of, callbackKeys+number, f.in.now, typ))
	}
	return err
}

// maxDisabled is how many disabled URLs are kept; the oldest is forgotten for the next.
const maxDisabled = 10_000

// disable stores that a URL gets no callbacks any more.
func (f *fold) disable(c jobs.Disable) error {
	bucket := f.tx.Bucket(bucketDisabled)
	if err := f.roomToDisable(); err != nil {
		return err
	}
	v, err := json.Marshal(disabledBy{c.At, c.By})
	if err != nil {
		return err
	}
	return bucket.Put([]byte(c.URL), v)
}

// roomToDisable forgets the oldest disabled URL if there are as many as there may be.
func (f *fold) roomToDisable() error {
	bucket, n := f.tx.Bucket(bucketDisabled), 0
	c := bucket.Cursor()
	for k, _ := c.First(); k != nil; k, _ = c.Next() {
		n++
	}
	if n < maxDisabled {
		return nil
	}
	var oldest jobs.DisabledURL
	err := eachDisabled(f.tx, func(d jobs.DisabledURL) {
		if oldest.Since == 0 || d.Since < oldest.Since {
			oldest = d
		}
	})
	if err != nil {
		return err
	}
	return bucket.Delete([]byte(oldest.URL))
}

// enable lets a URL have callbacks again.
func (f *fold) enable(c jobs.Enable) error { return f.tx.Bucket(bucketDisabled).Delete([]byte(c.URL)) }

// disabledBy is the stored form of a disabled URL.
type disabledBy struct {
	Since jobs.Time `json:"since"`
	By    jobs.ID   `json:"by"`
}

func eachDisabled(tx *boltfile.Tx, f func(jobs.DisabledURL)) error {
	return tx.Bucket(bucketDisabled).ForEach(func(url, v []byte) error {
		var by disabledBy
		if err := json.Unmarshal(v, &by); err != nil {
			return fmt.Errorf("the disabled URL %q: %w", url, err)
		}
		f(jobs.DisabledURL{URL: string(url), Since: by.Since, By: by.By})
		return nil
	})
}

// Disabled lists the URLs that get no callbacks any more.
func (q *Queries) Disabled() (all []jobs.DisabledURL, err error) {
	err = q.db.View(func(tx *boltfile.Tx) error {
		return eachDisabled(tx, func(d jobs.DisabledURL) { all = append(all, d) })
	})
	return all, err
}

// IsDisabled says whether a URL gets no callbacks any more.
func (q *Queries) IsDisabled(url string) (is bool, err error) {
	err = q.db.View(func(tx *boltfile.Tx) error {
		is = tx.Bucket(bucketDisabled).Get([]byte(url)) != nil
		return nil
	})
	return is, err
}

// CallbackAgenda is the [jobs.Agenda] of callbacks. Those of jobs leave them out.
type CallbackAgenda struct{ *Store }

// Due lists callbacks whose message is to be published.
func (a CallbackAgenda) Due(now jobs.Time, limit, room int) (due []*jobs.Job, next jobs.Time, err error) {
	err = a.db.View(func(tx *boltfile.Tx) error {
		due, err = duePart(tx, dueCallback, now, min(limit, room))
		next = dueAfter(tx, dueCallback, now)
		return err
	})
	return due, next, err
}

// Overdue lists nothing: callbacks have neither an expiry nor a deadline.
func (CallbackAgenda) Overdue(jobs.Time) (keys []uint64, next jobs.Time, err error) {
	return nil, 0, nil
}
