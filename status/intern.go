package status

import (
	"cmp"
	"maps"
	"sync"
	"sync/atomic"
)

// interns keeps one copy of the few strings that stand in nearly every record:
// type and node names. It is bounded, since type names of bare messages may be
// anything. A new string makes a new map, so that looking one up takes no lock.
var interns struct {
	sync.Mutex // for who adds one
	known      atomic.Pointer[map[string]string]
}

const maxInterns = 4096

func intern(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	if known := interns.known.Load(); known != nil {
		if s, ok := (*known)[string(b)]; ok {
			return s
		}
	}
	return internNew(string(b))
}

func internNew(s string) string {
	interns.Lock()
	defer interns.Unlock()
	known := map[string]string{}
	if old := interns.known.Load(); old != nil {
		if have, ok := (*old)[s]; ok || len(*old) >= maxInterns {
			return cmp.Or(have, s)
		}
		known = maps.Clone(*old)
	}
	known[s] = s
	interns.known.Store(&known)
	return s
}

// internAttr is kind + name, made once for the names that come again and again.
func internAttr(kind byte, name string) string {
	var space [80]byte
	return intern(append(append(space[:0], kind), name...))
}
