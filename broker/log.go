package broker

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"sync/atomic"
)

// serverLog passes what nats-server logs on to slog. Its notices are details
// for us, so they become debug messages.
type serverLog struct {
	log   *slog.Logger
	fatal chan string // takes the first fatal message; the process lives on

	broken *atomic.Pointer[string] // gets the write error of a stream
}

func (l serverLog) Noticef(format string, v ...any) { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l serverLog) Debugf(format string, v ...any)  { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l serverLog) Tracef(format string, v ...any)  { l.log.Debug(fmt.Sprintf(format, v...)) }

// Errorf passes on an error. That a stream is broken stands here long before the server's
// own health check says so: that one hears of it when a message is refused.
func (l serverLog) Errorf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	if _, why, found := strings.Cut(text, "Critical write error: "); found {
		l.broken.Store(&why)
	}
	l.pass(slog.LevelError, text)
}

// Warnf passes on a warning, but one that comes in normal operation: when JOBS is
// trimmed, a lane that has just been made has nothing to remember of it.
func (l serverLog) Warnf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	if strings.HasSuffix(text, "error on write store state from purge: old update ignored") {
		l.log.Debug(text)
		return
	}
	l.pass(slog.LevelWarn, text)
}

// clientLine is how a line about a client begins: its address, its number and, if it
// has said so, its name and language. Both of the latter it can choose.
var clientLine = regexp.MustCompile(`^(\S+) - cid:\d+(?: - "(?:[^"\\]|\\.)*")* - `)

// longestLine is how many bytes of a line about a client are passed on.
const longestLine = 300

// pass passes a line on. Those about clients have one message, so that whoever limits
// how often that is logged is not misled by what a client can choose.
func (l serverLog) pass(level slog.Level, text string) {
	if m := clientLine.FindStringSubmatch(text); m != nil && m[1] != "pipe" { // a pipe is ours
		rest := text[len(m[0]):]
		rest = strings.ToValidUTF8(rest[:min(len(rest), longestLine)], "\ufffd")
		l.log.Log(context.Background(), level, "trouble with a NATS client", "client", m[1], "error", rest)
		return
	}
	l.log.Log(context.Background(), level, text)
}

func (l serverLog) Fatalf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	l.log.Error(text)
	select {
	case l.fatal <- text:
	default:
	}
}
