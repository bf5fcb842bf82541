package boltfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestCompact(t *testing.T) {
	t.Parallel()
	db := made(t)
	mustDo(t, db.Update(func(tx *Tx) (err error) {
		for n := range 2000 {
			err = errors.Join(err, putIn(tx, make([]byte, 2000), fmt.Sprint(n)))
		}
		return err
	}))
	if _, _, err := Compact(db.path, time.Millisecond, quiet); !errors.Is(err, ErrLocked) {
		t.Errorf("compacting an open file: %v, want ErrLocked", err)
	}
	mustDo(t, db.Update(func(tx *Tx) (err error) {
		for n := range 1990 {
			err = errors.Join(err, tx.Bucket(things).Delete(fmt.Append(nil, n)))
		}
		return err
	}))
	mustDo(t, db.Close())
	before, after, err := Compact(db.path, time.Second, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(db.path); err != nil || info.Size() != after || after*5 > before {
		t.Errorf("%d bytes became %d, the file: %v, %v", before, after, info, err)
	}
	again := opened(t, db.path)
	for n := 1990; n < 2000; n++ {
		if got := again.get(t, fmt.Sprint(n)); len(got) != 2000 {
			t.Errorf("%d bytes", len(got))
		}
	}
}

func TestCompactWithoutFile(t *testing.T) {
	t.Parallel()
	if _, _, err := Compact(filepath.Join(t.TempDir(), "none.db"), time.Second, quiet); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}
