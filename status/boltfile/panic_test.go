//go:build unix

package boltfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"go.etcd.io/bbolt"

	"jobstream/jobs"
)

// Damage is only nonsense that bbolt finds, or a fault in the file's memory. An
// operator who moves the file away loses its content.
func TestWhosePanic(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if err := f.Truncate(4096); err != nil {
		t.Fatal(err)
	}
	memory, err := syscall.Mmap(int(f.Fd()), 0, 4096, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Munmap(memory) }()
	if err := f.Truncate(0); err != nil {
		t.Fatal(err)
	}
	db := made(t)
	db.put(t, []byte("1"), "a")
	var short []byte
	var list []int
	for name, tt := range map[string]struct {
		do      func(*Tx)
		damaged bool
	}{
		"ours":                       {func(*Tx) { panic("ours") }, false},
		"ours, by the runtime":       {func(*Tx) { _ = list[len(short)] }, false},
		"ours, nil":                  {func(*Tx) { _ = (*jobs.Job)(nil).Lane() }, false},
		"ours, in another's code":    {func(*Tx) { _ = binary.BigEndian.Uint64(short) }, false},
		"ours, called by others":     {func(*Tx) { slices.SortFunc([]int{2, 1}, func(int, int) int { panic("ours") }) }, false},
		"ours, called by bbolt":      {func(tx *Tx) { _ = tx.ForEach(func([]byte, Bucket) error { panic("ours") }) }, false},
		"bbolt's":                    {func(*Tx) { (*bbolt.Bucket)(nil).Get(short) }, true},
		"a fault in mapped memory":   {func(*Tx) { short = append(short, memory[0]) }, true},
		"the same in another's code": {func(*Tx) { _ = bytes.IndexByte(memory, 1) }, true},
	} {
		err := db.Update(func(tx *Tx) error { tt.do(tx); return nil })
		if err == nil || errors.Is(err, ErrDamaged) != tt.damaged || strings.Contains(err.Error(), "move it away") != tt.damaged {
			t.Errorf("%s: %v", name, err)
		}
	}
}
