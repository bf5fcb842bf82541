package http

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"jobstream/jobs"
	"jobstream/jobs/handlers/internal/handlertest"
)

// raw is an endpoint that does with each connection what f does. It returns its address.
func raw(t *testing.T, f func(n int, c *net.TCPConn, r *bufio.Reader)) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	t.Cleanup(func() { l.Close(); work.Wait() })
	work.Go(func() {
		for n := 1; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			work.Go(func() {
				defer c.Close()
				f(n, c.(*net.TCPConn), bufio.NewReader(c))
			})
		}
	})
	return "http://" + l.Addr().String() + "/x"
}

// readRequest reads one request; nil if there is none.
func readRequest(r *bufio.Reader) *nethttp.Request {
	req, err := nethttp.ReadRequest(r)
	if err != nil {
		return nil
	}
	_, _ = io.Copy(io.Discard, req.Body)
	return req
}

// answering reads a request and writes text.
func answering(t *testing.T, text string) string {
	return raw(t, func(_ int, c *net.TCPConn, r *bufio.Reader) {
		if readRequest(r) != nil {
			_, _ = io.WriteString(c, text)
		}
	})
}

func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	c.Close()
}

// gone is an address where nobody listens.
func gone(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String() + "/x"
}

// TestFailures are failed attempts, each with its reason, and leave nothing.
func TestFailures(t *testing.T) {
	t.Parallel()
	const ok = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
	for name, tt := range map[string]struct {
		url  string
		want string // a part of the error
	}{
		"refused":         {gone(t), "connection refused"},
		"closed at once":  {raw(t, func(int, *net.TCPConn, *bufio.Reader) {}), "no answer came from 127.0.0.1:"},
		"closed":          {answering(t, ""), "no answer came from 127.0.0.1:"},
		"no HTTP":         {answering(t, "SSH-2.0-OpenSSH_9.6\r\n"), "malformed HTTP"},
		"half a header":   {answering(t, "HTTP/1.1 200 OK\r\nContent-Ty"), "no answer came from"},
		"endless headers": {answering(t, "HTTP/1.1 200 OK\r\n"+strings.Repeat("X-A: "+strings.Repeat("a", 1000)+"\r\n", 100)), "response headers exceeded"},
		"endless 1xx":     {answering(t, strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 10000)), "response headers exceeded"},
		"a short body":    {answering(t, ok+"Content-Length: 100\r\n\r\nabc"), "answered 200 OK, and then its body broke off: unexpected EOF"},
		"a short JSON":    {answering(t, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{}"), "answered 200 OK, and then its body broke off: unexpected EOF"},
		"bad length":      {answering(t, ok+"Content-Length: -1\r\n\r\nabc"), "bad Content-Length"},
		"two lengths":     {answering(t, ok+"Content-Length: 1\r\nContent-Length: 2\r\n\r\nabc"), "Content-Length"},
		"bad chunks":      {answering(t, ok+"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n"), "invalid byte in chunk length"},
		"half of a chunk": {answering(t, ok+"Transfer-Encoding: chunked\r\n\r\n3\r\nab"), "unexpected EOF"},
		"no last chunk":   {answering(t, ok+"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"), "unexpected EOF"},
		"no gzip":         {answering(t, ok+"Content-Encoding: gzip\r\nContent-Length: 20\r\n\r\nabcdefghijklmnopqrst"), "body broke off: gzip: invalid header"},
		"reset in the body": {raw(t, func(_ int, c *net.TCPConn, r *bufio.Reader) {
			if readRequest(r) != nil {
				_, _ = io.WriteString(c, ok+"Content-Length: 1000000\r\n\r\n"+strings.Repeat("a", 1000))
				reset(c)
			}
		}), "body broke off: "},
		"reset": {raw(t, func(_ int, c *net.TCPConn, r *bufio.Reader) {
			if readRequest(r) != nil {
				reset(c)
			}
		}), "no answer came from 127.0.0.1:"},
		"no such host": {"http://no-such-host.jobstream.invalid/x", "no answer came from no-such-host.jobstream.invalid: dial tcp: lookup no-such-host.jobstream.invalid"},
		"no TLS": {strings.Replace(raw(t, func(_ int, c *net.TCPConn, r *bufio.Reader) {
			_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
			_ = c.CloseWrite()
			_, _ = io.Copy(io.Discard, r)
		}), "http:", "https:", 1), "first record does not look like a TLS handshake"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := handler(t, at(tt.url))
			task := handlertest.NewTask(t, `{}`)
			r, err := h.Handle(t.Context(), task.Task)
			if err == nil || !strings.Contains(err.Error(), tt.want) || jobs.IsPermanent(err) {
				t.Errorf("got %v, %v; want %s", r, err, tt.want)
			}
			if _, _, _, busy := jobs.BusyOf(err); busy {
				t.Error("the type has to wait")
			}
			leftNothing(t, task)
		})
	}
}

