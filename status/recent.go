package status

import (
	"encoding/binary"
	"sync"

	"jobstream/jobs"
	"jobstream/status/boltfile"
	"jobstream/status/record"
)

// recentJobs keeps unfinished jobs decoded, by the sequence of their present message.
// With it, no step between the submission and the end of a job reads the file. It keeps
// small jobs only, as long as there is room. A long queue may fill that room, so running
// and prefetched jobs have some of their own.
type recentJobs struct {
	mu      sync.RWMutex
	jobs    map[uint64]*jobs.Job
	size    int    // bytes of them all, see weight
	changes uint64 // how often update was called
}

const (
	maxRecent    = 24 << 20 // bytes for jobs as they come in
	prefetchRoom = 8 << 20  // and for what runs or is prefetched
	// jobWeight is about what a job takes besides its texts, with its entry here and the
	// usual history. entryWeight is what another line of a list takes.
	jobWeight   = 800
	entryWeight = 96
	// prefetchRecords is how many records one lookup reads. passOver is how many records
	// of other types or priorities it passes over meanwhile; they may run much later.
	prefetchRecords = 64
	passOver        = 4
)

func (r *recentJobs) init() { r.jobs = make(map[uint64]*jobs.Job) }

// clear forgets all jobs, because the file is another one.
func (r *recentJobs) clear() {
	r.mu.Lock()
	clear(r.jobs)
	r.size = 0
	r.changes++
	r.mu.Unlock()
}

func (r *recentJobs) get(seq uint64) *jobs.Job {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.jobs[seq]
}

// update takes over the changes of a commit.
func (r *recentJobs) update(changed []*work) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changes++
	for _, w := range changed {
		if w.old != nil {
			r.drop(w.old.Seq)
		}
		r.put(w.job, w.job.Status == jobs.Processing)
	}
}

// keeps says whether a job is one to keep.
func keeps(j *jobs.Job) bool {
	return inQueue(j) && len(j.Payload) <= record.InlinePayload && len(j.Result) <= record.InlinePayload
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
		n += 2*entryWeight + jobs.TextSize(jobs.TermsFields, j.Terms)
	}
	return n + entryWeight*max(len(j.History)-4, 0)
}

// put replaces the job with this sequence, if there is room. needed says that the job
// runs, or is next. The caller has locked r.mu.
func (r *recentJobs) put(j *jobs.Job, needed bool) {
	r.drop(j.Seq)
	room := maxRecent - r.size
	if needed {
		room += prefetchRoom
	}
	if !keeps(j) {
		return
	}
	if w := weight(j); w <= room {
		r.jobs[j.Seq] = j
		r.size += w
	}
}

// drop removes the job with this sequence. The caller has locked r.mu.
func (r *recentJobs) drop(seq uint64) {
	if j := r.jobs[seq]; j != nil {
		r.size -= weight(j)
		delete(r.jobs, seq)
	}
}

// version changes with every commit.
func (r *recentJobs) version() uint64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.changes
}

// keep puts in jobs that were read from the file after version was asked for. If a
// commit has come in between, they may be outdated and are dropped.
func (r *recentJobs) keep(found []*jobs.Job, version uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.changes != version {
		return
	}
	for _, j := range found {
		r.put(j, j.Status != jobs.Retrying) // those are delivered long before they are due
	}
}

// prefetch reads the job whose first message was seq, and the jobs that will run after
// it. It returns nil if there is no such job.
func (q *Queries) prefetch(seq uint64) (j *jobs.Job, err error) {
	version := q.latest.recent.version()
	var found []*jobs.Job
	err = q.db.View(func(tx *boltfile.Tx) error {
		records := tx.Bucket(bucketJobs)
		j, err = readJob(records, tx.Bucket(bucketPayloads), seq)
		if j != nil && err == nil {
			found = append(behind(records, j), j)
		}
		return err
	})
	q.latest.recent.keep(found, version)
	return j, err
}

// behind reads the jobs behind j that have its type and priority and wait in the queue.
// It ends at other jobs, or at one that needs a lookup of its own.
func behind(records boltfile.Bucket, j *jobs.Job) (found []*jobs.Job) {
	c := records.Cursor()
	c.Seek(key8(j.Key))
	read, others := 0, 0
	for k, raw := c.Next(); k != nil && read < prefetchRecords && others < passOver; k, raw = c.Next() {
		read++ // whether it is kept or not: there may be a million that are not
		next, apart, err := record.Decode(raw)
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
