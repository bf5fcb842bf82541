//go:build unix

package proc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// run is one program while it runs.
type run struct {
	c       *Command
	began   time.Time
	pid     int
	halted  bool // at its first instruction
	started chan error
	written chan chunk
	ended   chan struct{}
	left    int64 // bytes that it may still write

	mu   sync.Mutex
	gone bool // it has been reaped, and its pid may be another's
	end  End
}

// chunk is a piece of what a program writes.
type chunk struct {
	fd  int
	buf *buffer
	n   int
}

type buffer [32 << 10]byte

// buffers are for output. Most programs write little, and new ones for each would be most
// of the garbage.
var buffers = sync.Pool{New: func() any { return new(buffer) }}

// Run runs a program and returns when it and all its processes have ended, and what they
// wrote has been passed on. When ctx ends, the process group gets a TERM, and a KILL after
// c.KillAfter. Whatever ends the program, what it has started ends with it: the group is
// killed before its leader is reaped, so that its number cannot be another's by then.
//
// Nothing is written after Run has returned, nor two things at a time. An error means that
// the program never ran.
func Run(ctx context.Context, c *Command) (End, error) {
	r := &run{
		c: c, began: time.Now(), left: c.Limits.Output,
		started: make(chan error), written: make(chan chunk), ended: make(chan struct{}),
	}
	if err := r.begin(ctx); err != nil {
		return End{}, fmt.Errorf("%w: %w", ErrNotStarted, err)
	}
	r.adjust()
	r.attend(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.end, nil
}

// gate lets a few runs at a time start: the kernel looks at each open descriptor of this
// process for each program that starts, and those that wait have none here.
var gate = make(chan struct{}, 2*runtime.NumCPU())

// begin starts the program when it is its turn.
func (r *run) begin(ctx context.Context) error {
	select {
	case gate <- struct{}{}:
		defer func() { <-gate }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	p, err := newPipes(r.c)
	if err != nil {
		return err
	}
	go r.supervise(p)
	return <-r.started
}

// attend passes on what the program writes until it has ended, and ends it when it must.
func (r *run) attend(ctx context.Context) {
	look, stop := r.watch()
	defer stop()
	done := ctx.Done()
	var patience <-chan time.Time
	for {
		select {
		case c := <-r.written:
			r.pass(c)
		case <-look:
			r.look()
		case <-done:
			done = nil
			r.mu.Lock()
			r.end.Stopped = !r.gone
			r.mu.Unlock()
			r.signal(syscall.SIGTERM)
			timer := time.NewTimer(r.c.KillAfter)
			defer timer.Stop()
			patience = timer.C
		case <-patience:
			r.signal(syscall.SIGKILL)
		case <-r.ended:
			return
		}
	}
}

// pass passes on what was written, until that is too much. A program that writes too much
// is ended, and gets no EPIPE.
func (r *run) pass(c chunk) {
	defer buffers.Put(c.buf)
	w := [...]io.Writer{1: r.c.Stdout, 2: r.c.Stderr, 3: r.c.Events}[c.fd]
	if most := r.c.Limits.Output; most > 0 {
		if r.left -= int64(c.n); r.left < 0 {
			r.exceed(fmt.Sprintf("wrote more than %d bytes (limits.output)", most))
			return
		}
	}
	if w != nil {
		_, _ = w.Write(c.buf[:c.n]) // whoever reads it has bounds of their own
	}
}

// signal sends a signal to the group, unless its number may be another's by now.
func (r *run) signal(s syscall.Signal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.gone {
		_ = syscall.Kill(-r.pid, s)                                          // there may be nobody left to get it
		if group, err := unix.Getpgid(r.pid); err == nil && group != r.pid { // it has gone to another one
			_ = syscall.Kill(r.pid, s)
		}
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

// wait reaps a process.
func wait(pid int) (status syscall.WaitStatus, err error) {
	for {
		if _, err = syscall.Wait4(pid, &status, 0, nil); !errors.Is(err, syscall.EINTR) {
			return status, err
		}
	}
}

// note notes how the leader ended; its number may be another's from now on. r.mu is held.
func (r *run) note(status syscall.WaitStatus, err error) {
	r.gone = true
	switch {
	case err != nil:
		r.end.Code = -1
	case status.Signaled():
		r.end.Signal = status.Signal()
	default:
		r.end.Code = status.ExitStatus()
	}
}

// follow reads what the program writes until nobody is left who could write more. It reaps
// the program when the descriptor end can be read, or has no other end any more.
func (r *run) follow(p *pipes, end int) {
	watched := []unix.PollFd{
		{Fd: int32(end), Events: unix.POLLIN},
		{Fd: int32(p.ours[1]), Events: unix.POLLIN},
		{Fd: int32(p.ours[2]), Events: unix.POLLIN},
		{Fd: int32(p.ours[3]), Events: unix.POLLIN},
	}
	var until time.Time
	for open := len(watched); open > 0; {
		patience := -1 // for ever
		if !until.IsZero() {
			patience = max(int(time.Until(until).Milliseconds()), 0)
		}
		n, err := unix.Poll(watched, patience)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil || n == 0:
			return // somebody who cannot be killed keeps a pipe open
		}
		for fd := range watched {
			at := &watched[fd]
			switch {
			case at.Revents == 0:
				continue
			case fd == 0:
				r.reap()
				r.sweep()
				until = time.Now().Add(drainTime)
			case r.read(fd, p.ours[fd], at.Revents):
				continue
			}
			at.Fd, at.Revents = -1, 0
			open--
		}
	}
}

// read reads once from the pipe that is the program's descriptor fd, and says whether more
// may come.
func (r *run) read(fd, from int, events int16) bool {
	if events&unix.POLLIN == 0 {
		return false
	}
	buf := buffers.Get().(*buffer)
	n, err := unix.Read(from, buf[:])
	if n > 0 {
		r.written <- chunk{fd, buf, n}
		return true
	}
	buffers.Put(buf)
	return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) // the program may read its own output
}