// TestLongBody is as long as the answer says, whatever comes behind it.
func TestLongBody(t *testing.T) {
	t.Parallel()
	h := handler(t, at(answering(t, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}{}{}")))
	for range 3 {
		r, err := h.Handle(t.Context(), handlertest.NewTask(t, `{}`).Task)
		if err != nil || jsonOf(r.Value) != "{}" {
			t.Errorf("%v %v", r, err)
		}
	}
}

func TestEndlessRedirect(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	var s *httptest.Server
	s = serve(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		asked.Add(1)
		nethttp.Redirect(w, r, s.URL, nethttp.StatusFound)
	})
	_, err := handler(t, at(s.URL)).Handle(t.Context(), handlertest.NewTask(t, `{}`).Task)
	if err == nil || !strings.Contains(err.Error(), "302 Found to "+s.URL+"; redirects are not followed") || asked.Load() != 1 {
		t.Errorf("asked %d times: %v", asked.Load(), err)
	}
}

// zeros is an endless body.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// bomb is n bytes, in gzip.
func bomb(t *testing.T, n int64) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := io.CopyN(w, zeros{}, n); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestGzip is decoded, and bounded by what it is then: in results, files and errors.
func TestGzip(t *testing.T) {
	t.Parallel()
	large := bomb(t, 8<<20)
	for name, tt := range map[string]struct {
		status      int
		contentType string
		body        []byte
		want        string
		size        int64
	}{
		"a bomb":        {200, "text/plain", large, "the answer has more than 4194304 bytes (limits.output)", 0},
		"a JSON bomb":   {200, "application/json", large, "the answer has more than 4194304 bytes (limits.output)", 0},
		"an error bomb": {500, "text/plain", large, "the endpoint answered 500 Internal Server Error", 0},
		"small enough":  {200, "text/plain", bomb(t, 1<<20), "", 1 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
				if r.Header.Get("Accept-Encoding") != "gzip" {
					t.Errorf("accepts %q", r.Header.Get("Accept-Encoding"))
				}
				w.Header().Set("Content-Type", tt.contentType)
				w.Header().Set("Content-Encoding", "gzip")
				w.WriteHeader(tt.status)
				_, _ = w.Write(tt.body)
			})
			task := handlertest.NewTask(t, `{}`)
			_, err := handler(t, at(s.URL, "limits.output", "4MiB")).Handle(t.Context(), task.Task)
			if got := fmt.Sprint(err); tt.want != "" && got != tt.want || tt.want == "" && err != nil {
				t.Errorf("got %v", err)
			}
			if tt.size == 0 {
				leftNothing(t, task)
			} else {
				if f, content := task.Open(); f.Size != tt.size {
					t.Errorf("it has %d bytes", f.Size)
				} else {
					content.Close()
				}
			}
		})
	}
}

// TestLargeAnswer is not in memory at any time.
func TestLargeAnswer(t *testing.T) {
	s := serve(t, func(w nethttp.ResponseWriter, _ *nethttp.Request) {
		_, _ = io.CopyN(w, zeros{}, 100<<20)
	})
	h := handler(t, at(s.URL, "limits.output", "100MiB"))
	task := handlertest.NewTask(t, `{}`)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := h.Handle(t.Context(), task.Task); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 20<<20 {
		t.Errorf("it took %d MiB of memory", n>>20)
	}
	f, content := task.Open()
	content.Close()
	if f.Size != 100<<20 {
		t.Errorf("the file has %d bytes", f.Size)
	}
}

