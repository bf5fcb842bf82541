package main

import (
	"io"
	"log/slog"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/cmd/jobstream/internal/lograte"
)

// newLogger makes a logger with a rate for repeated messages, see lograte. Call
// flushLog at the end. Its level may be changed.
func newLogger(c config.Log, w io.Writer) (*slog.Logger, *slog.LevelVar) {
	level := new(slog.LevelVar)
	level.Set(levelOf(c))
	o := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(lograte.New(slog.NewJSONHandler(w, o))), level
	}
	return slog.New(lograte.New(slog.NewTextHandler(w, o))), level
}

// levelOf is the configured level.
func levelOf(c config.Log) (level slog.Level) {
	if level.UnmarshalText([]byte(c.Level)) != nil {
		return slog.LevelInfo
	}
	return level
}

// commandLog is the log of a command that works on a folder.
func commandLog(w io.Writer) *slog.Logger {
	log, _ := newLogger(config.Log{}, w)
	return log
}

// flushLog logs the messages that newLogger's logger has only counted.
func flushLog(log *slog.Logger) {
	if h, ok := log.Handler().(*lograte.Handler); ok {
		h.Close()
	}
}
