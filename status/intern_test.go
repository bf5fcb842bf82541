package status

import (
	"fmt"
	"sync"
	"testing"
	"unsafe"
)

// Whoever asks for a string gets the same copy of it, also if many ask at once.
func TestInternKeepsOneCopy(t *testing.T) {
	const askers, names = 8, 100
	var got [askers][names]string
	var group sync.WaitGroup
	for a := range askers {
		group.Go(func() {
			for n := range names {
				got[a][n] = intern(fmt.Appendf(nil, "interned-%d", n))
			}
		})
	}
	group.Wait()
	for n := range names {
		want := fmt.Sprintf("interned-%d", n)
		for a := range askers {
			if s := got[a][n]; s != want || unsafe.StringData(s) != unsafe.StringData(got[0][n]) {
				t.Errorf("asker %d got %q at %p, the first one %q at %p", a, s, unsafe.StringData(s), got[0][n], unsafe.StringData(got[0][n]))
			}
		}
	}
}
