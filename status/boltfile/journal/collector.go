package journal

import "slices"

const (
	// keep is the memory for pages that is kept from one commit to the next. More is
	// kept as long as one of keepFor commits needs a quarter of it.
	keep    = 1 << 20
	keepFor = 64
)

// collector gathers the pages of a commit for its record. The next commit uses the
// memory again.
type collector struct {
	next  record
	head  []byte // memory for its header
	spare int    // commits in a row that needed little of the memory of next
}

// collect copies pages, as bbolt uses their memory again.
func (c *collector) collect(pages []byte, offset int64) {
	n := len(c.next.spans)
	if n > 0 && c.next.spans[n-1].offset+int64(c.next.spans[n-1].length) == offset {
		c.next.spans[n-1].length += len(pages)
	} else {
		c.next.spans = append(c.next.spans, span{offset, len(pages)})
	}
	if need := len(c.next.pages) + len(pages); need > cap(c.next.pages) {
		// Large slices would grow by a quarter at a time.
		c.next.pages = slices.Grow(c.next.pages, max(2*need, keep)-len(c.next.pages))
	}
	c.next.pages = append(c.next.pages, pages...)
}

// reset drops the collected pages, and after a while memory beyond used bytes.
func (c *collector) reset(used int) {
	c.spare++
	if used > cap(c.next.pages)/4 {
		c.spare = 0
	}
	c.next.spans, c.next.pages = c.next.spans[:0], c.next.pages[:0]
	if c.spare >= keepFor && cap(c.next.pages) > keep {
		c.next.pages, c.spare = nil, 0
	}
}
