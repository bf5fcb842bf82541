package http

import (
	"bytes"
	"context"
	"fmt"
	"io"
	nethttp "net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/handlers/internal/envelope"
	"jobstream/jobs/handlers/internal/template"
)

// request is the one of an attempt. An error that depends on the job alone is permanent.
func (h *Handler) request(ctx context.Context, t *jobs.Task) (*nethttp.Request, error) {
	u, err := h.o.render(jobs.NewPayload(t.Job.Payload), t.Job, t.Attempt)
	if err != nil {
		return nil, jobs.Permanent(err) // the payload does not fit, and never will
	}
	req, err := nethttp.NewRequestWithContext(ctx, h.o.Method, "", nil)
	if err != nil {
		return nil, err
	}
	req.URL, req.Host = u, u.Host
	body := h.o.body(t.Job)
	if body != nil { // with GetBody the transport can repeat it on another connection
		req.ContentLength = int64(len(body))
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
		req.Body, _ = req.GetBody()
	}
	req.Header = h.o.header(t)
	if len(h.o.secrets) == 0 {
		return req, nil
	}
	err = h.o.secrets.Sign(req.Header, req.Header.Get("Idempotency-Key"), time.Now(), bytes.NewReader(body))
	return req, err
}

// body is what is sent.
func (o *Options) body(j *jobs.Job) []byte {
	switch o.Body {
	case "none":
		return nil
	case "job":
		return j.AppendJSON(nil)
	}
	return envelope.Payload(j)
}

// header are the headers of an attempt: what it says about itself, and those of the type.
func (o *Options) header(t *jobs.Task) nethttp.Header {
	all := make(nethttp.Header, len(o.headers)+16)
	values := make([]string, 0, 16) // one piece of memory for most of them
	for name, value := range envelope.Headers(t) {
		values = append(values, value)
		all[name] = values[len(values)-1 : len(values) : len(values)]
	}
	if o.Body == "none" {
		delete(all, "Content-Type")
	}
	for name, values := range o.headers { // of the above it has none but Content-Type
		all[name] = values
	}
	return all
}

// render is the address for a job; nobody may change it. The error is a [*jobs.Error] that
// points at what is wrong with its payload.
func (o *Options) render(p *jobs.Payload, j *jobs.Job, attempt int) (*url.URL, error) {
	if o.fixed != nil {
		return o.fixed, nil
	}
	d, err := template.NewData(p, j, attempt)
	if err != nil {
		return nil, err
	}
	text, err := o.url.Render(d)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, o.url.Wrong(fmt.Sprintf("makes %s, which is no address", jobs.Quote(text)))
	case u.Host != o.host: // cannot be, as that part is literal
		return nil, o.url.Wrong("makes an address with another host")
	}
	if part, odd := o.oddPart(text); odd {
		return nil, o.url.Wrong(fmt.Sprintf("makes an address with the part %q in its path, which could be another address", part))
	}
	return u, nil
}

// oddPart finds a part of an address's path that means another path: a dot, two dots, or
// nothing where the configuration has something.
func (o *Options) oddPart(text string) (part string, odd bool) {
	rendered, literal := pathOf(text), pathOf(o.URL)
	if i := slices.IndexFunc(rendered, func(s string) bool { return s == "." || s == ".." }); i >= 0 {
		return rendered[i], true
	}
	count := func(parts []string) (n int) {
		for _, s := range parts {
			if s == "" {
				n++
			}
		}
		return n
	}
	return "", count(rendered) > count(literal)
}

// pathOf are the parts of the path of an address or of a template of one.
func pathOf(address string) []string {
	_, rest, _ := strings.Cut(address, "://")
	_, path, _ := strings.Cut(rest, "/")
	path, _, _ = strings.Cut(path, "?")
	return strings.Split(path, "/")
}
