package jobs_test

import (
	"encoding/json"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"jobstream/jobs"
	"jobstream/jobs/jobstest"
)

// TestParseTrace: what the standard says about headers, good and bad.
func TestParseTrace(t *testing.T) {
	t.Parallel()
	const id, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	for _, tt := range []struct{ header, want string }{
		{"00-" + id + "-" + span + "-01", "00-" + id + "-" + span + "-01"},
		{"00-" + id + "-" + span + "-00", "00-" + id + "-" + span + "-00"},
		{"00-" + id + "-" + span + "-ff", "00-" + id + "-" + span + "-03"},
		{"cc-" + id + "-" + span + "-01-more", "00-" + id + "-" + span + "-01"},
		{"cc-" + id + "-" + span + "-01", "00-" + id + "-" + span + "-01"},
		{header: ""},
		{header: "00"},
		{header: "00-" + id + "-" + span},
		{header: "00-" + id + "-" + span + "-01-more"},
		{header: "cc-" + id + "-" + span + "-01more"},
		{header: "ff-" + id + "-" + span + "-01"},
		{header: "0x-" + id + "-" + span + "-01"},
		{header: "00-" + strings.ToUpper(id) + "-" + span + "-01"},
		{header: "00-" + strings.Repeat("0", 32) + "-" + span + "-01"},
		{header: "00-" + id + "-" + strings.Repeat("0", 16) + "-01"},
		{header: "00-" + id + "_" + span + "-01"},
		{header: "00-" + id[1:] + "--" + span + "-01"},
		{header: "00-" + id[1:] + "ö-" + span + "-01"},
	} {
		got := jobs.ParseTrace(tt.header)
		if got.String() != tt.want || got.Sampled() != (strings.HasSuffix(tt.want, "1") || strings.HasSuffix(tt.want, "3")) {
			t.Errorf("%q gives %q, sampled %v; want %q", tt.header, got, got.Sampled(), tt.want)
		}
		if tt.want != "" && (got.ID() != id || got != jobs.NewTrace(got.TraceID(), got.SpanID(), got.Sampled()) && !strings.HasSuffix(tt.want, "3")) {
			t.Errorf("%q has the id %s and the parts %x %x", tt.header, got.ID(), got.TraceID(), got.SpanID())
		}
	}
}

// TestTraceText: what is written is read back, and whatever is read is written as it
// stands or not at all.
func TestTraceText(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var drawn, read jobs.Trace
		jobstest.Set(t, "trace", &drawn)
		b, err := json.Marshal(drawn)
		if err == nil {
			err = json.Unmarshal(b, &read)
		}
		if err != nil || read != drawn {
			t.Fatalf("%x becomes %s, then %x (%v)", drawn, b, read, err)
		}
	})
}

// TestSetTrace: a submission keeps its own place in a trace, and its terms may be shared.
func TestSetTrace(t *testing.T) {
	t.Parallel()
	one, other := jobs.NewTrace([16]byte{1}, [8]byte{1}, true), jobs.NewTrace([16]byte{2}, [8]byte{2}, true)
	shared := &jobs.Terms{UniqueKey: "k"}
	for _, tt := range []struct {
		terms *jobs.Terms
		set   jobs.Trace
		want  jobs.Trace
	}{
		{nil, jobs.Trace{}, jobs.Trace{}},
		{nil, one, one},
		{shared, one, one},
		{&jobs.Terms{Trace: other}, one, other},
	} {
		s := &jobs.Submission{Terms: tt.terms}
		s.SetTrace(tt.set)
		if got := (&jobs.Job{Terms: s.Terms}).Trace(); got != tt.want {
			t.Errorf("%v with %v gives %v, want %v", tt.terms, tt.set, got, tt.want)
		}
	}
	if shared.Trace != (jobs.Trace{}) {
		t.Errorf("the shared terms became %+v", shared)
	}
}
