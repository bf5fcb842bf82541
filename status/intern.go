package status

import "sync"

// interns keeps one copy of the few strings that stand in nearly every record:
// type and node names. It is bounded, since type names of bare messages may be
// anything.
var interns = struct {
	sync.RWMutex
	m map[string]string
}{m: make(map[string]string)}

const maxInterns = 4096

func intern(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	interns.RLock()
	s, ok := interns.m[string(b)]
	interns.RUnlock()
	if ok {
		return s
	}
	s = string(b)
	interns.Lock()
	if len(interns.m) < maxInterns {
		interns.m[s] = s
	}
	interns.Unlock()
	return s
}

// internAttr is kind + name, made once for the names that come again and again.
func internAttr(kind byte, name string) string {
	var space [80]byte
	return intern(append(append(space[:0], kind), name...))
}
