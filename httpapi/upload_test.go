package httpapi_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"jobstream/httpapi"
	"jobstream/jobs"
	"jobstream/jobs/intake"
)

// uploads are api.Inputs that only count.
type uploads struct {
	mu     sync.Mutex
	sizes  []int64
	failed []error
	begun  chan struct{} // gets a token with each, unless nil
	room   int64         // bytes that one may have; 0 = any number
}

func (u *uploads) Upload(_ context.Context, content io.Reader, up intake.Upload) (*intake.Uploaded, error) {
	if u.begun != nil {
		u.begun <- struct{}{}
	}
	if u.room > 0 {
		content = io.LimitReader(content, u.room)
	}
	n, err := io.Copy(io.Discard, content)
	u.mu.Lock()
	defer u.mu.Unlock()
	if err == nil && n == u.room && n > 0 {
		err = &jobs.Error{Kind: jobs.StorageFull, Detail: "there is no room"}
	}
	if err != nil {
		u.failed = append(u.failed, err)
		return nil, err
	}
	u.sizes = append(u.sizes, n)
	return &intake.Uploaded{ID: jobs.NewID(), File: jobs.Artifact{Name: up.Name, ContentType: up.ContentType, Size: n}, Expires: jobs.Now()}, nil
}

// uploading is a server with such uploads.
func uploading(u *uploads, change func(*httpapi.Options)) *httpapi.Server {
	o := httpapi.Options{Backend: behind(newBackend()), MaxBody: 10, MaxUpload: 1 << 20}
	o.Backend.Inputs = u
	if change != nil {
		change(&o)
	}
	return httpapi.New(o)
}

// TestUploadSpeed: a slow upload may take longer than any other request. One that stands
// still, or only trickles, is cut.
func TestUploadSpeed(t *testing.T) {
	t.Parallel()
	const minute = time.Minute
	for name, tt := range map[string]struct {
		piece int           // bytes
		every time.Duration // between two pieces
		first int           // bytes at once
		n     int           // pieces
		cut   time.Duration // when it is cut; 0 = it is taken
		room  int64         // what there is room for; 0 = all of it
	}{
		"slow, then no room":     {piece: 32 << 10, every: 25 * time.Second, n: 24, room: 500 << 10, cut: 400 * time.Second},
		"slow":                   {piece: 32 << 10, every: 25 * time.Second, n: 24},
		"at once":                {first: 1 << 20},
		"fast, then not":         {first: 512 << 10, piece: 1, every: 50 * time.Second, n: 10},
		"silent":                 {piece: 1, every: 2 * minute, n: 1, cut: minute},
		"falls silent":           {first: 512 << 10, piece: 1, every: 2 * minute, n: 1, cut: minute},
		"trickles":               {piece: 1, every: 10 * time.Second, n: 30, cut: minute},
		"too large, then silent": {first: 1<<20 + 1, piece: 1, every: 2 * minute, n: 1, cut: time.Nanosecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				u := &uploads{room: tt.room}
				s := uploading(u, nil)
				l := &pipes{conns: make(chan net.Conn), gone: make(chan struct{})}
				served := make(chan error, 1)
				go func() { served <- s.Serve(l) }()
				client, server := net.Pipe()
				l.conns <- server
				total := tt.first + tt.n*tt.piece
				began := time.Now()
				answered := make(chan time.Duration, 1)
				var got bytes.Buffer
				go func() {
					_, _ = io.Copy(&got, client)
					answered <- time.Since(began)
				}()
				head, text := fmt.Sprintf("Content-Length: %d", total), "nothing came for 1m0s"
				if tt.room > 0 {
					text = "storage_full"
				}
				if tt.first > 1<<20 {
					head, text = fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x", tt.first), "server.max_upload"
				}
				_, err := fmt.Fprintf(client, "POST /artifacts HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%s\r\n", head)
				if err == nil && tt.first <= 1<<20 {
					_, err = client.Write([]byte("\r\n"))
				}
				if err == nil {
					_, err = client.Write(make([]byte, tt.first))
				}
				for i := 0; i < tt.n && err == nil; i++ {
					time.Sleep(tt.every) // in the bubble
					_, err = client.Write(make([]byte, tt.piece))
				}
				took := <-answered
				switch status := strings.SplitN(got.String(), "\r\n", 2)[0]; {
				case tt.cut == 0 && (status != "HTTP/1.1 201 Created" || err != nil):
					t.Errorf("it is not taken: %s, %v", status, err)
				case tt.cut > 0 && strings.HasPrefix(status, "HTTP/1.1 2") || tt.cut > 0 && !strings.Contains(got.String(), text):
					t.Errorf("it is not cut, or does not say why: %s", &got)
				case tt.cut > 0 && (took < tt.cut || took > tt.cut+15*time.Second):
					t.Errorf("it was cut after %s, not %s", took, tt.cut)
				}
				_ = client.Close()
				ctx, cancel := context.WithTimeout(context.Background(), minute)
				defer cancel()
				if err := s.Shutdown(ctx); err != nil {
					t.Error(err)
				}
				<-served
			})
		})
	}
}

