// Package lograte keeps a log short when the same thing happens again and again. It
// bounds the rate of every message that a stranger can cause. Start at [Handler].
package lograte

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// Every is the interval at which a repeated message is logged.
const Every = 10 * time.Second

const (
	// atOnce is the number of records that a message may have at once after a pause.
	atOnce = 3
	// maxKinds is the number of different messages; more count as one.
	maxKinds = 100
	manyText = "there is more to log than is shown"
)

// Handler passes on the first few records of a message at once. Of later ones it passes
// on the last, every ten seconds, with the number of records that it stands for.
// Messages that differ only in digits or attributes are the same. Records below
// [slog.LevelInfo] all pass, as somebody has asked for them.
type Handler struct {
	next slog.Handler
	s    *state
}

// state is the common part of a handler and those derived from it.
type state struct {
	mu    sync.Mutex
	kinds map[kind]*recent
	timer *time.Timer // set while there are kinds
}

type kind struct {
	level slog.Level
	text  string
}

// recent are the records of a message in the last ten seconds.
type recent struct {
	since  time.Time
	passed int
	more   int         // not shown
	last   slog.Record // of those not shown
	to     slog.Handler
}

// New makes a Handler in front of another one.
func New(next slog.Handler) *Handler {
	s := &state{kinds: make(map[kind]*recent)}
	s.timer = time.AfterFunc(time.Hour, s.logCounted)
	s.timer.Stop()
	return &Handler{next: next, s: s}
}

// Enabled asks the next handler.
func (h *Handler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

// WithAttrs derives a handler from the next one.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &Handler{next: h.next.WithAttrs(attrs), s: h.s}
}

// WithGroup derives a handler from the next one.
func (h *Handler) WithGroup(name string) slog.Handler {
	return &Handler{next: h.next.WithGroup(name), s: h.s}
}

// Handle passes a record on, or counts it.
func (h *Handler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelInfo && h.s.tooMany(h.next, &r) {
		return nil
	}
	return h.next.Handle(ctx, r)
}

// tooMany says whether a record must not be shown now.
func (s *state) tooMany(to slog.Handler, r *slog.Record) bool {
	k := kind{r.Level, withoutDigits(r.Message)}
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.kinds[k]
	if known == nil {
		if len(s.kinds) == 0 {
			s.timer.Reset(Every)
		}
		if len(s.kinds) >= maxKinds {
			k = kind{text: manyText}
			known = s.kinds[k]
		}
	}
	if known == nil {
		known = &recent{since: time.Now()}
		s.kinds[k] = known
	}
	if known.passed < atOnce {
		known.passed++
		return false
	}
	known.more++
	known.last, known.to = r.Clone(), to
	return true
}

func withoutDigits(s string) string {
	if !strings.ContainsAny(s, "0123456789") {
		return s
	}
	return strings.Map(func(r rune) rune {
		if '0' <= r && r <= '9' {
			return -1
		}
		return r
	}, s)
}

// logCounted logs the records that were counted in the last ten seconds, and drops messages
// that have paused.
func (s *state) logCounted() { s.logOlder(Every) }

// Close logs the records that have only been counted.
func (h *Handler) Close() { h.s.logOlder(0) }

func (s *state) logOlder(age time.Duration) {
	now := time.Now()
	var counted []recent
	s.mu.Lock()
	for k, known := range s.kinds {
		switch {
		case now.Sub(known.since) < age:
		case known.more == 0:
			delete(s.kinds, k)
		default:
			counted = append(counted, *known)
			*known = recent{since: now, passed: atOnce}
		}
	}
	if len(s.kinds) > 0 && age > 0 {
		s.timer.Reset(Every / 10)
	}
	s.mu.Unlock()
	for i := range counted {
		d := &counted[i]
		d.last.Time = now
		d.last.AddAttrs(slog.Int("times", d.more))
		_ = d.to.Handle(context.Background(), d.last) // a log that fails cannot be reported anywhere
	}
}
