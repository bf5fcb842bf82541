package boltfile

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
)

// pageWalk checks every page that a bbolt file uses, each once, before bbolt reads it.
// A page that points to itself or to one above it sends a cursor of bbolt into an
// endless loop. A page that points out of the file makes bbolt read other memory. The
// layout is that of go.etcd.io/bbolt/internal/common, in the machine's byte order:
//
//	page     id uint64, flags uint16, count uint16, overflow uint32, elements
//	branch   pos uint32, ksize uint32, page uint64
//	leaf     flags uint32, pos uint32, ksize uint32, vsize uint32
//	bucket   root page uint64 (0: a leaf page follows), sequence uint64
//	meta     16 bytes, root bucket, free list's page uint64 (all ones: none), pages uint64, commit uint64
//	free     page uint64; if the count is 65,535 the first one is the true count
//
// where pos counts from the element's own start.
type pageWalk struct {
	file  io.ReaderAt
	size  int    // bytes of a page
	pages uint64 // of the file
	seen  []uint64
	spare [deepest + 1]page // by depth: a page is finished when its neighbour's turn comes
}

const (
	pageHead, pageElement, bucketHead = 16, 16, 16
	branchPage, leafPage, freePage    = 0x01, 0x02, 0x10
	metaFree, metaCommit, metaSize    = pageHead + 32, pageHead + 48, pageHead + 64
	noFreeList                        = 1<<64 - 1
	manyFree                          = 0xFFFF
	bucketElement                     = 0x01
	deepest                           = 64 // pages above each other; ten are enough for any disk
)

func newPageWalk(file io.ReaderAt, size int, pages uint64) *pageWalk {
	return &pageWalk{file: file, size: size, pages: pages, seen: make([]uint64, pages/64+1)}
}

// page is one page with those that overflow it. Only the first is in memory if that is
// enough.
type page struct {
	id    uint64
	flags uint16
	count int
	data  []byte // with the head
	bytes uint64 // in all
}

func (w *pageWalk) load(id uint64, depth int) (*page, error) {
	if depth > deepest {
		return nil, fmt.Errorf("page %d lies %d pages deep", id, depth)
	}
	if id < 2 || id >= w.pages {
		return nil, fmt.Errorf("page %d is used, of pages 2 to %d", id, w.pages-1)
	}
	p := &w.spare[depth]
	if cap(p.data) < w.size {
		p.data = make([]byte, w.size)
	}
	p.data = p.data[:w.size]
	if _, err := w.file.ReadAt(p.data, int64(id)*int64(w.size)); err != nil {
		return nil, fmt.Errorf("page %d cannot be read: %w", id, err)
	}
	order := binary.NativeEndian
	p.id, p.flags, p.count = order.Uint64(p.data), order.Uint16(p.data[8:]), int(order.Uint16(p.data[10:]))
	overflow := uint64(order.Uint32(p.data[12:]))
	if p.id != id {
		return nil, fmt.Errorf("page %d says that it is page %d", id, p.id)
	}
	if overflow >= w.pages-id {
		return nil, fmt.Errorf("page %d goes on behind the end of the file", id)
	}
	for n := id; n <= id+overflow; n++ {
		if w.seen[n/64]&(1<<(n%64)) != 0 {
			return nil, fmt.Errorf("page %d is used twice", n)
		}
		w.seen[n/64] |= 1 << (n % 64)
	}
	p.bytes = (overflow + 1) * uint64(w.size)
	if p.flags != freePage && pageHead+p.count*pageElement > len(p.data) {
		if pageHead+uint64(p.count)*pageElement > p.bytes {
			return nil, fmt.Errorf("page %d is too small for its %d elements", id, p.count)
		}
		p.data = make([]byte, p.bytes)
		if _, err := w.file.ReadAt(p.data, int64(id)*int64(w.size)); err != nil {
			return nil, fmt.Errorf("page %d cannot be read: %w", id, err)
		}
	}
	return p, nil
}

// has returns an error if a page has fewer than n bytes from there on.
func (p *page) has(from, n uint64) error {
	if from+n > p.bytes {
		return fmt.Errorf("an element of page %d lies outside of it", p.id)
	}
	return nil
}

// part is a range of a page.
func (w *pageWalk) part(p *page, from, n uint64) ([]byte, error) {
	if err := p.has(from, n); err != nil {
		return nil, err
	}
	if from+n <= uint64(len(p.data)) {
		return p.data[from : from+n], nil
	}
	b := make([]byte, n)
	if _, err := w.file.ReadAt(b, int64(p.id)*int64(w.size)+int64(from)); err != nil {
		return nil, fmt.Errorf("page %d cannot be read: %w", p.id, err)
	}
	return b, nil
}

// all checks everything that a commit has left: the tree, and the list of free pages if
// there is one.
func (w *pageWalk) all(root, commit uint64) error {
	if err := w.tree(root); err != nil {
		return err
	}
	list, err := w.freeList(commit)
	if err != nil || list == noFreeList {
		return err
	}
	return w.free(list)
}

