package index

import (
	"encoding/binary"

	"jobstream/jobs"
	"jobstream/status/boltfile"
)

// Span is the range of created_at within a chunk of keys.
type Span struct{ from, to jobs.Time }

// Include extends the range to a moment.
func (s *Span) Include(t jobs.Time) {
	if s.from == 0 || t < s.from {
		s.from = t
	}
	s.to = max(s.to, t)
}

func getSpan(bucket boltfile.Bucket, chunk uint32) (s Span, ok bool) {
	v := bucket.Get(binary.BigEndian.AppendUint32(nil, chunk))
	if len(v) != 16 {
		return s, false
	}
	return Span{jobs.Time(binary.BigEndian.Uint64(v)), jobs.Time(binary.BigEndian.Uint64(v[8:]))}, true
}

// PutSpan extends the stored range of a chunk.
func PutSpan(bucket boltfile.Bucket, chunk uint32, s Span) error {
	if have, ok := getSpan(bucket, chunk); ok {
		s.Include(have.from)
		s.Include(have.to)
	}
	v := binary.BigEndian.AppendUint64(nil, uint64(s.from))
	return bucket.Put(binary.BigEndian.AppendUint32(nil, chunk), binary.BigEndian.AppendUint64(v, uint64(s.to)))
}
