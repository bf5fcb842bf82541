package status

import (
	"encoding/json"
	"fmt"
	"slices"

	"jobstream/jobs"
	"jobstream/status/boltfile"
)

// RemoveNode notes that a node was removed from the cluster, for ever: its name comes back
// in no other. It is in the log when RemoveNode returns.
func (s *Store) RemoveNode(name string) error {
	return s.change(func(tx *boltfile.Tx) (*jobs.Commit, error) {
		all, err := removedNodes(tx)
		if err != nil || slices.Contains(all, name) {
			return nil, err
		}
		v, err := json.Marshal(append(all, name))
		if err != nil {
			return nil, err
		}
		return nil, tx.Bucket(bucketMeta).Put(keyRemoved, v)
	})
}

// ForgetNodes forgets which nodes were removed, as a new cluster begins.
func (s *Store) ForgetNodes() error {
	return s.db.Update(func(tx *boltfile.Tx) error { return tx.Bucket(bucketMeta).Delete(keyRemoved) })
}

// RemovedNodes are the names of all that were, the first one first.
func (q *Queries) RemovedNodes() (names []string, err error) {
	err = q.db.View(func(tx *boltfile.Tx) error {
		names, err = removedNodes(tx)
		return err
	})
	return names, err
}

func removedNodes(tx *boltfile.Tx) (names []string, err error) {
	v := tx.Bucket(bucketMeta).Get(keyRemoved)
	if v == nil {
		return nil, nil
	}
	if err := json.Unmarshal(v, &names); err != nil {
		return nil, fmt.Errorf("the names of removed nodes cannot be read: %w", err)
	}
	return names, nil
}
