package main

import (
	"io"
	"log/slog"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/cmd/jobstream/internal/lograte"
)

// newLogger makes a logger with a rate for repeated messages, see lograte. Call
// flushLog at the end.
func newLogger(c config.Log, w io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		level = slog.LevelInfo
	}
	o := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(lograte.New(slog.NewJSONHandler(w, o)))
	}
	return slog.New(lograte.New(slog.NewTextHandler(w, o)))
}

// flushLog logs the messages that newLogger's logger has only counted.
func flushLog(log *slog.Logger) {
	if h, ok := log.Handler().(*lograte.Handler); ok {
		h.Close()
	}
}
