package httpapi

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"jobstream/jobs"
	"jobstream/jobs/api"
)

// drainRetry is when a refused client should try again while this process
// stops: by then its successor may be there.
const drainRetry = 10 * time.Second

// submit is POST /jobs.
func (s *Server) submit(c echo.Context) error {
	body, token, err := s.submission(c)
	if err != nil {
		return err
	}
	sub, err := api.ParseSubmission(body)
	if err != nil {
		return err
	}
	sub.Token = token
	j, replayed, err := s.in().backend.Submit(c.Request().Context(), sub)
	if err != nil {
		return err
	}
	return s.accepted(c, j, replayed)
}

// submitBatch is POST /jobs/batch.
func (s *Server) submitBatch(c echo.Context) error {
	body, token, err := s.submission(c)
	if err != nil {
		return batchTooLarge(err)
	}
	subs, err := api.ParseBatch(body)
	if err != nil {
		return err
	}
	made, replayed, err := s.in().backend.SubmitBatch(c.Request().Context(), subs, token)
	if err != nil {
		return err
	}
	markReplay(c, replayed)
	return answer(c, http.StatusAccepted, func(b []byte) []byte { return api.AppendJobsJSON(b, made) })
}

// batchTooLarge says what to do about a batch that is too large.
func batchTooLarge(err error) error {
	var e *jobs.Error
	if !errors.As(err, &e) || e.Kind != jobs.PayloadTooLarge {
		return err
	}
	more := *e
	more.Detail += ", which bounds a batch as a whole; send fewer jobs at a time"
	return &more
}

// bulk is POST /jobs/bulk.
func (s *Server) bulk(c echo.Context) error {
	body, token, err := s.submission(c)
	if err != nil {
		return err
	}
	b, err := api.ParseBulk(body, "")
	if err != nil {
		return err
	}
	if b.DryRun {
		matched, err := s.in().backend.CountBulk(c.Request().Context(), b)
		if err != nil {
			return err
		}
		return answer(c, http.StatusOK, func(out []byte) []byte { return api.AppendBulkCount(out, b, matched) })
	}
	j, replayed, err := s.in().backend.Bulk(c.Request().Context(), body, token)
	if err != nil {
		return err
	}
	return s.accepted(c, j, replayed)
}

// submission reads a request that makes jobs: its body, and the token of its
// idempotency key if it has one.
func (s *Server) submission(c echo.Context) (body []byte, token *jobs.Token, err error) {
	r := c.Request()
	if s.draining.Load() {
		return nil, nil, &jobs.Error{Kind: jobs.ShuttingDown, Detail: "the server is stopping and takes no more jobs", RetryAfter: drainRetry}
	}
	if err := noQuery(r); err != nil {
		return nil, nil, err
	}
	if body, err = s.body(c); err != nil {
		return nil, nil, err
	}
	token, err = tokenOf(r, body)
	return body, token, err
}

// tokenOf is that of a request's idempotency key, nil if it has none; content is
// what is asked for.
func tokenOf(r *http.Request, content []byte) (*jobs.Token, error) {
	keys := r.Header["Idempotency-Key"]
	if err := api.CheckIdempotencyKey(keys); err != nil || len(keys) == 0 {
		return nil, err
	}
	return jobs.NewToken("http", keys[0], content), nil
}

var replayMark = []string{"true"} // shared, see jsonType

// markReplay says that a request has made its jobs before.
func markReplay(c echo.Context, replayed bool) {
	if replayed {
		c.Response().Header()["Idempotent-Replay"] = replayMark
	}
}

// accepted answers with a job that is durable now; if the client prefers to, when
// it has ended.
func (s *Server) accepted(c echo.Context, j *jobs.Job, replayed bool) error {
	h := c.Response().Header()
	h["Location"] = []string{jobAddress(j.ID)}
	markReplay(c, replayed)
	if fields := c.Request().Header["Prefer"]; len(fields) > 0 {
		if wait := preferredWait(fields); wait > 0 {
			return s.acceptedLater(c, j, wait)
		}
	}
	return answer(c, http.StatusAccepted, j.AppendJSON)
}

// acceptedLater answers when j has ended, or with what it is after the wait.
func (s *Server) acceptedLater(c echo.Context, j *jobs.Job, wait time.Duration) error {
	known := *j
	known.Payload = nil // may be large, and the wait long
	now, err := s.await(c, known.ID, wait)
	if err != nil {
		// The job is there, which matters most: a client that heard of an error would
		// submit it again.
		now = &known
	}
	if !now.Status.Ended() {
		return answer(c, http.StatusAccepted, now.AppendJSON)
	}
	c.Response().Header().Set("Preference-Applied", "wait="+strconv.Itoa(int(wait/time.Second)))
	return answer(c, http.StatusOK, now.AppendJSON)
}
