package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/strict"
)

// What requests that look at one job, or change it by hand, may ask for.

// Bounds of such requests.
const (
	MaxWait   = 10 * time.Minute // for the end of a job
	MaxReason = 500              // bytes of the reason of a cancellation
)

// ParseWait reads how long to wait for the end of a job: whole seconds, or a
// duration; 0 to [MaxWait].
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

// waitValue is [ParseWait] of a JSON number or string.
func waitValue(raw json.RawMessage) (time.Duration, error) {
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

// ParseWaitQuery reads what GET /jobs/{id} asks for: wait, see [ParseWait]. An
// [*jobs.Error] names every bad parameter.
func ParseWaitQuery(query url.Values) (wait time.Duration, err error) {
	var bad fieldErrors
	r := params{known: []string{"wait"}, where: "query"}
	for name, values := range query {
		switch {
		case name != "wait":
			r.set(name, values) // says that it is not known
		case len(values) != 1:
			r.fail(name, "must have one value, not %d", len(values))
		default:
			wait, err = ParseWait(values[0])
			bad.add("query/wait", err)
		}
	}
	if bad = append(bad, r.bad...); len(bad) > 0 {
		slices.SortFunc(bad, func(a, b jobs.FieldError) int { return strings.Compare(a.Pointer, b.Pointer) })
		return 0, jobs.InvalidFields(bad...)
	}
	return wait, nil
}

// JobRequest is a request of the service about one job: {"id":"…"} with its UUID
// or its sequence in JOBS, the latter also as a number. Either ID or Seq is set.
type JobRequest struct {
	ID  jobs.ID
	Seq uint64
	// Wait is how long to wait for the job's end, 0 = not at all.
	Wait time.Duration
	// Reason is why a job is cancelled, "" if that is not said.
	Reason string
}

// ParseRef reads a request that may have an id only.
func ParseRef(body []byte) (id jobs.ID, seq uint64, err error) {
	r, err := parseJobRequest(body)
	return r.ID, r.Seq, err
}

// ParseGetRequest reads a request that may have a wait: {"id":"…","wait":"30s"}.
func ParseGetRequest(body []byte) (JobRequest, error) { return parseJobRequest(body, "wait") }

// ParseCancelRequest reads a request that may have a reason:
// {"id":"…","reason":"…"}.
func ParseCancelRequest(body []byte) (JobRequest, error) { return parseJobRequest(body, "reason") }

// parseJobRequest reads a request that may have these fields besides its id.
func parseJobRequest(body []byte, more ...string) (r JobRequest, err error) {
	known := append([]string{"id"}, more...)
	ref := ""
	err = jobs.EachKnown(body, known, []string{"id"}, func(name string, raw json.RawMessage) (err error) {
		switch name {
		case "id":
			ref, err = refValue(raw)
		case "wait":
			r.Wait, err = waitValue(raw)
		case "reason":
			r.Reason, err = reasonValue(raw)
		}
		return err
	})
	if err != nil {
		return JobRequest{}, err
	}
	r.ID, r.Seq, err = ParseRefText(ref)
	return r, err
}

// refValue is the text of a job's reference.
func refValue(raw json.RawMessage) (string, error) {
	switch {
	case strict.IsNumber(raw):
		return string(raw), nil
	case raw[0] == '"':
		return strict.Text(raw)
	}
	return "", fmt.Errorf("must be a string or a number, not %s", strict.Describe(raw))
}

func reasonValue(raw json.RawMessage) (string, error) {
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
	err = jobs.EachKnown(body, []string{"reason"}, nil, func(_ string, raw json.RawMessage) (err error) {
		reason, err = reasonValue(raw)
		return err
	})
	return reason, err
}

// ParseTypeRequest reads which type a request of the service is about:
// {"type":"…"}.
func ParseTypeRequest(body []byte) (name string, err error) {
	names := []string{"type"}
	err = jobs.EachKnown(body, names, names, func(_ string, raw json.RawMessage) (err error) {
		name, err = strict.Text(raw)
		return err
	})
	return name, err
}

// ParseCountsRequest is [ParseCountsQuery] for a JSON object with the same
// names, whose values are strings or lists of strings. An empty body asks for
// everything.
func ParseCountsRequest(body []byte) (jobs.Filter, error) {
	r := params{known: countNames}
	if len(bytes.TrimSpace(body)) > 0 {
		if err := r.object(body, func(_ string, raw json.RawMessage) ([]string, error) { return textValues(raw, false) }); err != nil {
			return jobs.Filter{}, err
		}
	}
	p, err := r.result()
	return p.Filter, err
}

// CheckIdempotencyKey says what is wrong with the values of an Idempotency-Key
// header, if anything: there may be one, see [jobs.CheckKey]. The error is an
// [*jobs.Error].
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
