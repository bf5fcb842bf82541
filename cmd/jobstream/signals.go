package main

import (
	"os"
	"os/signal"
	"syscall"
)

// endSignals returns a channel of the signals that end a server, and a function that
// restores them. A closing terminal sends SIGHUP to everything that was started in it.
// SIGHUP is one of the signals, unless the server was started with nohup.
func endSignals() (ends <-chan os.Signal, stop func()) {
	// A write to a closed log sends SIGPIPE, which ends the process unless it is
	// caught. Here lines are lost instead, and work goes on. It stays caught, as an
	// error may still be written at the very end. Child processes would inherit an
	// ignored signal.
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

// chooseSignals passes on the signals that count. One terminal sends SIGHUP more than
// once, so SIGHUP asks for an end, and never for a faster one.
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
