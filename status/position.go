package status

import (
	"go.etcd.io/bbolt"

	"jobstream/jobs"
)

// priorityAttr is that of the jobs of a priority; those of the default one are
// what is left, so that most jobs need no entry.
func priorityAttr(p jobs.Priority) string { return "p" + string('0'+rune(p)) }

// Position is how many jobs of j's lane wait before it, and itself: 1 is next.
// It is counted from bitmaps by the jobs' keys, so jobs that were put into the
// queue again after others are counted where they were at first. It is 0 for a
// job that does not wait in a lane.
func (s *Store) Position(j *jobs.Job) (n int, err error) {
	if j.Status != jobs.Pending || !inQueue(j) {
		return 0, nil
	}
	err = s.db.View(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(bucketBits)
		last := chunkOf(j.Key)
		return eachChunk(bucket, statusAttr(jobs.Pending), func(chunk uint32, m *bitmap) error {
			if chunk > last {
				return nil
			}
			if err := narrowToLane(bucket, chunk, m, j.Lane()); err != nil {
				return err
			}
			if chunk == last {
				m.each(chunk, false, func(key uint64) bool {
					if key > j.Key {
						m.clear(key)
					}
					return key > j.Key
				})
			}
			n += m.count()
			return nil
		})
	})
	return n, err
}

// narrowToLane takes out of m what is not waiting in a lane.
func narrowToLane(bucket *bbolt.Bucket, chunk uint32, m *bitmap, l jobs.Lane) error {
	var other bitmap
	if err := readBits(bucket, typeAttr(l.Type), chunk, &other); err != nil {
		return err
	}
	m.and(&other)
	if err := readBits(bucket, awayAttr, chunk, &other); err != nil {
		return err
	}
	m.andNot(&other)
	for p := jobs.HighestPriority; p <= jobs.LowestPriority; p++ {
		if p == jobs.DefaultPriority || l.Priority != jobs.DefaultPriority && p != l.Priority {
			continue
		}
		if err := readBits(bucket, priorityAttr(p), chunk, &other); err != nil {
			return err
		}
		if p == l.Priority {
			m.and(&other)
		} else {
			m.andNot(&other)
		}
	}
	return nil
}
