package broker

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"jobstream/broker/internal/wire"
	"jobstream/jobs"
	"jobstream/jobs/strict"
)

// The headers of a message in JOBS; all are optional. [jobs.TermsFields] names more.
const (
	HeaderJobID      = "Job-Id"          // a UUID
	HeaderTags       = "Job-Tags"        // separated by commas
	HeaderRetryCount = "Job-Retry-Count" // retries after the first attempt
	HeaderTimeout    = "Job-Timeout"     // seconds, or like 5m
	HeaderMessageID  = "Nats-Msg-Id"     // the same one again within a day is ignored

	// Internal ones, which count under a seal only; see [HeaderSeal].
	HeaderMoved     = "Job-Moved"      // the message is one more of a known job, created at these Unix nanoseconds
	HeaderAgain     = "Job-Again"      // there may be another copy of the message, which is answered
	HeaderToken     = "Job-Token"      // hex of an idempotency key's two hashes
	HeaderBatchEnd  = "Job-Batch-End"  // a UUID: the last message of that batch
	HeaderCreatedBy = "Job-Created-By" // the name of the principal that has submitted the job
)

// appendJobHeader writes the header block of a submission, without its end: its id, and
// everything else that differs from the default.
func appendJobHeader(b []byte, m *jobs.Message) []byte {
	b = append(b, "NATS/1.0\r\n"+HeaderJobID+": "...)
	b = jobs.AppendID(b, m.ID)
	if len(m.Tags) > 0 {
		b = appendHeaderValue(appendHeaderName(b, HeaderTags), &m.Tags)
	}
	if m.RetryCount >= 0 {
		b = appendHeaderValue(appendHeaderName(b, HeaderRetryCount), &m.RetryCount)
	}
	if m.Timeout > 0 {
		b = appendHeaderValue(appendHeaderName(b, HeaderTimeout), &m.Timeout)
	}
	if m.Moved {
		b = strconv.AppendUint(appendHeaderName(b, HeaderMoved), uint64(m.CreatedAt), 10)
	}
	if m.Again {
		b = append(appendHeaderName(b, HeaderAgain), '1')
	}
	if m.Terms != nil {
		for i := range jobs.TermsFields {
			f := &jobs.TermsFields[i]
			if v := f.Of(m.Terms); !jobs.IsZero(v) {
				b = appendHeaderValue(appendHeaderName(b, f.Header), v)
			}
		}
	}
	if m.Token != nil {
		b = hex.AppendEncode(appendHeaderName(b, HeaderToken), m.Token.Key[:])
		b = hex.AppendEncode(b, m.Token.Body[:])
	}
	if m.BatchEnd != (jobs.ID{}) {
		b = jobs.AppendID(appendHeaderName(b, HeaderBatchEnd), m.BatchEnd)
	}
	if m.CreatedBy != "" {
		b = append(appendHeaderName(b, HeaderCreatedBy), m.CreatedBy...)
	}
	return b
}

func appendHeaderName(b []byte, name string) []byte {
	return append(append(append(b, "\r\n"...), name...), ": "...)
}

// appendHeaderValue writes the value of an attribute as the text of a header.
func appendHeaderValue(b []byte, v any) []byte {
	switch v := v.(type) {
	case *string:
		return append(b, *v...)
	case *int:
		return strconv.AppendInt(b, int64(*v), 10)
	case *jobs.Time:
		return append(b, v.String()...)
	case *jobs.Trace:
		return jobs.AppendTrace(b, *v)
	case *time.Duration:
		return append(b, v.String()...)
	case *[]string:
		return append(b, strings.Join(*v, ",")...)
	case *[]jobs.Input:
		return jobs.AppendValueJSON(b, v)
	case *json.RawMessage: // its line breaks can only be white space between values
		return append(b, strings.NewReplacer("\r", " ", "\n", " ").Replace(string(*v))...)
	}
	panic(fmt.Sprintf("no header has attributes of type %T", v))
}

// read reads one header into the parser's message. The first error becomes the message's
// problem. sealed says that internal headers count; otherwise they are unknown ones.
func (p *messageParser) read(key, value []byte, sealed bool) {
	if len(value) == 0 {
		return // an empty header counts as none
	}
	m := &p.m
	var err error
	switch {
	case wire.EqualFold(key, HeaderJobID):
		if m.ID, err = parseID(value); err == nil && m.ID.Version() == jobs.MadeVersion && !sealed {
			m.ID, err = jobs.ID{}, fmt.Errorf("%s is a UUID of version %d, which only the server makes", clip(string(value)), jobs.MadeVersion)
		}
	case wire.EqualFold(key, HeaderTags):
		err = parseHeaderValue(&m.Tags, string(value))
	case wire.EqualFold(key, HeaderRetryCount):
		m.RetryCount, err = parseRetryCount(string(value))
	case wire.EqualFold(key, HeaderTimeout):
		m.Timeout, err = parseTimeout(string(value))
	case sealed && wire.EqualFold(key, HeaderCreatedBy):
		m.CreatedBy = p.names.get(value)
	case sealed && wire.EqualFold(key, HeaderSeal):
	case sealed && wire.EqualFold(key, HeaderMoved):
		m.Moved = true
		m.CreatedAt = jobs.Time(wire.ParseUint(value))
	case sealed && wire.EqualFold(key, HeaderAgain):
		m.Again = true
	case wire.EqualFold(key, HeaderMessageID):
		if m.Token == nil {
			m.Token = jobs.NewToken("nats", string(value), nil)
		}
	case sealed && wire.EqualFold(key, HeaderToken):
		m.Token, err = parseToken(string(value))
	case sealed && wire.EqualFold(key, HeaderBatchEnd):
		m.BatchEnd, err = jobs.ParseID(string(value))
	default:
		err = readTerms(m, key, string(value), sealed)
	}
	if err != nil && m.Problem == "" {
		m.Problem = fmt.Sprintf("header %s: %v", clipText(string(key)), err)
	}
}

