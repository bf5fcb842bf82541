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
// What waits is kept as long as there is more room than its queue has taken already
// (a "dynamic threshold", as in the memory that the ports of a switch share: Choudhury
// and Hahne, 1998). So a queue that stands still fills half of it at most, and there is
// room for the others, whose jobs come and go. Jobs that sleep until their retry have to
// find room anew when they fall asleep.
//
// Neighbouring sequences are used together, so they share a chunk: that is quicker
// than a map with an entry each.
type recentJobs struct {
	mu      sync.RWMutex
	chunks  map[uint64]*recentChunk
	size    int                  // bytes of them all, see weight
	shares  map[recentQueue]*int // of size
	last    recentQueue          // whose share was asked for last
	share   *int                 // its
	changes uint64               // how often update was called
}

// recentChunk has the jobs of neighbouring sequences.
type recentChunk struct {
	jobs [recentWidth]*jobs.Job
	n    int
}

// recentQueue is who shares the room: jobs of a type and priority that wait for a
// worker, and those among them that sleep until their retry.
type recentQueue struct {
	typ      string
	priority jobs.Priority
	retry    bool
}

func queueOf(j *jobs.Job) recentQueue {
	return recentQueue{typ: j.Type, priority: j.Priority, retry: j.Status == jobs.Retrying}
}

const (
	recentWidth = 64
	// maxRecent is the room in bytes for jobs as they come in; what runs or is read
	// ahead has room for as many more as aheadRoom says. The others may be the youngest
	// of a long queue.
	maxRecent = 128 << 20
	aheadRoom = 8 << 20
	// jobWeight is about what a job takes besides its texts, with its place here and the
	// history that most have; entryWeight what another line of a list does.
	jobWeight   = 800
	entryWeight = 96
	// readAhead is how many records are read where one has to be, and passOver how many
	// of other types or priorities are passed over for that: they may run much later.
	readAhead = 64
	passOver  = 4
)

func (r *recentJobs) init() {
	r.chunks = make(map[uint64]*recentChunk)
	r.shares = make(map[recentQueue]*int)
}

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
			r.drop(w.old.Seq)
		}
		if keeps(w.job) {
			r.put(w.job, w.job.Status == jobs.Processing)
		} else {
			r.drop(w.job.Seq)
		}
	}
}

// keeps says whether a job is one to keep.
func keeps(j *jobs.Job) bool {
	return inQueue(j) && len(j.Payload) <= inlinePayload && len(j.Result) <= inlinePayload
}

// weight is about how many bytes of memory a job takes, with all that it has.
func weight(j *jobs.Job) int {
	n := jobWeight + len(j.Payload) + len(j.Result) + len(j.Error) + len(j.Message) + len(j.Checkpoint)
	for _, t := range j.Tags {
		n += 16 + len(t)
	}
	for i := range j.Errors {
		n += entryWeight + len(j.Errors[i].Error)
	}
	for i := range j.History {
		n += len(j.History[i].Text)
	}
	if j.Terms != nil {
		n += 2*entryWeight + len(j.Terms.UniqueKey) + len(j.Terms.ConcurrencyKey)
	}
	return n + entryWeight*max(len(j.History)-4, 0)
}

// put puts a job in the place of what is there. If nothing is, it is kept only if there
// is room; needed says that it is next, or running. r.mu is held.
func (r *recentJobs) put(j *jobs.Job, needed bool) {
	share, w := r.shareOf(queueOf(j)), weight(j)
	c := r.chunks[j.Seq/recentWidth]
	if c != nil {
		if old := &c.jobs[j.Seq%recentWidth]; *old != nil {
			grows := w - weight(*old)
			if !needed && queueOf(*old) != queueOf(j) && maxRecent-r.size <= *share || r.size+grows > maxRecent+aheadRoom {
				r.drop(j.Seq)
				return
			}
			*r.shareOf(queueOf(*old)) -= weight(*old)
			*share += w
			r.size += grows
			*old = j
			return
		}
	}
	if room := maxRecent - r.size; needed && room+aheadRoom < w || !needed && (room <= *share || room < w) {
		return
	}
	if c == nil {
		c = &recentChunk{}
		r.chunks[j.Seq/recentWidth] = c
	}
	c.jobs[j.Seq%recentWidth] = j
	c.n++
	r.size += w
	*share += w
}

// drop takes out what is there. r.mu is held.
func (r *recentJobs) drop(seq uint64) {
	c := r.chunks[seq/recentWidth]
	if c == nil {
		return
	}
	old := &c.jobs[seq%recentWidth]
	if *old == nil {
		return
	}
	w := weight(*old)
	*r.shareOf(queueOf(*old)) -= w
	*old = nil
	r.size -= w
	if c.n--; c.n == 0 {
		delete(r.chunks, seq/recentWidth)
	}
}

// shareOf is where the bytes of a queue's jobs are counted. r.mu is held.
func (r *recentJobs) shareOf(q recentQueue) *int {
	if r.share == nil || q != r.last {
		if r.last, r.share = q, r.shares[q]; r.share == nil {
			r.share = new(int)
			r.shares[q] = r.share
		}
	}
	return r.share
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
			r.put(j, j.Status != jobs.Retrying) // those are delivered long before they are due
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
