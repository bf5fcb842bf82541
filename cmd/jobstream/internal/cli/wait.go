package cli

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"jobstream/cmd/jobstream/internal/terminal"
)

// job is what the commands read of a job.
type job struct {
	ID          string     `json:"id"`
	Seq         uint64     `json:"seq"`
	Type        string     `json:"type"`
	Priority    int        `json:"priority"`
	Status      string     `json:"status"`
	Progress    int        `json:"progress"`
	Message     string     `json:"message"`
	Attempt     int        `json:"attempt"`
	MaxAttempts int        `json:"max_attempts"`
	Error       string     `json:"error"`
	Waiting     *waiting   `json:"waiting"`
	RunAt       *time.Time `json:"run_at"`
	CreatedAt   *time.Time `json:"created_at"`
	StartedAt   *time.Time `json:"started_at"`
	EndedAt     *time.Time `json:"ended_at"`
}

// waiting is why a job does not run.
type waiting struct {
	Reason   string     `json:"reason"`
	Until    *time.Time `json:"until"`
	Detail   string     `json:"detail"`
	Position int        `json:"position"`
}

func (w *waiting) String() string {
	out := strings.ReplaceAll(w.Reason, "_", " ")
	if w.Detail != "" {
		out = w.Detail
	}
	if w.Position > 0 {
		out += fmt.Sprintf(", number %d in the queue", w.Position)
	}
	if w.Until != nil {
		out += ", " + ago(w.Until)
	}
	return out
}

// ended says whether nothing more happens to it by itself.
func (j *job) ended() bool { return j.EndedAt != nil }

// name is what people call it.
func (j *job) name() string { return fmt.Sprintf("%s #%d", j.Type, j.Seq) }

// took is how long its last attempt took, or has taken so far; "" if none has begun.
func (j *job) took() string {
	switch {
	case j.StartedAt == nil:
		return ""
	case j.EndedAt != nil:
		return span(j.EndedAt.Sub(*j.StartedAt))
	case j.Status == "processing":
		return span(time.Since(*j.StartedAt))
	}
	return ""
}

// says is the text about it that is of most use.
func (j *job) says() string {
	switch {
	case j.Waiting != nil && (j.Status != "retrying" || j.Error == ""):
		return j.Waiting.String()
	case j.Error != "" && j.Status != "completed":
		return j.Error
	case j.Status == "processing" && j.Progress > 0:
		return strings.TrimSpace(fmt.Sprintf("%d %% %s", j.Progress, j.Message))
	}
	return j.Message
}

const (
	waitAtOnce = time.Minute     // for the end of a job, by one request
	lookEvery  = time.Second     // if its progress is shown
	patience   = 2 * time.Minute // with a server that cannot be reached, or is busy
	pauseFirst = 200 * time.Millisecond
	pauseMost  = 5 * time.Second
)

// await waits until a job has ended, and returns it with its JSON. It shows the progress
// on a terminal, and outlasts a restart of the server.
func (s *session) await(id string) (*job, []byte, error) {
	bar := terminal.On(s.p.Stderr)
	defer bar.End()
	once := waitAtOnce
	if bar.Shown() {
		once = lookEvery
	}
	begun := time.Now()
	var j job
	path := "/jobs/" + url.PathEscape(id) + "?wait=" + once.String()
	since, pause := time.Now(), pauseFirst
	for {
		j = job{}
		text, err := s.within(s.ctx, once+Timeout, http.MethodGet, path, nil, &j)
		switch {
		case err == nil && j.ended():
			return &j, text, nil
		case err == nil:
			since, pause = time.Now(), pauseFirst
			far := j.far()
			bar.Show(func() string { return clean(far + ", " + span(time.Since(begun))) })
			continue
		case !passing(err) || s.ctx.Err() != nil || time.Since(since) > patience:
			return nil, nil, s.interrupted(err, "the job goes on. See: jobstream job "+id)
		}
		lost := since
		bar.Show(func() string { return "waiting for the server, " + span(time.Since(lost)) })
		select {
		case <-time.After(pause):
		case <-s.ctx.Done():
		}
		pause = min(2*pause, pauseMost)
	}
}

// passing says whether another try may succeed.
func passing(err error) bool {
	var unreachable *UnreachableError
	var refused *RefusedError
	if errors.As(err, &refused) {
		return refused.Status == http.StatusServiceUnavailable || refused.Status == http.StatusTooManyRequests
	}
	return errors.As(err, &unreachable) || errors.Is(err, io.ErrUnexpectedEOF)
}

// far says how far a job is, in a line.
func (j *job) far() string {
	line := j.name() + " " + j.Status
	if j.Status == "processing" && j.Progress > 0 {
		line += fmt.Sprintf(" %s %d %%", terminal.Part(float64(j.Progress)/100), j.Progress)
	}
	if says := j.says(); says != "" && j.Status != "processing" {
		line += ": " + says
	} else if j.Message != "" {
		line += " " + j.Message
	}
	return line
}
