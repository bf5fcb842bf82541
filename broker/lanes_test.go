package broker_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"jobstream/broker"
)

// TestTroubleOfAllLanesIsLoggedTogether: if the stream is gone, each of a hundred lanes
// has something to say four times a second.
func TestTroubleOfAllLanesIsLoggedTogether(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	var trouble broker.LaneTrouble
	now := time.Now()
	logged := func(when string, want ...string) {
		t.Helper()
		trouble.Tell(log, now)
		lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		if out.Len() == 0 {
			lines = nil
		}
		out.Reset()
		if len(lines) != len(want) {
			t.Fatalf("%s: %d lines, want %d: %q", when, len(lines), len(want), lines)
		}
		for i, line := range lines {
			if !strings.Contains(line, want[i]) {
				t.Errorf("%s: %q does not say %q", when, line, want[i])
			}
		}
	}
	logged("nothing yet")
	for i := range 100 {
		trouble.Refuse(fmt.Sprintf("40%d No Stream", i))
	}
	logged("refused", `requests=100 status="400 No Stream"`)
	for i := range 50 {
		trouble.Refuse("again")
		trouble.Fail(fmt.Errorf("lane %d: %w", i, errors.ErrUnsupported))
	}
	logged("a moment later")
	now = now.Add(broker.TroubleEvery)
	logged("later", "requests=50 status=again", `tries=50 error="lane 0: unsupported operation"`)
	now = now.Add(broker.TroubleEvery)
	logged("when it is over")
}
