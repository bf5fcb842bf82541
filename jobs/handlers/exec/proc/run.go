//go:build unix

package proc

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"
)

// run is one program while it runs.
type run struct {
	c       *Command
	process *os.Process
	began   time.Time
	halted  bool // at its first instruction

	mu   sync.Mutex
	gone bool // it has been reaped, and its pid may be another's
	end  End
}

// Run runs a program and returns when it and all its processes have ended, and what they
// wrote has been passed on. When ctx ends, the process group gets a TERM, and a KILL after
// c.KillAfter. Whatever ends the program, what it has started ends with it: the group is
// killed before its leader is reaped, so that its number cannot be another's by then.
//
// An error means that it never ran.
func Run(ctx context.Context, c *Command) (End, error) {
	r := &run{c: c, began: time.Now()}
	p, err := newPipes(c)
	if err != nil {
		return End{}, fmt.Errorf("%w: %w", ErrNotStarted, err)
	}
	defer p.closeOurs()
	started, ended := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(ended)
		r.supervise(p.theirs, started)
	}()
	err = <-started
	p.closeTheirs()
	if err != nil {
		<-ended
		return End{}, fmt.Errorf("%w: %w", ErrNotStarted, err)
	}
	p.pump(c, r.tooMuch)
	stop := r.watch()
	select {
	case <-ended:
	case <-ctx.Done():
		r.stop(ended)
	}
	stop()
	r.sweep()
	p.drain()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.end, nil
}

// stop ends the group because the context has ended.
func (r *run) stop(ended <-chan struct{}) {
	r.mu.Lock()
	r.end.Stopped = !r.gone
	r.mu.Unlock()
	r.signal(syscall.SIGTERM)
	patience := time.NewTimer(r.c.KillAfter)
	defer patience.Stop()
	select {
	case <-ended:
	case <-patience.C:
		r.signal(syscall.SIGKILL)
		<-ended
	}
}

// signal sends a signal to the group, unless its number may be another's by now.
func (r *run) signal(s syscall.Signal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.gone {
		_ = syscall.Kill(-r.process.Pid, s) // there may be nobody left to get it
	}
}

// exceed ends the program because of a limit.
func (r *run) exceed(what string) {
	r.mu.Lock()
	if r.end.Over == "" && !r.gone {
		r.end.Over = what
	}
	r.mu.Unlock()
	r.signal(syscall.SIGKILL)
}

func (r *run) tooMuch() {
	r.exceed(fmt.Sprintf("wrote more than %d bytes (limits.output)", r.c.Limits.Output))
}

// ended notes how the leader ended; its number may be another's from now on. r.mu is
// held.
func (r *run) ended(state *os.ProcessState, err error) {
	r.gone = true
	if err != nil {
		r.end.Code = -1
		return
	}
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		r.end.Signal = status.Signal()
	} else {
		r.end.Code = state.ExitCode()
	}
}

// pipes are the files of a program, ours and its own ends.
type pipes struct {
	theirs []*os.File // by descriptor
	ours   []*os.File // of stdin, stdout, stderr and the events
	done   sync.WaitGroup
	mu     sync.Mutex
}

func newPipes(c *Command) (p *pipes, err error) {
	p = &pipes{theirs: make([]*os.File, 4), ours: make([]*os.File, 4)}
	defer func() {
		if err != nil {
			p.closeTheirs()
			p.closeOurs()
		}
	}()
	for fd := range p.theirs {
		switch {
		case fd == 0 && c.Stdin == nil:
			p.theirs[0], err = os.Open(os.DevNull)
		case fd == 0:
			p.theirs[0], p.ours[0], err = pipe(0)
		default:
			p.ours[fd], p.theirs[fd], err = pipe(1)
		}
		if err != nil {
			return p, err
		}
		if u := c.User; u != nil && p.ours[fd] != nil {
			// It may open them by name, too: /dev/fd/3, /dev/stderr.
			if err = p.theirs[fd].Chown(int(u.UID), int(u.GID)); err != nil {
				return p, err
			}
		}
	}
	return p, nil
}

// pump moves what the program reads and writes.
func (p *pipes) pump(c *Command, tooMuch func()) {
	m := &meter{}
	if c.Limits.Output > 0 {
		m.left.Store(c.Limits.Output)
		m.over = tooMuch
	}
	if p.ours[0] != nil {
		if short, ok := c.Stdin.(interface{ Len() int }); ok && short.Len() <= pipeRoom {
			p.feed(c.Stdin) // without waiting
		} else {
			p.done.Go(func() { p.feed(c.Stdin) })
		}
	}
	for fd, w := range map[int]io.Writer{1: c.Stdout, 2: c.Stderr, 3: c.Events} {
		p.done.Go(func() { metered{m, w}.copy(p.ours[fd]) })
	}
}

// pipeRoom is what fits into each empty pipe, in bytes.
const pipeRoom = 4 << 10

// feed writes what the program reads.
func (p *pipes) feed(stdin io.Reader) {
	_, _ = io.Copy(p.ours[0], stdin) // it need not read all of it
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.ours[0].Close()
}

// drain waits until everything written has been passed on. What somebody still keeps
// open is closed after a while.
func (p *pipes) drain() {
	late := time.AfterFunc(drainTime, p.closeOurs)
	defer late.Stop()
	if in := p.ours[0]; in != nil {
		_ = in.SetWriteDeadline(time.Now()) // nobody reads any more
	}
	p.done.Wait()
}

func (p *pipes) closeTheirs() { closeAll(p.theirs) }

func (p *pipes) closeOurs() {
	p.mu.Lock()
	defer p.mu.Unlock()
	closeAll(p.ours)
}

func closeAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close() // it may be closed already
		}
	}
}