// leftNothing wants no file of the task, not even a half one.
func leftNothing(t *testing.T, task *handlertest.Task) {
	t.Helper()
	if n := len(task.End()); n > 0 {
		t.Errorf("it has left %d files", n)
	}
	if task.Folder == "" {
		return
	}
	left, err := os.ReadDir(task.Folder)
	if err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}

// TestInterrupted ends a request at once, wherever it is.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	for name, head := range map[string]string{
		"before the answer": "", "in the header": "HTTP/1.1 200 OK\r\nConte", "in the body": "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
		"in JSON":     "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{",
		"in an error": "HTTP/1.1 500 No\r\nContent-Length: 10\r\n\r\nabc", "in chunks": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			there, closed := make(chan struct{}), make(chan struct{})
			url := raw(t, func(_ int, c *net.TCPConn, r *bufio.Reader) {
				readRequest(r)
				_, _ = io.WriteString(c, head)
				close(there)
				_, _ = r.ReadByte() // returns when the other side has closed
				close(closed)
			})
			ctx, cancel := context.WithCancelCause(t.Context())
			ended := make(chan error, 1)
			task := handlertest.NewTask(t, `{}`)
			go func() {
				_, err := handler(t, at(url)).Handle(ctx, task.Task)
				ended <- err
			}()
			<-there
			cancel(jobs.ErrTimeout)
			if err := <-ended; err == nil || jobs.IsPermanent(err) {
				t.Errorf("got %v", err)
			}
			<-closed
			leftNothing(t, task)
		})
	}
}

// TestIdleConnectionIsClosed just before it is used again. The request is repeated on
// another connection, as the endpoint has not seen it, and the attempt does not fail.
func TestIdleConnectionIsClosed(t *testing.T) {
	t.Parallel()
	for name, closing := range map[string]func(c *net.TCPConn){"closed": func(c *net.TCPConn) { c.Close() }, "reset": reset} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var seen atomic.Int32
			down := make(chan struct{}, 1)
			url := raw(t, func(n int, c *net.TCPConn, r *bufio.Reader) {
				if n%2 == 1 { // answers one request, and closes when the next one comes
					if readRequest(r) == nil {
						return
					}
					seen.Add(1)
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
					if _, err := r.Peek(1); err == nil {
						closing(c)
					}
					return
				}
				if readRequest(r) != nil {
					seen.Add(1)
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
				}
				down <- struct{}{}
			})
			h := handler(t, at(url))
			for range 5 {
				for range 2 {
					if _, err := h.Handle(t.Context(), handlertest.NewTask(t, `{"a":1}`).Task); err != nil {
						t.Fatal(err)
					}
				}
				<-down
			}
			if n := seen.Load(); n != 10 {
				t.Errorf("%d requests were answered, want 10", n)
			}
		})
	}
}

