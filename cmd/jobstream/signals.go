package main

import (
	"os"
	"os/signal"
	"syscall"
)

// endSignals returns a channel that gets the signals that end a server, and what
// gives them back to the system. SIGHUP, which a terminal sends to all that was
// started in it when it is closed, is one of them unless the server was started
// with nohup.
func endSignals() (ends <-chan os.Signal, stop func()) {
	// A write to a log that nobody reads any more sends SIGPIPE, and ends the process
	// unless somebody takes it: then lines are lost, and work goes on. It is taken for
	// good, as an error may still be written at the very end. To ignore it would be
	// passed on to child processes.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	all := []os.Signal{syscall.SIGINT, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		all = append(all, syscall.SIGHUP)
	}
	came, out := make(chan os.Signal, 8), make(chan os.Signal, 2)
	signal.Notify(came, all...)
	go chooseSignals(came, out)
	return out, func() {
		signal.Stop(came)
		close(came)
	}
}

// chooseSignals passes on the signals that mean something. SIGHUP comes more than
// once from one terminal, so it asks for an end, and never for a faster one.
func chooseSignals(came <-chan os.Signal, out chan<- os.Signal) {
	ending := false
	for s := range came {
		if s == syscall.SIGHUP && ending {
			continue
		}
		ending = true
		select {
		case out <- s:
		default: // two are enough
		}
	}
}
