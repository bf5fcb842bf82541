// Package report is the built-in job "report". It writes one HTML page with charts
// about the jobs of a period. The page loads nothing from elsewhere.
//
// Start at [New]. [Handler] describes the payload. The job history is read once into a
// summary of bounded size (stats.go). page.go and charts.go lay that out, and page.html
// is filled with it.
package report

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/figures"
	"jobstream/jobs/handlers/internal/history"
	"jobstream/jobs/handlers/internal/payload"
)

// Handler runs reports. A payload has these fields, all optional:
//
//   - type: which sections the page has: summary (the default) has all, performance
//     those about time, failures those about errors;
//   - timezone: an IANA name (UTC), of the days and times on the page;
//   - date_range: the jobs submitted in that time: last_7_days (the default; any number
//     is possible, and today counts), last_24_hours (any number, counted back from the
//     hour that has begun), today, yesterday, this_month, last_month, this_year, all; a
//     year, month or day like "2024", "2024-01", "2024-01-15"; or an object with from
//     and to, like that of an export's filters.
//
// A report ends at the moment of its start, and leaves its own job out.
type Handler struct {
	history jobs.History
	now     func() jobs.Time
}

var (
	_ jobs.Handler = (*Handler)(nil)
	_ jobs.Checker = (*Handler)(nil)
)

// New makes a handler of reports over h.
func New(h jobs.History) *Handler {
	return &Handler{history: h, now: jobs.Now}
}

// Result is the result of a report, as JSON. Figures are null as long as no job has
// ended.
type Result struct {
	Type    string `json:"type"`
	Records int    `json:"records"` // jobs in the report
	From    string `json:"from"`    // RFC 3339, inclusive
	To      string `json:"to"`      // exclusive

	Completed    int      `json:"completed"`
	Failed       int      `json:"failed"`
	Cancelled    int      `json:"cancelled"`
	Unfinished   int      `json:"unfinished"`
	Retries      int      `json:"retries"`        // attempts after a job's first
	SuccessRate  *float64 `json:"success_rate"`   // 0 to 1: completed of completed and failed
	MedianWaitMS *float64 `json:"median_wait_ms"` // from when it was due to the first start
	P95RunMS     *float64 `json:"p95_run_ms"`     // of the last attempt

	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
	URL    string `json:"url"` // of the page, on the REST server
}

// Check validates a payload.
func (h *Handler) Check(p *jobs.Payload) error {
	_, err := parse(p.JSON)
	return err
}

// Handle writes the page. Each attempt writes it anew.
func (h *Handler) Handle(ctx context.Context, t *jobs.Task) (jobs.Result, error) {
	req, err := parse(t.Job.Payload)
	if err != nil {
		return jobs.Result{}, jobs.Permanent(err)
	}
	now := h.now()
	period, err := h.resolve(ctx, req.span(now.Std().In(req.location())), now)
	if err != nil {
		return jobs.Result{}, err
	}
	sum := newSummary(period, req.location())
	filter := jobs.Filter{CreatedAfter: period.From, CreatedBefore: period.To}
	if _, err := history.Walk(ctx, h.history, filter, t, "looked at", func(j *jobs.Job) error {
		if j.ID != t.Job.ID {
			sum.add(j)
		}
		return nil
	}); err != nil {
		return jobs.Result{}, err
	}
	file, err := write(t, newPage(req.kind, sum, now), sum)
	if err != nil {
		return jobs.Result{}, err
	}
	t.Progress(100, fmt.Sprintf("reported on %d jobs", sum.total.jobs()))
	t.Logf(jobs.LevelInfo, "reported on %d jobs", sum.total.jobs())
	return jobs.Result{Value: sum.result(req.kind, t.Job.ID, file)}, nil
}

func write(t *jobs.Task, p *page, s *summary) (*jobs.Artifact, error) {
	w, err := t.Artifact()
	if err != nil {
		return nil, fmt.Errorf("begin the report's file: %w", err)
	}
	defer w.Abort()
	out := bufio.NewWriter(w)
	if err := errors.Join(p.render(out), out.Flush()); err != nil {
		return nil, fmt.Errorf("write the report's file: %w", err)
	}
	first, last := s.period.From.Std().In(s.zone), s.period.To.Add(-1).Std().In(s.zone)
	name := "report-" + first.Format(time.DateOnly) + "-" + last.Format(time.DateOnly) + ".html"
	file, err := w.Commit(name, "text/html; charset=utf-8")
	if err != nil {
		return nil, fmt.Errorf("finish the report's file: %w", err)
	}
	return file, nil
}

// resolve closes the open sides of a period: at the first job, and now.
func (h *Handler) resolve(ctx context.Context, p payload.Period, now jobs.Time) (payload.Period, error) {
	if p.From < now && (p.To == 0 || p.To > now) {
		p.To = now
	}
	if p.From == 0 {
		first, err := h.first(ctx, p.To)
		if err != nil {
			return p, err
		}
		p.From = first
	}
	p.To = max(p.To, p.From+1) // a period that begins in the future and has no end has no jobs
	return p, nil
}

// first is when the oldest job before a moment was submitted. Without one it is the
// beginning of the day before.
func (h *Handler) first(ctx context.Context, before jobs.Time) (jobs.Time, error) {
	enough := errors.New("one is enough")
	first := jobs.TimeOf(midnight(before.Add(-1).Std()))
	err := h.history.Scan(ctx, jobs.Filter{CreatedBefore: before}, func(j *jobs.Job) error {
		first = j.CreatedAt
		return enough
	})
	if err != nil && !errors.Is(err, enough) {
		return 0, fmt.Errorf("find the oldest job: %w", err)
	}
	return first, nil
}

func (s *summary) result(kind string, id jobs.ID, file *jobs.Artifact) Result {
	g := &s.total
	return Result{
		Type: kind, Records: g.jobs(), From: s.period.From.String(), To: s.period.To.String(),
		Completed: g.outcomes[completed], Failed: g.outcomes[failed],
		Cancelled: g.outcomes[cancelled], Unfinished: g.outcomes[unfinished],
		Retries: g.retries, SuccessRate: g.successRate(),
		MedianWaitMS: milliseconds(&g.wait, 0.5), P95RunMS: milliseconds(&g.run, 0.95),
		Bytes: file.Size, SHA256: file.SHA256, URL: "/jobs/" + id.String() + "/result",
	}
}

// milliseconds is a percentile in ms, rounded to its precision; nil if nothing was
// measured.
func milliseconds(h *figures.Histogram, q float64) *float64 {
	if h.Count() == 0 {
		return nil
	}
	ms := math.Round(float64(h.Quantile(q))/float64(time.Microsecond)) / 1000
	return &ms
}
