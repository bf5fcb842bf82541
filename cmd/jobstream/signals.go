package main

import (
	"os"
	"os/signal"
	"syscall"
)

// watchSignals returns a channel of the signals that end a server, one of those that make
// it reload its configuration, and a function that restores them.
func watchSignals() (ends, reloads <-chan os.Signal, stop func()) {
	// A write to a closed log sends SIGPIPE, which ends the process unless it is
	// caught. Here lines are lost instead, and work goes on. It stays caught, as an
	// error may still be written at the very end. Child processes would inherit an
	// ignored signal.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	s := &signalSorter{came: make(chan os.Signal, 8), ends: make(chan os.Signal, 2), reloads: make(chan os.Signal, 1)}
	// A server that was started with nohup outlives its terminal.
	s.terminal = !signal.Ignored(syscall.SIGHUP) && hasTerminal()
	signal.Notify(s.came, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go s.sort()
	return s.ends, s.reloads, func() {
		signal.Stop(s.came)
		close(s.came)
	}
}

// signalSorter sorts signals by what they ask for.
type signalSorter struct {
	came          chan os.Signal
	ends, reloads chan os.Signal
	terminal      bool // the server ends with its terminal
}

// sort passes on the signals that count. SIGHUP asks for a reload. But a terminal that is
// closed sends it to everything that was started there, and more than once. So it may also
// ask for an end, and never for a faster one.
func (s *signalSorter) sort() {
	ending := false
	for sig := range s.came {
		to := s.ends
		if sig == syscall.SIGHUP {
			if ending {
				continue
			}
			if !s.terminal || hasTerminal() {
				to = s.reloads
			}
		}
		ending = ending || to == s.ends
		select {
		case to <- sig:
		default: // there are enough
		}
	}
}

// hasTerminal says whether the process has a terminal that is open. Where there is no
// such device it has none.
func hasTerminal() bool {
	f, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	_ = f.Close() // nothing was written
	return true
}
