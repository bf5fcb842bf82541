package http

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"mime"
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
	u, err := h.o.address(t)
	if err != nil {
		return nil, err
	}
	req, err := nethttp.NewRequestWithContext(ctx, h.o.Method, "", nil)
	if err != nil {
		return nil, err
	}
	req.URL, req.Host = u, u.Host
	b, err := h.o.body(t)
	if err != nil {
		return nil, err
	}
	req.Header = h.o.header(t, b)
	if err := h.sign(req.Header, b); err != nil || b.open == nil {
		return req, err
	}
	// With GetBody the transport can repeat it on another connection.
	req.ContentLength, req.GetBody = b.size, b.open
	req.Body, err = b.open()
	return req, err
}

// address is the one for an attempt. An error that depends on the job alone is permanent.
func (o *Options) address(t *jobs.Task) (*url.URL, error) {
	if o.fixed != nil {
		return o.fixed, nil
	}
	inputs := make(map[string]any)
	for _, name := range template.InputNames(o.url) {
		f, err := t.Input(name)
		if err != nil {
			return nil, err
		}
		inputs[name] = template.InputData(f)
	}
	u, err := o.render(jobs.NewPayload(t.Job.Payload), t.Job, t.Attempt, inputs)
	return u, jobs.Permanent(err) // the payload does not fit, and never will
}

// body is what is sent; it can be read more than once.
type body struct {
	size int64
	open func() (io.ReadCloser, error) // nil: there is none
	file *jobs.Artifact                // the input that it is; nil: it is JSON
}

// bodyInput begins a body that is an input of the job; its name follows.
const bodyInput = "input:"

func (o *Options) body(t *jobs.Task) (body, error) {
	if name, ok := strings.CutPrefix(o.Body, bodyInput); ok {
		f, err := t.Input(name)
		if err != nil {
			return body{}, err
		}
		return body{f.File.Size, func() (io.ReadCloser, error) { return f.Open() }, &f.File}, nil
	}
	var text []byte
	switch o.Body {
	case "none":
		return body{}, nil
	case "job":
		text = t.Job.AppendJSON(nil)
	default:
		text = envelope.Payload(t.Job)
	}
	return body{size: int64(len(text)), open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil }}, nil
}

// sign signs a request, if the type has secrets.
func (h *Handler) sign(header nethttp.Header, b body) error {
	if len(h.o.secrets) == 0 {
		return nil
	}
	var r io.Reader = strings.NewReader("")
	if b.open != nil {
		f, err := b.open()
		if err != nil {
			return err
		}
		defer f.Close()
		r = f
	}
	return h.o.secrets.Sign(header, header.Get("Idempotency-Key"), time.Now(), r)
}

// header are the headers of an attempt: what it says about itself, and those of the type.
func (o *Options) header(t *jobs.Task, b body) nethttp.Header {
	all := make(nethttp.Header, len(o.headers)+16)
	values := make([]string, 0, 16) // one piece of memory for most of them
	for name, value := range envelope.Headers(t) {
		values = append(values, value)
		all[name] = values[len(values)-1 : len(values) : len(values)]
	}
	switch {
	case b.open == nil:
		delete(all, "Content-Type")
	case b.file != nil:
		all.Set("Content-Type", cmp.Or(b.file.ContentType, "application/octet-stream"))
		all.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": b.file.Name}))
	}
	for name, values := range o.headers { // of the above it has none but those of the body
		all[name] = values
	}
	return all
}

// render is the address for a job; nobody may change it. The error is a [*jobs.Error] that
// points at what is wrong with its payload.
func (o *Options) render(p *jobs.Payload, j *jobs.Job, attempt int, inputs map[string]any) (*url.URL, error) {
	d, err := template.NewData(p, j, attempt)
	if err != nil {
		return nil, err
	}
	d["inputs"] = inputs
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
