package status

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"jobstream/jobs/replica"
	"jobstream/status/boltfile"
)

// install replaces the file by a copy of another node's, under those who read it. First
// the copy is written beside it, durably, checked like any file that is opened, and brought
// to the form of this version. What each node has for itself stays.
func (s *Store) install(from io.Reader) (err error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	if _, follows := s.share.part(); !follows {
		return errors.New("a tracker that changes by itself cannot be replaced by another one")
	}
	path := s.freshPath()
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("install a copy of another tracker: %w", err), removeFresh(path))
		}
	}()
	if err := writeFresh(path, from); err != nil {
		return err
	}
	o := s.o
	o.Path, o.Existing = path, true
	fresh, err := openFile(o)
	if err != nil {
		return err
	}
	latest, at, format, err := s.adopt(fresh)
	if err != nil {
		return errors.Join(err, fresh.Close())
	}
	s.recent.clear()
	if err := s.db.Replace(fresh); err != nil {
		return err
	}
	s.become(latest)
	s.share.setPosition(at)
	s.share.setFormat(format)
	s.share.setMark(&Mark{})
	positions := s.Positions()
	s.published.Store(&positions)
	s.wake()
	return nil
}

// freshPath is where a copy is written before it replaces the file.
func (s *Store) freshPath() string { return s.o.Path + ".new" }

// adopt makes a copy of another node's file one of this node, and reads what is kept in
// memory of it.
func (s *Store) adopt(fresh *boltfile.File) (latest *Latest, at replica.Position, format replica.Format, err error) {
	own := make(map[string][]byte)
	err = s.db.View(func(tx *boltfile.Tx) error {
		for _, key := range nodeKeys {
			own[string(key)] = bytes.Clone(tx.Bucket(bucketMeta).Get(key))
		}
		return nil
	})
	if err == nil {
		err = fresh.Update(func(tx *boltfile.Tx) error {
			meta := tx.Bucket(bucketMeta)
			for _, key := range nodeKeys {
				err := meta.Delete(key)
				if v := own[string(key)]; v != nil {
					err = meta.Put(key, v)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	latest = newLatest()
	if err == nil {
		err = fresh.View(func(tx *boltfile.Tx) (err error) {
			if at, _, err = readPlace(tx); err != nil {
				return err
			}
			if format, err = readFormat(tx.Bucket(bucketMeta)); err != nil {
				return err
			}
			return latest.load(tx)
		})
	}
	return latest, at, format, err
}

// writeFresh writes a file durably, in the place of any that was left there.
func writeFresh(path string, from io.Reader) error {
	if err := removeFresh(path); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	if _, err = io.Copy(f, from); err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// removeFresh removes what an installation has left that did not get to its end.
func removeFresh(path string) error {
	for _, name := range boltfile.Files(path) {
		if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}
