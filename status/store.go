package status

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/fsync"
	"jobstream/jobs/replica"
	"jobstream/status/boltfile"
)

// Options are the parameters of a Store.
type Options struct {
	Path     string         // of the bbolt file; its folder must exist
	Existing bool           // so must the file, with something in it
	Registry *jobs.Registry // the known types
	// Spacing is the least time between the starts of two commits under load, so
	// that one fsync serves many jobs. An idle tracker commits at once.
	Spacing time.Duration
	// OutboxAge is how long a notified end stays in the outbox. It must be longer than
	// the broker takes to bring notifications to disk.
	OutboxAge time.Duration
	// LockTimeout is how long to wait for another process to close the file.
	LockTimeout time.Duration
	// Checked says that this process has checked the submission with this id at the
	// door, see [jobs.Message]. Without it nothing counts as checked.
	Checked func(jobs.ID) bool
	// Webhooks are notified of the ends of jobs, besides the jobs' own URLs.
	Webhooks jobs.Webhooks
	Logger   *slog.Logger
	Version  string // of the program; "" = unknown
	// Member says that members of a cluster share what the tracker has, so that the
	// versions of all of them must read it.
	Member bool
	// Format is what this version reads; 0 = as it is. Tests play other versions.
	Format replica.Format

	unsynced bool // tests of something else than durability
}

// Store is the tracker. It is made of parts with one subject each. All exported methods
// may be called from any goroutine. [Projector.Run] is the only writer while it runs.
type Store struct {
	*Queries       // what can be asked
	*Projector     // what changes it: the streams and commands
	*Commits       // who listens, and who waits
	*Notifications // what of the outbox is notified
	*Latest        // what the last commit has left in memory

	o  Options
	db *boltfile.File
}

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
	db, err := openFile(o)
	if err != nil {
		return nil, err
	}
	s := newStore(db, o)
	s.share.format = formats{most: formatOf(&o), version: o.Version}
	err = db.View(s.load)
	if err == nil {
		err = db.View(func(tx *boltfile.Tx) (err error) {
			if s.share.at, _, err = readPlace(tx); err == nil {
				s.share.format.now, err = readFormat(tx.Bucket(bucketMeta))
			}
			return err
		})
	}
	if err != nil {
		return nil, errors.Join(unopened(o.Path, err), db.Close())
	}
	if err := fsync.Dir(filepath.Dir(o.Path)); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

// openFile opens a file and brings it to the form of this version.
func openFile(o Options) (*boltfile.File, error) {
	db, err := boltfile.Open(boltfile.Options{
		Path: o.Path, Existing: o.Existing, LockTimeout: o.LockTimeout, Unsynced: o.unsynced, Logger: o.Logger,
	})
	if err != nil {
		return nil, err
	}
	if err = prepare(db, &o); err == nil {
		err = reindex(db, o.Logger)
	}
	if err != nil {
		return nil, errors.Join(unopened(o.Path, err), db.Close())
	}
	return db, nil
}

func unopened(path string, err error) error { return fmt.Errorf("open the tracker %s: %w", path, err) }

// newStore puts the parts together.
func newStore(db *boltfile.File, o Options) *Store {
	latest := newLatest()
	commits := newCommits(latest)
	notifications := &Notifications{db: db, commits: commits, age: o.OutboxAge}
	projector := &Projector{
		db: db, latest: latest, commits: commits, notifications: notifications,
		path: o.Path, registry: o.Registry, checked: o.Checked, spacing: o.Spacing, log: o.Logger,
		webhooks: o.Webhooks,
		inbox:    newInbox(),
	}
	projector.bits.Reset()
	return &Store{
		Queries: &Queries{db: db, latest: latest}, Projector: projector, Commits: commits,
		Notifications: notifications, Latest: latest, o: o, db: db,
	}
}

// prepare makes the buckets of a new file and checks the format of an old one.
func prepare(db *boltfile.File, o *Options) error {
	return db.Update(func(tx *boltfile.Tx) error {
		made := tx.Bucket(bucketMeta).Missing()
		if err := tx.Create(allBuckets...); err != nil {
			return err
		}
		meta := tx.Bucket(bucketMeta)
		if err := checkFormat(tx, o.Version, formatOf(o)); err != nil {
			return err
		}
		if made {
			if err := errors.Join(meta.Put(keyRebuild, []byte{1}), meta.Put(keyIndexes, []byte{indexVersion})); err != nil {
				return err
			}
		}
		f, err := openedFormat(meta, o, made)
		return errors.Join(err, prepareEnded(tx), writeFormat(meta, o.Version, f))
	})
}

// Present is nil while the tracker's file is where it was opened. A file that was
// removed or replaced still accepts commits, and loses them at the end of the process.
func (s *Store) Present() error { return s.db.Present() }

// Syncs counts the fsyncs of the tracker's commits. The difference of two calls is of
// use. It leaves out the fsync that bbolt needs for every 16 MiB by which the file
// grows.
func (s *Store) Syncs() (uint64, error) { return s.db.Syncs() }

// Close closes the file. Run must have ended.
func (s *Store) Close() error { return s.db.Close() }