// TestUploadCut: an upload that does not arrive as a whole, or has more than it may, is
// refused, and its connection closed.
func TestUploadCut(t *testing.T) {
	t.Parallel()
	u := &uploads{}
	s := uploading(u, nil)
	addr, served := serve(t, s)
	half := dial(t, addr)
	half.write(t, "POST /artifacts HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhello")
	if err := half.Conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	a := half.read(t)
	a.wantProblem(t, 422, "invalid_request", "header/Content-Length")
	if !bytes.Contains(a.body, []byte(`"header/Content-Length"`)) || !a.Close {
		t.Errorf("a cut upload: %s, close %v", a.body, a.Close)
	}
	chunks := dial(t, addr)
	chunks.write(t, "POST /artifacts HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
	if err := chunks.Conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	chunks.read(t).wantProblem(t, 422, "invalid_request", "")

	for _, head := range []string{"Content-Length: 1048577", "Transfer-Encoding: chunked"} {
		large := dial(t, addr)
		large.write(t, "POST /artifacts HTTP/1.1\r\nHost: localhost\r\n"+head+"\r\n\r\n")
		go func() {
			if head[0] == 'T' {
				_, _ = fmt.Fprintf(large, "%x\r\n%s\r\n", 1<<20+1, strings.Repeat("a", 1<<20+1))
			}
		}()
		a := large.read(t)
		a.wantProblem(t, 413, "payload_too_large")
		if !bytes.Contains(a.body, []byte("server.max_upload")) || !a.Close {
			t.Errorf("%s: %s, close %v", head, a.body, a.Close)
		}
	}
	whole := dial(t, addr)
	whole.write(t, "POST /artifacts HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n")
	if line, err := whole.r.ReadString('\n'); err != nil || line != "HTTP/1.1 100 Continue\r\n" {
		t.Fatalf("%q, %v", line, err)
	}
	whole.write(t, fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", 1<<20, strings.Repeat("a", 1<<20)))
	if _, err := whole.r.ReadString('\n'); err != nil { // the end of the first answer
		t.Fatal(err)
	}
	whole.read(t).wantJSON(t, 201, new(any))
	whole.write(t, "POST /artifacts HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n") // the connection goes on
	whole.read(t).wantJSON(t, 201, new(any))
	if err := s.Shutdown(context.WithoutCancel(t.Context())); err != nil {
		t.Error(err)
	}
	if err := receive(t, "the end of Serve", served); err != nil {
		t.Error(err)
	}
	if fmt.Sprint(u.sizes) != "[1048576 0]" {
		t.Errorf("taken are %v", u.sizes)
	}
}

// TestUploadsBounded: only so many come in at a time. They take no place of other requests,
// and none begins once the server stops.
func TestUploadsBounded(t *testing.T) {
	t.Parallel()
	u := &uploads{begun: make(chan struct{}, 10)}
	s := uploading(u, func(o *httpapi.Options) { o.Bounds = httpapi.Bounds{Uploads: 2, Calls: 1} })
	addr, served := serve(t, s)
	var open []*raw
	for range 2 {
		c := dial(t, addr)
		c.write(t, "POST /artifacts HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n")
		receive(t, "an upload", u.begun)
		open = append(open, c)
	}
	c := dial(t, addr)
	c.write(t, "POST /artifacts HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello")
	a := c.read(t)
	a.wantProblem(t, 503, "unavailable")
	if a.Header.Get("Retry-After") == "" {
		t.Error("it does not say when to come again")
	}
	c = dial(t, addr)
	c.write(t, "GET /jobs/7 HTTP/1.1\r\nHost: localhost\r\n\r\n")
	c.read(t).wantProblem(t, 404, "not_found")
	open[0].write(t, "hello")
	open[0].read(t).wantJSON(t, 201, new(any))
	c = dial(t, addr)
	c.write(t, "POST /artifacts HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello")
	c.read(t).wantJSON(t, 201, new(any))
	s.Drain()
	c = dial(t, addr)
	c.write(t, "POST /artifacts HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello")
	c.read(t).wantProblem(t, 503, "shutting_down")
	open[1].write(t, "hello") // what has begun goes on
	open[1].read(t).wantJSON(t, 201, new(any))
	if err := s.Shutdown(context.WithoutCancel(t.Context())); err != nil {
		t.Error(err)
	}
	if err := receive(t, "the end of Serve", served); err != nil {
		t.Error(err)
	}
}

func (u *uploads) Open(*jobs.Input) (jobs.ArtifactFile, error) { return nil, fs.ErrNotExist }
