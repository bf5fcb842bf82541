package status

import (
	"encoding/binary"
	"sync"

	"go.etcd.io/bbolt"

	"jobstream/jobs"
)

// recentJobs keeps unfinished jobs decoded, by the sequence of their present
// message, so that the way from submission to the end of a job needs no read of
// the file. It is bounded, and only what is small is kept.
//
// Neighbouring sequences are used together, so they share a chunk: that is quicker
// than a map with an entry each.
type recentJobs struct {
	mu      sync.RWMutex
	chunks  map[uint64]*recentChunk
	n       int
	changes uint64 // how often update was called
}

// recentChunk has the jobs of neighbouring sequences.
type recentChunk struct {
	jobs [recentWidth]*jobs.Job
	n    int
}

const (
	recentWidth = 64
	// maxRecent is how many jobs are kept as they come in, and what is read ahead may
	// take the room of as many more as aheadRoom says. It holds those that run next,
	// while the others may be the youngest of a long queue.
	maxRecent = 1 << 16
	aheadRoom = 4096
	// readAhead is how many records are read where one has to be, and passOver how many
	// of other types or priorities are passed over for that: they may run much later.
	readAhead = 64
	passOver  = 4
)

func (r *recentJobs) init() { r.chunks = make(map[uint64]*recentChunk) }

func (r *recentJobs) get(seq uint64) (j *jobs.Job) {
	r.mu.RLock()
	if c := r.chunks[seq/recentWidth]; c != nil {
		j = c.jobs[seq%recentWidth]
	}
	r.mu.RUnlock()
	return j
}

// update takes over what a commit has made true.
func (r *recentJobs) update(changed []*work) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changes++
	for _, w := range changed {
		if w.old != nil && w.old.Seq != w.job.Seq {
			r.set(w.old.Seq, nil, 0)
		}
		if keeps(w.job) {
			r.set(w.job.Seq, w.job, maxRecent)
		} else {
			r.set(w.job.Seq, nil, 0)
		}
	}
}

// keeps says whether a job is one to keep.
func keeps(j *jobs.Job) bool {
	return inQueue(j) && len(j.Payload) <= inlinePayload && len(j.Result) <= inlinePayload
}

// set puts a job in the place of what is there; if nothing is, only while there are
// fewer than most. nil takes out. r.mu is held.
func (r *recentJobs) set(seq uint64, j *jobs.Job, most int) {
	c := r.chunks[seq/recentWidth]
	if c == nil {
		if j == nil || r.n >= most {
			return
		}
		c = &recentChunk{}
		r.chunks[seq/recentWidth] = c
	}
	old := &c.jobs[seq%recentWidth]
	switch {
	case *old == nil && j != nil:
		if r.n >= most {
			return
		}
		c.n++
		r.n++
	case *old != nil && j == nil:
		c.n--
		r.n--
	}
	*old = j
	if c.n == 0 {
		delete(r.chunks, seq/recentWidth)
	}
}

// version changes with every commit.
func (r *recentJobs) version() uint64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.changes
}

// keep adds jobs that were read from the file after version was asked for. If a
// commit has come in between they may be older than what it made of them.
func (r *recentJobs) keep(found []*jobs.Job, version uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.changes != version {
		return
	}
	for _, j := range found {
		if keeps(j) {
			r.set(j.Seq, j, maxRecent+aheadRoom)
		}
	}
}

// ahead reads the job whose first message was seq, and those behind it that are to
// run after it: they are needed next. It returns nil if there is no such job.
func (s *Store) ahead(seq uint64) (j *jobs.Job, err error) {
	version := s.recent.version()
	var found []*jobs.Job
	err = s.db.View(func(tx *bbolt.Tx) error {
		records := tx.Bucket(bucketJobs)
		j, err = readJob(records, tx.Bucket(bucketPayloads), seq)
		if j != nil && err == nil {
			found = append(behind(records, j), j)
		}
		return err
	})
	s.recent.keep(found, version)
	return j, err
}

// behind reads the jobs behind j that have its type and priority and are to run. It
// ends where others come, or something else that has to be looked at by itself.
func behind(records *bbolt.Bucket, j *jobs.Job) (found []*jobs.Job) {
	c := records.Cursor()
	c.Seek(key8(j.Key))
	read, others := 0, 0
	for k, raw := c.Next(); k != nil && read < readAhead && others < passOver; k, raw = c.Next() {
		read++ // whether it is kept or not: there may be a million that are not
		next, apart, err := decodeRecord(raw)
		switch {
		case err != nil || !inQueue(next):
			return found
		case next.Type != j.Type || next.Priority != j.Priority:
			others++
		case !apart && next.Seq == binary.BigEndian.Uint64(k):
			found = append(found, next)
		}
	}
	return found
}
