package broker

import (
	"fmt"
	"log/slog"
	"strings"
)

// serverLog passes what nats-server logs on to slog. Its notices are details
// for us, so they become debug messages.
type serverLog struct {
	log   *slog.Logger
	fatal chan string // takes the first fatal message; the process lives on
}

func (l serverLog) Noticef(format string, v ...any) { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l serverLog) Errorf(format string, v ...any)  { l.log.Error(fmt.Sprintf(format, v...)) }
func (l serverLog) Debugf(format string, v ...any)  { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l serverLog) Tracef(format string, v ...any)  { l.log.Debug(fmt.Sprintf(format, v...)) }

// Warnf passes on a warning, but one that comes in normal operation: when JOBS is
// trimmed, a lane that has just been made has nothing to remember of it.
func (l serverLog) Warnf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	if strings.HasSuffix(text, "error on write store state from purge: old update ignored") {
		l.log.Debug(text)
		return
	}
	l.log.Warn(text)
}

func (l serverLog) Fatalf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	l.log.Error(text)
	select {
	case l.fatal <- text:
	default:
	}
}
