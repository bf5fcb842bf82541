package status

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/replica"
	"jobstream/status/boltfile"
	"jobstream/status/index"
	"jobstream/status/record"
)

// apply makes the transactions of another node here: what the entries with these bodies
// have written, in one transaction of this file. Then it tells their news, as the other
// node did. The position is that behind the last entry. An entry that is here already is
// passed over. One that was made on another tracker than this changes nothing, and the
// error is [replica.ErrApart].
func (p *Projector) apply(bodies [][]byte, at replica.Position) error {
	p.writing.Lock()
	defer p.writing.Unlock()
	if _, follows := p.share.part(); !follows {
		return errors.New("a tracker that changes by itself cannot apply what others have changed")
	}
	if own := p.share.position(); own == at || own.After(&at) {
		return nil
	}
	entries, format := make([]body, len(bodies)), p.share.formats()
	for i := range bodies {
		var err error
		if entries[i], err = decodeBody(bodies[i], &format); err != nil {
			return err
		}
	}
	began := time.Now()
	var results []*result
	var mark *Mark
	err := p.db.Update(func(tx *boltfile.Tx) error {
		a := newApplying(tx, p.latest)
		results, mark, format = nil, nil, p.share.formats()
		for i := range entries {
			if err := format.raise(tx, entries[i].format); err != nil {
				return err
			}
			r, err := a.apply(&entries[i])
			if err != nil {
				return fmt.Errorf("entry %d of %d up to %d: %w", i+1, len(entries), at.Number, err)
			}
			if r != nil {
				results = append(results, r)
			}
			if entries[i].hash != "" && entries[i].base.sealed+1 == a.on.sealed {
				m := markOf(tx, a.on.sealed)
				m.Leader, mark = entries[i].hash, &m
			}
		}
		return putPlace(tx, at, a.on.sealed)
	})
	if err != nil {
		return err
	}
	p.share.setPosition(at)
	p.share.setMark(mark)
	p.share.setFormat(format.now)
	for _, r := range results {
		p.commits.publish(p.committed(r, began))
	}
	return nil
}

// applying is a transaction that makes those of another node.
type applying struct {
	tx             *boltfile.Tx
	jobs, payloads boltfile.Bucket
	recent         *recentJobs
	known          map[uint64]*jobs.Job // as earlier entries have left them; nil = deleted
	on             base
	rebuild        bool
	err            error // of on
}

func newApplying(tx *boltfile.Tx, latest *Latest) *applying {
	a := &applying{
		tx: tx, jobs: tx.Bucket(bucketJobs), payloads: tx.Bucket(bucketPayloads), recent: &latest.recent,
		known: make(map[uint64]*jobs.Job), rebuild: tx.Bucket(bucketMeta).Get(keyRebuild) != nil,
	}
	a.on, a.err = baseOf(tx)
	return a
}

// apply makes one of them. The result is nil if nobody is told of it.
func (a *applying) apply(e *body) (*result, error) {
	switch {
	case a.err != nil:
		return nil, a.err
	case e.base.sealed < a.on.sealed:
		return nil, nil // it is here already
	case e.base != a.on:
		return nil, fmt.Errorf("%w: it was made on %v, and this is %v", replica.ErrApart, e.base, a.on)
	}
	var r *result
	if e.news != nil {
		r = &result{commit: &jobs.Commit{Number: e.news.number, At: e.news.at, Positions: e.news.positions, Outcomes: e.news.outcomes}}
		if err := a.before(e.news, r); err != nil {
			return nil, err
		}
	}
	counters, err := a.write(e.writes)
	if err != nil {
		return nil, err
	}
	if r != nil {
		r.counters, r.rebuild = counters, a.rebuild
		if err := a.after(e.news, r); err != nil {
			return nil, err
		}
	}
	sealed := a.on.sealed
	a.on, err = baseOf(a.tx)
	a.on.sealed = sealed + 1
	return r, err
}

// before reads the jobs that an entry changes or deletes.
func (a *applying) before(n *news, r *result) error {
	for _, key := range n.changed {
		w := &work{}
		if !slices.Contains(n.removed, key) { // else it was deleted first, and is new
			var err error
			if w.old, err = a.job(key); err != nil {
				return err
			}
		}
		r.changed = append(r.changed, w)
	}
	for _, key := range n.removed {
		old, err := a.job(key)
		if err == nil && old == nil {
			err = fmt.Errorf("%w: job %d is deleted, and is not there", errEntry, key)
		}
		if err != nil {
			return err
		}
		r.removed = append(r.removed, old)
	}
	return nil
}

// job is the job with this key, as the entries so far have left it; nil if there is none.
func (a *applying) job(key uint64) (*jobs.Job, error) {
	if j, ok := a.known[key]; ok {
		return j, nil
	}
	if j := a.recent.get(key); j != nil && j.Key == key {
		return j, nil
	}
	return readJob(a.jobs, a.payloads, key)
}

// write makes the writes of an entry, and finds the counters among them.
func (a *applying) write(all []write) (map[string]*index.Counters, error) {
	counters := make(map[string]*index.Counters)
	for i := range all {
		w := &all[i]
		if err := w.do(a.tx); err != nil {
			return nil, err
		}
		if !w.of(bucketMeta) {
			continue
		}
		switch name, counts := bytes.CutPrefix(w.key, []byte(prefixType)); {
		case bytes.Equal(w.key, keyRebuild):
			a.rebuild = w.value != nil
		case counts && w.value != nil:
			c := &index.Counters{}
			if err := c.Decode(w.value); err != nil {
				return nil, fmt.Errorf("%w: counters of type %q: %w", errEntry, name, err)
			}
			counters[string(name)] = c
		}
	}
	return counters, nil
}

// after reads what has become of the jobs, and completes the commit.
func (a *applying) after(n *news, r *result) error {
	c := r.commit
	c.Changes = make([]jobs.Change, 0, len(r.changed)+len(r.removed))
	for _, key := range n.removed {
		a.known[key] = nil
	}
	for i, w := range r.changed {
		var err error
		if w.job, err = readJob(a.jobs, a.payloads, n.changed[i]); err == nil && w.job == nil {
			err = fmt.Errorf("%w: job %d has changed, and is not there", errEntry, n.changed[i])
		}
		if err != nil {
			return err
		}
		a.known[n.changed[i]] = w.job
		c.Changes = append(c.Changes, jobs.Change{Before: w.old, After: w.job})
	}
	for _, j := range r.removed {
		c.Changes = append(c.Changes, jobs.Change{Before: j})
	}
	for i := range n.answers {
		answer, err := a.answer(&n.answers[i])
		if err != nil {
			return err
		}
		c.Answers = append(c.Answers, answer)
	}
	return nil
}

// answer finds what an answer is about.
func (a *applying) answer(n *answerNews) (answer jobs.Answer, err error) {
	answer = jobs.Answer{Kind: n.kind, ID: n.id, Err: n.err, Job: n.job}
	if n.key != 0 {
		answer.Job, err = a.job(n.key)
	}
	if n.kind == jobs.BatchStored && err == nil {
		if v := a.tx.Bucket(bucketBatches).Get(n.id[:]); v != nil {
			answer.Batch, err = record.DecodeBatch(n.id, v)
		}
	}
	return answer, err
}
