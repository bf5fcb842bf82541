package status

import (
	"encoding/binary"
	"encoding/json"
	"fmt"

	"go.etcd.io/bbolt"

	"jobstream/jobs"
)

// Paused are the types whose jobs wait.
func (s *Store) Paused() (paused map[string]bool, err error) {
	paused = make(map[string]bool)
	err = s.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketTypes).ForEach(func(name, v []byte) error {
			var t typeSettings
			if err := json.Unmarshal(v, &t); err != nil {
				return fmt.Errorf("settings of type %q: %w", name, err)
			}
			if t.Paused {
				paused[string(name)] = true
			}
			return nil
		})
	})
	return paused, err
}

// OldestToken is when the oldest idempotency token was used, 0 if there is none.
func (s *Store) OldestToken() (at jobs.Time, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		if k, _ := tx.Bucket(bucketTokenAge).Cursor().First(); len(k) == 24 {
			at = jobs.Time(binary.BigEndian.Uint64(k))
		}
		return nil
	})
	return at, err
}
