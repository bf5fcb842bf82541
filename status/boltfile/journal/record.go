package journal

import (
	"encoding/binary"
	"hash/crc32"
	"hash/fnv"
	"io"
)

// A record is a header of whole blocks, and the pages of one commit with the meta page
// last. With whole blocks the system never has to read a block before it overwrites it.
// All numbers are little endian:
//
//	 0  magic
//	 8  version
//	12  CRC-32C of header (with 0 here) and pages
//	16  LSN: the record's number, without gaps
//	24  checkpoint: all records up to this LSN are in bbolt's file, synced
//	32  length of the pages
//	40  number of spans
//	48  salt: a random number, the same in all records of a journal. So no content
//	    of a page can be taken for a record
//	56  the meta that was valid before
//	120 spans: offset in bbolt's file, length
//
// A record without pages only records a checkpoint.
const (
	magic      = 0x6c6e72756f6a736a // "jsjournl"
	version    = 1
	blockSize  = 4096
	spansStart = 120
	spanSize   = 16
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// span is the place of a run of neighbouring pages in bbolt's file.
type span struct {
	offset int64
	length int
}

// record is one commit in the journal.
type record struct {
	salt       uint64
	lsn        uint64
	checkpoint uint64
	before     meta   // the valid one before the commit
	after      meta   // the one of this commit
	spans      []span // the last one is the meta page; none if it only records a checkpoint
	pages      []byte // of all spans, one after the other
}

// size is the record's size in the journal, in bytes.
func (r *record) size() int64 { return int64(headerSize(len(r.spans)) + len(r.pages)) }

// headerSize is the size of a header with n spans, in bytes.
func headerSize(n int) int {
	return roundUp(spansStart+n*spanSize, blockSize)
}

func roundUp[T int | int64](n, to T) T { return (n + to - 1) / to * to }

// appendHeader encodes all but the pages.
func (r *record) appendHeader(b []byte) []byte {
	start := len(b)
	b = append(b, make([]byte, headerSize(len(r.spans)))...)
	h := b[start:]
	binary.LittleEndian.PutUint64(h, magic)
	binary.LittleEndian.PutUint32(h[8:], version)
	binary.LittleEndian.PutUint64(h[16:], r.lsn)
	binary.LittleEndian.PutUint64(h[24:], r.checkpoint)
	binary.LittleEndian.PutUint64(h[32:], uint64(len(r.pages)))
	binary.LittleEndian.PutUint32(h[40:], uint32(len(r.spans))) //nolint:gosec // a commit has no 4 billion pages
	binary.LittleEndian.PutUint64(h[48:], r.salt)
	copy(h[56:], r.before[:])
	at := h[spansStart:]
	for _, s := range r.spans {
		binary.LittleEndian.PutUint64(at, uint64(s.offset)) //nolint:gosec // offsets are not negative
		binary.LittleEndian.PutUint64(at[8:], uint64(s.length))
		at = at[spanSize:]
	}
	binary.LittleEndian.PutUint32(h[12:], checksum(h, r.pages))
	return b
}

// checksum is the checksum of a record whose header has 0 in its place.
func checksum(header, pages []byte) uint32 {
	return crc32.Update(crc32.Checksum(header, castagnoli), castagnoli, pages)
}

// readRecord reads the record at an offset of an area that ends at end. ok is false if
// there is no whole record.
func readRecord(f io.ReaderAt, at, end int64) (r record, ok bool) {
	head := make([]byte, blockSize)
	if at+blockSize > end || !readFull(f, head, at) || binary.LittleEndian.Uint64(head) != magic || binary.LittleEndian.Uint32(head[8:]) != version {
		return record{}, false
	}
	length, n := binary.LittleEndian.Uint64(head[32:]), int64(binary.LittleEndian.Uint32(head[40:]))
	room := end - at
	if n > room/spanSize || length > uint64(room) { //nolint:gosec // there is room
		return record{}, false
	}
	hs := headerSize(int(n))
	if int64(hs)+int64(length) > room { //nolint:gosec // bounded above
		return record{}, false
	}
	all := make([]byte, hs+int(length)) //nolint:gosec // bounded above
	if !readFull(f, all, at) {
		return record{}, false
	}
	h, pages := all[:hs], all[hs:]
	sum := binary.LittleEndian.Uint32(h[12:])
	binary.LittleEndian.PutUint32(h[12:], 0)
	if checksum(h, pages) != sum {
		return record{}, false
	}
	r = record{
		lsn: binary.LittleEndian.Uint64(h[16:]), checkpoint: binary.LittleEndian.Uint64(h[24:]),
		salt: binary.LittleEndian.Uint64(h[48:]), before: meta(h[56:]), pages: pages,
	}
	rest := len(pages)
	for from := h[spansStart:]; len(r.spans) < int(n); from = from[spanSize:] {
		s := span{int64(binary.LittleEndian.Uint64(from)), int(binary.LittleEndian.Uint64(from[8:]))} //nolint:gosec // checked below
		if s.offset < 0 || s.length < metaStart+metaSize || s.length > rest {
			return record{}, false
		}
		rest -= s.length
		r.spans = append(r.spans, s)
	}
	if r.after = r.before; n > 0 {
		r.after = meta(pages[len(pages)-r.spans[n-1].length+metaStart:])
	}
	return r, rest == 0 && r.lsn > r.checkpoint
}

func readFull(f io.ReaderAt, b []byte, at int64) bool {
	n, err := f.ReadAt(b, at)
	return n == len(b) && (err == nil || err == io.EOF)
}

// apply writes the pages to bbolt's file, the meta page last.
func (r *record) apply(write func([]byte, int64) (int, error)) error {
	pages := r.pages
	for _, s := range r.spans {
		if _, err := write(pages[:s.length], s.offset); err != nil {
			return err
		}
		pages = pages[s.length:]
	}
	return nil
}

// split returns the pages without the meta page, and that by itself.
func (r *record) split() (body, page record) {
	last := len(r.spans) - 1
	at := len(r.pages) - r.spans[last].length
	return record{spans: r.spans[:last], pages: r.pages[:at]}, record{spans: r.spans[last:], pages: r.pages[at:]}
}

// only reduces the record to a part from [record.split].
func (r *record) only(part record) {
	r.spans = append(r.spans[:0], part.spans...)
	r.pages = append(r.pages[:0], part.pages...) // at the front, so that its memory can be used again
}

// meta is the part of bbolt's meta page that names the valid tree, as it is in the
// file: magic, version, page size, flags, root, free list, number of pages,
// transaction, checksum. See bbolt's internal/common/meta.go.
type meta [metaSize]byte

const (
	metaSize  = 64
	metaStart = 16 // behind the page's header
	metaPages = 40
	metaTx    = 48
	metaSum   = 56
)

// valid says whether a commit has written all of it.
func (m *meta) valid() bool {
	h := fnv.New64a()
	_, _ = h.Write(m[:metaSum])
	return binary.NativeEndian.Uint32(m[:]) == boltMagic && binary.NativeEndian.Uint64(m[metaSum:]) == h.Sum64()
}

// tx is the number of the commit that wrote it.
func (m *meta) tx() uint64 { return binary.NativeEndian.Uint64(m[metaTx:]) }

// pages is the number of pages of the file, as of that commit.
func (m *meta) pages() uint64 { return binary.NativeEndian.Uint64(m[metaPages:]) }

const boltMagic = 0xED0CDAED

// latest reads both metas of a bbolt file. whole says whether both are valid. If
// neither is, the returned one is invalid, too.
func latest(f io.ReaderAt, pageSize int64) (newest meta, whole bool) {
	var found [2]meta
	var valid [2]bool
	for i := range found {
		valid[i] = readFull(f, found[i][:], int64(i)*pageSize+metaStart) && found[i].valid()
	}
	if valid[1] && (!valid[0] || found[1].tx() > found[0].tx()) {
		return found[1], valid[0]
	}
	return found[0], valid[0] && valid[1]
}
