package status

import (
	"bytes"
	"testing"
)

func TestArena(t *testing.T) {
	var a arena
	for round := range 3 {
		a.reset()
		var got [][]byte
		for i := range 4000 {
			size := i % 1500
			if i%500 == 0 {
				size = arenaBlock + i // has a block of its own
			}
			got = append(got, a.append(func(b []byte) []byte { return append(b, bytes.Repeat([]byte{byte(i)}, size)...) }))
		}
		for i, b := range got {
			if len(bytes.Trim(b, string([]byte{byte(i)}))) > 0 {
				t.Fatalf("round %d: piece %d was written over", round, i)
			}
			if len(b) != cap(b) && len(b) < arenaBlock {
				t.Fatalf("round %d: appending to piece %d would write over the next", round, i)
			}
		}
	}
	a.reset()
	if len(a.blocks) != arenaKept {
		t.Errorf("%d blocks are kept, want %d", len(a.blocks), arenaKept)
	}
}
