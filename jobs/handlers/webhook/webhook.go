// Package webhook is the server's own job "jobstream-webhook", a callback: it
// notifies a URL of the end of another job, as Standard Webhooks describes it.
//
// Start reading at [Handler.Handle]. The tracker makes the jobs, see [jobs.Callback].
// Delays between attempts are those of [Type].
package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/handlers/internal/guard"
	"jobstream/jobs/handlers/internal/signature"
)

// Tracker knows which URLs want no callbacks any more.
type Tracker interface {
	jobs.Doer
	IsDisabled(url string) (bool, error)
}

// Bounds of callbacks.
const (
	Timeout = 15 * time.Second // of one request
	Workers = 128              // requests at once; they need none of the pool's workers
	PerHost = 8                // of these, to one host

	mostAnswer = 64 << 10       // bytes that are read of an answer, so that its connection can stay open
	drainTime  = time.Second    // for that
	mostWait   = 24 * time.Hour // that an answer can ask for
)

// Type is the type of callbacks, without its handler. Its schedule is that of Standard
// Webhooks.
func Type() *jobs.Type {
	delays := []time.Duration{
		5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour,
		10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour,
	}
	return &jobs.Type{
		Name: jobs.CallbackType, Internal: true, RetryCount: len(delays), Timeout: Timeout, MaxWorkers: Workers, ConcurrencyPerKey: PerHost,
		Backoff: jobs.Backoff{Kind: jobs.ListKind, Delays: delays, Jitter: 0.2},
	}
}

// Handler makes the requests.
type Handler struct {
	o       *Options
	tracker Tracker
	// Requests to webhooks go where the configuration says, other ones to public
	// addresses only.
	webhooks, callbacks *http.Transport
}

// New makes the handler. Its options have been checked.
func New(o *Options, tracker Tracker) *Handler {
	return &Handler{o, tracker, o.transport(guard.LinkLocal(guard.Allow{})), o.transport(guard.Public(o.allow))}
}

func (o *Options) transport(g *guard.Guard) *http.Transport {
	return &http.Transport{
		// It has no proxy: that would be the only address that the guard sees.
		DialContext:            g.Dialer(net.Dialer{Timeout: Timeout, Resolver: o.resolver}),
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.roots},
		ForceAttemptHTTP2:      true,
		DisableCompression:     true,
		MaxIdleConns:           Workers / 2,
		MaxIdleConnsPerHost:    PerHost,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: mostAnswer,
	}
}

// CheckURL is [Options.CheckURL].
func (h *Handler) CheckURL(url string) error { return h.o.CheckURL(url) }

// CloseIdle implements [jobs.IdleCloser]: it closes the connections that no request uses.
func (h *Handler) CloseIdle() {
	h.webhooks.CloseIdleConnections()
	h.callbacks.CloseIdleConnections()
}

// Report is the outcome of an attempt: the result of a completed callback, the checkpoint
// of any other. Nothing else of an answer is shown, or callbacks could read what their
// submitter must not see.
type Report struct {
	Status int   `json:"http_status,omitempty"` // 0: there was no answer
	MS     int64 `json:"ms"`
}

// Handle makes one request. Only an answer of 2xx is success.
func (h *Handler) Handle(ctx context.Context, t *jobs.Task) (jobs.Result, error) {
	var c jobs.Callback
	if err := json.Unmarshal(t.Job.Payload, &c); err != nil || len(c.Job) == 0 {
		return jobs.Result{}, jobs.Permanentf("there is nothing to send: the payload was lost")
	}
	transport, secrets, err := h.target(&c)
	if err != nil {
		return jobs.Result{}, jobs.Permanent(err)
	}
	disabled, err := h.tracker.IsDisabled(c.URL)
	if err != nil {
		return jobs.Result{}, err
	}
	if disabled && t.Job.Run == 1 { // another run is somebody's wish to try
		return jobs.Result{}, jobs.Permanentf("the URL has answered 410 Gone and gets nothing any more; retry this job to try it again")
	}
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	r, err := request(within, &c, secrets, h.o)
	if err != nil {
		return jobs.Result{}, jobs.Permanent(err)
	}
	if trace := t.Trace(); trace != (jobs.Trace{}) {
		r.Header.Set(jobs.TraceHeader, trace.String())
	}
	begun := time.Now()
	answer, err := transport.RoundTrip(r)
	report := Report{MS: time.Since(begun).Milliseconds()}
	if err != nil {
		return jobs.Result{}, errors.Join(t.SetCheckpoint(report), unanswered(ctx, err))
	}
	defer answer.Body.Close() //nolint:errcheck // the answer is known
	drain(answer.Body, cancel)
	report.Status = answer.StatusCode
	if answer.StatusCode/100 == 2 {
		if disabled {
			_, err = h.tracker.Do(ctx, jobs.Enable{Stamp: jobs.By("webhook"), URL: c.URL})
		}
		return jobs.Result{Value: report}, err
	}
	return jobs.Result{}, errors.Join(t.SetCheckpoint(report), h.refusal(ctx, t, c.URL, answer))
}

