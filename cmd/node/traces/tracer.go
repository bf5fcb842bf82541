package traces

import (
	"context"
	"encoding/binary"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"jobstream/jobs"
)

// Tracer makes the spans of a node and exports them. Its methods may be called from any
// goroutine.
type Tracer struct {
	provider *sdk.TracerProvider
	tracer   trace.Tracer
	sampler  sdk.Sampler // of traces that begin here, and of requests
	pass     propagation.TraceContext
	log      *slog.Logger

	mu      sync.Mutex
	news    []news // to be exported
	dropped int
	closed  bool
	wake    chan struct{} // holds a token when there may be news
	done    chan struct{} // closed when run has ended
}

func newTracer(p sdk.SpanProcessor, about *resource.Resource, sampler sdk.Sampler, log *slog.Logger) *Tracer {
	t := &Tracer{sampler: sampler, log: log, wake: make(chan struct{}, 1), done: make(chan struct{})}
	t.provider = sdk.NewTracerProvider(sdk.WithSpanProcessor(p), sdk.WithResource(about), sdk.WithSampler(settled{sampler}), sdk.WithIDGenerator(generator{}))
	t.tracer = t.provider.Tracer("jobstream")
	go t.run()
	return t
}

// Close exports what is left, as long as ctx lasts. Spans that come later are lost.
func (t *Tracer) Close(ctx context.Context) error {
	t.mu.Lock()
	closed := t.closed
	t.closed = true
	t.mu.Unlock()
	if !closed {
		close(t.wake)
	}
	select {
	case <-t.done:
	case <-ctx.Done():
	}
	return t.provider.Shutdown(ctx)
}

// span is a span that has ended already.
type span struct {
	place
	kind       trace.SpanKind
	name       string
	from, to   time.Time
	attributes []attribute.KeyValue
	failure    string // "" = none
}

// export exports a span if its trace is.
func (t *Tracer) export(s *span) {
	if !s.at.Sampled() {
		return
	}
	ctx := context.WithValue(context.Background(), known{}, s.at) // spans of the past belong to no request
	options := []trace.SpanStartOption{trace.WithTimestamp(s.from), trace.WithSpanKind(s.kind), trace.WithAttributes(s.attributes...)}
	if s.parent != (jobs.Trace{}) {
		ctx = below(ctx, s.parent)
	}
	if s.link != (jobs.Trace{}) {
		options = append(options, trace.WithLinks(trace.Link{SpanContext: contextOf(s.link)}))
	}
	_, made := t.tracer.Start(ctx, s.name, options...)
	if s.failure != "" {
		made.SetStatus(codes.Error, s.failure)
	}
	made.End(trace.WithTimestamp(s.to))
}

// below is a context whose spans are below a place.
func below(ctx context.Context, at jobs.Trace) context.Context {
	return trace.ContextWithRemoteSpanContext(ctx, contextOf(at))
}

// contextOf is a Trace in the form of OpenTelemetry; traceOf is its inverse.
func contextOf(at jobs.Trace) trace.SpanContext {
	var flags trace.TraceFlags
	return trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: at.TraceID(), SpanID: at.SpanID(), TraceFlags: flags.WithSampled(at.Sampled()), Remote: true,
	})
}

func traceOf(s trace.SpanContext) jobs.Trace {
	if !s.IsValid() {
		return jobs.Trace{}
	}
	return jobs.NewTrace(s.TraceID(), s.SpanID(), s.IsSampled())
}

// known is the key of a context's value: the [jobs.Trace] of the span that is made with it.
// The zero one stands for a span that is exported, with ids of its own.
type known struct{}

// settled is a sampler for which some spans are settled already.
type settled struct{ sdk.Sampler }

func (s settled) ShouldSample(p sdk.SamplingParameters) sdk.SamplingResult {
	if p.ParentContext.Value(known{}) != nil {
		return sdk.SamplingResult{Decision: sdk.RecordAndSample}
	}
	return s.Sampler.ShouldSample(p)
}

// generator makes random ids, but for spans that have theirs.
type generator struct{}

func (generator) NewIDs(ctx context.Context) (id trace.TraceID, span trace.SpanID) {
	if at, ok := ctx.Value(known{}).(jobs.Trace); ok && at != (jobs.Trace{}) {
		return at.TraceID(), at.SpanID()
	}
	binary.NativeEndian.PutUint64(id[:8], rand.Uint64())           //nolint:gosec // it is no secret
	binary.NativeEndian.PutUint64(id[8:], 1+rand.Uint64N(1<<64-1)) //nolint:gosec // likewise
	return id, randomSpan()
}

func (generator) NewSpanID(ctx context.Context, _ trace.TraceID) trace.SpanID {
	if at, ok := ctx.Value(known{}).(jobs.Trace); ok && at != (jobs.Trace{}) {
		return at.SpanID()
	}
	return randomSpan()
}

func randomSpan() (span trace.SpanID) {
	binary.NativeEndian.PutUint64(span[:], 1+rand.Uint64N(1<<64-1)) //nolint:gosec // it is no secret
	return span
}
