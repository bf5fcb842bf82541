package status

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"jobstream/jobs"
	"jobstream/status/boltfile"
	"jobstream/status/index"
	"jobstream/status/record"
)

// Latest is what the last commit has left in memory. The projector changes it after each
// commit, and any goroutine reads it. All of it can be read from the file again.
type Latest struct {
	jobs, status atomic.Uint64 // the positions in JOBS and STATUS
	number       atomic.Uint64 // of the last commit that changed something
	rebuild      atomic.Bool   // the file is not complete yet, see fold

	mu       sync.RWMutex
	counters map[string]*index.Counters

	liveMu    sync.Mutex
	live      index.Live
	callbacks int // of them

	recent recentJobs
}

func newLatest() *Latest {
	l := &Latest{counters: make(map[string]*index.Counters)}
	l.recent.init()
	return l
}

// load reads everything but the recent jobs from the file.
func (l *Latest) load(tx *boltfile.Tx) error {
	meta := tx.Bucket(bucketMeta)
	l.rebuild.Store(meta.Get(keyRebuild) != nil)
	if v := meta.Get(keyPositions); len(v) == 16 {
		l.jobs.Store(binary.BigEndian.Uint64(v))
		l.status.Store(binary.BigEndian.Uint64(v[8:]))
	}
	if v := meta.Get(keyNumber); len(v) == 8 {
		l.number.Store(binary.BigEndian.Uint64(v))
	}
	if k, _ := tx.Bucket(bucketOutbox).Cursor().Last(); k != nil {
		l.number.Store(max(l.number.Load(), binary.BigEndian.Uint64(k))) // earlier versions stored no other
	}
	if err := eachCounter(tx, func(name string, c *index.Counters) { l.counters[name] = c }); err != nil {
		return err
	}
	return l.loadLive(tx)
}

// become takes over what was read from another file.
func (l *Latest) become(o *Latest) {
	l.recent.clear()
	l.liveMu.Lock()
	l.live, l.callbacks = o.live, o.callbacks
	l.liveMu.Unlock()
	l.mu.Lock()
	l.counters = o.counters
	l.mu.Unlock()
	l.number.Store(o.number.Load())
	l.rebuild.Store(o.rebuild.Load())
	l.jobs.Store(o.jobs.Load())
	l.status.Store(o.status.Load())
}

// loadLive finds the sequences of all unfinished jobs.
func (l *Latest) loadLive(tx *boltfile.Tx) error {
	bucket := tx.Bucket(bucketBits)
	for status := jobs.Scheduled; !status.Ended(); status++ {
		err := index.EachChunk(bucket, index.OfStatus(status), func(chunk uint32, m *index.Bitmap) error {
			var away index.Bitmap
			if err := index.Read(bucket, index.Away, chunk, &away); err != nil {
				return err
			}
			m.AndNot(&away)
			var callbacks index.Bitmap
			if err := index.Read(bucket, index.OfType(jobs.CallbackType), chunk, &callbacks); err != nil {
				return err
			}
			callbacks.And(m)
			l.callbacks += callbacks.Count()
			m.Each(chunk, true, func(key uint64) bool { l.live.Add(key); return true })
			return nil
		})
		if err != nil {
			return err
		}
	}
	records := tx.Bucket(bucketJobs)
	return tx.Bucket(bucketMoved).ForEach(func(seq, key []byte) error {
		n, k := binary.BigEndian.Uint64(seq), binary.BigEndian.Uint64(key)
		if !l.live.Has(k) {
			return nil
		}
		j, _, err := record.Decode(records.Get(key))
		if err != nil {
			return err
		}
		if j.Seq == n && inQueue(j) {
			l.live.Add(n)
			l.live.Remove(k) // its first message is not its present one
		}
		return nil
	})
}

// result is what a committed transaction has come to, as far as that is kept in memory.
type result struct {
	commit   *jobs.Commit
	changed  []*work
	removed  []*jobs.Job // whose records were deleted
	counters map[string]*index.Counters
	rebuild  bool // the file is not complete yet, see fold
}

