package status

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/replica"
	"jobstream/status/boltfile"
)

// share is the tracker's part among several that a log keeps equal, see package replica.
// A tracker by itself has the zero value.
type share struct {
	mu      sync.Mutex
	seal    replica.Seal     // of the node that leads
	follows bool             // only Apply and Install change it
	at      replica.Position // of the last commit; zero if that is not in the log
	format  formats
	mark    Mark      // the last one
	marked  time.Time // when this node, as the leader, has made one
}

func (s *share) part() (seal replica.Seal, follows bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seal, s.follows
}

func (s *share) setPart(seal replica.Seal, follows bool) {
	s.mu.Lock()
	s.seal, s.follows = seal, follows
	s.mu.Unlock()
}

func (s *share) position() replica.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at
}

func (s *share) setPosition(at replica.Position) {
	s.mu.Lock()
	s.at = at
	s.mu.Unlock()
}

// formats are what the versions of the nodes write and read.
type formats struct {
	now     replica.Format // of the file: nothing in it, and in the log, is in a later one
	allowed replica.Format // that all members read; 0 = as before
	most    replica.Format // that this version reads
	version string         // this one
}

func (s *share) formats() formats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.format
}

func (s *share) setFormat(now replica.Format) {
	s.mu.Lock()
	s.format.now = now
	s.mu.Unlock()
}

// writes is the format in which the next transaction of this node may be. What came with a
// later one must not be in it.
func (f *formats) writes() replica.Format { return max(f.now, f.allowed) }

// raise stores that the file may have content in a format from now on.
func (f *formats) raise(tx *boltfile.Tx, to replica.Format) error {
	if to <= f.now {
		return nil
	}
	f.now = to
	return writeFormat(tx.Bucket(bucketMeta), f.version, to)
}

// alone says that the tracker is none of several.
func (s *share) alone() bool {
	seal, follows := s.part()
	return seal == nil && !follows
}

// change is the one place in which what the tracker stores of jobs changes by itself. f
// writes in a transaction, and says what is told of it; nil = nothing. If this node leads,
// what f has written is sealed before it is committed. If change fails, nothing has
// changed, and nothing may be told. A [foldError] says that f has failed.
func (p *Projector) change(f func(*boltfile.Tx) (*jobs.Commit, error)) error {
	p.writing.Lock()
	defer p.writing.Unlock()
	seal, follows := p.share.part()
	if follows {
		return replica.ErrDeposed
	}
	begun, done := false, false
	at := p.share.position()
	var mark *Mark
	var format formats
	err := p.db.Update(func(tx *boltfile.Tx) (err error) {
		begun, format = true, p.share.formats()
		if seal != nil {
			s := sealing{seal: seal, mark: p.share.due(), format: format.writes()}
			if err := format.raise(tx, s.format); err != nil {
				return err
			}
			at, err = s.do(tx, &done, f)
			mark = s.mark
			return err
		}
		if _, err = f(tx); err != nil {
			return err
		}
		done = true
		if at == (replica.Position{}) {
			return nil
		}
		at = replica.Position{} // the log does not have this, so the tracker has left it
		return tx.Bucket(bucketMeta).Delete(keyPlace)
	})
	switch {
	case err != nil && begun && !done && !errors.Is(err, boltfile.ErrDamaged):
		return &foldError{err}
	case err != nil:
		return err
	}
	p.share.setPosition(at)
	p.share.setMark(mark)
	p.share.setFormat(format.now)
	return nil
}

// sealing is a transaction of the node that leads.
type sealing struct {
	seal replica.Seal
	mark *Mark // to be filled and told to the others; nil = none is due
	// format is one that has everything in it.
	format replica.Format
}

// do lets f write, seals that, and stores the position that it has in the log. done
// becomes true with the end of f.
func (s *sealing) do(tx *boltfile.Tx, done *bool, f func(*boltfile.Tx) (*jobs.Commit, error)) (at replica.Position, err error) {
	on, err := baseOf(tx)
	if err != nil {
		return at, err
	}
	var w writes
	tx.Note(&w)
	c, err := f(tx)
	if err != nil {
		return at, err
	}
	*done = true
	tx.Note(nil)
	if s.mark != nil {
		*s.mark = markOf(tx, on.sealed+1)
		s.mark.Leader = s.mark.Hash
	}
	if at, err = s.seal(appendBody(make([]byte, 0, len(w.b)+256), on, s.format, &w, c, s.mark)); err != nil {
		return at, err
	}
	return at, putPlace(tx, at, on.sealed+1)
}

// baseOf is what the next transaction stands on.
func baseOf(tx *boltfile.Tx) (b base, err error) {
	meta := tx.Bucket(bucketMeta)
	if _, b.sealed, err = readPlace(tx); err != nil {
		return b, err
	}
	if v := meta.Get(keyNumber); len(v) == 8 {
		b.number = binary.BigEndian.Uint64(v)
	}
	if v := meta.Get(keyPositions); len(v) == 16 {
		b.positions = jobs.Positions{Jobs: binary.BigEndian.Uint64(v), Status: binary.BigEndian.Uint64(v[8:])}
	}
	return b, nil
}

// putPlace stores the position in the log, and how many of its transactions are here.
func putPlace(tx *boltfile.Tx, at replica.Position, sealed uint64) error {
	v, err := at.AppendBinary(key8(sealed))
	if err != nil {
		return err
	}
	return tx.Bucket(bucketMeta).Put(keyPlace, v)
}

// readPlace is the inverse of putPlace; zero if there is none.
func readPlace(tx *boltfile.Tx) (at replica.Position, sealed uint64, err error) {
	v := tx.Bucket(bucketMeta).Get(keyPlace)
	if v == nil {
		return at, 0, nil
	}
	if len(v) < 8 {
		return at, 0, fmt.Errorf("the place in the log has %d bytes", len(v))
	}
	err = at.UnmarshalBinary(v[8:])
	return at, binary.BigEndian.Uint64(v), err
}
