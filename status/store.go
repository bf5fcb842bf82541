package status

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"

	"jobstream/jobs"
	"jobstream/status/boltfile"
	"jobstream/status/index"
	"jobstream/status/record"
)

// Options are what a Store needs to know.
type Options struct {
	Path     string         // of the bbolt file; its folder must exist
	Existing bool           // so must the file, with something in it
	Registry *jobs.Registry // the known types
	// Spacing is the least time between the starts of two commits under load, so
	// that one fsync serves many jobs. An idle tracker commits at once.
	Spacing time.Duration
	// OutboxAge is how long a stored end is kept for publishing again: longer than
	// the broker takes to bring notifications to disk.
	OutboxAge time.Duration
	// LockTimeout is how long to wait for another process to let go of the file.
	LockTimeout time.Duration
	// Checked says that the submission with this id has been checked at the door by
	// this process, see [jobs.Message]; nil = none has.
	Checked func(jobs.ID) bool
	Logger  *slog.Logger
}

// Store is the tracker. All methods may be called from any goroutine; [Store.Run]
// is the only writer while it runs.
type Store struct {
	o   Options
	db  *boltfile.File
	log *slog.Logger

	queue   *inbox
	bits    index.Cache // projector only
	encoded []byte      // records of a transaction, see fold.encode; projector only
	aging   aging       // projector only
	gone    goneJobs    // projector only

	position       atomic.Uint64 // in JOBS
	statusPosition atomic.Uint64
	number         atomic.Uint64 // of the last commit that changed something
	notified       atomic.Uint64 // the commit up to which notifications are stored
	keepAll        atomic.Bool   // nothing is dropped from the outbox at all
	rebuild        atomic.Bool   // the file is not complete yet, see fold
	healthy        atomic.Pointer[error]
	published      atomic.Pointer[jobs.Positions] // the last commit that was published, or where Run began

	mu        sync.RWMutex
	counters  map[string]*index.Counters
	waiters   map[chan struct{}]struct{}
	listeners []func(*jobs.Commit) // grows only, see Listen

	liveMu sync.Mutex
	live   index.Live
	recent recentJobs

	onFold func(any) // a message or an event: tests break folds with it; nil otherwise
}

var (
	bucketMeta     = []byte("meta")
	bucketJobs     = []byte("jobs")
	bucketPayloads = []byte("payloads")
	bucketIDs      = []byte("ids")
	bucketMoved    = []byte("moved")
	bucketBits     = []byte("bits")
	bucketTimes    = []byte("times")
	bucketOutbox   = []byte("outbox")
	bucketCopies   = []byte("copies")
	bucketCopyAges = []byte("copyages")
	bucketEnds     = []byte("ends") // of earlier versions
	bucketAliases  = []byte("aliases")
	bucketDue      = []byte("due")
	bucketLimits   = []byte("limits")
	bucketUnique   = []byte("unique")
	bucketSlots    = []byte("slots")
	bucketHeld     = []byte("held")
	bucketTokens   = []byte("tokens")
	bucketTokenAge = []byte("tokenage")
	bucketBatches  = []byte("batches")
	bucketTypes    = []byte("types")

	bucketSchedules = []byte("schedules")

	allBuckets = [][]byte{
		bucketMeta, bucketJobs, bucketPayloads, bucketIDs, bucketMoved, bucketBits, bucketTimes, bucketOutbox,
		bucketCopies, bucketCopyAges, bucketAliases, bucketDue, bucketLimits, bucketUnique, bucketSlots, bucketHeld, bucketTokens, bucketTokenAge,
		bucketBatches, bucketTypes, bucketSchedules,
	}

	keyFormat    = []byte("format")
	keyPositions = []byte("positions")
	keyNumber    = []byte("number") // of the last commit that changed something
	keyClean     = []byte("clean")
	keyNode      = []byte("node")
	keyBoot      = []byte("boot")
	keyRebuild   = []byte("rebuild") // there from the file's making to the end of its rebuild
	prefixType   = "type/"
)

// formatVersion is that of the whole file's layout.
const formatVersion = 1

// Open opens the tracker, or makes a new one. It fails with [boltfile.ErrDamaged] if the
// file makes no sense, and with [boltfile.ErrLocked] if another process has it open.
func Open(o Options) (*Store, error) {
	if o.Spacing <= 0 {
		o.Spacing = 5 * time.Millisecond
	}
	if o.OutboxAge <= 0 {
		o.OutboxAge = 10 * time.Second
	}
	if o.LockTimeout <= 0 {
		o.LockTimeout = time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	db, err := boltfile.Open(o.Path, o.LockTimeout, o.Existing, o.Logger)
	if err != nil {
		return nil, err
	}
	s := &Store{o: o, db: db, log: o.Logger, queue: newInbox(), counters: make(map[string]*index.Counters), waiters: make(map[chan struct{}]struct{})}
	s.published.Store(&jobs.Positions{})
	s.bits.Reset()
	s.recent.init()
	if err := s.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("open the tracker %s: %w", o.Path, err), db.Close())
	}
	if err := jobs.SyncDir(filepath.Dir(o.Path)); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

