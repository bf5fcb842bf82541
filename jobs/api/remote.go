package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"jobstream/jobs"
)

// The other side of the requests of workers elsewhere, for those that are written in Go:
// they write what the doors read, and read what these answer.

// AppendAsk is the inverse of [ParseAsk].
func AppendAsk(b []byte, a *jobs.Ask) []byte {
	return appendRequest(b, struct {
		Types  []string `json:"types"`
		Max    int      `json:"max"`
		Wait   float64  `json:"wait"`
		Worker string   `json:"worker,omitempty"`
	}{a.Types, a.Max, a.Wait.Seconds(), a.Worker})
}

// ReadLeases reads the answer to an ask.
func ReadLeases(answer []byte) ([]jobs.Lease, error) {
	var in struct {
		Leases []struct {
			Lease      string
			Seconds    float64 `json:"lease_seconds"`
			Fence      int64
			Deadline   time.Time
			Job        *jobs.Job
			Checkpoint json.RawMessage
		}
	}
	if err := json.Unmarshal(answer, &in); err != nil {
		return nil, unread("leases", err)
	}
	all := make([]jobs.Lease, len(in.Leases))
	for i, l := range in.Leases {
		if l.Lease == "" || l.Job == nil || seconds(l.Seconds) <= 0 {
			return nil, unread("leases", fmt.Errorf("entry %d is no lease", i))
		}
		l.Job.Checkpoint = l.Checkpoint
		all[i] = jobs.Lease{
			Token: l.Lease, Span: seconds(l.Seconds), Fence: l.Fence, Deadline: jobs.TimeOf(l.Deadline), Attempt: l.Job.Attempt, Job: l.Job,
		}
	}
	return all, nil
}

// AppendBeat is the inverse of [ParseBeat].
func AppendBeat(b []byte, worker string, leases []string) []byte {
	return appendRequest(b, struct {
		Worker string   `json:"worker,omitempty"`
		Leases []string `json:"leases"`
	}{worker, append([]string{}, leases...)})
}

// ReadBeats reads the answer to a beat, or to a report on progress.
func ReadBeats(answer []byte) (jobs.Beats, error) {
	var in beatResource
	if err := json.Unmarshal(answer, &in); err != nil {
		return jobs.Beats{}, unread("a beat", err)
	}
	return jobs.Beats{Span: seconds(in.Seconds), Lost: in.Lost, Cancelled: in.Cancel}, nil
}

// AppendProgress appends a report on the progress of a lease.
func AppendProgress(b []byte, lease string, p *jobs.Progress) []byte {
	type line struct {
		Level  jobs.Level `json:"level,omitempty"`
		Stream string     `json:"stream,omitempty"`
		Text   string     `json:"text"`
	}
	out := struct {
		Lease      string          `json:"lease"`
		Percent    *int            `json:"percent,omitempty"`
		Message    *string         `json:"message,omitempty"`
		Log        []line          `json:"log,omitempty"`
		Checkpoint json.RawMessage `json:"checkpoint,omitempty"`
	}{Lease: lease, Message: p.Message, Checkpoint: p.Checkpoint}
	if p.Percent >= 0 {
		out.Percent = &p.Percent
	}
	for _, l := range p.Log {
		out.Log = append(out.Log, line(l))
	}
	return appendRequest(b, &out)
}

// AppendDone appends the end of a job that is completed.
func AppendDone(b []byte, d *jobs.Done) []byte {
	return appendRequest(b, struct {
		Lease  string          `json:"lease"`
		Result json.RawMessage `json:"result,omitempty"`
	}{d.Token, d.Result})
}

// AppendManyDone is the inverse of [ParseDone], of what [AppendDone] has made.
func AppendManyDone(b []byte, done [][]byte) []byte {
	b = append(b, `{"done":[`...)
	b = append(b, bytes.Join(done, []byte{','})...)
	return append(b, "]}"...)
}

