package main

import "testing"

func TestGCPercent(t *testing.T) {
	for alive, want := range map[uint64]int{0: 400, 10 << 20: 400, 128 << 20: 200, 256 << 20: 100, 4 << 30: 100} {
		if got := gcPercent(alive); got != want {
			t.Errorf("%d bytes alive: %d %%, want %d", alive, got, want)
		}
	}
}

func TestMemoryLimit(t *testing.T) {
	for alive, want := range map[uint64]int64{0: 320 << 20, 200 << 20: 320 << 20, 214 << 20: 352 << 20, 4 << 30: 6 << 30} {
		if got := memoryLimit(alive); got != want {
			t.Errorf("%d bytes alive: %d, want %d", alive, got, want)
		}
	}
}