// freeList is the place of a commit's list of free pages. Commits alternate between the two
// meta pages, but a copy that bbolt has made begins with its commit in the first one.
func (w *pageWalk) freeList(commit uint64) (uint64, error) {
	meta := make([]byte, metaSize)
	var found [2]uint64
	for page := range found {
		if _, err := w.file.ReadAt(meta, int64(page)*int64(w.size)); err != nil {
			return 0, fmt.Errorf("page %d cannot be read: %w", page, err)
		}
		if found[page] = binary.NativeEndian.Uint64(meta[metaCommit:]); found[page] == commit {
			return binary.NativeEndian.Uint64(meta[metaFree:]), nil
		}
	}
	return 0, fmt.Errorf("the first pages have the commits %d and %d, not %d", found[0], found[1], commit)
}

// freeSum is a checksum of the list of free pages, 0 if there is none.
func (w *pageWalk) freeSum(commit uint64) (uint32, error) {
	list, err := w.freeList(commit)
	if err != nil || list == noFreeList {
		return 0, err
	}
	p, err := w.load(list, 0)
	if err != nil {
		return 0, err
	}
	b, err := w.part(p, 0, p.bytes)
	return crc32.ChecksumIEEE(b), err
}

// free checks the list of free pages, which bbolt would write to. The tree must have
// been checked.
func (w *pageWalk) free(list uint64) error {
	p, err := w.load(list, 0)
	if err != nil {
		return err
	}
	if p.flags != freePage {
		return fmt.Errorf("page %d has flags %#x and should be the list of free pages", list, p.flags)
	}
	n, at := uint64(p.count), uint64(pageHead)
	if n == manyFree {
		first, err := w.part(p, at, 8)
		if err != nil {
			return err
		}
		n, at = binary.NativeEndian.Uint64(first), at+8
	}
	if n > w.pages {
		return fmt.Errorf("page %d lists %d free pages of %d", list, n, w.pages)
	}
	ids, err := w.part(p, at, 8*n)
	if err != nil {
		return err
	}
	for ; len(ids) > 0; ids = ids[8:] {
		id := binary.NativeEndian.Uint64(ids)
		if id < 2 || id >= w.pages {
			return fmt.Errorf("page %d is free, of pages 2 to %d", id, w.pages-1)
		}
		if w.seen[id/64]&(1<<(id%64)) != 0 {
			return fmt.Errorf("page %d is free, and used or free once more", id)
		}
		w.seen[id/64] |= 1 << (id % 64)
	}
	return nil
}

// tree checks the bucket with this root.
func (w *pageWalk) tree(root uint64) error {
	var last []byte
	return w.below(root, &last, 0)
}

// below checks a page and those below it. last is the key before.
func (w *pageWalk) below(id uint64, last *[]byte, depth int) error {
	p, err := w.load(id, depth)
	switch {
	case err != nil:
		return err
	case p.flags == leafPage:
		return w.leaf(p, last, depth)
	case p.flags != branchPage || p.count == 0:
		return fmt.Errorf("page %d has flags %#x and %d elements", id, p.flags, p.count)
	}
	for i := range p.count {
		at := uint64(pageHead + i*pageElement)
		e := p.data[at:]
		if err := p.has(at+uint64(binary.NativeEndian.Uint32(e)), uint64(binary.NativeEndian.Uint32(e[4:]))); err != nil {
			return err
		}
		if err := w.below(binary.NativeEndian.Uint64(e[8:]), last, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// leaf checks a leaf page and the buckets in it.
func (w *pageWalk) leaf(p *page, last *[]byte, depth int) error {
	order := binary.NativeEndian
	for i := range p.count {
		at := uint64(pageHead + i*pageElement)
		e := p.data[at:]
		from, ksize, vsize := at+uint64(order.Uint32(e[4:])), uint64(order.Uint32(e[8:])), uint64(order.Uint32(e[12:]))
		if err := p.has(from, ksize+vsize); err != nil {
			return err
		}
		key, err := w.part(p, from, ksize)
		if err != nil {
			return err
		}
		if bytes.Compare(*last, key) >= 0 { // no key is empty
			return fmt.Errorf("the keys of page %d are not in order", p.id)
		}
		*last = append((*last)[:0], key...)
		if order.Uint32(e)&bucketElement != 0 {
			if err := w.bucket(p, from+ksize, vsize, depth); err != nil {
				return err
			}
		}
	}
	return nil
}

// bucket checks a bucket that is the value of an element.
func (w *pageWalk) bucket(p *page, from, n uint64, depth int) error {
	v, err := w.part(p, from, n)
	if err != nil {
		return err
	}
	if len(v) < bucketHead {
		return fmt.Errorf("a bucket in page %d has %d bytes", p.id, len(v))
	}
	var last []byte
	if root := binary.NativeEndian.Uint64(v); root != 0 {
		return w.below(root, &last, depth+1)
	}
	v = v[bucketHead:]
	if len(v) < pageHead {
		return fmt.Errorf("a bucket in page %d ends early", p.id)
	}
	inner := &page{id: p.id, flags: binary.NativeEndian.Uint16(v[8:]), count: int(binary.NativeEndian.Uint16(v[10:])), data: v, bytes: uint64(len(v))}
	if inner.flags != leafPage || pageHead+inner.count*pageElement > len(v) {
		return fmt.Errorf("a bucket in page %d has flags %#x and %d elements in %d bytes", p.id, inner.flags, inner.count, len(v))
	}
	return w.leaf(inner, &last, depth+1)
}
