package status

// arena is the memory for what a transaction writes: bbolt keeps the slices
// until the commit. It is used again by the next transaction; there is only one
// at a time.
type arena struct {
	blocks [][]byte // of arenaBlock bytes each, as far as they are filled
	filled int      // blocks that are full
}

const (
	arenaBlock = 64 << 10
	arenaRoom  = 2048 // a block with less room is full
	arenaKept  = 32   // blocks that are kept for the next transaction
)

// reset takes back all that was given out.
func (a *arena) reset() {
	if len(a.blocks) > arenaKept {
		a.blocks = append(make([][]byte, 0, arenaKept), a.blocks[:arenaKept]...)
	}
	for i := range a.blocks {
		a.blocks[i] = a.blocks[i][:0]
	}
	a.filled = 0
}

// append gives the memory with what f appends to a slice.
func (a *arena) append(f func([]byte) []byte) []byte {
	if a.filled < len(a.blocks) && cap(a.blocks[a.filled])-len(a.blocks[a.filled]) < arenaRoom {
		a.filled++
	}
	if a.filled == len(a.blocks) {
		a.blocks = append(a.blocks, make([]byte, 0, arenaBlock))
	}
	block := a.blocks[a.filled]
	from := len(block)
	b := f(block[from:])
	if from+len(b) > cap(block) {
		return b // it did not fit and was moved
	}
	a.blocks[a.filled] = block[:from+len(b)]
	return b[:len(b):len(b)]
}
