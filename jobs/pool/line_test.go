package pool

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// TestLine holds a line to a slice, step by step at random.
func TestLine(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	type entry struct {
		d     *delivery
		since time.Time
	}
	var l line
	var model []entry
	spots := make([]spot, 8)
	all := make([]delivery, 8)
	for i := range all {
		all[i].Seq = uint64(i)
	}
	now := time.Unix(1_000_000, 0)
	drop := func(d *delivery) { model = slices.DeleteFunc(model, func(e entry) bool { return e.d == d }) }
	for range 10_000 {
		i := random.IntN(len(all))
		switch random.IntN(4) {
		case 0, 1:
			l.append(&spots[i], &all[i], now)
			drop(&all[i])
			model = append(model, entry{&all[i], now})
		case 2:
			l.remove(&spots[i])
			drop(&all[i])
		case 3:
			now = now.Add(time.Duration(1+random.IntN(5)) * time.Second)
			var got, want []uint64
			l.stale(now, 7*time.Second, func(d *delivery) { got = append(got, d.Seq) })
			for len(model) > 0 && now.Sub(model[0].since) >= 7*time.Second {
				e := model[0]
				want = append(want, e.d.Seq)
				model = append(model[1:], entry{e.d, now})
			}
			if !slices.Equal(got, want) {
				t.Fatalf("due were %v, want %v", got, want)
			}
		}
		var got []uint64
		for p := l.first; p != nil; p = p.behind {
			got = append(got, p.of.Seq)
		}
		if len(got) != len(model) || (l.last == nil) != (len(model) == 0) || l.last != nil && l.last.of != model[len(model)-1].d {
			t.Fatalf("the line has %v, want %d", got, len(model))
		}
		for k, e := range model {
			if got[k] != e.d.Seq {
				t.Fatalf("the line has %v, and %d where it has %d", got, e.d.Seq, got[k])
			}
		}
	}
}
