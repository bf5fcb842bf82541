package boltfile

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
)

// Panic is a panic of our own code in a transaction. The file is not at fault.
type Panic struct {
	text  string
	Stack string
}

func (p *Panic) Error() string { return "internal error: " + p.text }

// ours says whether a recovered panic began in our own code. Otherwise it began in
// bbolt's, which panics when it finds nonsense in its file. A fault at an address is
// always the file's: only slices of the file can point to an address that cannot be
// read.
func ours(found any) bool {
	if _, fault := found.(interface{ Addr() uintptr }); fault {
		return false
	}
	pcs := make([]uintptr, 256)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	var who string // the owner of the code that began the outermost panic of the transaction, which was the first
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

// panicOf makes an error of a recovered panic of ours.
func panicOf(found any) *Panic {
	return &Panic{text: strings.Join(strings.Fields(fmt.Sprint(found)), " "), Stack: string(debug.Stack())}
}
