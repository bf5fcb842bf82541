package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"

	"jobstream/jobs/fsync"
)

// zeroed is how far ahead the file is filled with zeros. An fsync after overwriting
// takes half the time of one after growing the file.
const zeroed = 1 << 20

var zeros [zeroed]byte

// Journal is the journal of one open database. Like bbolt it has one writer.
type Journal struct {
	path   string
	create func(path string) (disk, error)
	target disk        // bbolt's file
	metas  *sync.Mutex // bbolt's, or nil
	page   int64       // bytes of one

	collector // bbolt's writer only

	mu     sync.Mutex // between a commit and Close
	closed bool
	file   disk // nil before the first commit
	areas  areas

	lsn        uint64 // of the last commit that is in bbolt's file
	checkpoint uint64 // everything up to here is in bbolt's file, synced
	doubtful   bool   // the last record may be followed by one that does not count
	noted      uint64 // the checkpoint in the last record
	before     meta   // that of the last commit
	salt       uint64
	running    *checkpoint // or nil
	failed     bool        // a checkpoint has failed: bbolt's file may lack anything behind the last good one

	syncs atomic.Uint64
	made  atomic.Pointer[os.FileInfo] // of file; nil before the first commit
}

// disk is a file as the journal uses it: an *os.File, or in tests one that forgets
// unsynced writes.
type disk interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
	Close() error
}

// diskFile syncs only as much as is needed to read the content again.
type diskFile struct{ *os.File }

func (f diskFile) Sync() error { return syncData(f.File) }

// checkpoint is a sync of bbolt's file that is under way.
type checkpoint struct {
	upTo uint64
	done chan error
}

// Attach puts a journal at path under a database that has just been opened, before its
// first transaction. [Recover] must have run before, and nobody else may have either
// file open. From then on bbolt's own syncs are off. ok is false, and nothing has
// changed, if journals are not supported; then bbolt goes on by itself.
func Attach(db *bbolt.DB, path string) (j *Journal, ok bool, err error) {
	if _, ok := writeHook(db); !ok || !supported {
		return nil, false, nil
	}
	// Another process had the database after Recover and did not stop cleanly. The next
	// try recovers its commits.
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil, false, errors.Join(errLocked, err)
	}
	// This is a file handle of its own. The system reports a failed write once to each
	// handle, and bbolt syncs its own when it grows the file.
	target, err := os.OpenFile(db.Path(), os.O_RDWR, 0)
	if err != nil {
		return nil, false, err
	}
	return attach(db, path, diskFile{target}, create, areaSize), true, nil
}

// attach is Attach to a database with a hook.
func attach(db *bbolt.DB, path string, target disk, create func(string) (disk, error), size int64) *Journal {
	j := &Journal{
		path: path, create: create, target: target, metas: metaLock(db),
		page: int64(db.Info().PageSize), areas: newAreas(size),
	}
	j.before, _ = latest(target, j.page)
	hook, _ := writeHook(db)
	*hook = j.writeAt
	db.NoSync = true
	return j
}

// create makes the file of a journal, durably.
func create(path string) (disk, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o640)
	if err != nil {
		return nil, err
	}
	if err := fsync.Dir(filepath.Dir(path)); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(path))
	}
	return diskFile{f}, nil
}

// Syncs counts the fsyncs since the journal was attached: one per commit, and those of
// the checkpoints.
func (j *Journal) Syncs() uint64 { return j.syncs.Load() }

// Close brings bbolt's file to disk and removes the journal. The database can still be
// read; it must not be written to. If Close fails, the journal stays for the next
// start.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return nil
	}
	j.closed = true
	if j.file == nil {
		return j.target.Close()
	}
	err := errors.Join(j.forget(), j.awaitCheckpoint())
	if err == nil && j.checkpoint < j.lsn {
		err = j.sync()
	}
	err = errors.Join(err, j.file.Close(), j.target.Close())
	if err == nil {
		err = os.Remove(j.path)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // everything is on disk, so a missing journal does no harm
		return fmt.Errorf("close the tracker's journal %s: %w", j.path, err)
	}
	return nil
}

