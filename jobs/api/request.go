package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/strict"
)

// The requests that read one job or change it by hand.

// Bounds of such requests.
const (
	MaxWait   = 10 * time.Minute // for the end of a job
	MaxReason = 500              // bytes of the reason of a cancellation
)

// ParseWait reads the longest wait for the end of a job: whole seconds, or a duration;
// 0 to [MaxWait].
func ParseWait(text string) (time.Duration, error) {
	d, err := jobs.ParseDuration(text)
	if f, wrong := strconv.ParseFloat(text, 64); err != nil && wrong == nil && f >= 0 && f <= MaxWait.Seconds() {
		d, err = jobs.Seconds(f), nil
	}
	if err != nil || d > MaxWait {
		return 0, badWait(jobs.Quote(text))
	}
	return d, nil
}

func badWait(given string) error {
	return fmt.Errorf("must be seconds or a duration like 30s, at most %d minutes, not %s", MaxWait/time.Minute, given)
}

// waitOf is [ParseWait] of a JSON number or string.
func waitOf(raw json.RawMessage) (time.Duration, error) {
	switch {
	case strict.IsNumber(raw):
		return ParseWait(string(raw))
	case raw[0] != '"':
		return 0, badWait(strict.Describe(raw))
	}
	text, err := strict.Text(raw)
	if err != nil {
		return 0, err
	}
	return ParseWait(text)
}

// ParseWaitQuery reads the query of GET /jobs/{id}: wait, see [ParseWait]. An
// [*jobs.Error] names every wrong parameter.
func ParseWaitQuery(query url.Values) (time.Duration, error) {
	p := params{known: []string{"wait"}}
	if err := p.query(query); err != nil {
		return 0, err
	}
	return p.wait, nil
}

// JobRequest is a request of the service about one job: {"id":"…"} with its UUID or its
// sequence in JOBS, which may be a number. Either ID or Seq is set.
type JobRequest struct {
	ID  jobs.ID
	Seq uint64
	// Wait is the longest wait for the job's end; 0 = no wait.
	Wait time.Duration
	// Reason is the reason of a cancellation; "" if unknown.
	Reason string
}

// ParseRef reads a request that may have an id only.
func ParseRef(body []byte) (id jobs.ID, seq uint64, err error) {
	var r JobRequest
	err = r.parse(body)
	return r.ID, r.Seq, err
}

// ParseGetRequest reads a request that may have a wait: {"id":"…","wait":"30s"}.
func ParseGetRequest(body []byte) (r JobRequest, err error) {
	err = r.parse(body, strict.May("wait", func(v strict.Value) { r.Wait = strict.As(v, waitOf) }))
	return r, err
}

// ParseCancelRequest reads a request that may have a reason:
// {"id":"…","reason":"…"}.
func ParseCancelRequest(body []byte) (r JobRequest, err error) {
	err = r.parse(body, strict.May("reason", func(v strict.Value) { r.Reason = strict.As(v, reasonOf) }))
	return r, err
}

// parse reads a request that may have these fields besides its id.
func (r *JobRequest) parse(body []byte, more ...strict.Field) error {
	ref := ""
	fields := append([]strict.Field{strict.Need("id", func(v strict.Value) { ref = strict.As(v, refOf) })}, more...)
	err := jobs.Read("", body, func(v strict.Value) { v.Object(fields...) })
	if err == nil {
		r.ID, r.Seq, err = ParseRefText(ref)
	}
	return err
}

// refOf is the text of a job's reference.
func refOf(raw json.RawMessage) (string, error) {
	switch {
	case strict.IsNumber(raw):
		return string(raw), nil
	case raw[0] == '"':
		return strict.Text(raw)
	}
	return "", fmt.Errorf("must be a string or a number, not %s", strict.Describe(raw))
}

func reasonOf(raw json.RawMessage) (string, error) {
	text, err := strict.Text(raw)
	if err == nil && len(text) > MaxReason {
		err = fmt.Errorf("is longer than %d bytes", MaxReason)
	}
	return text, err
}

// ParseCancel reads the body of POST /jobs/{id}/cancel: nothing, or
// {"reason":"…"}.
func ParseCancel(body []byte) (reason string, err error) {
	if len(bytes.TrimSpace(body)) == 0 {
		return "", nil
	}
	err = jobs.Read("", body, func(v strict.Value) {
		v.Object(strict.May("reason", func(v strict.Value) { reason = strict.As(v, reasonOf) }))
	})
	return reason, err
}

// ParseTypeRequest reads the type in a request of the service: {"type":"…"}.
func ParseTypeRequest(body []byte) (name string, err error) {
	err = jobs.Read("", body, func(v strict.Value) {
		v.Object(strict.Need("type", func(v strict.Value) { name, _ = v.Text() }))
	})
	return name, err
}

// ParseCountsRequest is [ParseCountsQuery] for a JSON object with the same names. Its
// values are strings or lists of strings. An empty body asks for all jobs.
func ParseCountsRequest(body []byte) (jobs.Filter, error) {
	p := params{known: countNames}
	if len(bytes.TrimSpace(body)) > 0 {
		if err := p.body(body); err != nil {
			return jobs.Filter{}, err
		}
	}
	return p.page.Filter, nil
}

// CheckIdempotencyKey checks the values of an Idempotency-Key header. There may be one,
// see [jobs.CheckKey]. The error is an [*jobs.Error].
func CheckIdempotencyKey(values []string) error {
	const header = "header/Idempotency-Key"
	if len(values) > 1 {
		return jobs.Invalid(header, "is given more than once")
	}
	if len(values) == 1 {
		if err := jobs.CheckKey(values[0]); err != nil {
			return jobs.Invalid(header, err.Error())
		}
	}
	return nil
}
