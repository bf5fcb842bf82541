package index

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func drawBits(t *rapid.T, label string) (m Bitmap, has map[uint64]bool) {
	has = make(map[uint64]bool)
	n := rapid.SampledFrom([]int{0, 1, 3, 100, 255, 256, 257, 3000}).Draw(t, label)
	seed := rapid.Uint64().Draw(t, "seed")
	rng := rand.New(rand.NewPCG(seed, 1))
	for len(has) < n {
		k := rng.Uint64N(ChunkSize)
		m.Set(k)
		has[k] = true
	}
	for range rng.IntN(50) {
		k := rng.Uint64N(ChunkSize)
		m.Clear(k)
		delete(has, k)
	}
	return m, has
}

// walkBits returns the keys of a Bitmap, and checks that each stops early.
func walkBits(t *rapid.T, m *Bitmap, chunk uint32, asc bool) (keys []uint64) {
	t.Helper()
	if !m.Each(chunk, asc, func(k uint64) bool { keys = append(keys, k); return true }) {
		t.Fatalf("each did not get to the end")
	}
	if len(keys) > 0 {
		n := 0
		if m.Each(chunk, asc, func(uint64) bool { n++; return n < (len(keys)+1)/2 }) && len(keys) > 1 {
			t.Fatalf("each went on after false")
		}
		if n != (len(keys)+1)/2 {
			t.Fatalf("each gave %d keys, was stopped at %d", n, (len(keys)+1)/2)
		}
	}
	return keys
}

func TestBitmap(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m, has := drawBits(t, "n")
		want := slices.Sorted(maps.Keys(has))
		if m.Count() != len(want) {
			t.Fatalf("count %d, want %d", m.Count(), len(want))
		}
		chunk := rapid.Uint32().Draw(t, "chunk")
		for i := range want {
			want[i] += uint64(chunk) << chunkShift
		}
		if got := walkBits(t, &m, chunk, true); !slices.Equal(got, want) {
			t.Fatalf("ascending %v, want %v", got, want)
		}
		got := walkBits(t, &m, chunk, false)
		slices.Reverse(got)
		if !slices.Equal(got, want) {
			t.Fatalf("descending %v, want %v", got, want)
		}

		raw := m.encode()
		if sparse := len(want)*2 < ChunkSize/8; sparse != (raw[0] == sparseBits) || len(raw) > 1+ChunkSize/8 {
			t.Fatalf("%d keys took %d bytes, kind %d", len(want), len(raw), raw[0])
		}
		again := Bitmap{1, 2, 3} // earlier content must not survive
		if err := again.decode(raw); err != nil || again != m {
			t.Fatalf("decode: %v, same: %v", err, again == m)
		}

		o, oHas := drawBits(t, "other")
		and, or := m, m
		and.And(&o)
		or.Or(&o)
		for k := range uint64(ChunkSize) {
			inAnd := and[k>>6]&(1<<(k&63)) != 0
			inOr := or[k>>6]&(1<<(k&63)) != 0
			if inAnd != (has[k] && oHas[k]) || inOr != (has[k] || oHas[k]) {
				t.Fatalf("key %d: and %v, or %v", k, inAnd, inOr)
			}
		}
	})
}

func TestBitmapDamaged(t *testing.T) {
	t.Parallel()
	for name, raw := range map[string][]byte{
		"unknown kind": {9, 1, 2},
		"short dense":  {denseBits, 1, 2, 3},
		"half a key":   {sparseBits, 1, 2, 3},
	} {
		t.Run(name, func(t *testing.T) {
			if err := new(Bitmap).decode(raw); err == nil {
				t.Error("was taken")
			}
		})
	}
	if err := new(Bitmap).decode([]byte{sparseBits, 0xff, 0xff}); err != nil {
		t.Errorf("a position beyond the chunk is cut to size: %v", err)
	}
}

func FuzzBitmap(f *testing.F) {
	f.Add([]byte{denseBits})
	f.Add([]byte{sparseBits, 1, 0})
	f.Fuzz(func(t *testing.T, raw []byte) {
		var m, again Bitmap
		if m.decode(raw) != nil {
			return
		}
		if err := again.decode(m.encode()); err != nil || m != again {
			t.Fatalf("again: %v", err)
		}
	})
}

// A Live is a set, whatever the order of its changes.
func TestLiveSet(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var s Live
		want := make(map[uint64]bool)
		spread := rapid.SampledFrom([]uint64{100, 3 * ChunkSize, 100 * ChunkSize, 1 << 33}).Draw(t, "spread")
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 2))
		var in []uint64
		check := func() {
			low, ok := s.Min()
			if s.n != len(want) || ok != (len(want) > 0) {
				t.Fatalf("%d members, min %v; want %d", s.n, ok, len(want))
			}
			if ok && low != slices.Min(slices.Collect(maps.Keys(want))) {
				t.Fatalf("min %d of %v", low, want)
			}
		}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			k := rng.Uint64N(spread)
			if len(in) > 0 && rng.IntN(2) == 0 {
				k = in[rng.IntN(len(in))]
			}
			if s.Has(k) != want[k] {
				t.Fatalf("has(%d) = %v", k, s.Has(k))
			}
			if rng.IntN(5) < 3 {
				s.Add(k)
				want[k] = true
				in = append(in, k)
			} else {
				s.Remove(k)
				delete(want, k)
			}
			check()
		}
		rest := slices.Collect(maps.Keys(want))
		if rapid.Bool().Draw(t, "in order") {
			slices.Sort(rest)
		}
		for _, k := range rest {
			s.Remove(k)
			delete(want, k)
			check()
		}
		if len(s.chunks) != 0 {
			t.Fatalf("%d empty chunks are kept", len(s.chunks))
		}
	})
}

func TestCountersRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var c, got Counters
		for i := range c.Now {
			c.Now[i], c.Ended[i] = rapid.Int64().Draw(t, "now"), rapid.Int64().Draw(t, "ended")
		}
		raw := c.Encode()
		if err := got.Decode(raw); err != nil || got != c {
			t.Fatalf("got %v, %v; want %v", got, err, c)
		}
		n := rapid.IntRange(0, len(raw)-1).Draw(t, "cut")
		if err := new(Counters).Decode(raw[:n]); err == nil {
			t.Fatalf("%d of %d bytes were taken", n, len(raw))
		}
	})
}
