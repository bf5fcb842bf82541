package traces

import (
	"context"
	"net/http"
	"strings"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"jobstream/jobs"
)

// REST gives spans to requests that submit jobs, and to those that are in a trace. The
// handler behind it gets the span in the header traceparent.
func (t *Tracer) REST(next http.Handler) http.Handler {
	return otelhttp.NewHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if at := traceOf(trace.SpanContextFromContext(r.Context())); at != (jobs.Trace{}) {
			r.Header[header] = []string{at.String()}
		}
		next.ServeHTTP(w, r)
	}), "", otelhttp.WithTracerProvider(t.provider), otelhttp.WithPropagators(t.pass), otelhttp.WithFilter(spanned),
		otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string {
			if r.Pattern != "" {
				return r.Pattern
			}
			return r.Method
		}))
}

// header is the spelling of net/http of [jobs.TraceHeader].
const header = "Traceparent"

// spanned says whether a request gets a span. Paths of leases are secrets, and would be
// attributes.
func spanned(r *http.Request) bool {
	if strings.HasPrefix(r.URL.Path, "/leases/") {
		return false
	}
	return len(r.Header[header]) > 0 || r.Method == http.MethodPost && (r.URL.Path == "/jobs" || r.URL.Path == "/jobs/batch")
}

// Serve begins the span of a request over NATS. It returns the span's place, and ends it
// when the request is answered, perhaps by an error.
func (t *Tracer) Serve(operation string, from jobs.Trace) (at jobs.Trace, answered func(error)) {
	ctx := context.Background() // spans last no longer than requests
	if from != (jobs.Trace{}) {
		ctx = below(ctx, from)
	}
	_, s := t.tracer.Start(ctx, "jobstream."+operation, trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
		attribute.String("messaging.system", "nats"), attribute.String("messaging.destination.name", "jobstream."+operation)))
	return traceOf(s.SpanContext()), func(err error) {
		if err != nil {
			s.SetStatus(codes.Error, err.Error())
			if e, ok := jobs.AsError(err); ok {
				s.SetAttributes(attribute.String("error.type", string(e.Kind)))
			}
		}
		s.End()
	}
}

// Transport gives spans to the requests of attempts, which name their attempt's place in
// the header traceparent. The span's own place takes its stead.
func (t *Tracer) Transport(next http.RoundTripper) http.RoundTripper {
	return &transport{next: next, spans: otelhttp.NewTransport(next, otelhttp.WithTracerProvider(t.provider), otelhttp.WithPropagators(t.pass),
		otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string { return r.Method }))}
}

type transport struct{ next, spans http.RoundTripper }

// RoundTrip makes a request.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	var at jobs.Trace
	for name, values := range r.Header { // handlers write it as the standard does, or as net/http
		if strings.EqualFold(name, header) && len(values) == 1 {
			at = jobs.ParseTrace(values[0])
		}
	}
	if !at.Sampled() {
		return t.next.RoundTrip(r)
	}
	r = r.Clone(below(context.WithValue(r.Context(), known{}, jobs.Trace{}), at))
	delete(r.Header, jobs.TraceHeader)
	return t.spans.RoundTrip(r)
}