// ReadTaken reads the answer to the ends of many jobs: which of them have a status.
func ReadTaken(answer []byte) ([]bool, error) {
	var in struct{ Done []endingResource }
	if err := json.Unmarshal(answer, &in); err != nil {
		return nil, unread("ends", err)
	}
	taken := make([]bool, len(in.Done))
	for i, e := range in.Done {
		_, taken[i] = jobs.ParseStatus(e.Status)
	}
	return taken, nil
}

// AppendFailure appends the end of an attempt that has failed.
func AppendFailure(b []byte, lease string, f *jobs.Failure) []byte {
	return appendRequest(b, struct {
		Lease      string  `json:"lease"`
		Error      string  `json:"error"`
		Permanent  bool    `json:"permanent,omitempty"`
		RetryAfter float64 `json:"retry_after,omitempty"`
		Busy       bool    `json:"busy,omitempty"`
	}{lease, f.Error, f.Permanent, f.RetryAfter.Seconds(), f.Busy})
}

// AppendGiveBack appends the end of an execution that is given back.
func AppendGiveBack(b []byte, lease string, g *jobs.GiveBack) []byte {
	return appendRequest(b, struct {
		Lease  string  `json:"lease"`
		Delay  float64 `json:"delay,omitempty"`
		Reason string  `json:"reason,omitempty"`
		Busy   bool    `json:"busy,omitempty"`
	}{lease, g.Delay.Seconds(), g.Reason, g.Busy})
}

// ReadEnding reads the answer to the end of an execution.
func ReadEnding(answer []byte) (e jobs.Ending, err error) {
	var in endingResource
	if err := json.Unmarshal(answer, &in); err != nil {
		return e, unread("an end", err)
	}
	status, ok := jobs.ParseStatus(in.Status)
	if !ok {
		return e, unread("an end", fmt.Errorf("the status is %s", jobs.Quote(in.Status)))
	}
	return jobs.Ending{Status: status, RunAt: jobs.TimeOf(in.RunAt), Repeated: in.Repeated}, nil
}

// ReadProblem is the inverse of [Problem]. What is no problem becomes an error of the kind
// that a server's status has.
func ReadProblem(status int, body []byte) *jobs.Error {
	var in struct {
		Detail string
		Code   jobs.ErrorKind
		JobID  jobs.ID `json:"job_id"`
		Job    *leaseState
		Errors []jobs.FieldError
	}
	if err := json.Unmarshal(body, &in); err != nil || in.Code == "" {
		e := &jobs.Error{Kind: jobs.Internal, Detail: fmt.Sprintf("the server has answered %d: %s", status, jobs.Shorten(string(body), jobs.MaxMessage))}
		switch {
		case status == 502 || status == 503 || status == 504:
			e.Kind = jobs.Unavailable
		case status == 429:
			e.Kind = jobs.TooMany
		case 400 <= status && status < 500:
			e.Kind = jobs.InvalidRequest
		}
		return e
	}
	e := &jobs.Error{Kind: in.Code, Detail: in.Detail, Fields: in.Errors, JobID: in.JobID}
	if in.Job != nil {
		status, _ := jobs.ParseStatus(in.Job.Status)
		e.State = &jobs.LeaseState{Status: status, Attempt: in.Job.Attempt, Error: in.Job.Error}
	}
	return e
}

// seconds is a span of a lease. One that no lease has counts as the nearest that one has.
func seconds(s float64) time.Duration {
	return time.Duration(min(max(s, 0), jobs.MaxLease.Seconds()) * float64(time.Second))
}

// appendRequest appends v, which can always be written as JSON. Unlike json.Marshal it leaves
// results and checkpoints as they are, with <, > and &.
func appendRequest(b []byte, v any) []byte {
	out := bytes.NewBuffer(b)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err)
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n"))
}

func unread(what string, err error) error {
	return fmt.Errorf("the server's answer about %s cannot be read: %w", what, err)
}
