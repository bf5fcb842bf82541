package broker

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
)

// serverLog passes the lines of nats-server on to slog. Its notices are details for us, so
// they become debug messages.
type serverLog struct {
	log   *slog.Logger
	fatal chan string // gets the first fatal message; the process lives on

	broken *atomic.Pointer[string] // set to the write error of a stream
}

func (l serverLog) Noticef(format string, v ...any) { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l serverLog) Debugf(format string, v ...any)  { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l serverLog) Tracef(format string, v ...any)  { l.log.Debug(fmt.Sprintf(format, v...)) }

// Errorf passes on an error. A line about a broken stream comes long before the server's own
// health check fails, which notices it only when a message is refused.
func (l serverLog) Errorf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	if _, why, found := strings.Cut(text, "Critical write error: "); found {
		l.broken.Store(&why)
	}
	switch {
	case strings.HasPrefix(text, "Error trying to connect to route"): // a member is away; the server tries on
		l.pass(slog.LevelWarn, text)
	case strings.Contains(text, "Unknown account ") && strings.Contains(text, " for remote subject "):
		l.log.Debug(text) // accounts of principals are those of the member to which they connect
	default:
		l.pass(slog.LevelError, text)
	}
}

// normal are parts of warnings that come in normal operation: JOBS is trimmed, and a new
// lane has no state to update; a member starts, which Broker.Join tells in other words, or
// stops.
var normal = []string{
	"error on write store state from purge: old update ignored",
	"Waiting for routing to be established...",
	"JetStream has not established contact with a meta leader",
	"Metalayer blocking snapshot ",
}

// Warnf passes on a warning, unless it comes in normal operation.
func (l serverLog) Warnf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	if slices.ContainsFunc(normal, func(part string) bool { return strings.Contains(text, part) }) {
		l.log.Debug(text)
		return
	}
	l.pass(slog.LevelWarn, text)
}

// clientLine matches the beginning of a line about a client: its address, its number and,
// if it has sent them, its name and language. It can choose the latter two freely.
var clientLine = regexp.MustCompile(`^(\S+) - cid:\d+(?: - "(?:[^"\\]|\\.)*")* - `)

// failedLogin begins a line about a client that was not admitted.
const failedLogin = "authentication error"

// longestLine bounds the bytes of a line about a client.
const longestLine = 300

// pass passes a line on. All lines about clients have the same message. So a limit on
// repeated messages works whatever a client calls itself.
func (l serverLog) pass(level slog.Level, text string) {
	if m := clientLine.FindStringSubmatch(text); m != nil && m[1] != "pipe" { // a pipe is ours
		rest := text[len(m[0]):]
		if strings.HasPrefix(rest, failedLogin) {
			rest = failedLogin // its user may be a token that stands in the wrong place
		}
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
