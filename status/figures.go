package status

import (
	"bytes"
	"fmt"

	"jobstream/jobs"
	"jobstream/status/boltfile"
	"jobstream/status/index"
)

// Figures are the counts of one type.
type Figures struct {
	// Now counts the records by status.
	Now [jobs.NumStatus]int
	// Ever counts the jobs that ended in a status since the tracker began, deleted
	// ones too.
	Ever [jobs.NumStatus]int
}

// Figures returns the counts by type. They are read from the file, so a job that was
// seen completed is counted. If the file cannot be read, they are the last counts known.
func (q *Queries) Figures() map[string]Figures {
	all := make(map[string]Figures)
	err := q.db.View(func(tx *boltfile.Tx) error {
		return eachCounter(tx, func(name string, c *index.Counters) { all[name] = figures(c) })
	})
	if err == nil {
		return all
	}
	q.latest.mu.RLock()
	defer q.latest.mu.RUnlock()
	for name, c := range q.latest.counters {
		all[name] = figures(c)
	}
	return all
}

// Now counts the records by type and status as of the last commit, without reading the
// file.
func (q *Queries) Now() map[string][jobs.NumStatus]int {
	q.latest.mu.RLock()
	defer q.latest.mu.RUnlock()
	all := make(map[string][jobs.NumStatus]int, len(q.latest.counters))
	for name, c := range q.latest.counters {
		all[name] = figures(c).Now
	}
	return all
}

func figures(c *index.Counters) (f Figures) {
	for i := range c.Now {
		f.Now[i], f.Ever[i] = int(c.Now[i]), int(c.Ended[i])
	}
	return f
}

// eachCounter calls f with the counters of every type.
func eachCounter(tx *boltfile.Tx, f func(name string, c *index.Counters)) error {
	cursor := tx.Bucket(bucketMeta).Cursor()
	for k, v := cursor.Seek([]byte(prefixType)); bytes.HasPrefix(k, []byte(prefixType)); k, v = cursor.Next() {
		name, c := string(k[len(prefixType):]), &index.Counters{}
		if err := c.Decode(v); err != nil {
			return fmt.Errorf("counters of type %q: %w", name, err)
		}
		f(name, c)
	}
	return nil
}
