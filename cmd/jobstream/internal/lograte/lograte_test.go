package lograte

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// logged is a log without times, safe for use by several goroutines.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

// lines are those since the last time.
func (l *logged) lines() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := strings.TrimSpace(l.buf.String())
	l.buf.Reset()
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

func inBubble(t *testing.T, f func(t *testing.T, log *slog.Logger, h *Handler, out *logged)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		out := &logged{}
		h := New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}}))
		f(t, slog.New(h), h, out)
		h.Close()
		time.Sleep(3 * Every) // of the bubble; then the timer ends
	})
}

func want(t *testing.T, out *logged, lines ...string) {
	t.Helper()
	if got := out.lines(); strings.Join(got, "\n") != strings.Join(lines, "\n") {
		t.Errorf("the log has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(lines, "\n"))
	}
}

func TestTheSameIsLoggedSeldom(t *testing.T) {
	inBubble(t, func(t *testing.T, log *slog.Logger, _ *Handler, out *logged) {
		for i := range 20_000 {
			log.With("stream", "STATUS").Warn("a message makes no sense", "seq", i)
		}
		log.Error("something else")
		want(t, out,
			`level=WARN msg="a message makes no sense" stream=STATUS seq=0`,
			`level=WARN msg="a message makes no sense" stream=STATUS seq=1`,
			`level=WARN msg="a message makes no sense" stream=STATUS seq=2`,
			`level=ERROR msg="something else"`)
		time.Sleep(Every + time.Millisecond)
		synctest.Wait()
		want(t, out, `level=WARN msg="a message makes no sense" stream=STATUS seq=19999 times=19997`)
		for i := range 200 { // it goes on, 20 times a second
			log.Warn("a message makes no sense", "seq", i)
			time.Sleep(Every / 200)
		}
		time.Sleep(Every / 5)
		synctest.Wait()
		if n := len(out.lines()); n != 1 {
			t.Errorf("%d lines in ten seconds, want 1", n)
		}
		time.Sleep(3 * Every)
		synctest.Wait()
		out.lines()
		log.Warn("a message makes no sense", "seq", 7)
		want(t, out, `level=WARN msg="a message makes no sense" seq=7`)
	})
}

func TestDigitsMakeNoDifference(t *testing.T) {
	inBubble(t, func(t *testing.T, log *slog.Logger, _ *Handler, out *logged) {
		for i := range 1000 {
			log.Warn(fmt.Sprintf("http: TLS handshake error from 10.1.2.3:%d", i))
			log.Debug("in detail")
		}
		if n := len(out.lines()); n != 1003 {
			t.Errorf("%d lines, want 3, and all of a lower level", n)
		}
	})
}

// TestEndlessVariety has a client that chooses the text of messages. It gets no more of
// them logged.
func TestEndlessVariety(t *testing.T) {
	inBubble(t, func(t *testing.T, log *slog.Logger, h *Handler, out *logged) {
		text := "x"
		for range 5000 {
			text += "x"
			log.Error(text)
		}
		if n := len(out.lines()); n != maxKinds+atOnce {
			t.Errorf("%d lines, want %d", n, maxKinds+atOnce)
		}
		h.Close()
		lines := out.lines()
		if len(lines) != 1 || !strings.HasSuffix(lines[0], fmt.Sprintf("times=%d", 5000-maxKinds-atOnce)) {
			t.Errorf("%d lines at the end", len(lines))
		}
	})
}

// TestCloseTells has many goroutines log. Close logs what was only counted.
func TestCloseTells(t *testing.T) {
	inBubble(t, func(t *testing.T, log *slog.Logger, h *Handler, out *logged) {
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				for range 100 {
					log.Info("many")
				}
			})
		}
		group.Wait()
		out.lines()
		h.Close()
		want(t, out, `level=INFO msg=many times=797`)
	})
}
