package index

// Live is the set of the JOBS sequences that must stay in the stream, as their jobs
// have not ended. It is in memory, one bit per sequence in chunks of 4096, and rebuilt
// at the start.
type Live struct {
	chunks map[uint32]*liveChunk
	low    uint32 // no chunk below it
	n      int
}

type liveChunk struct {
	Bitmap
	n int
}

// Has says whether a sequence is in the set.
func (s *Live) Has(seq uint64) bool {
	c := s.chunks[Chunk(seq)]
	return c != nil && c.Bitmap[seq&chunkMask>>6]&(1<<(seq&63)) != 0
}

// Add adds a sequence.
func (s *Live) Add(seq uint64) {
	if s.Has(seq) {
		return
	}
	if s.chunks == nil {
		s.chunks = make(map[uint32]*liveChunk)
	}
	no := Chunk(seq)
	c := s.chunks[no]
	if c == nil {
		c = &liveChunk{}
		s.chunks[no] = c
		if len(s.chunks) == 1 || no < s.low {
			s.low = no
		}
	}
	c.Set(seq)
	c.n++
	s.n++
}

// Remove removes a sequence.
func (s *Live) Remove(seq uint64) {
	if !s.Has(seq) {
		return
	}
	no := Chunk(seq)
	c := s.chunks[no]
	c.Clear(seq)
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

// lowest finds the lowest chunk. It is called only when that has emptied.
func (s *Live) lowest() uint32 {
	low, first := uint32(0), true
	// Chunks nearly always empty in ascending order, so the next few come first.
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

// Min is the lowest sequence in the set; ok is false if it is empty.
func (s *Live) Min() (seq uint64, ok bool) {
	if s.n == 0 {
		return 0, false
	}
	s.chunks[s.low].Each(s.low, true, func(key uint64) bool { seq = key; return false })
	return seq, true
}

// Max is the highest sequence in the set; 0 if it is empty.
func (s *Live) Max() (seq uint64) {
	var high uint32
	for no := range s.chunks {
		high = max(high, no)
	}
	if c := s.chunks[high]; c != nil {
		c.Each(high, false, func(key uint64) bool { seq = key; return false })
	}
	return seq
}

// Len is the number of sequences in the set.
func (s *Live) Len() int { return s.n }
