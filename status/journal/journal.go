package journal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"

	"jobstream/jobs"
)

const (
	// areaSize is the most that one of the two areas holds; the second one begins
	// there.
	areaSize = 32 << 20
	// firstLimit is how much of an area is used at first. An area that is full
	// sooner than haste after the last one was is too small for what goes on, and
	// the next one may take twice as much.
	firstLimit = 1 << 20
	haste      = time.Second
	// zeroed is how far ahead the file is filled with zeros: to overwrite what is
	// there costs an fsync half the time of making a file longer.
	zeroed = 1 << 20
	// keep is how much memory for pages is kept from one commit to the next.
	keep = 8 << 20
)

// Journal is the journal of one open database. bbolt has one writer, and so has it.
type Journal struct {
	db    *bbolt.DB
	path  string
	write func([]byte, int64) (int, error) // to bbolt's file
	hook  *func([]byte, int64) (int, error)
	metas *sync.Mutex // bbolt's, or nil
	page  int64       // bytes of one

	mu     sync.Mutex // between a commit and Close
	file   *os.File   // nil before the first commit
	areas  [2]area
	active int
	next   record // that is being collected
	head   []byte // memory for its header

	lsn        uint64 // of the last record
	checkpoint uint64 // up to here all is in bbolt's file, synced
	before     meta   // the last commit's
	limit      int64
	switched   time.Time
	running    *checkpoint // or nil
	behind     bool        // the meta page that is written next must be synced, too
	failed     bool        // a checkpoint: bbolt's file may lack anything behind the last good one

	syncs atomic.Uint64
}

// area is one half of the file.
type area struct {
	used, zeroed int64
}

// checkpoint is a sync of bbolt's file that is under way.
type checkpoint struct {
	upTo uint64
	done chan error
}

// Attach puts a journal at path under a database that has just been opened,
// before its first transaction: [Recover] must have run before, and nobody else can
// have either file open. From then on bbolt's own syncs are off. ok is false, and
// nothing has changed, where journals are not supported: bbolt goes on by itself.
func Attach(db *bbolt.DB, path string) (j *Journal, ok bool, err error) {
	hook, ok := writeHook(db)
	if !ok || !supported {
		return nil, false, nil
	}
	j = &Journal{db: db, path: path, write: *hook, hook: hook, metas: metaLock(db), page: int64(db.Info().PageSize), limit: firstLimit}
	f, err := os.Open(db.Path())
	if err != nil {
		return nil, false, err
	}
	j.before, _ = latest(f, j.page)
	if err := f.Close(); err != nil {
		return nil, false, err
	}
	*hook = j.writeAt
	db.NoSync = true
	return j, true, nil
}

// Syncs counts the fsyncs since the journal was attached: one per commit, and the
// checkpoints.
func (j *Journal) Syncs() uint64 { return j.syncs.Load() }

// Close brings bbolt's file to disk and removes the journal. The database can
// still be read, and must not be written to any more. If it fails the journal stays
// for the next start.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	*j.hook = func([]byte, int64) (int, error) { return 0, os.ErrClosed }
	if j.file == nil {
		return nil
	}
	err := j.settle()
	if err == nil && j.checkpoint < j.lsn {
		err = j.sync()
	}
	err = errors.Join(err, j.file.Close())
	if err != nil {
		return fmt.Errorf("close the tracker's journal %s: %w", j.path, err)
	}
	return os.Remove(j.path)
}

