package journal

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"
)

// TestMemoryForPages keeps the memory while commits need it, even if one does not fit
// into the journal. It frees the memory when they have not needed it for a while.
func TestMemoryForPages(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db := openBolt(t, path, 4096)
	target, err := os.OpenFile(path, os.O_RDWR, 0)
	do(t, err)
	const area = 8 * keep
	j := attach(db, path+"-journal", diskFile{target}, create, area)
	value := make([]byte, 4000)
	commit := func(pages int) {
		t.Helper()
		do(t, db.Update(func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte("b"))
			for i := range pages {
				if err == nil {
					err = b.Put(fmt.Appendf(nil, "%08d", i), value)
				}
			}
			return err
		}))
	}
	memory := func() *byte { return &j.next.pages[:1][0] }
	for _, bytes := range []int{2 * keep, area + keep} {
		pages := bytes / 4096
		commit(pages)
		had, room := memory(), cap(j.next.pages)
		if room < bytes {
			t.Errorf("after a commit of %d bytes there is memory for %d", bytes, room)
		}
		for range 3 {
			for range keepFor - 1 {
				commit(1)
			}
			commit(room/4096/4 + 2)
		}
		if memory() != had || cap(j.next.pages) != room {
			t.Errorf("commits of a quarter of %d bytes used other memory, of %d", room, cap(j.next.pages))
		}
		for range keepFor + 1 {
			commit(1)
		}
		if cap(j.next.pages) > keep {
			t.Errorf("%d small commits later there is still memory for %d bytes", keepFor, cap(j.next.pages))
		}
	}
	do(t, j.Close())
	do(t, db.Close())
}
