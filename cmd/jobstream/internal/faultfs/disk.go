package faultfs

import (
	"math/rand/v2"
	"sync"
	"syscall"
	"time"
)

// Names says when a name (of a file that was made, renamed or removed) is on the disk.
type Names int

// The two kinds of file systems.
const (
	// Strict: when its folder is fsynced, and for a new file also when the file is. A
	// program for any file system can rely on nothing else.
	Strict Names = iota
	// Journal: with the next fsync of any file, in the order of the changes, as on
	// ext4. It leaves more behind, removed names included.
	Journal
)

// Disk is a file system in memory. All methods may be called from any goroutine.
type Disk struct {
	names Names

	mu     sync.Mutex
	root   *node
	lastID uint64
	log    []change      // of names, not on the disk yet
	syncs  int64         // fsyncs so far
	cutAt  int64         // the fsync that cuts the power; 0 = none
	off    chan struct{} // closed when the power is off
	ended  chan struct{} // closed by Restart: ends the calls that hang
}

// New makes an empty disk.
func New(names Names) *Disk {
	d := &Disk{names: names, off: make(chan struct{}), ended: make(chan struct{})}
	d.root = d.newNode(syscall.S_IFDIR | 0o755)
	return d
}

const pageSize, sectorSize = 4096, 512

// page is shared between the visible and the kept content, until it is written to.
type page = *[pageSize]byte

// content is a file's bytes: a nil page is a hole.
type content struct {
	size  int64
	pages []page
}

func (c *content) clone() content {
	return content{c.size, append([]page(nil), c.pages...)}
}

// node is a file or folder, with its visible and its kept content.
type node struct {
	id      uint64
	mode    uint32
	changed time.Time
	parent  *node // of its latest name
	pending int   // changes of its names that are not on the disk yet

	seen, kept content
	dirty      map[int]struct{} // pages written since the last fsync

	names, keptNames map[string]*node
}

func (n *node) isDir() bool { return n.mode&syscall.S_IFMT == syscall.S_IFDIR }

func (d *Disk) newNode(mode uint32) *node {
	d.lastID++
	n := &node{id: d.lastID, mode: mode, changed: time.Now()}
	if n.isDir() {
		n.names, n.keptNames = make(map[string]*node), make(map[string]*node)
	} else {
		n.dirty = make(map[int]struct{})
	}
	return n
}

// change is a change of names: node appears at to, and disappears at from. Either may
// be missing.
type change struct {
	node     *node
	from, to place
}

type place struct {
	dir  *node
	name string
}

func (c *change) apply() {
	c.node.pending--
	if c.from.dir != nil {
		delete(c.from.dir.keptNames, c.from.name)
	}
	if c.to.dir != nil {
		c.to.dir.keptNames[c.to.name] = c.node
	}
}

// do waits while the power is off; then it runs f on the disk.
func (d *Disk) do(f func() syscall.Errno) syscall.Errno {
	d.mu.Lock()
	if !d.isOff() {
		defer d.mu.Unlock()
		return f()
	}
	d.mu.Unlock()
	<-d.ended
	return syscall.EIO
}

func (d *Disk) isOff() bool {
	select {
	case <-d.off:
		return true
	default:
		return false
	}
}

// rename makes, moves and removes names.
func (d *Disk) rename(n *node, from, to place) {
	if from.dir != nil {
		delete(from.dir.names, from.name)
		from.dir.changed = time.Now()
	}
	if to.dir != nil {
		to.dir.names[to.name] = n
		to.dir.changed = time.Now()
		n.parent = to.dir
	}
	n.pending++
	d.log = append(d.log, change{n, from, to})
}

func (n *node) write(data []byte, off int64) {
	n.changed = time.Now()
	end := off + int64(len(data))
	n.grow(max(end, n.seen.size))
	for len(data) > 0 {
		i, at := int(off/pageSize), int(off%pageSize)
		did := copy(n.writable(i)[at:], data)
		data, off = data[did:], off+int64(did)
	}
}

// writable is a page of the visible content only.
func (n *node) writable(i int) page {
	p := n.seen.pages[i]
	if _, own := n.dirty[i]; own && p != nil {
		return p
	}
	fresh := new([pageSize]byte)
	if p != nil {
		*fresh = *p
	}
	n.seen.pages[i] = fresh
	n.dirty[i] = struct{}{}
	return fresh
}

func (n *node) grow(size int64) {
	n.seen.size = size
	for int64(len(n.seen.pages))*pageSize < size {
		n.seen.pages = append(n.seen.pages, nil)
	}
}

func (n *node) truncate(size int64) {
	n.changed = time.Now()
	if size >= n.seen.size {
		n.grow(size)
		return
	}
	left := int((size + pageSize - 1) / pageSize)
	for i := left; i < len(n.seen.pages); i++ {
		n.dirty[i] = struct{}{} // a hole now
	}
	n.seen.pages = n.seen.pages[:left]
	n.seen.size = size
	if rest := size % pageSize; rest != 0 && n.seen.pages[left-1] != nil {
		clear(n.writable(left - 1)[rest:])
	}
}

