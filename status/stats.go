package status

import "go.etcd.io/bbolt"

// syncsPerCommit is how often bbolt waits for the disk in a commit: once for the
// pages, once for the meta page that makes them valid.
const syncsPerCommit = 2

// Syncs counts the fsyncs of the tracker's commits since the file was made; take
// the difference of two calls. It is exact for commits: bbolt numbers them
// without gaps, and every one syncs twice. Not counted is the one more that the
// file needs when it grows, for every 16 MiB of it.
func (s *Store) Syncs() (n uint64, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		n = syncsPerCommit * uint64(tx.ID())
		return nil
	})
	return n, err
}
