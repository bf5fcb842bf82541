package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/jobs"
	"jobstream/jobs/api"
	"jobstream/jobs/handlers/webhook"
)

// callbackTarget is an endpoint that outlives servers and remembers what it has accepted.
type callbackTarget struct {
	*httptest.Server
	mu       sync.Mutex
	accepted map[string]int // by webhook-id
	body     map[string]string
	refuse   func() bool
	wrong    []string
}

func newCallbackTarget(t *testing.T, refuse func() bool) *callbackTarget {
	t.Helper()
	e := &callbackTarget{accepted: make(map[string]int), body: make(map[string]string), refuse: refuse}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the server was killed
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		id := r.Header.Get("Webhook-Id")
		if before, known := e.body[id]; known && before != string(body) {
			e.wrong = append(e.wrong, fmt.Sprintf("%s was %s and then %s", id, before, body))
		}
		e.body[id] = string(body)
		if e.refuse() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		e.accepted[id]++
	}))
	t.Cleanup(e.Close)
	return e
}

func (e *callbackTarget) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.accepted)
}

// TestCrashCallbacks kills the server at random moments between ends and the deliveries
// for them. Each end is delivered at least once, always with the same id and
// content, whatever has become of the broker's folder.
func TestCrashCallbacks(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("JOBSTREAM_SEED"); s != "" {
		var err error
		seed, err = strconv.ParseUint(s, 10, 64)
		mustDo(t, err)
	}
	t.Logf("seed %d (JOBSTREAM_SEED)", seed)
	rng := rand.New(rand.NewPCG(seed, 20))
	var mu sync.Mutex
	e := newCallbackTarget(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return rng.IntN(200) == 0 // its retry comes after five seconds
	})
	draw := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return rng.IntN(n)
	}
	dir := t.TempDir()
	promised := make(map[string]bool) // webhook-ids
	submit := func(ctx context.Context, c *child, promised chan<- string) {
		body := fmt.Sprintf(`{"type":%q,"callback_url":"%s/%d"}`, []string{"quick", "flaky", "doomed"}[draw(3)], e.URL, draw(5))
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.rest+"/jobs", strings.NewReader(body))
		if err != nil {
			return
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return // it was killed
		}
		defer resp.Body.Close()
		var j struct{ ID, Type string }
		if resp.StatusCode == http.StatusAccepted && json.NewDecoder(resp.Body).Decode(&j) == nil {
			status := map[string]string{"doomed": "failed"}[j.Type]
			if status == "" {
				status = "completed"
			}
			promised <- j.ID + "." + status + ".1"
		}
	}
	var c *child
	for round := range rounds(t, 4) {
		c = startChild(t, dir, childCallbacks+"=1")
		ctx, cancel := context.WithCancel(t.Context())
		got := make(chan string, 1000)
		var load sync.WaitGroup
		for range 8 {
			load.Go(func() {
				for ctx.Err() == nil {
					submit(ctx, c, got)
				}
			})
		}
		for range 20 + draw(300) {
			promised[<-got] = true
		}
		go func() { load.Wait(); close(got) }()
		if draw(3) > 0 { // else while the load lasts
			cancel()
			after := e.count() + draw(20)
			waitUntil(t, func() bool { return e.count() >= min(after, len(promised)) })
		}
		c.kill()
		cancel()
		for id := range got {
			promised[id] = true
		}
		if wipe := draw(3) == 0; wipe {
			mustDo(t, os.RemoveAll(filepath.Join(dir, "data", "broker")))
		}
		t.Logf("round %d: %d promised, %d delivered", round, len(promised), e.count())
	}
	startChild(t, dir, childCallbacks+"=1")
	var missing []string
	waitUntil(t, func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		missing = missing[:0]
		for id := range promised {
			if e.accepted[id] == 0 {
				missing = append(missing, id)
			}
		}
		return len(missing) == 0
	})
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, w := range e.wrong {
		t.Error(w)
	}
	repeated := 0
	for _, n := range e.accepted {
		repeated += n - 1
	}
	t.Logf("%d deliveries, %d of them again", len(e.accepted), repeated)
}

// TestContractCallbacksBesideAHangingHost: ten thousand ends, of which many are to be
// notified to a host that never answers. The jobs end, and all other hosts are notified.
func TestContractCallbacksBesideAHangingHost(t *testing.T) {
	t.Parallel()
	const hosts, batches, each = 19, 20, 500
	hold := make(chan struct{})
	hanging := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hold }))
	defer hanging.Close()
	defer close(hold)
	var all []*callbackTarget
	for range hosts {
		all = append(all, newCallbackTarget(t, func() bool { return false }))
	}
	h := open(t, t.TempDir(), setup{
		handlers: map[string]jobs.Handler{"quick": jobs.HandlerFunc(nothing)},
		change: func(c *config.Config) {
			c.Callbacks = webhook.Options{Allow: []string{"127.0.0.1"}}
			c.Callbacks.Check("", nil, func(path, text string) { t.Fatal(path, text) })
		},
	})
	for range batches {
		var b strings.Builder
		for i := range each {
			to := hanging.URL
			if i%(hosts+1) < hosts {
				to = all[i%(hosts+1)].URL
			}
			fmt.Fprintf(&b, `,{"type":"quick","callback_url":%q}`, to)
		}
		if r := h.do("POST", "/jobs/batch", `{"jobs":[`+b.String()[1:]+`]}`); r.code != 202 {
			t.Fatalf("%d %s", r.code, r.body)
		}
	}
	h.awaitStats(func(s *api.Stats) bool { return s.CompletedJobs == batches*each })
	waitUntil(t, func() bool {
		delivered := 0
		for _, e := range all {
			delivered += e.count()
		}
		return delivered == batches*each*hosts/(hosts+1)
	})
	r := h.do("GET", "/deliveries?limit=500&status=pending&status=processing&status=retrying&url="+url.QueryEscape(hanging.URL), "")
	var waiting struct{ Deliveries []struct{ URL string } }
	mustDo(t, json.Unmarshal(r.body, &waiting))
	if n := len(waiting.Deliveries); n != batches*each/(hosts+1) {
		t.Errorf("%d deliveries are left for the hanging host", n)
	}
}
