package httpapi_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"jobstream/httpapi"
	"jobstream/jobs"
)

// hall is a server with connections in memory, in a bubble of synctest: what
// waits there waits for good, and time passes only then.
type hall struct {
	*rig
	t     *testing.T
	dir   *jobs.ArtifactDir
	conns chan net.Conn
}

func inHall(t *testing.T, o httpapi.Options, test func(h *hall)) {
	t.Helper()
	dir := jobs.NewArtifactDir(t.TempDir(), 0)
	synctest.Test(t, func(t *testing.T) {
		h := &hall{rig: &rig{backend: newBackend()}, t: t, dir: dir, conns: make(chan net.Conn)}
		o.Backend = behind(h.backend)
		o.Backend.Artifacts = dir
		if o.MaxBody == 0 {
			o.MaxBody = 1024
		}
		h.server = httpapi.New(o)
		served := make(chan error, 1)
		go func() { served <- h.server.Serve(&pipes{conns: h.conns, gone: make(chan struct{})}) }()
		defer func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			if err := h.server.Shutdown(ctx); err != nil {
				t.Error(err)
			}
			if err := <-served; err != nil {
				t.Error(err)
			}
		}()
		test(h)
	})
}

// asking is a request under way.
type asking struct {
	net.Conn
	t     *testing.T
	reply chan answer
}