// TestEndpointDiesWithTheRequest on a connection that was used before. The transport may
// repeat the request once; it has the same ids, so that the endpoint can tell.
func TestEndpointDiesWithTheRequest(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	ids := map[string]int{}
	url := raw(t, func(_ int, c *net.TCPConn, r *bufio.Reader) {
		for n := 0; ; n++ {
			req := readRequest(r)
			if req == nil {
				return
			}
			mu.Lock()
			ids[req.Header.Get("Idempotency-Key")+" "+req.Header.Get("Ce-Id")]++
			mu.Unlock()
			if n > 0 {
				reset(c)
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	})
	h := handler(t, at(url))
	for range 6 {
		if _, err := h.Handle(t.Context(), handlertest.NewTask(t, `{"a":1}`).Task); err != nil {
			t.Fatal(err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(ids) != 6 {
		t.Errorf("%d ids for 6 attempts: %v", len(ids), ids)
	}
	for id, n := range ids {
		if n > 2 {
			t.Errorf("%s came %d times", id, n)
		}
	}
}

// secure serves f over TLS, with HTTP/2 if that is wanted, and returns the file of its
// certificate.
func secure(t *testing.T, h2 bool, f nethttp.HandlerFunc) (s *httptest.Server, ca string) {
	t.Helper()
	s = httptest.NewUnstartedServer(f)
	s.EnableHTTP2 = h2
	s.Config.ErrorLog = nil
	s.StartTLS()
	t.Cleanup(s.Close)
	ca = filepath.Join(t.TempDir(), "ca.pem")
	b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(ca, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return s, ca
}

func TestTLS(t *testing.T) {
	t.Parallel()
	for _, h2 := range []bool{false, true} {
		s, ca := secure(t, h2, func(w nethttp.ResponseWriter, r *nethttp.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = fmt.Fprintf(w, "%d", r.ProtoMajor)
		})
		want := map[bool]string{false: "1", true: "2"}[h2]
		r, err := handler(t, at(s.URL, "ca", ca)).Handle(t.Context(), handlertest.NewTask(t, `{}`).Task)
		if err != nil || jsonOf(r.Value) != want {
			t.Errorf("HTTP/%s: %v %v", want, r, err)
		}
		_, err = handler(t, at(s.URL)).Handle(t.Context(), handlertest.NewTask(t, `{}`).Task)
		if err == nil || !strings.Contains(err.Error(), "certificate signed by unknown authority") || jobs.IsPermanent(err) {
			t.Errorf("without its certificate: %v", err)
		}
		_, err = handler(t, at(strings.Replace(s.URL, "127.0.0.1", "localhost", 1), "ca", ca)).Handle(t.Context(), handlertest.NewTask(t, `{}`).Task)
		if err == nil || !strings.Contains(err.Error(), "not localhost") {
			t.Errorf("under another name: %v", err)
		}
	}
}

// TestGoAway repeats a request that the endpoint has refused with GOAWAY, unseen.
func TestGoAway(t *testing.T) {
	t.Parallel()
	s, ca := secure(t, true, func(nethttp.ResponseWriter, *nethttp.Request) {})
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: s.TLS.Certificates, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	var conns, answered atomic.Int32
	var work sync.WaitGroup
	t.Cleanup(func() { l.Close(); work.Wait() })
	work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			refuses := conns.Add(1)%2 == 1
			work.Go(func() {
				defer c.Close()
				speakHTTP2(c, refuses, &answered)
			})
		}
	})
	h := handler(t, at("https://"+l.Addr().String()+"/", "ca", ca))
	for range 4 {
		r, err := h.Handle(t.Context(), handlertest.NewTask(t, `{}`).Task)
		if err != nil || jsonOf(r.Value) != "7" {
			t.Fatalf("%v %v", r, err)
		}
	}
	if n := answered.Load(); n != 4 || conns.Load() < 4 {
		t.Errorf("%d answers on %d connections", n, conns.Load())
	}
	h.CloseIdle()
}

// speakHTTP2 answers 7 to one request and goes away, or only goes away.
func speakHTTP2(c net.Conn, refuses bool, answered *atomic.Int32) {
	if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	f := http2.NewFramer(c, c)
	last := uint32(0) // the last stream that was answered
	_ = f.WriteSettings()
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				_ = f.WriteSettingsAck()
			}
		case *http2.HeadersFrame:
			if refuses {
				_ = f.WriteGoAway(last, http2.ErrCodeNo, nil)
				continue // until the other side closes
			}
			answered.Add(1)
			var head bytes.Buffer
			e := hpack.NewEncoder(&head)
			_ = e.WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
			_ = e.WriteField(hpack.HeaderField{Name: "content-type", Value: "application/json"})
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: frame.StreamID, BlockFragment: head.Bytes(), EndHeaders: true})
			_ = f.WriteData(frame.StreamID, true, []byte("7"))
			last = frame.StreamID
			_ = f.WriteGoAway(last, http2.ErrCodeNo, nil)
			refuses = true // what has come meanwhile
		}
	}
}