func (n *node) read(into []byte, off int64) int {
	if off >= n.seen.size {
		return 0
	}
	into = into[:min(int64(len(into)), n.seen.size-off)]
	for done := 0; done < len(into); {
		i, at := int((off+int64(done))/pageSize), int((off+int64(done))%pageSize)
		part := into[done:min(len(into), done+pageSize-at)]
		if p := n.seen.pages[i]; p != nil {
			copy(part, p[at:])
		} else {
			clear(part)
		}
		done += len(part)
	}
	return len(into)
}

// sync brings a file or folder to the disk. The fsync that CutAtSync chose is the last
// operation of the disk, and fails.
func (d *Disk) sync(n *node) syscall.Errno {
	d.syncs++
	if d.syncs == d.cutAt {
		close(d.off)
		d.mu.Unlock()
		<-d.ended
		d.mu.Lock()
		return syscall.EIO
	}
	if !n.isDir() {
		for i := range n.dirty {
			n.kept.set(i, n.seen.at(i))
		}
		n.kept.resize(n.seen.size)
		clear(n.dirty)
	}
	d.keepNames(n)
	return 0
}

func (c *content) at(i int) page {
	if i < len(c.pages) {
		return c.pages[i]
	}
	return nil
}

func (c *content) set(i int, p page) {
	for len(c.pages) <= i {
		c.pages = append(c.pages, nil)
	}
	c.pages[i] = p
}

func (c *content) resize(size int64) {
	count := int((size + pageSize - 1) / pageSize)
	for len(c.pages) < count {
		c.pages = append(c.pages, nil)
	}
	clear(c.pages[count:])
	c.pages, c.size = c.pages[:count], size
}

// keepNames brings to the disk the names that an fsync of n must, and those that have
// to come before them.
func (d *Disk) keepNames(n *node) {
	nodes := make(map[*node]bool)
	pending := 0
	for a := n; a != nil; a = a.parent {
		nodes[a] = true
		pending += a.pending
	}
	if d.names == Strict && pending == 0 && !n.isDir() {
		return
	}
	chosen := make([]bool, len(d.log))
	touched := make(map[place]bool)
	for i := len(d.log) - 1; i >= 0; i-- {
		c := &d.log[i]
		chosen[i] = d.names == Journal || nodes[c.node] || touched[c.from] || touched[c.to] ||
			n.isDir() && (c.from.dir == n || c.to.dir == n)
		if !chosen[i] {
			continue
		}
		for _, p := range []place{c.from, c.to} {
			if p.dir != nil {
				touched[p] = true
			}
		}
	}
	left := d.log[:0]
	for i := range d.log {
		if chosen[i] {
			d.log[i].apply()
		} else {
			left = append(left, d.log[i])
		}
	}
	clear(d.log[len(left):])
	d.log = left
}

// Cut cuts the power. From now on operations hang until [Disk.Restart]. All earlier
// ones have been done.
func (d *Disk) Cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.isOff() {
		close(d.off)
	}
}

// CutAtSync cuts the power instead of doing the nth fsync from now on, n ≥ 1.
func (d *Disk) CutAtSync(n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cutAt = d.syncs + n
}

// Off is closed when the power is off.
func (d *Disk) Off() <-chan struct{} { return d.off }

// Syncs is the number of fsyncs so far.
func (d *Disk) Syncs() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.syncs
}

// Restart returns the remains after a cut as a new disk. The old one must not be used
// any more; its hanging operations end with an error.
//
// torn is nil for a disk that keeps only fsynced data. Otherwise it chooses what has
// reached the disk by itself: some of the changed pages of files, some of them up to a
// sector in their middle, and the first few of the changed names.
func (d *Disk) Restart(names Names, torn *rand.Rand) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	if torn != nil {
		for i := range torn.IntN(len(d.log) + 1) {
			d.log[i].apply()
		}
	}
	left := &Disk{names: names, root: d.root, lastID: d.lastID, off: make(chan struct{}), ended: make(chan struct{})}
	d.root = nil
	left.root.revive(torn)
	close(d.ended)
	return left
}

// revive makes the kept content visible.
func (n *node) revive(torn *rand.Rand) {
	n.pending = 0
	if !n.isDir() {
		if torn != nil && len(n.dirty) > 0 {
			n.tear(torn)
		}
		n.seen = n.kept.clone()
		n.dirty = make(map[int]struct{})
		return
	}
	n.names = make(map[string]*node, len(n.keptNames))
	for name, child := range n.keptNames {
		n.names[name] = child
		child.parent = n
		child.revive(torn)
	}
}

// tear keeps some of the changed pages.
func (n *node) tear(torn *rand.Rand) {
	size := n.kept.size
	if n.seen.size < size && torn.IntN(2) == 0 {
		size = n.seen.size
	}
	for i := range len(n.seen.pages) { // in order, so that a seed repeats the result
		if _, ok := n.dirty[i]; !ok || torn.IntN(2) == 0 {
			continue
		}
		p := new([pageSize]byte)
		if old := n.kept.at(i); old != nil {
			*p = *old
		}
		upTo := pageSize
		if torn.IntN(4) == 0 {
			upTo = sectorSize * torn.IntN(pageSize/sectorSize)
		}
		if seen := n.seen.at(i); seen != nil {
			copy(p[:upTo], seen[:upTo])
		} else {
			clear(p[:upTo])
		}
		n.kept.set(i, p)
		size = max(size, min(n.seen.size, int64(i+1)*pageSize))
	}
	n.kept.resize(size)
}
