package index

import (
	"jobstream/jobs"
	"jobstream/status/boltfile"
)

// OfPriority is the attribute of the jobs of a priority. The default priority has none,
// so that most jobs need no entry.
func OfPriority(p jobs.Priority) string { return "p" + string('0'+rune(p)) }

// Position is how many jobs of j's lane wait, up to and including j.
func Position(bits boltfile.Bucket, j *jobs.Job) (n int, err error) {
	last := Chunk(j.Key)
	err = EachChunk(bits, OfStatus(jobs.Pending), func(chunk uint32, m *Bitmap) error {
		if chunk > last {
			return nil
		}
		if err := narrowToLane(bits, chunk, m, j.Lane()); err != nil {
			return err
		}
		if chunk == last {
			m.Each(chunk, false, func(key uint64) bool {
				if key > j.Key {
					m.Clear(key)
				}
				return key > j.Key
			})
		}
		n += m.Count()
		return nil
	})
	return n, err
}

// narrowToLane removes from m the jobs that do not wait in a lane.
func narrowToLane(bucket boltfile.Bucket, chunk uint32, m *Bitmap, l jobs.Lane) error {
	var other Bitmap
	if err := Read(bucket, OfType(l.Type), chunk, &other); err != nil {
		return err
	}
	m.And(&other)
	if err := Read(bucket, Away, chunk, &other); err != nil {
		return err
	}
	m.AndNot(&other)
	for p := jobs.HighestPriority; p <= jobs.LowestPriority; p++ {
		if p == jobs.DefaultPriority || l.Priority != jobs.DefaultPriority && p != l.Priority {
			continue
		}
		if err := Read(bucket, OfPriority(p), chunk, &other); err != nil {
			return err
		}
		if p == l.Priority {
			m.And(&other)
		} else {
			m.AndNot(&other)
		}
	}
	return nil
}
