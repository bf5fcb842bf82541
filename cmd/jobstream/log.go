package main

import (
	"io"
	"log/slog"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/cmd/jobstream/internal/lograte"
)

// newLogger makes a logger that logs the same thing seldom: see lograte. Whoever is done
// with it calls flushLog.
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

// flushLog logs what newLogger's logger has only counted so far.
func flushLog(log *slog.Logger) {
	if h, ok := log.Handler().(*lograte.Handler); ok {
		h.Close()
	}
}