// update takes over the changes of a committed transaction. It also sets the load in the
// commit.
func (l *Latest) update(r *result) {
	c := r.commit
	if c.Number != 0 {
		l.number.Store(c.Number)
	}
	l.rebuild.Store(r.rebuild)
	l.liveMu.Lock()
	for _, w := range r.changed {
		if w.old != nil && w.old.Seq != w.job.Seq {
			l.live.Remove(w.old.Seq)
		}
		if inQueue(w.job) {
			l.live.Add(w.job.Seq)
		} else {
			l.live.Remove(w.job.Seq)
		}
		if w.job.Type == jobs.CallbackType {
			l.countCallback(w)
		}
	}
	c.Load.Queued, c.Load.Callbacks = l.live.Len(), l.callbacks
	l.liveMu.Unlock()
	l.recent.update(r.changed)
	l.mu.Lock()
	for name, of := range r.counters {
		l.counters[name] = of
	}
	l.mu.Unlock()
	c.Load.Unfinished, c.Load.Scheduled = l.Totals()
	l.jobs.Store(c.Positions.Jobs)
	l.status.Store(c.Positions.Status)
}

// countCallback counts the change of a callback. l.liveMu is locked.
func (l *Latest) countCallback(w *work) {
	if w.old != nil && inQueue(w.old) {
		l.callbacks--
	}
	if inQueue(w.job) {
		l.callbacks++
	}
}

// QueuedCallbacks is the number of callbacks in the queue, see [jobs.Load].
func (l *Latest) QueuedCallbacks() int {
	l.liveMu.Lock()
	defer l.liveMu.Unlock()
	return l.callbacks
}

// Positions are the sequences up to which both streams are folded and committed.
func (l *Latest) Positions() jobs.Positions {
	return jobs.Positions{Jobs: l.jobs.Load(), Status: l.status.Load()}
}

// Number is that of the last commit that changed something, see [jobs.Commit].
func (l *Latest) Number() uint64 { return l.number.Load() }

// counter is a copy of a type's counters.
func (l *Latest) counter(name string) *index.Counters {
	l.mu.RLock()
	defer l.mu.RUnlock()
	c := &index.Counters{}
	if have := l.counters[name]; have != nil {
		*c = *have
	}
	return c
}

// Totals are the numbers of unfinished and of scheduled jobs, see [jobs.Commit]. Callbacks
// do not count: a dead URL must not fill the queue.
func (l *Latest) Totals() (unfinished, scheduled int) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for name, c := range l.counters {
		if name == jobs.CallbackType {
			continue
		}
		unfinished += int(c.Now[jobs.Pending] + c.Now[jobs.Processing] + c.Now[jobs.Retrying])
		scheduled += int(c.Now[jobs.Scheduled])
	}
	return unfinished, scheduled
}

// Floor is the lowest sequence in JOBS that is still needed. All messages below it
// belong to jobs that have ended or wait elsewhere. queued is the number of needed
// messages.
func (l *Latest) Floor() (floor uint64, queued int) {
	l.liveMu.Lock()
	defer l.liveMu.Unlock()
	floor = l.jobs.Load() + 1
	if low, ok := l.live.Min(); ok && low < floor {
		floor = low
	}
	return floor, l.live.Len()
}

// Live says whether any of these sequences in JOBS is the message of an unfinished job.
// highest is the highest such sequence of all jobs, 0 if there is none.
func (l *Latest) Live(seqs []uint64) (some bool, highest uint64) {
	l.liveMu.Lock()
	defer l.liveMu.Unlock()
	for _, seq := range seqs {
		some = some || l.live.Has(seq)
	}
	return some, l.live.Max()
}

// New says whether the streams may have jobs that the tracker does not know. That is so
// from the making of the file until [jobs.EndRebuild] is done.
func (l *Latest) New() bool { return l.rebuild.Load() }