// writeAt replaces bbolt's write function. bbolt calls it for each run of pages of a
// commit, and last for a meta page, which is one of the first two pages of the file.
func (j *Journal) writeAt(pages []byte, offset int64) (int, error) {
	j.collect(pages, offset)
	if offset >= 2*j.page {
		return len(pages), nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	defer j.reset(len(j.next.pages))
	if j.closed {
		return 0, os.ErrClosed
	}
	j.next.after = meta(pages[metaStart:])
	size, err := j.commit()
	if err != nil {
		return 0, err
	}
	if _, err := j.target.WriteAt(pages, offset); err != nil {
		// bbolt goes by the meta page in the file, and so must the next record.
		if now, _ := latest(j.target, j.page); now != j.next.after {
			return 0, err
		}
	}
	j.appended(size)
	j.before = j.next.after
	return len(pages), nil
}

// commit makes the collected pages durable and writes them to bbolt's file. The caller
// still has to write the meta page. Only after that the record counts: if it fails, the
// record is erased before the next one. If commit fails, the next start may or may not
// find the commit.
//
// Meanwhile it releases bbolt's lock on its meta pages, which every transaction takes
// briefly at its beginning. Else readers would wait for the disk. bbolt itself holds it
// only while it writes the page.
func (j *Journal) commit() (size int64, err error) {
	if j.metas != nil {
		j.metas.Unlock()
		defer j.metas.Lock()
	}
	if err := j.open(); err != nil {
		return 0, err
	}
	if err := j.forget(); err != nil {
		return 0, err
	}
	if err := j.poll(); err != nil {
		return 0, err
	}
	body, page := j.next.split()
	size = j.next.size()
	if size > j.areas.size-blockSize {
		if err := j.large(body); err != nil {
			return 0, err
		}
		j.next.only(page)
		body, size = record{}, j.next.size()
	}
	if j.areas.full(size) {
		if err := j.turn(); err != nil {
			return 0, err
		}
	}
	if err := j.append(&j.next); err != nil {
		return 0, err
	}
	return size, body.apply(j.target.WriteAt)
}

// open makes the file for the first record.
func (j *Journal) open() (err error) {
	if j.file != nil {
		return nil
	}
	if j.file, err = j.create(j.path); err != nil {
		return err
	}
	j.salt = rand.Uint64()
	if made, err := os.Stat(j.path); err == nil { // tests have it elsewhere
		j.made.Store(&made)
	}
	return nil
}

// Present is nil while the journal is in its place. A journal that was removed still
// takes every commit, but a power cut loses them.
func (j *Journal) Present() error {
	made := j.made.Load()
	if made == nil {
		return nil
	}
	switch there, err := InPlace(j.path, *made); {
	case err != nil:
		return fmt.Errorf("the tracker's journal cannot be looked at: %w", err)
	case !there:
		return fmt.Errorf("the tracker's journal %s has been removed or replaced while it was in use; restart jobstream, which makes a new one", j.path)
	}
	return nil
}

// InPlace says whether the file at path is still the opened one. The error means that
// it could not be looked up.
func InPlace(path string, opened os.FileInfo) (bool, error) {
	now, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(opened, now), err
}

// append writes a record behind the last one and syncs it.
func (j *Journal) append(r *record) error {
	j.doubtful = true
	a, base := j.areas.now(), j.areas.base()
	r.salt, r.lsn, r.checkpoint, r.before = j.salt, j.lsn+1, j.checkpoint, j.before
	j.head = r.appendHeader(j.head[:0])
	end := a.used + r.size()
	if to := min(roundUp(end, zeroed), j.areas.size); end > a.zeroed && to > end {
		if _, err := j.file.WriteAt(zeros[:to-end], base+end); err == nil { // a full disk may still have room for the record
			a.zeroed = to
		}
	}
	if _, err := j.file.WriteAt(j.head, base+a.used); err != nil {
		return err
	}
	if _, err := j.file.WriteAt(r.pages, base+a.used+int64(len(j.head))); err != nil {
		return err
	}
	j.syncs.Add(1)
	return j.file.Sync()
}

// appended makes the last written record count.
func (j *Journal) appended(size int64) {
	j.lsn++
	a := j.areas.now()
	a.used, a.last = a.used+size, j.lsn
	j.noted, j.doubtful = j.checkpoint, false
}

// forget erases the record of a failed commit. The next start would take that for a
// good one, while bbolt uses its pages for something else.
func (j *Journal) forget() error {
	if !j.doubtful {
		return nil
	}
	if _, err := j.file.WriteAt(make([]byte, blockSize), j.areas.base()+j.areas.now().used); err != nil {
		return err
	}
	j.syncs.Add(1)
	if err := j.file.Sync(); err != nil {
		return err
	}
	j.doubtful = false
	return nil
}

// turn switches to the other area and begins a checkpoint of this one. The checkpoint
// before must have ended, because it covers the records that are overwritten now. A
// record must say so; each area has a block left for one without pages.
func (j *Journal) turn() error {
	if err := j.awaitCheckpoint(); err != nil {
		return err
	}
	if j.noted < j.areas.other().last {
		if err := j.append(&record{}); err != nil {
			return err
		}
		j.appended(blockSize)
	}
	j.areas.turn(time.Now())
	c := &checkpoint{upTo: j.lsn, done: make(chan error, 1)}
	j.running = c
	j.syncs.Add(1)
	go func() { c.done <- j.target.Sync() }()
	return nil
}

// poll processes a checkpoint that has ended.
func (j *Journal) poll() error {
	if j.running == nil {
		return j.mend()
	}
	select {
	case err := <-j.running.done:
		return j.ended(err)
	default:
		return nil
	}
}

// awaitCheckpoint waits for the checkpoint under way.
func (j *Journal) awaitCheckpoint() error {
	if j.running == nil {
		return j.mend()
	}
	return j.ended(<-j.running.done)
}

func (j *Journal) ended(err error) error {
	c := j.running
	j.running = nil
	if err == nil {
		j.checkpoint = c.upTo
		return nil
	}
	j.failed = true
	return err
}

// mend makes up for a failed checkpoint. After a failed fsync the system takes
// unwritten pages for clean. So they are written again from the journal first. Each
// gets its content of the last commit, as readers may be using it.
func (j *Journal) mend() error {
	if !j.failed {
		return nil
	}
	todo, err := between(read(j.file, j.areas.size), j.checkpoint, j.lsn)
	if err != nil {
		return err
	}
	written := make(map[int64]bool)
	for _, r := range slices.Backward(todo) {
		end := len(r.pages)
		for _, s := range slices.Backward(r.spans) {
			for at := s.length - int(j.page); at >= 0; at -= int(j.page) {
				end -= int(j.page)
				offset := s.offset + int64(at)
				if written[offset] {
					continue
				}
				written[offset] = true
				if _, err := j.target.WriteAt(r.pages[end:end+int(j.page)], offset); err != nil {
					return err
				}
			}
		}
	}
	if err := j.sync(); err != nil {
		return err
	}
	j.failed = false
	return nil
}

// sync is a checkpoint of everything written so far.
func (j *Journal) sync() error {
	j.syncs.Add(1)
	if err := j.target.Sync(); err != nil {
		j.failed = true
		return err
	}
	j.checkpoint = j.lsn
	return nil
}

// large writes the pages of a commit too large for the journal to bbolt's file and
// syncs them, as nothing refers to them yet. The meta page alone becomes the record.
func (j *Journal) large(body record) error {
	if err := j.awaitCheckpoint(); err != nil {
		return err
	}
	if err := body.apply(j.target.WriteAt); err != nil {
		return err
	}
	return j.sync()
}
