package boltfile

import (
	"fmt"
	"testing"
)

// TestLastOfEmptied deletes all keys of many pages, and those at the end of them, and looks
// for the last key in the same transaction.
func TestLastOfEmptied(t *testing.T) {
	t.Parallel()
	for _, left := range []int{0, 1, 700} {
		db, keys := made(t), make([]string, 2000)
		for i := range keys {
			keys[i] = fmt.Sprintf("%04d", i)
		}
		db.put(t, make([]byte, 50), keys...)
		mustDo(t, db.Update(func(tx *Tx) error {
			b := tx.Bucket(things)
			for _, k := range keys[left:] {
				if err := b.Delete([]byte(k)); err != nil {
					return err
				}
			}
			want := ""
			if left > 0 {
				want = keys[left-1]
			}
			if k, _ := b.Cursor().Last(); string(k) != want {
				t.Errorf("with %d keys left, the last one is %q; want %q", left, k, want)
			}
			return nil
		}))
	}
}
