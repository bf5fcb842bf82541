package status

import "sync"

// liveSet is the set of JOBS sequences whose jobs have not ended: what must stay
// in the stream. It is kept in memory, a bit for each in chunks of 4096, and
// rebuilt at the start.
type liveSet struct {
	mu     sync.Mutex
	chunks map[uint32]*liveChunk
	low    uint32 // no chunk below it
	n      int
}

type liveChunk struct {
	bitmap
	n int
}

func (s *liveSet) has(seq uint64) bool {
	c := s.chunks[chunkOf(seq)]
	return c != nil && c.bitmap[seq&chunkMask>>6]&(1<<(seq&63)) != 0
}

func (s *liveSet) add(seq uint64) {
	if s.has(seq) {
		return
	}
	if s.chunks == nil {
		s.chunks = make(map[uint32]*liveChunk)
	}
	no := chunkOf(seq)
	c := s.chunks[no]
	if c == nil {
		c = &liveChunk{}
		s.chunks[no] = c
		if len(s.chunks) == 1 || no < s.low {
			s.low = no
		}
	}
	c.set(seq)
	c.n++
	s.n++
}

func (s *liveSet) remove(seq uint64) {
	if !s.has(seq) {
		return
	}
	no := chunkOf(seq)
	c := s.chunks[no]
	c.clear(seq)
	c.n--
	s.n--
	if c.n > 0 {
		return
	}
	delete(s.chunks, no)
	if no == s.low {
		s.low = s.lowest()
	}
}

// lowest finds the lowest chunk; it is called only when the lowest has emptied.
func (s *liveSet) lowest() uint32 {
	low, first := uint32(0), true
	// Chunks empty in ascending order nearly always: look at the next few first.
	for no := s.low + 1; no < s.low+8; no++ {
		if s.chunks[no] != nil {
			return no
		}
	}
	for no := range s.chunks {
		if first || no < low {
			low, first = no, false
		}
	}
	return low
}

// min is the lowest sequence in the set; ok is false if it is empty.
func (s *liveSet) min() (seq uint64, ok bool) {
	if s.n == 0 {
		return 0, false
	}
	s.chunks[s.low].each(s.low, true, func(key uint64) bool { seq = key; return false })
	return seq, true
}

// max is the highest sequence in the set, 0 if it is empty.
func (s *liveSet) max() (seq uint64) {
	var high uint32
	for no := range s.chunks {
		high = max(high, no)
	}
	if c := s.chunks[high]; c != nil {
		c.each(high, false, func(key uint64) bool { seq = key; return false })
	}
	return seq
}
