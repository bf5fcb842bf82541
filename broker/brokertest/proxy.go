package brokertest

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// link is a TCP proxy between a member that connects and one that listens. It can be cut.
// mu guards the connections.
type link struct {
	listener net.Listener
	to       atomic.Pointer[string] // the address of the member that listens; nil: there is none yet

	mu   sync.Mutex
	cut  bool
	open map[net.Conn]struct{}
}

func newLink(t testing.TB) *link {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &link{listener: l, open: make(map[net.Conn]struct{})}
	var group sync.WaitGroup
	group.Go(func() { p.accept(&group) })
	t.Cleanup(func() {
		_ = l.Close()
		p.setCut(true)
		group.Wait()
	})
	return p
}

func (p *link) accept(group *sync.WaitGroup) {
	for {
		in, err := p.listener.Accept()
		if err != nil {
			return
		}
		group.Go(func() { p.carry(in) })
	}
}

// carry copies what comes in either direction, until the connection ends or is cut.
func (p *link) carry(in net.Conn) {
	to := p.to.Load()
	if to == nil || !p.keep(in) {
		_ = in.Close()
		return
	}
	defer p.drop(in)
	out, err := net.Dial("tcp", *to) //nolint:noctx // it is on this machine
	if err != nil || !p.keep(out) {
		return
	}
	defer p.drop(out)
	back := make(chan struct{})
	go func() {
		defer close(back)
		_, _ = io.Copy(in, out) // it ends with the connection
		_ = in.Close()
	}()
	_, _ = io.Copy(out, in)
	_ = out.Close()
	<-back
}

// keep remembers a connection, unless the link is cut.
func (p *link) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut {
		return false
	}
	p.open[c] = struct{}{}
	return true
}

func (p *link) drop(c net.Conn) {
	_ = c.Close()
	p.mu.Lock()
	delete(p.open, c)
	p.mu.Unlock()
}

// setCut cuts the link, or mends it.
func (p *link) setCut(cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = cut
	if cut {
		for c := range p.open {
			_ = c.Close()
		}
	}
}
