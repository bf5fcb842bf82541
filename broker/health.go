package broker

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// refusalCounts is how long a failed submission makes the broker unhealthy if none succeeds
// after it. It is bounded, since submissions are refused meanwhile and none could succeed.
const refusalCounts = 10 * time.Second

// health remembers the last failed submission. mu guards since and err.
type health struct {
	failing atomic.Bool

	mu    sync.Mutex
	since time.Time
	err   error
}

func (h *health) failed(err error) {
	h.mu.Lock()
	h.since, h.err = time.Now(), err
	h.mu.Unlock()
	h.failing.Store(true)
}

func (h *health) succeeded() {
	if h.failing.Load() {
		h.failing.Store(false)
	}
}

func (h *health) check() error {
	if !h.failing.Load() {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if time.Since(h.since) > refusalCounts {
		return nil
	}
	return fmt.Errorf("the last submission was not stored: %w", h.err)
}

// ErrStuck says that the broker never writes again by itself. Its owner has to close it and
// to open the folder once more, which loses nothing.
var ErrStuck = errors.New("free disk space or make the folder writable, if that is what is wrong: jobstream tries it all the time and then goes on by itself")

// Healthy is nil if the broker can do its work. The server runs then, its three streams are
// there, none has met a write error, and the last submission was stored or the queue full.
// See [ErrStuck].
func (b *Broker) Healthy() error {
	if b.closed.Load() || !b.srv.Running() {
		return errors.New("the broker is not running")
	}
	if !b.srv.JetStreamEnabled() {
		return fmt.Errorf("JetStream has switched itself off, most likely after a write error: %w", ErrStuck)
	}
	if text := b.broken.Load(); text != nil {
		return fmt.Errorf("the broker cannot write to its folder (%s): %w", *text, ErrStuck)
	}
	if b.clustered() {
		// Healthz says of a busy member that it is not current, for moments. Streams that
		// cannot be written show in submissions.
		return b.Inbox.health.check()
	}
	if st := b.srv.Healthz(nil); st.Error != "" {
		if strings.Contains(st.Error, "write error") {
			return fmt.Errorf("the broker cannot write to its folder (%s): %w", st.Error, ErrStuck)
		}
		return fmt.Errorf("the broker is not healthy: %s", st.Error)
	}
	acc, err := b.srv.JszAccount(&server.JSzOptions{Account: server.DEFAULT_GLOBAL_ACCOUNT, Streams: true})
	if err != nil {
		return fmt.Errorf("the broker's streams cannot be looked up: %w", err)
	}
	for _, name := range streamNames {
		there := slices.ContainsFunc(acc.Streams, func(s server.StreamDetail) bool { return s.Name == name })
		if !there {
			return fmt.Errorf("stream %s is missing: %w", name, ErrStuck)
		}
	}
	return b.Inbox.health.check()
}
