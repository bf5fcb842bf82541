package node

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestHealBeginsNothing has the data folder go while there is no core: a new one must not
// begin with an empty folder.
func TestHealBeginsNothing(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	n, _ := open(t, Options{Dir: dir})
	n.stopWatch()
	<-n.watched
	<-n.down(errors.New("as if it were stuck"))
	away := dir + ".away"
	mustDo(t, os.Rename(dir, away))
	if err := n.up(t.Context()); err == nil || !strings.Contains(err.Error(), "put the data folder back") {
		t.Fatalf("without a folder: %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("a folder was made: %v", err)
	}
	mustDo(t, os.Rename(away, dir))
	mustDo(t, n.up(t.Context()))
}

// TestHealGivesUp has a part of the stuck core that does not end: the node says that it
// cannot go on, refuses everything, and closes at once.
func TestHealGivesUp(t *testing.T) {
	t.Parallel()
	n, c := open(t, Options{Dir: filepath.Join(t.TempDir(), "data")})
	n.healer.longest = time.Millisecond
	locked := make(chan struct{})
	c.loops.run("locked", func(context.Context) error { <-locked; return nil })
	c.health.stuck <- errors.New("as if it were stuck")
	select {
	case err := <-n.Broken():
		if !errors.Is(err, errStays) {
			t.Errorf("it broke with %v", err)
		}
	case <-time.After(patience):
		t.Fatal("it waits for ever")
	}
	if _, err := n.Submit(t.Context(), nil); err == nil {
		t.Error("a job is admitted")
	}
	mustDo(t, n.Shutdown(t.Context()))
	close(locked)
	<-n.healer.ended // the folder can be removed
}

// said is a log that holds a token once a core could not be started.
type said chan struct{}

func (s said) Write(line []byte) (int, error) {
	if strings.Contains(string(line), "could not be started anew") {
		select {
		case s <- struct{}{}:
		default:
		}
	}
	return len(line), nil
}

// TestHealStopped closes a node that has no core because none can be started: it refuses
// everything with a reason until then, and ends at once.
func TestHealStopped(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	failed := make(said, 1)
	n, c := open(t, Options{Dir: dir, Recovery: Recovery{HealPause: time.Millisecond}, Logger: slog.New(slog.NewTextHandler(failed, nil))})
	away := dir + ".away"
	mustDo(t, os.Rename(dir, away))
	c.health.stuck <- errors.New("as if it were stuck")
	select {
	case <-failed:
	case <-time.After(patience):
		t.Fatal("nothing is tried")
	}
	for path, want := range map[string]int{"/jobs": 503, "/readyz": 503, "/workers/stats": 503, "/livez": 200} {
		w := httptest.NewRecorder()
		n.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost"+path, nil))
		if w.Code != want || path == "/jobs" && (w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), `"unavailable"`)) {
			t.Errorf("%s: %d %v %s", path, w.Code, w.Header(), w.Body)
		}
	}
	if _, err := n.Submit(t.Context(), nil); err == nil {
		t.Error("a job is admitted")
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := n.Shutdown(ctx); !errors.Is(err, errCutOff) || ctx.Err() != nil {
		t.Errorf("it ended with %v", err)
	}
	mustDo(t, os.Rename(away, dir))
	open(t, Options{Dir: dir})
}
