package traces

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"jobstream/jobs"
)

// kept makes a tracer whose spans stay here.
func kept(sampler sdk.Sampler) (*Tracer, *tracetest.SpanRecorder) {
	r := tracetest.NewSpanRecorder()
	return newTracer(r, resource.Empty(), sampler, slog.New(slog.DiscardHandler)), r
}

// ended is a job that has run, with what its history says after the submission.
func ended(from jobs.Trace, kinds ...jobs.Kind) *jobs.Job {
	j := &jobs.Job{ID: jobs.NewID(), Type: "t", Run: 1, Attempt: 1, CreatedBy: "ci", CreatedAt: 1_000, StartedAt: 2_000, Status: jobs.Completed}
	if from != (jobs.Trace{}) {
		j.Terms = &jobs.Terms{Trace: from}
	}
	j.History = append(j.History, jobs.HistoryEntry{Kind: jobs.KindSubmitted, At: 1_000})
	for _, k := range kinds {
		j.History = append(j.History, jobs.HistoryEntry{Kind: k, At: 1_500, Attempt: 1})
	}
	j.History = append(j.History,
		jobs.HistoryEntry{Kind: jobs.KindStarted, At: 2_000, Attempt: 1}, jobs.HistoryEntry{Kind: jobs.KindCompleted, At: 3_000, Attempt: 1})
	return j
}

// TestPlaces: an attempt knows its place at its start, before its history does, and what
// came between the submission and it decides whether it begins a trace.
func TestPlaces(t *testing.T) {
	t.Parallel()
	tracer, _ := kept(sdk.AlwaysSample())
	defer tracer.Close(t.Context())
	on, off := jobs.NewTrace([16]byte{1}, [8]byte{1}, true), jobs.NewTrace([16]byte{1}, [8]byte{1}, false)
	for name, tt := range map[string]struct {
		from    jobs.Trace
		between []jobs.Kind
		linked  bool
		sampled bool
	}{
		"first":       {from: on, sampled: true},
		"revised":     {from: on, between: []jobs.Kind{jobs.KindRevised}, sampled: true},
		"delayed":     {from: on, between: []jobs.Kind{jobs.KindQueued}, linked: true, sampled: true},
		"again":       {from: on, between: []jobs.Kind{jobs.KindStarted, jobs.KindRetrying}, linked: true, sampled: true},
		"lost":        {from: on, between: []jobs.Kind{jobs.KindStarted, jobs.KindLost}, linked: true, sampled: true},
		"by hand":     {from: on, between: []jobs.Kind{jobs.KindCancelled, jobs.KindRerun}, linked: true, sampled: true},
		"unsampled":   {from: off},
		"likewise":    {from: off, between: []jobs.Kind{jobs.KindQueued}, linked: true},
		"from nobody": {sampled: true},
	} {
		j := ended(tt.from, tt.between...)
		before := *j
		before.History = j.History[:len(j.History)-2]
		of := tracer.attempt(j, 2_000)
		if at := tracer.Attempt(&before, 2_000); at != of.at {
			t.Errorf("%s: it was %s at the start and is %s", name, at, of.at)
		}
		if linked := of.link != (jobs.Trace{}); linked != tt.linked || linked && (of.link != tt.from || of.parent != jobs.Trace{} || of.at.TraceID() == tt.from.TraceID()) {
			t.Errorf("%s: its place is %+v", name, of)
		}
		if !tt.linked && tt.from != (jobs.Trace{}) && (of.parent != tt.from || of.at.TraceID() != tt.from.TraceID()) {
			t.Errorf("%s: its place is %+v, want one below %s", name, of, tt.from)
		}
		if n := tracer.notification(j); of.at.Sampled() != tt.sampled || n.parent != of.at || n.at.Sampled() != tt.sampled {
			t.Errorf("%s: its place is %+v, that of its notification %+v", name, of, n)
		}
	}
}

// TestManyNews: news from many goroutines become spans, each once, and none comes after
// Close.
func TestManyNews(t *testing.T) {
	t.Parallel()
	tracer, r := kept(sdk.AlwaysSample())
	from := jobs.NewTrace([16]byte{1}, [8]byte{1}, true)
	var wg sync.WaitGroup
	const goroutines, each = 8, 50
	for range goroutines {
		wg.Go(func() {
			for range each {
				j := ended(from)
				waiting, running := *j, *j
				waiting.Status, waiting.History = jobs.Pending, j.History[:1]
				running.Status, running.History = jobs.Processing, j.History[:2]
				for _, c := range []jobs.Change{{After: &waiting}, {Before: &waiting, After: &running}, {Before: &running, After: &running}, {Before: &running, After: j}} {
					tracer.Committed(&jobs.Commit{At: 4_000, Changes: []jobs.Change{c}})
				}
				tracer.Notified([]*jobs.Job{j}, time.Now())
				_, answered := tracer.Serve("submit", from)
				answered(nil)
			}
		})
	}
	wg.Wait()
	if err := tracer.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	tracer.Committed(&jobs.Commit{Changes: []jobs.Change{{After: ended(from)}}})
	if err := tracer.Close(context.Background()); err != nil {
		t.Error(err)
	}
	names := map[string]int{}
	ids := map[string]bool{}
	for _, s := range r.Ended() {
		names[s.Name()]++
		if id := s.SpanContext().SpanID().String(); ids[id] || s.SpanContext().TraceID() != [16]byte{1} {
			t.Errorf("%s %s is there twice, or elsewhere", s.Name(), id)
		} else {
			ids[id] = true
		}
	}
	for _, name := range []string{"wait t", "process t", "send job.completed", "jobstream.submit"} {
		if names[name] != goroutines*each {
			t.Errorf("the spans are %v", names)
		}
	}
}

// TestSamplers: the names of the standard, and what is wrong.
func TestSamplers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, argument, want string
		wrong                bool
	}{
		{want: "ParentBased{root:AlwaysOnSampler"},
		{name: "always_off", want: "AlwaysOffSampler"},
		{name: "always_on", argument: "x", want: "AlwaysOnSampler"},
		{name: "traceidratio", argument: "0.5", want: "TraceIDRatioBased{0.5}"},
		{name: "parentbased_traceidratio", argument: "0.1", want: "ParentBased{root:TraceIDRatioBased{0.1}"},
		{name: "parentbased_always_off", want: "ParentBased{root:AlwaysOffSampler"},
		{name: "traceidratio", argument: "2", want: "TraceIDRatioBased{1}", wrong: true},
		{name: "traceidratio", argument: "half", want: "TraceIDRatioBased{1}", wrong: true},
		{name: "jaeger_remote", want: "ParentBased{root:AlwaysOnSampler", wrong: true},
	} {
		s, err := samplerOf(tt.name, tt.argument)
		if got := s.Description(); len(got) < len(tt.want) || got[:len(tt.want)] != tt.want || (err != nil) != tt.wrong {
			t.Errorf("%s %s: got %s (%v), want %s", tt.name, tt.argument, got, err, tt.want)
		}
	}
}
