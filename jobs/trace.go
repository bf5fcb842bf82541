package jobs

import (
	"encoding/hex"
)

// Trace is a place in a distributed trace, as W3C Trace Context has it: the trace's id,
// the id of a span in it, and flags. The zero value is none. It is passed on whether or not
// this server exports spans.
type Trace [16 + 8 + 1]byte

// TraceHeader is the name of the header with a [Trace], and of its field in JSON.
const TraceHeader = "traceparent"

// The flags of a trace that are passed on.
const (
	traceSampled = 1 // its spans are exported
	traceRandom  = 2 // its id is random
)

// NewTrace makes a Trace. sampled says that its spans are exported.
func NewTrace(id [16]byte, span [8]byte, sampled bool) (t Trace) {
	copy(t[:16], id[:])
	copy(t[16:24], span[:])
	if sampled {
		t[24] = traceSampled
	}
	return t
}

// traceLength is the length of a header of version 00.
const traceLength = len("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")

// ParseTrace reads a header traceparent. One that is malformed counts as none, as the
// standard demands: whoever sends it does not have to care about traces.
func ParseTrace(header string) (t Trace) {
	if len(header) < traceLength || header[2] != '-' || header[35] != '-' || header[52] != '-' {
		return Trace{}
	}
	for _, c := range []byte(header[:traceLength]) {
		if c >= 'A' && c <= 'F' {
			return Trace{}
		}
	}
	var version [1]byte
	for _, part := range [...]struct {
		to   []byte
		from string
	}{{version[:], header[:2]}, {t[:16], header[3:35]}, {t[16:24], header[36:52]}, {t[24:], header[53:55]}} {
		if _, err := hex.Decode(part.to, []byte(part.from)); err != nil {
			return Trace{}
		}
	}
	switch {
	case version[0] == 0xff || version[0] == 0 && len(header) > traceLength || len(header) > traceLength && header[traceLength] != '-':
		return Trace{}
	case t.TraceID() == [16]byte{} || t.SpanID() == [8]byte{}:
		return Trace{}
	}
	t[24] &= traceSampled | traceRandom
	return t
}

// TraceID is the id of the trace.
func (t Trace) TraceID() [16]byte { return [16]byte(t[:16]) }

// SpanID is the id of the span.
func (t Trace) SpanID() [8]byte { return [8]byte(t[16:24]) }

// Sampled says whether the spans of the trace are exported.
func (t Trace) Sampled() bool { return t[24]&traceSampled != 0 }

// ID is the id of the trace as text, for people and logs; "" if there is none.
func (t Trace) ID() string {
	if t == (Trace{}) {
		return ""
	}
	return hex.EncodeToString(t[:16])
}

// String is the value of the header; "" if there is none.
func (t Trace) String() string {
	if t == (Trace{}) {
		return ""
	}
	return string(AppendTrace(make([]byte, 0, traceLength), t))
}

// AppendTrace appends the value of the header.
func AppendTrace(b []byte, t Trace) []byte {
	b = hex.AppendEncode(append(b, "00-"...), t[:16])
	b = hex.AppendEncode(append(b, '-'), t[16:24])
	return hex.AppendEncode(append(b, '-'), t[24:])
}

// MarshalText gives the value of the header.
func (t Trace) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText is [ParseTrace].
func (t *Trace) UnmarshalText(b []byte) error {
	*t = ParseTrace(string(b))
	return nil
}

// Trace is where the job was submitted in a trace; none if its submission had none.
func (j *Job) Trace() Trace {
	if j.Terms == nil {
		return Trace{}
	}
	return j.Terms.Trace
}

// SetTrace gives the submission a place in a trace, unless it has one.
func (s *Submission) SetTrace(t Trace) {
	switch {
	case t == Trace{}:
	case s.Terms == nil:
		s.Terms = &Terms{Trace: t}
	case s.Terms.Trace == Trace{}:
		terms := *s.Terms
		terms.Trace = t
		s.Terms = &terms
	}
}
