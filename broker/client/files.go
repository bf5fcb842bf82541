package client

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"

	"jobstream/jobs"
	"jobstream/jobs/api"
)

// door is the REST side of the server, for files.
type door struct {
	c     *Client
	base  string
	token string
	http  *http.Client
}

// newDoor makes a door that uses what the connection does: its token and its TLS.
func newDoor(c *Client, base string) (*door, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("client: Options.REST is %s; it must be a URL like http://127.0.0.1:8080", jobs.Quote(base))
	}
	config, err := tlsOf(&c.nc.Opts)
	if err != nil {
		return nil, fmt.Errorf("client: the TLS of the connection cannot be used for REST: %w", err)
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = config
	return &door{c, strings.TrimSuffix(base, "/"), tokenOf(&c.nc.Opts), &http.Client{Transport: t}}, nil
}

// tlsOf is the TLS of a connection; nil = the default.
func tlsOf(o *nats.Options) (*tls.Config, error) {
	if o.TLSConfig == nil {
		return nil, nil
	}
	config := o.TLSConfig.Clone()
	if o.RootCAsCB != nil {
		pool, err := o.RootCAsCB()
		if err != nil {
			return nil, err
		}
		config.RootCAs = pool
	}
	if o.TLSCertCB != nil {
		cert, err := o.TLSCertCB()
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{cert}
	}
	return config, nil
}

// tokenOf is the token with which a connection is made; "" for none.
func tokenOf(o *nats.Options) string {
	switch {
	case o.TokenHandler != nil:
		return o.TokenHandler()
	case o.Token != "":
		return o.Token
	case o.UserInfo != nil:
		_, password := o.UserInfo()
		return password
	case o.Password != "":
		return o.Password
	}
	for _, server := range append([]string{o.Url}, o.Servers...) {
		u, err := url.Parse(server)
		if err != nil || u.User == nil {
			continue
		}
		if password, has := u.User.Password(); has {
			return password
		}
		return u.User.Username()
	}
	return ""
}

// errNoDoor is the error of tasks that need files.
var errNoDoor = jobs.Permanentf("files of jobs go over REST: client.Options.REST (server.public_url of a worker node) must say where that is")

// content makes the body of a request, and says how long it is.
type content func() (io.ReadCloser, int64, error)

// do sends a request until it is answered. body may be called again; nil = no body. The
// caller closes the answer's body.
func (d *door) do(ctx context.Context, method, path string, header http.Header, body content) (*http.Response, error) {
	for n := 1; ; n++ {
		r, err := d.try(ctx, method, path, header, body)
		var answered *jobs.Error
		if err == nil || errors.As(err, &answered) && !again(err) || ctx.Err() != nil {
			return r, err
		}
		if end := d.c.pause(ctx, n, err); end != nil {
			return nil, fmt.Errorf("%w; the last try: %w", end, err)
		}
	}
}

func (d *door) try(ctx context.Context, method, path string, header http.Header, body content) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, d.base+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	for name, values := range header {
		r.Header[name] = values
	}
	if d.token != "" {
		r.Header.Set("Authorization", "Bearer "+d.token)
	}
	if body != nil {
		if r.Body, r.ContentLength, err = body(); err != nil {
			return nil, err
		}
	}
	answer, err := d.http.Do(r)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode < 300 {
		return answer, nil
	}
	defer answer.Body.Close() //nolint:errcheck // opened for reading only
	problem, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	return nil, api.ReadProblem(answer.StatusCode, problem)
}

// scratch is the folder of a task, for its files in both directions. It is made when it is
// needed.
type scratch struct {
	mu   sync.Mutex
	path string
	got  map[string]string // places of inputs that were fetched, by name
}

// folder is the path of the folder. s.mu is locked.
func (s *scratch) folder() (string, error) {
	if s.path == "" {
		path, err := os.MkdirTemp("", "jobstream-")
		if err != nil {
			return "", err
		}
		s.path, s.got = path, make(map[string]string)
	}
	return s.path, nil
}

// remove removes the folder.
func (s *scratch) remove() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.path == "" {
		return nil
	}
	return os.RemoveAll(s.path)
}

// InputPath fetches the file of an input, once; see [jobs.Host].
func (t *task) InputPath(in *jobs.Input) (string, error) {
	if t.w.door == nil {
		return "", errNoDoor
	}
	t.files.mu.Lock()
	defer t.files.mu.Unlock()
	folder, err := t.files.folder()
	if err != nil {
		return "", err
	}
	if path := t.files.got[in.Name]; path != "" {
		return path, nil
	}
	path := filepath.Join(folder, "in-"+in.Name)
	if err := t.fetch(in, path); err != nil {
		return "", fmt.Errorf("the input %s cannot be fetched: %w", jobs.Quote(in.Name), err)
	}
	t.files.got[in.Name] = path
	return path, nil
}

// fetch stores the file of an input.
func (t *task) fetch(in *jobs.Input, path string) (err error) {
	answer, err := t.w.door.do(t.ctx, http.MethodGet, t.address("inputs", in.Name), nil, nil)
	if err != nil {
		return err
	}
	defer answer.Body.Close()                                              //nolint:errcheck // opened for reading only
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600) //nolint:gosec // in a folder of our own
	if err != nil {
		return err
	}
	sum := sha256.New()
	size, err := io.Copy(io.MultiWriter(f, sum), answer.Body)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); size != in.File.Size || got != in.File.SHA256 {
		return fmt.Errorf("%d bytes with the SHA-256 %s have come, and its record says %d with %s", size, got, in.File.Size, in.File.SHA256)
	}
	return nil
}

// address is the path of a file of the task.
func (t *task) address(kind, name string) string {
	return "/leases/" + t.lease.Token + "/" + kind + "/" + url.PathEscape(name)
}

// Create begins a file of the job; see [jobs.Host]. Its content waits on this machine until
// it is committed.
func (t *task) Create() (jobs.ArtifactWriter, error) {
	if t.w.door == nil {
		return nil, errNoDoor
	}
	t.files.mu.Lock()
	defer t.files.mu.Unlock()
	folder, err := t.files.folder()
	if err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(folder, "out-")
	if err != nil {
		return nil, err
	}
	return &artifact{File: f, t: t}, nil
}

// artifact is a file of the job that is not committed.
type artifact struct {
	*os.File
	t *task
}

// Commit sends the file to the server, which stores it.
func (a *artifact) Commit(name, contentType string) (*jobs.Artifact, error) {
	defer a.Abort()
	size, err := a.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	header := http.Header{}
	if contentType != "" {
		header.Set("Content-Type", contentType)
	}
	answer, err := a.t.w.door.do(a.t.ctx, http.MethodPut, a.t.address("artifacts", name), header, func() (io.ReadCloser, int64, error) {
		return io.NopCloser(io.NewSectionReader(a.File, 0, size)), size, nil
	})
	if err != nil {
		return nil, fmt.Errorf("the file %s cannot be stored: %w", jobs.Quote(name), err)
	}
	defer answer.Body.Close() //nolint:errcheck // opened for reading only
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	made := &jobs.Artifact{}
	if err := jobs.ReadFieldsJSON(body, jobs.ArtifactFields, made); err != nil {
		return nil, fmt.Errorf("the server's answer about the file %s cannot be read: %w", jobs.Quote(name), err)
	}
	return made, nil
}

// Abort discards the file.
func (a *artifact) Abort() {
	_ = a.Close()           // its content is sent, or unwanted
	_ = os.Remove(a.Name()) // its folder is removed with the task
}
