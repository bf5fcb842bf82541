package main

import "testing"

func TestGCPercent(t *testing.T) {
	for _, c := range []struct {
		alive, garbage uint64
		want           int
	}{
		{0, leastGarbage, 400},
		{10 << 20, mostGarbage, 400},
		{128 << 20, mostGarbage, 200},
		{64 << 20, leastGarbage, 50},
		{4 << 30, mostGarbage, 50},
	} {
		if got := gcPercent(c.alive, c.garbage); got != c.want {
			t.Errorf("%d bytes alive, %d garbage: %d %%, want %d", c.alive, c.garbage, got, c.want)
		}
	}
}

// TestGarbageFor follows a burst and its end.
func TestGarbageFor(t *testing.T) {
	var now uint64
	for i, second := range []struct{ allocated, want uint64 }{
		{0, 32}, {50, 48}, {200, 192}, {2000, 256}, {0, 192}, {0, 144}, {0, 96}, {0, 64}, {0, 48}, {0, 32}, {0, 32},
	} {
		if now = garbageFor(second.allocated<<20, now); now != second.want<<20 {
			t.Fatalf("second %d: %d MiB, want %d", i, now>>20, second.want)
		}
	}
}

func TestMemoryLimit(t *testing.T) {
	for alive, want := range map[uint64]int64{0: 256 << 20, 160 << 20: 256 << 20, 171 << 20: 288 << 20, 4 << 30: 6 << 30} {
		if got := memoryLimit(alive); got != want {
			t.Errorf("%d bytes alive: %d, want %d", alive, got, want)
		}
	}
}
