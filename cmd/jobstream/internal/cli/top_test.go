package cli

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"jobstream/jobs/figures"
)

// TestPicture: it is as large as the terminal, whatever the server says, and can be held.
func TestPicture(t *testing.T) {
	t.Parallel()
	digest := func(done int) *figures.Digest {
		d := &figures.Digest{At: time.Now(), Seconds: 1, Types: map[string]figures.Recent{}, Skipped: 7}
		d.Total.Done = done
		d.Total.Wait = &figures.Percentiles{P50: 0.5, P99: 2}
		for i := range 20 {
			d.Types[fmt.Sprint("type", i)] = figures.Recent{Paused: i == 3, Reasons: map[string]int{"type_limit": i}}
		}
		for i := range 60 {
			d.Sample = append(d.Sample, figures.Change{Type: "x", Seq: uint64(i), Status: "failed", Error: "\x1b]0;owned\x07" + strings.Repeat("é", 200)})
		}
		return d
	}
	m := &top{s: &session{Client: &Client{base: "http://x"}}}
	for _, size := range [][2]int{{80, 24}, {200, 60}, {20, 3}, {1, 1}, {40, 200}} {
		m.Update(tea.WindowSizeMsg{Width: size[0], Height: size[1]})
		for _, step := range []tea.Msg{tea.KeyPressMsg{Code: 'j', Text: "j"}, digest(3), lostMsg{errors.New("gone\nfor now")}, digest(0)} {
			m.Update(step)
			lines := strings.Split(m.View().Content, "\n")
			if len(lines) > max(size[1], 2) {
				t.Errorf("%v: %d lines", size, len(lines))
			}
			for _, line := range lines {
				if strings.Contains(line, "\x1b]") || strings.Contains(line, "\x07") || ansi.StringWidth(line) > size[0] {
					t.Errorf("%v: %q", size, line)
				}
			}
		}
	}
	m.Update(tea.WindowSizeMsg{Width: 120, Height: 40})
	m.Update(tea.KeyPressMsg{Code: tea.KeySpace, Text: " "})
	m.Update(digest(12345))
	if s := ansi.Strip(m.View().Content); !strings.Contains(s, "held") || strings.Contains(s, "done 12345/s") {
		t.Errorf("it is not held:\n%s", s)
	}
	m.Update(tea.KeyPressMsg{Code: tea.KeySpace, Text: " "})
	m.Update(digest(12345))
	if s := ansi.Strip(m.View().Content); !strings.Contains(s, "live") || !strings.Contains(s, "done 12345/s") || !strings.Contains(s, "type limit 9") || !strings.Contains(s, "wait p50 500 ms p99 2 s") {
		t.Errorf("it does not go on:\n%s", s)
	}
}

// TestSpan: lengths of time as people read them.
func TestSpan(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0: "0 s", -time.Second: "0 s", 999: "0 s", 1500: "1 µs", 1500 * time.Microsecond: "1 ms", 1290 * time.Millisecond: "1.2 s", 9999 * time.Millisecond: "9.9 s",
		59999 * time.Millisecond: "59 s", time.Minute: "1 m", 61 * time.Second: "1 m 1 s", time.Hour: "1 h", 3*time.Hour + 5*time.Minute: "3 h 5 m", 49 * time.Hour: "2 d 1 h",
	} {
		if got := span(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}
