package index

import (
	"encoding/binary"
	"errors"

	"jobstream/jobs"
)

// Counters are the figures of one type.
type Counters struct {
	Now   [jobs.NumStatus]int64 // records by status
	Ended [jobs.NumStatus]int64 // jobs that ever ended so, deleted ones included
}

// Encode returns the stored form.
func (c *Counters) Encode() []byte {
	b := []byte{1}
	for i := range c.Now {
		b = binary.AppendVarint(b, c.Now[i])
		b = binary.AppendVarint(b, c.Ended[i])
	}
	return b
}

// Decode is the inverse of [Counters.Encode].
func (c *Counters) Decode(b []byte) error {
	if len(b) == 0 || b[0] != 1 {
		return errors.New("unknown encoding")
	}
	b = b[1:]
	for i := range c.Now {
		for _, p := range []*int64{&c.Now[i], &c.Ended[i]} {
			v, n := binary.Varint(b)
			if n <= 0 {
				return errors.New("too short")
			}
			*p, b = v, b[n:]
		}
	}
	return nil
}
