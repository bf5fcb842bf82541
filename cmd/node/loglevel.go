package node

import (
	"log/slog"
	"strings"

	"jobstream/jobs"
)

// LogLevel is the level of the log; "" = it is unknown.
func (n *Node) LogLevel() jobs.Level {
	if n.o.LogLevel == nil {
		return ""
	}
	return jobs.Level(strings.ToLower(n.o.LogLevel.Level().String()))
}

// SetLogLevel changes the level of the log until the next start, or until that of the
// configuration changes.
func (n *Node) SetLogLevel(to jobs.Level) error {
	if n.o.LogLevel == nil {
		return &jobs.Error{Kind: jobs.Conflict, Detail: "the log of this server has no level that could be changed"}
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(to)); err != nil {
		return err
	}
	n.setLogLevel(level)
	return nil
}

// setLogLevel changes the level of the log. The log says so if either level shows that.
func (n *Node) setLogLevel(to slog.Level) {
	was := n.o.LogLevel.Level()
	n.o.LogLevel.Set(min(was, to))
	n.log.Info("the level of the log has changed", "from", was, "to", to)
	n.o.LogLevel.Set(to)
}

// takeUpLogLevel takes up the level of a configuration that was read again, if it is
// another one than before. So a level that was set by hand stays until it is edited.
func (n *Node) takeUpLogLevel(configured slog.Level) (taken bool) {
	if n.o.LogLevel == nil || configured == n.logLevel {
		return false
	}
	n.logLevel = configured
	n.setLogLevel(configured)
	return true
}
