package boltfile

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
)

// Panic is a panic of ours in a transaction: nothing is wrong with the file.
type Panic struct {
	text  string
	Stack string
}

func (p *Panic) Error() string { return "internal error: " + p.text }

// ours says whether a panic that was just recovered began in our own code, and not in
// bbolt's, which panics when it finds nonsense in its file. A fault at an address is
// one of the file's memory wherever it happens: an address that cannot be read is in no
// slice but those that point there.
func ours(found any) bool {
	if _, fault := found.(interface{ Addr() uintptr }); fault {
		return false
	}
	pcs := make([]uintptr, 256)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	var who string // whose code began the outermost panic within the transaction: the first one
	looking := false
	for more := true; more; {
		var f runtime.Frame
		f, more = frames.Next()
		switch {
		case f.Function == "runtime.gopanic":
			looking = true
		case strings.HasSuffix(f.Function, "boltfile.(*File).guard"):
			return strings.HasPrefix(who, "jobstream/")
		case looking && (strings.HasPrefix(f.Function, "jobstream/") || strings.HasPrefix(f.Function, "go.etcd.io/bbolt")):
			who, looking = f.Function, false
		}
	}
	return strings.HasPrefix(who, "jobstream/")
}

// panicOf makes an error of a panic of ours that was just recovered.
func panicOf(found any) *Panic {
	return &Panic{text: strings.Join(strings.Fields(fmt.Sprint(found)), " "), Stack: string(debug.Stack())}
}