// load makes the buckets, reads counters and positions, and finds the
// unfinished jobs.
func (s *Store) load() error {
	err := s.db.Update(func(tx *bbolt.Tx) error {
		made := tx.Bucket(bucketMeta) == nil
		for _, name := range allBuckets {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		meta := tx.Bucket(bucketMeta)
		if v := meta.Get(keyFormat); v != nil && (len(v) != 1 || v[0] != formatVersion) {
			return fmt.Errorf("its format %v is not known to this version of jobstream", v)
		}
		if made {
			if err := meta.Put(keyRebuild, []byte{1}); err != nil {
				return err
			}
		}
		s.rebuild.Store(meta.Get(keyRebuild) != nil)
		return meta.Put(keyFormat, []byte{formatVersion})
	})
	if err != nil {
		return err
	}
	return s.db.View(func(tx *bbolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		if v := meta.Get(keyPositions); len(v) == 16 {
			s.position.Store(binary.BigEndian.Uint64(v))
			s.statusPosition.Store(binary.BigEndian.Uint64(v[8:]))
		}
		if v := meta.Get(keyNumber); len(v) == 8 {
			s.number.Store(binary.BigEndian.Uint64(v))
		}
		if k, _ := tx.Bucket(bucketOutbox).Cursor().Last(); k != nil {
			s.number.Store(max(s.number.Load(), binary.BigEndian.Uint64(k))) // earlier versions stored no other
		}
		if err := eachCounter(tx, func(name string, c *index.Counters) { s.counters[name] = c }); err != nil {
			return err
		}
		return s.loadLive(tx)
	})
}

// loadLive finds the sequences of all unfinished jobs.
func (s *Store) loadLive(tx *bbolt.Tx) error {
	bucket := tx.Bucket(bucketBits)
	for status := jobs.Scheduled; !status.Ended(); status++ {
		err := index.EachChunk(bucket, index.OfStatus(status), func(chunk uint32, m *index.Bitmap) error {
			var away index.Bitmap
			if err := index.Read(bucket, index.Away, chunk, &away); err != nil {
				return err
			}
			m.AndNot(&away)
			m.Each(chunk, true, func(key uint64) bool { s.live.Add(key); return true })
			return nil
		})
		if err != nil {
			return err
		}
	}
	records := tx.Bucket(bucketJobs)
	return tx.Bucket(bucketMoved).ForEach(func(seq, key []byte) error {
		n, k := binary.BigEndian.Uint64(seq), binary.BigEndian.Uint64(key)
		if !s.live.Has(k) {
			return nil
		}
		j, _, err := record.Decode(records.Get(key))
		if err != nil {
			return err
		}
		if j.Seq == n && inQueue(j) {
			s.live.Add(n)
			s.live.Remove(k) // its first message is not its present one
		}
		return nil
	})
}

// Present is nil while the tracker's file is where it was opened. A file that
// somebody has removed or replaced still takes everything, and loses it at the
// end of the process.
func (s *Store) Present() error { return s.db.Present() }

// Close closes the file. Run must have ended.
func (s *Store) Close() error { return s.db.Close() }

// Positions are the sequences up to which both streams are folded and committed.
func (s *Store) Positions() jobs.Positions {
	return jobs.Positions{Jobs: s.position.Load(), Status: s.statusPosition.Load()}
}

// Health is nil, or why the last commit failed: then nothing new becomes
// durable until one succeeds.
func (s *Store) Health() error {
	if p := s.healthy.Load(); p != nil {
		return *p
	}
	return nil
}

// Totals are the numbers of unfinished and of scheduled jobs, see [jobs.Commit].
func (s *Store) Totals() (unfinished, scheduled int) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, c := range s.counters {
		unfinished += int(c.Now[jobs.Pending] + c.Now[jobs.Processing] + c.Now[jobs.Retrying])
		scheduled += int(c.Now[jobs.Scheduled])
	}
	return unfinished, scheduled
}

// Floor is the lowest sequence in JOBS that is still needed: everything below
// belongs to jobs that have ended, or wait elsewhere. queued is the number of
// messages that are needed.
func (s *Store) Floor() (floor uint64, queued int) {
	s.liveMu.Lock()
	defer s.liveMu.Unlock()
	floor = s.position.Load() + 1
	if low, ok := s.live.Min(); ok && low < floor {
		floor = low
	}
	return floor, s.live.Len()
}

// Figures are the counts of one type.
type Figures struct {
	// Now counts the records by status.
	Now [jobs.NumStatus]int
	// Ever counts the jobs that ended in a status since the tracker began, deleted
	// ones too.
	Ever [jobs.NumStatus]int
}

// Figures returns the counts by type. They are read from the file, so that
// whoever has seen a job completed finds it counted; if that fails they are the
// last ones known.
func (s *Store) Figures() map[string]Figures {
	all := make(map[string]Figures)
	err := s.db.View(func(tx *bbolt.Tx) error {
		return eachCounter(tx, func(name string, c *index.Counters) { all[name] = figures(c) })
	})
	if err == nil {
		return all
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	for name, c := range s.counters {
		all[name] = figures(c)
	}
	return all
}

func figures(c *index.Counters) (f Figures) {
	for i := range c.Now {
		f.Now[i], f.Ever[i] = int(c.Now[i]), int(c.Ended[i])
	}
	return f
}

// eachCounter calls f with the counters of every type.
func eachCounter(tx *bbolt.Tx, f func(name string, c *index.Counters)) error {
	cursor := tx.Bucket(bucketMeta).Cursor()
	for k, v := cursor.Seek([]byte(prefixType)); bytes.HasPrefix(k, []byte(prefixType)); k, v = cursor.Next() {
		name, c := string(k[len(prefixType):]), &index.Counters{}
		if err := c.Decode(v); err != nil {
			return fmt.Errorf("counters of type %q: %w", name, err)
		}
		f(name, c)
	}
	return nil
}

// wait returns a channel that is closed at the next commit.
func (s *Store) wait() chan struct{} {
	ch := make(chan struct{})
	s.mu.Lock()
	s.waiters[ch] = struct{}{}
	s.mu.Unlock()
	return ch
}

func (s *Store) wake() {
	s.mu.Lock()
	for ch := range s.waiters {
		close(ch)
		delete(s.waiters, ch)
	}
	s.mu.Unlock()
}

// key8 is n as a bucket key: big endian, so that keys sort as numbers do.
func key8(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
