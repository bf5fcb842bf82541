// Package export is the built-in job "export". It writes the job history, or a part of
// it, into a file as CSV, JSON or JSON Lines.
//
// Start at [New]. [Handler] describes the payload, [Columns] the possible columns.
// Records are read and written one by one, so memory stays flat however long the
// history is.
package export

import (
	"bufio"
	"context"
	"fmt"

	"jobstream/jobs"
	"jobstream/jobs/handlers/internal/history"
)

// Handler runs exports. A payload has these fields, all optional:
//
//   - format: csv (the default), json or jsonl;
//   - filters: an object that chooses jobs. date is the year, month or day of their
//     submission ("2024", "2024-01", "2024-01-15"). from and to are each a date or an
//     RFC 3339 time: from is inclusive, a time in to is exclusive, a date in to is
//     included whole. type, status and tag are each a string or a list of alternatives;
//   - columns: the list of the columns, in that order, out of [Columns];
//   - timezone: an IANA name, for dates in filters and for times in the file (UTC). In
//     CSV the times are then local times without an offset, which spreadsheets
//     understand;
//   - bom: true begins a CSV file with a byte order mark, so that Excel reads it as
//     UTF-8.
//
// The export's own job is in its file as processing, if the filters choose it.
type Handler struct {
	history jobs.History
}

var (
	_ jobs.Handler = (*Handler)(nil)
	_ jobs.Checker = (*Handler)(nil)
)

// New makes a handler of exports of h.
func New(h jobs.History) *Handler { return &Handler{history: h} }

// Result is the result of an export, as JSON.
type Result struct {
	Format  string `json:"format"`
	Records int    `json:"records"`
	Bytes   int64  `json:"bytes"`
	SHA256  string `json:"sha256"`
	URL     string `json:"url"` // of the file, on the REST server
}

// bufferSize is how many bytes are collected before they are written.
const bufferSize = 256 << 10

// Check validates a payload.
func (h *Handler) Check(p *jobs.Payload) error {
	_, err := parse(p.JSON)
	return err
}

// Handle writes the file. Each attempt writes it anew.
func (h *Handler) Handle(ctx context.Context, t *jobs.Task) (jobs.Result, error) {
	req, err := parse(t.Job.Payload)
	if err != nil {
		return jobs.Result{}, jobs.Permanent(err)
	}
	w, err := t.Artifact()
	if err != nil {
		return jobs.Result{}, fmt.Errorf("begin the export's file: %w", err)
	}
	defer w.Abort()
	out := bufio.NewWriterSize(w, bufferSize)
	n, err := h.write(ctx, out, t, req)
	if err != nil {
		return jobs.Result{}, err
	}
	if err := out.Flush(); err != nil {
		return jobs.Result{}, fmt.Errorf("write the export's file: %w", err)
	}
	file, err := w.Commit(fileName(t.Job.ID, req.format), req.format.contentType)
	if err != nil {
		return jobs.Result{}, fmt.Errorf("finish the export's file: %w", err)
	}
	t.Progress(100, fmt.Sprintf("exported %d jobs", n))
	t.Logf(jobs.LevelInfo, "exported %d jobs", n)
	return jobs.Result{Value: Result{
		Format: req.format.name, Records: n, Bytes: file.Size, SHA256: file.SHA256,
		URL: "/jobs/" + t.Job.ID.String() + "/result",
	}}, nil
}

func (h *Handler) write(ctx context.Context, out *bufio.Writer, t *jobs.Task, req *request) (int, error) {
	enc := req.format.encoder(req.options)
	if _, err := out.Write(enc.head()); err != nil {
		return 0, fmt.Errorf("write the export's file: %w", err)
	}
	n, err := history.Walk(ctx, h.history, req.filter, t, "exported", func(j *jobs.Job) error {
		_, err := out.Write(enc.row(j))
		return err
	})
	if err != nil {
		return n, err
	}
	if _, err := out.Write(enc.foot()); err != nil {
		return n, fmt.Errorf("write the export's file: %w", err)
	}
	return n, nil
}

// fileName uses the end of the id, because ids of the same minute begin alike.
func fileName(id jobs.ID, f *format) string {
	s := id.String()
	return "export-" + s[len(s)-8:] + "." + f.name
}