// readTerms reads a header that most messages do not have.
func readTerms(m *jobs.Message, key []byte, value string, sealed bool) error {
	for i := range jobs.TermsFields {
		f := &jobs.TermsFields[i]
		span := f.SpanHeader != "" && wire.EqualFold(key, f.SpanHeader)
		if !span && !wire.EqualFold(key, f.Header) || f.Server && !sealed {
			continue
		}
		if m.Terms == nil {
			m.Terms = &jobs.Terms{}
		}
		v := f.Of(m.Terms)
		if at, ok := v.(*jobs.Time); ok && span {
			d, err := parseSpan(value)
			if err == nil {
				*at = m.At.Add(d)
			}
			return err
		}
		err := parseHeaderValue(v, value)
		if err == nil && f.Check != nil {
			err = f.Check(m.Terms)
		}
		return err
	}
	if len(key) > 4 && wire.EqualFold(key[:4], "Job-") {
		return fmt.Errorf("is not known; known are %s", strings.Join(publicHeaders(), ", "))
	}
	return nil
}

// parseHeaderValue reads the form that [appendHeaderValue] writes.
func parseHeaderValue(v any, text string) (err error) {
	switch v := v.(type) {
	case *string:
		*v = text
	case *int:
		if *v, err = strconv.Atoi(text); err != nil {
			err = fmt.Errorf("%s is not a whole number", clip(text))
		}
	case *jobs.Time:
		*v, err = jobs.ParseMoment(text)
	case *jobs.Trace:
		*v = jobs.ParseTrace(text)
	case *time.Duration:
		*v, err = parseSpan(text)
	case *[]string:
		*v, err = parseTags(*v, text)
	case *json.RawMessage:
		*v = json.RawMessage(text)
		err = plainJSON(text)
	case *[]jobs.Input:
		if err = plainJSON(text); err == nil {
			err = jobs.ReadValueJSON(v, json.RawMessage(text))
		}
	default:
		panic(fmt.Sprintf("no header has attributes of type %T", v))
	}
	return err
}

// plainJSON returns an error unless text is JSON of a sane depth.
func plainJSON(text string) error {
	if b := []byte(text); strict.TooDeep(b) || !utf8.Valid(b) || !json.Valid(b) {
		return fmt.Errorf("%s is not JSON, or nested deeper than %d", clip(text), strict.MaxDepth)
	}
	return nil
}

// publicHeaders are the headers that a bare message may have.
func publicHeaders() []string {
	names := []string{HeaderJobID, HeaderTags, HeaderRetryCount, HeaderTimeout}
	for i := range jobs.TermsFields {
		f := &jobs.TermsFields[i]
		if f.SpanHeader != "" {
			names = append(names, f.SpanHeader)
		}
		if !f.Server {
			names = append(names, f.Header)
		}
	}
	return names
}

// parseID is jobs.ParseID without a string for each message.
func parseID(value []byte) (id jobs.ID, err error) {
	if len(value) != 36 {
		return jobs.ParseID(string(value))
	}
	err = id.UnmarshalText(value)
	return id, err
}

// parseToken reads a token: its two hashes in hex.
func parseToken(value string) (*jobs.Token, error) {
	b, err := hex.DecodeString(value)
	t := &jobs.Token{}
	if err != nil || len(b) != len(t.Key)+len(t.Body) {
		return nil, fmt.Errorf("%s is not an idempotency token", clip(value))
	}
	copy(t.Key[:], b)
	copy(t.Body[:], b[len(t.Key):])
	return t, nil
}

// parseSpan reads a delay.
func parseSpan(value string) (time.Duration, error) {
	d, err := jobs.ParseDuration(value)
	if err != nil || d > jobs.MaxDelay {
		return 0, fmt.Errorf("%s is not a time from 0 to ten years, like 300 or 5m", clip(value))
	}
	return d, nil
}

func parseTags(tags []string, value string) ([]string, error) {
	for t := range strings.SplitSeq(value, ",") {
		tags = append(tags, strings.TrimSpace(t))
	}
	if err := jobs.CheckTags(tags); err != nil {
		return nil, fmt.Errorf("%s: %w", clip(value), err)
	}
	return tags, nil
}

func parseRetryCount(value string) (int, error) {
	n, err := strconv.Atoi(value)
	if err != nil || n < 0 || n > jobs.MaxRetryCount {
		return -1, fmt.Errorf("%s is not a whole number from 0 to %d", clip(value), jobs.MaxRetryCount)
	}
	return n, nil
}

func parseTimeout(value string) (time.Duration, error) {
	d, err := jobs.ParseDuration(value)
	if err != nil || d <= 0 || d > jobs.MaxTimeout {
		return 0, fmt.Errorf("%s is not a time above 0 and up to 7d, like 300 or 5m", clip(value))
	}
	return d, nil
}