// writeAt is what bbolt calls instead of writing to its file: for each run of
// pages of a commit, and then, as the last one, for a meta page, which are the first
// two of the file.
func (j *Journal) writeAt(pages []byte, offset int64) (int, error) {
	j.add(pages, offset)
	if offset >= 2*j.page {
		return len(pages), nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	defer j.reset()
	j.next.after = meta(pages[metaStart:])
	if err := j.unlocked(j.commit); err != nil {
		return 0, err
	}
	if _, err := j.write(pages, offset); err != nil {
		return 0, err
	}
	if j.behind {
		if err := j.sync(); err != nil {
			return 0, err
		}
		j.behind = false
	}
	j.before = j.next.after
	return len(pages), nil
}

// unlocked runs f without bbolt's lock on its meta pages, which every transaction
// takes for a moment when it begins: else readers would wait for the disk. bbolt
// itself takes it just for writing the page.
func (j *Journal) unlocked(f func() error) error {
	if j.metas != nil {
		j.metas.Unlock()
		defer j.metas.Lock()
	}
	return f()
}

// add collects pages; bbolt uses their memory again.
func (j *Journal) add(pages []byte, offset int64) {
	n := len(j.next.spans)
	if n > 0 && j.next.spans[n-1].offset+int64(j.next.spans[n-1].length) == offset {
		j.next.spans[n-1].length += len(pages)
	} else {
		j.next.spans = append(j.next.spans, span{offset, len(pages)})
	}
	j.next.pages = append(j.next.pages, pages...)
}

// reset forgets what is collected.
func (j *Journal) reset() {
	j.next.spans, j.next.pages = j.next.spans[:0], j.next.pages[:0]
	if cap(j.next.pages) > keep {
		j.next.pages = nil
	}
}

// commit makes durable what is collected, and writes the pages to bbolt's file; the
// meta page is left to do. If it fails the commit may, or may not, be there after the
// next start.
func (j *Journal) commit() error {
	if err := j.open(); err != nil {
		return err
	}
	if err := j.poll(); err != nil {
		return err
	}
	size := int64(headerSize(len(j.next.spans)) + len(j.next.pages))
	if size > areaSize {
		return j.direct()
	}
	if j.areas[j.active].used+size > max(j.limit, size) {
		if err := j.turn(); err != nil {
			return err
		}
	}
	if err := j.append(size); err != nil {
		return err
	}
	body, _ := j.next.split()
	return body.apply(j.write)
}

// open makes the file, durably, before the first record.
func (j *Journal) open() error {
	if j.file != nil {
		return nil
	}
	f, err := os.OpenFile(j.path, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o640)
	if err != nil {
		return err
	}
	if err := jobs.SyncDir(filepath.Dir(j.path)); err != nil {
		return errors.Join(err, f.Close())
	}
	j.file = f
	return nil
}

// append writes the record that is collected, and syncs it.
func (j *Journal) append(size int64) error {
	a := &j.areas[j.active]
	base := int64(j.active) * areaSize
	j.next.lsn, j.next.checkpoint, j.next.before = j.lsn+1, j.checkpoint, j.before
	j.head = j.next.appendHeader(j.head[:0])
	end := a.used + size
	if to := min(roundUp(end, zeroed), areaSize); end > a.zeroed && to > end {
		if _, err := j.file.WriteAt(make([]byte, to-end), base+end); err == nil { // where there is no room, there may still be enough for the record
			a.zeroed = to
		}
	}
	if _, err := j.file.WriteAt(j.head, base+a.used); err != nil {
		return err
	}
	if _, err := j.file.WriteAt(j.next.pages, base+a.used+int64(len(j.head))); err != nil {
		return err
	}
	j.syncs.Add(1)
	if err := syncData(j.file); err != nil {
		return err
	}
	a.used = end
	j.lsn++
	return nil
}

// turn begins to use the other area, and a checkpoint of what is in this one. The
// checkpoint before must be over, as what the other area holds is overwritten now.
func (j *Journal) turn() error {
	if err := j.settle(); err != nil {
		return err
	}
	now := time.Now()
	if now.Sub(j.switched) < haste {
		j.limit = min(2*j.limit, areaSize)
	}
	j.switched = now
	j.active = 1 - j.active
	j.areas[j.active].used = 0
	c := &checkpoint{upTo: j.lsn, done: make(chan error, 1)}
	j.running = c
	j.syncs.Add(1)
	go func() { c.done <- j.db.Sync() }()
	return nil
}

// poll takes note of a checkpoint that has ended meanwhile.
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

// settle waits for the checkpoint that is under way.
func (j *Journal) settle() error {
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

// mend makes up for a checkpoint that failed. After a failed fsync the system
// takes pages for written that are not, so they are written again first, from the
// journal.
func (j *Journal) mend() error {
	if !j.failed {
		return nil
	}
	todo, err := since(j.file)
	if err != nil {
		return err
	}
	for _, r := range todo {
		if err := r.apply(j.write); err != nil {
			return err
		}
	}
	if err := j.sync(); err != nil {
		return err
	}
	j.failed = false
	return nil
}

// sync is a checkpoint of all that is written.
func (j *Journal) sync() error {
	j.syncs.Add(1)
	if err := j.db.Sync(); err != nil {
		j.failed = true
		return err
	}
	j.checkpoint = j.lsn
	return nil
}

// direct is for a commit too large for the journal. It does what bbolt would do: it
// syncs the pages, which nothing refers to yet, and then the meta page. After that
// the file is no longer as any record left it, and a start lets the journal be.
func (j *Journal) direct() error {
	if err := j.settle(); err != nil {
		return err
	}
	body, _ := j.next.split()
	if err := body.apply(j.write); err != nil {
		return err
	}
	j.behind = true
	return j.sync()
}

// since reads the records whose pages may not be in bbolt's file yet, in order.
func since(f io.ReaderAt) ([]record, error) {
	old, young := readArea(f, 0), readArea(f, 1)
	if len(young) == 0 || len(old) > 0 && old[0].lsn > young[0].lsn {
		old, young = young, old
	}
	if len(young) == 0 {
		return nil, nil
	}
	// A record that could not be synced may be there all the same, and once more in
	// the area that was begun after that.
	old = slices.DeleteFunc(old, func(r record) bool { return r.lsn >= young[0].lsn })
	newest := young[len(young)-1]
	todo := slices.DeleteFunc(append(old, young...), func(r record) bool { return r.lsn <= newest.checkpoint })
	if uint64(len(todo)) != newest.lsn-newest.checkpoint {
		return nil, fmt.Errorf("%w: of the commits %d to %d only %d are whole", ErrDamaged, newest.checkpoint+1, newest.lsn, len(todo))
	}
	return todo, nil
}

// readArea reads the records of an area up to the first that is none, or an older
// one that has not been overwritten yet.
func readArea(f io.ReaderAt, area int64) (found []record) {
	for at, end := area*areaSize, (area+1)*areaSize; ; {
		r, size, ok := readRecord(f, at, end)
		if !ok || len(found) > 0 && r.lsn != found[len(found)-1].lsn+1 {
			return found
		}
		found, at = append(found, r), at+size
	}
}