// start sends a request, and returns when nothing moves any more.
func (h *hall) start(text string) *asking {
	h.t.Helper()
	client, server := net.Pipe()
	a := &asking{client, h.t, make(chan answer, 1)}
	h.conns <- server
	go func() { _, _ = io.WriteString(client, text) }() // it may be refused before all is read
	go func() {
		defer close(a.reply)
		resp, err := http.ReadResponse(bufio.NewReader(client), nil)
		if err != nil {
			return
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		a.reply <- answer{resp, body}
	}()
	synctest.Wait()
	return a
}

// answered is the answer, which must be there already.
func (a *asking) answered() answer {
	a.t.Helper()
	synctest.Wait()
	select {
	case got, ok := <-a.reply:
		if !ok {
			a.t.Fatal("the connection was closed without an answer")
		}
		_ = a.Close()
		synctest.Wait()
		return got
	default:
		a.t.Fatal("there is no answer yet")
		panic("unreachable")
	}
}

// waits makes sure that there is no answer yet.
func (a *asking) waits() {
	a.t.Helper()
	synctest.Wait()
	select {
	case got := <-a.reply:
		a.t.Fatalf("it is answered: %v %s", got.Response, got.body)
	default:
	}
}

func (a *asking) give(text string) {
	a.t.Helper()
	if _, err := io.WriteString(a, text); err != nil {
		a.t.Fatal(err)
	}
	synctest.Wait()
}

func (h *hall) get(path string) *asking {
	h.t.Helper()
	return h.start("GET " + path + " HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

func (h *hall) post(body string, header ...string) *asking {
	h.t.Helper()
	lines := append([]string{"POST /jobs HTTP/1.1", "Host: localhost", fmt.Sprintf("Content-Length: %d", len(body))}, header...)
	return h.start(strings.Join(lines, "\r\n") + "\r\n\r\n" + body)
}

// alive makes sure that probes are answered.
func (h *hall) alive() {
	h.t.Helper()
	for _, path := range []string{"/livez", "/readyz", "/healthz", "/health"} {
		h.get(path).answered().wantJSON(h.t, 200, new(any))
	}
}

func (a answer) wantBusy(t *testing.T) {
	t.Helper()
	a.wantProblem(t, 503, "unavailable")
	if a.Header.Get("Retry-After") == "" {
		t.Error("there is no Retry-After")
	}
}

func TestRequestsAreWorkedOnInTurn(t *testing.T) {
	inHall(t, httpapi.Options{Bounds: httpapi.Bounds{Calls: 2, Line: 5 * time.Second}}, func(h *hall) {
		h.entered, h.release = make(chan struct{}, 9), make(chan struct{})
		first, second := h.post(anEmail), h.post(anEmail)
		refused := []*asking{h.get("/jobs"), h.post(anEmail), h.get("/workers/stats")}
		time.Sleep(4 * time.Second) // of the bubble
		for _, a := range refused {
			a.waits()
		}
		h.alive()
		patient := h.get("/types")
		time.Sleep(time.Second)
		for _, a := range refused {
			a.answered().wantBusy(t)
		}
		patient.waits()
		if n := len(h.entered); n != 2 {
			t.Errorf("%d requests were worked on, not 2", n)
		}
		h.release <- struct{}{}
		h.release <- struct{}{}
		first.answered().wantJSON(t, 202, new(jobs.Job))
		second.answered().wantJSON(t, 202, new(jobs.Job))
		patient.answered().wantJSON(t, 200, new(any))
		gone := h.post(anEmail)
		h.release <- struct{}{}
		gone.answered().wantJSON(t, 202, new(jobs.Job))
	})
}

// A client that sends or takes slowly keeps nobody from being served.
func TestSlowClientsTakeNoPlace(t *testing.T) {
	inHall(t, httpapi.Options{Bounds: httpapi.Bounds{Calls: 1}}, func(h *hall) {
		j := artifact(t, h.rig, h.dir, "a.txt", "text/plain", bytes.Repeat([]byte("x"), 1<<20))
		slowest, server := net.Pipe()
		h.conns <- server
		if _, err := io.WriteString(slowest, "GET /jobs/"+j.ID.String()+"/result HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(slowest, make([]byte, 100_000)); err != nil {
			t.Fatal(err)
		}
		slow := h.start("POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n{")
		slower := h.start("POST /jobs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"typ")
		h.post(anEmail).answered().wantJSON(t, 202, new(jobs.Job))
		h.get("/jobs").answered().wantJSON(t, 200, new(any))
		slow.waits()
		slower.give("\r\n0\r\n\r\n")
		slower.answered().wantProblem(t, 400, "malformed_json")
		_ = slow.Close()
		if n, err := io.CopyN(io.Discard, slowest, 900_000); err != nil {
			t.Errorf("the file ended after %d bytes: %v", n, err)
		}
		_ = slowest.Close()
	})
}

func TestWaitsAreBounded(t *testing.T) {
	inHall(t, httpapi.Options{Bounds: httpapi.Bounds{Calls: 1, Waits: 2}}, func(h *hall) {
		j := h.submit(t, anEmail)
		first, second := h.get("/jobs/1?wait=10m"), h.post(anEmail, "Prefer: wait=600")
		for range 3 {
			h.get("/jobs/1?wait=10m").answered().wantBusy(t)
			a := h.post(anEmail, "Prefer: wait=600").answered() // the job is there, and a preference is no more than that
			a.wantJSON(t, 202, new(jobs.Job))
			if a.Header.Get("Preference-Applied") != "" {
				t.Error("the preference counts as applied")
			}
		}
		h.get("/jobs/1").answered().wantJSON(t, 200, new(jobs.Job))
		h.alive()
		first.waits()
		second.waits()
		h.end(j, jobs.KindCompleted, "")
		first.answered().wantJSON(t, 200, new(jobs.Job))
		third := h.get("/jobs/2?wait=30s")
		third.waits()
		time.Sleep(31 * time.Second)
		third.answered().wantJSON(t, 200, new(jobs.Job))
		second.waits()
	})
}

// Those who wait leave some of the connections to others.
func TestWaitsLeaveConnections(t *testing.T) {
	inHall(t, httpapi.Options{MaxConns: 8}, func(h *hall) {
		h.submit(t, anEmail)
		var waiting []*asking
		for range 7 {
			waiting = append(waiting, h.get("/jobs/1?wait=10m"))
		}
		h.get("/jobs/1?wait=10m").answered().wantBusy(t)
		for _, a := range waiting {
			a.waits()
		}
		h.alive()
	})
}

func TestBodiesAreBounded(t *testing.T) {
	const most = 300_000
	inHall(t, httpapi.Options{MaxBody: 200_000, Bounds: httpapi.Bounds{Bodies: most}}, func(h *hall) {
		chunk := func(n int) string { return fmt.Sprintf("%x\r\n%s\r\n", n, strings.Repeat(" ", n)) }
		const head = "POST /jobs HTTP/1.1\r\nHost: localhost\r\n"
		for range 5 { // nothing stays behind
			chunked := h.start(head + "Transfer-Encoding: chunked\r\n\r\n" + chunk(150_000))
			long := h.start(head + "Content-Length: 180000\r\n\r\n" + strings.Repeat(" ", 100_000))
			short := h.start(head + "Content-Length: 40000\r\n\r\n")
			chunked.waits()
			long.waits()
			short.waits()
			h.start(head + "Content-Length: 40000\r\n\r\n").answered().wantBusy(t)
			h.start(head + "Transfer-Encoding: chunked\r\n\r\n" + chunk(20_000)).answered().wantBusy(t)
			h.post(anEmail).answered().wantJSON(t, 202, new(jobs.Job))
			h.get("/jobs/1").answered().wantJSON(t, 200, new(jobs.Job))
			h.alive()
			long.give(strings.Repeat(" ", 20_000)) // more than there is room for
			long.answered().wantBusy(t)
			chunked.give(chunk(60_000)) // more than max_body
			chunked.answered().wantProblem(t, 413, "payload_too_large")
			short.give(anEmail + strings.Repeat(" ", 40_000-len(anEmail)))
			short.answered().wantJSON(t, 202, new(jobs.Job))
		}
		// who waits holds no body
		var waiting []*asking
		for range 5 {
			waiting = append(waiting, h.post(anEmail+strings.Repeat(" ", 100_000), "Prefer: wait=600"))
		}
		for _, a := range waiting {
			a.waits()
		}
	})
}
