// Package export is the built-in job "export": it writes the job history, or a
// part of it, into a file as CSV, JSON or JSON Lines.
//
// Start at [New]. The payload is described at [Handler], what can stand in a
// file at [Columns]. Memory stays flat however long the history is: a record is
// read, written and forgotten.
package export

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"

	"jobstream/jobs"
	"jobstream/jobs/handlers/internal/history"
)

// Handler runs exports. A payload has these fields, all optional:
//
//   - format: csv (the default), json or jsonl;
//   - filters: an object that chooses jobs. date is the year, month or day
//     in which they were submitted ("2024", "2024-01", "2024-01-15"); or from and
//     to, each a date or an RFC 3339 time: from is inclusive, a time in to is
//     exclusive, a date in to takes in all of it. type, status and tag are each a
//     string or a list of alternatives;
//   - columns: the list of the fields to write, in that order, out of [Columns];
//   - timezone: an IANA name, of dates in filters and of times in the file (UTC). In
//     CSV the times are then as the wall shows them there, which spreadsheets know;
//   - bom: true begins a CSV file with a byte order mark, so that Excel takes it for
//     UTF-8.
//
// The export's own job is in its file too, as processing, if the filters choose
// it.
type Handler struct {
	history jobs.History
	files   jobs.Artifacts
}

var (
	_ jobs.Handler = (*Handler)(nil)
	_ jobs.Checker = (*Handler)(nil)
)

// New makes the handler of exports of h into files.
func New(h jobs.History, files jobs.Artifacts) *Handler {
	return &Handler{history: h, files: files}
}

// Result is the result of an export, as JSON.
type Result struct {
	Format  string `json:"format"`
	Records int    `json:"records"`
	Bytes   int64  `json:"bytes"`
	SHA256  string `json:"sha256"`
	URL     string `json:"url"` // where the file is, on the REST server
}

// bufferSize is what is gathered before it goes to the file, in bytes.
const bufferSize = 256 << 10

// Check says what is wrong with a payload.
func (h *Handler) Check(payload json.RawMessage) error {
	_, err := parse(payload)
	return err
}

// Handle writes the file. A repeated attempt writes it anew.
func (h *Handler) Handle(ctx context.Context, t *jobs.Task) (jobs.Result, error) {
	req, err := parse(t.Job.Payload)
	if err != nil {
		return jobs.Result{}, jobs.Permanent(err)
	}
	w, err := h.files.Create(t.Job.ID)
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
	return jobs.Result{
		Artifact: file,
		Value: Result{
			Format: req.format.name, Records: n, Bytes: file.Size, SHA256: file.SHA256,
			URL: "/jobs/" + t.Job.ID.String() + "/result",
		},
	}, nil
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

// fileName takes the end of the id, because ids that were made within a minute
// begin alike.
func fileName(id jobs.ID, f *format) string {
	s := id.String()
	return "export-" + s[len(s)-8:] + "." + f.name
}
