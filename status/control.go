package status

import (
	"context"
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

// forgetBatch is how many tokens one transaction drops at most.
const forgetBatch = 10_000

// ForgetTokens drops the idempotency tokens from before a moment, a bounded
// number, and returns how many those were.
func (s *Store) ForgetTokens(ctx context.Context, before jobs.Time) (n int, err error) {
	var old [][]byte
	err = s.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketTokenAge).Cursor()
		for k, _ := c.First(); len(k) == 24 && len(old) < forgetBatch; k, _ = c.Next() {
			if jobs.Time(binary.BigEndian.Uint64(k)) >= before {
				break
			}
			old = append(old, append([]byte(nil), k...))
		}
		return nil
	})
	if err != nil || len(old) == 0 {
		return 0, err
	}
	err = s.do(ctx, func(f *fold) error {
		tokens, ages := f.tx.Bucket(bucketTokens), f.tx.Bucket(bucketTokenAge)
		for _, k := range old {
			if err := ages.Delete(k); err != nil {
				return err
			}
			// It may have been used again since.
			if v := tokens.Get(k[8:]); len(v) >= 8 && string(v[:8]) == string(k[:8]) {
				if err := tokens.Delete(k[8:]); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return len(old), nil
}