// drain reads an answer, as far as that is quick. What it leaves costs the connection.
func drain(body io.Reader, cancel func()) {
	late := time.AfterFunc(drainTime, cancel)
	defer late.Stop()
	_, _ = io.CopyN(io.Discard, body, mostAnswer)
}

// target is what sends a callback, and the secrets that sign it.
func (h *Handler) target(c *jobs.Callback) (*http.Transport, signature.Secrets, error) {
	if !c.Webhook {
		return h.callbacks, h.o.secrets, h.o.CheckURL(c.URL)
	}
	secrets, ok := h.o.webhooks[c.URL]
	if !ok {
		return nil, nil, errors.New("the URL is not in webhooks of the configuration any more")
	}
	return h.webhooks, secrets, nil
}

// message is the body of a request.
type message struct {
	Type      string          `json:"type"`
	Timestamp string          `json:"timestamp"`
	URL       string          `json:"url,omitempty"` // of the job
	Omitted   []string        `json:"omitted,omitempty"`
	Data      json.RawMessage `json:"data"`
}

func request(ctx context.Context, c *jobs.Callback, secrets signature.Secrets, o *Options) (*http.Request, error) {
	m := message{Type: c.Type, Timestamp: c.At, Omitted: c.Omitted, Data: c.Job}
	if id, _, ok := strings.Cut(c.ID, "."); ok && o.public != "" {
		m.URL = o.public + "/jobs/" + id
	}
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(m); err != nil {
		return nil, err
	}
	body.Truncate(body.Len() - 1) // the encoder ends it with a line break
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.URL, bytes.NewReader(body.Bytes()))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", strings.TrimSuffix("jobstream/"+o.Version, "/"))
	r.Header.Set(signature.ID, c.ID)
	r.Header.Set(signature.Timestamp, strconv.FormatInt(now.Unix(), 10))
	return r, secrets.Sign(r.Header, c.ID, now, &body)
}

// unanswered is the error of a request without an answer.
func unanswered(ctx context.Context, err error) error {
	var refused *guard.RefusedError
	var unknown *net.DNSError
	switch {
	case ctx.Err() != nil:
		return errors.New("no answer came") // the pool says why
	case errors.As(err, &refused):
		// Where a name leads inside of a network is nothing for who has only submitted it.
		return fmt.Errorf("the host has an address that is refused: it is %s; callbacks.allow could name it", refused.Is)
	case errors.As(err, &unknown): // without the address of the name server
		return fmt.Errorf("no answer came: the host's name cannot be resolved: %s", unknown.Err)
	}
	return fmt.Errorf("no answer came: %w", err)
}

// refusal is the error for an answer that is no success.
func (h *Handler) refusal(ctx context.Context, t *jobs.Task, url string, answer *http.Response) error {
	code := answer.StatusCode
	err := errors.New(strings.TrimSpace(fmt.Sprintf("answered %d %s", code, http.StatusText(code)))) // its own words may be anything
	switch {
	case code == http.StatusGone:
		if _, failed := h.tracker.Do(ctx, jobs.Disable{Stamp: jobs.By("webhook"), URL: url, By: t.Job.ID}); failed != nil {
			return errors.Join(err, failed)
		}
		return jobs.Permanentf("%w: the URL gets nothing any more; retry this job to try it again", err)
	case code/100 == 3:
		return fmt.Errorf("%w; redirects are not followed", err)
	case code == http.StatusTooManyRequests, code == http.StatusBadGateway, code == http.StatusServiceUnavailable, code == http.StatusGatewayTimeout:
		if after := retryAfter(answer.Header.Get("Retry-After"), time.Now()); after > 0 {
			return jobs.RetryAfter(after, err)
		}
	}
	return err
}

// retryAfter reads seconds or a date, up to a day; 0 if it is neither.
func retryAfter(text string, now time.Time) time.Duration {
	text = strings.TrimSpace(text)
	if n, err := strconv.ParseUint(text, 10, 64); err == nil {
		return time.Duration(min(n, uint64(mostWait/time.Second))) * time.Second
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), mostWait)
}
