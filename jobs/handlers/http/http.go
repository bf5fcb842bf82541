// Package http has endpoints do the work of jobs: a request for each attempt, whose
// answer is its outcome.
//
// Start reading at [Handler.Handle]. The request is made in request.go, and what an answer
// means is in answer.go.
package http

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	nethttp "net/http"
	"strconv"
	"strings"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/handlers/internal/guard"
	"jobstream/jobs/handlers/internal/template"
)

// Handler calls the endpoint of one type. It has connections of its own, which stay open
// between requests.
type Handler struct {
	o         *Options
	server    string // its public address
	transport *nethttp.Transport
	requests  nethttp.RoundTripper // makes them, by the transport
}

// New makes the handler of a type whose options have been checked. server is the address
// at which endpoints reach this server; "" = unknown. around returns what makes the
// requests, around the handler's own transport; nil = nothing is around it.
func New(o *Options, server string, around func(nethttp.RoundTripper) nethttp.RoundTripper) *Handler {
	t := &nethttp.Transport{
		DialContext: guard.LinkLocal(o.allow).Dialer(net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}),
		// The workers bound the connections. All of them stay open: the type has one host.
		MaxIdleConnsPerHost:    1 << 20,
		IdleConnTimeout:        90 * time.Second,
		TLSHandshakeTimeout:    30 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		ForceAttemptHTTP2:      true,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
	}
	if o.roots != nil {
		t.TLSClientConfig.RootCAs = x509.NewCertPool()
		t.TLSClientConfig.RootCAs.AppendCertsFromPEM(o.roots)
	}
	if o.proxy != nil {
		t.Proxy = nethttp.ProxyURL(o.proxy)
	}
	h := &Handler{o, strings.TrimSuffix(server, "/"), t, t}
	if around != nil {
		h.requests = around(t)
	}
	return h
}

// Describe says what is called.
func (h *Handler) Describe() string { return h.o.Describe() }

// CloseIdle implements [jobs.IdleCloser]: it closes the connections that no request uses.
func (h *Handler) CloseIdle() { h.transport.CloseIdleConnections() }

// Check renders the address, as far as it depends on the payload.
func (h *Handler) Check(p *jobs.Payload) error {
	if h.o.fixed != nil {
		return nil
	}
	_, err := h.o.render(p, &jobs.Job{Type: "type"}, 1, template.SomeInputs(template.InputNames(h.o.url)))
	return err
}

// Handle makes one request.
func (h *Handler) Handle(ctx context.Context, t *jobs.Task) (jobs.Result, error) {
	req, err := h.request(ctx, t)
	if err != nil {
		return jobs.Result{}, err
	}
	if h.o.Async > 0 {
		if err := h.lend(ctx, t, req.Header); err != nil {
			return jobs.Result{}, err
		}
	}
	resp, err := h.requests.RoundTrip(req)
	if err != nil {
		return jobs.Result{}, lost(ctx, "no answer came from "+h.o.host, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == nethttp.StatusAccepted && h.o.Async > 0 {
		return jobs.Result{}, jobs.ErrHandedOver
	}
	a := &answer{o: h.o, t: t, Response: resp}
	if resp.StatusCode/100 == 2 {
		return a.result(ctx)
	}
	return jobs.Result{}, a.refusal()
}

// lend makes the lease of the attempt and names it in the headers of its request.
func (h *Handler) lend(ctx context.Context, t *jobs.Task, header nethttp.Header) error {
	token, span, err := t.Lease(ctx)
	if err != nil {
		return err
	}
	header.Set("Jobstream-Lease", token)
	header.Set("Jobstream-Lease-Seconds", strconv.FormatFloat(span.Seconds(), 'f', -1, 64))
	if h.server != "" {
		header.Set("Jobstream-Report", h.server+"/leases/"+token)
	}
	return nil
}

// lost is the error of an attempt whose answer did not come, or not as a whole.
func lost(ctx context.Context, text string, err error) error {
	if ctx.Err() != nil {
		return errors.New(text) // the pool says why
	}
	return fmt.Errorf("%s: %w", text, err)
}
