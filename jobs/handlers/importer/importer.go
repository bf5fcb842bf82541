// Package importer is the built-in kind "import". It reads the rows of a CSV or JSON Lines
// file, and submits each as a job.
//
// Start at [New]. [Handler] describes the payload and [Handler.Handle] the steps. rows.go
// reads files, shape.go makes payloads of rows, submit.go submits them, and report.go
// lists those that were refused.
package importer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/handlers/internal/payload"
	"jobstream/jobs/strict"
)

// Input is the name of the input that has the file.
const Input = "file"

// Queue is the way into the queue.
type Queue interface {
	// Check returns an [*jobs.Error] if a submission would be refused for what is in it.
	Check(s *jobs.Submission) error
	// SubmitBatch is that of [jobstream/jobs/intake.Submitter].
	SubmitBatch(ctx context.Context, subs []*jobs.Submission, token *jobs.Token) (made []*jobs.Job, replayed bool, err error)
}

// Handler runs imports. A payload has these fields:
//
//   - type, required: the type of the jobs;
//   - payload: the payload of each. The texts in it are templates over the row, as in
//     {"to": "{{.row.email}}"}. A text that is only one field, like "{{.row.age}}",
//     becomes the value of that field, be it a text or not. Without it the payload is the
//     row itself;
//   - priority, tags, retry_count, timeout: of the jobs;
//   - format: csv or jsonl; by the file's content type and name if it is left out;
//   - delimiter: the character between two cells, a comma by default;
//   - header: the names of the columns, for a file without a line of them;
//   - columns: what cells are, by the name of their column: text (the default), number,
//     bool or json. An empty cell is null then, unless it is a text.
//
// An attempt goes on where an interrupted one stopped. Each row has an id that follows from
// the import and the row's number, so that none becomes two jobs.
type Handler struct{ queue Queue }

var (
	_ jobs.Handler = (*Handler)(nil)
	_ jobs.Checker = (*Handler)(nil)
)

// New makes the handler of imports into a queue.
func New(q Queue) *Handler { return &Handler{queue: q} }

// Inputs are what each import needs.
func Inputs() []jobs.InputRule { return []jobs.InputRule{{Name: Input}} }

// Result is the result of an import, as JSON.
type Result struct {
	Type      string `json:"type"`
	Format    string `json:"format"`
	Rows      int    `json:"rows"`
	Submitted int    `json:"submitted"`
	Refused   int    `json:"refused"`
	// Refusals are the first rows that were refused. All of them are in the job's file.
	Refusals []Refusal `json:"refusals,omitempty"`
	URL      string    `json:"url,omitempty"` // of that file, on the REST server
}

// Refusal says why a row did not become a job.
type Refusal struct {
	Line   int    `json:"line"` // in the file, from 1: where the row begins
	Reason string `json:"reason"`
}

// request is a payload after reading.
type request struct {
	jobs.Submission // of each row, without payload
	shape           *shape
	format          string // "csv", "jsonl", or "" for that of the file
	delimiter       rune   // 0 = a comma
	header          []string
	columns         map[string]string
}

// The formats of files.
const (
	csvFormat   = "csv"
	jsonlFormat = "jsonl"
)

// maxColumns bounds the columns of a file.
const maxColumns = 1000

func parse(raw json.RawMessage) (*request, error) {
	req := &request{Submission: jobs.Submission{Priority: jobs.DefaultPriority, RetryCount: -1}}
	var each json.RawMessage
	fields := []strict.Field{
		strict.May("columns", func(v strict.Value) { req.readColumns(v) }),
		strict.May("delimiter", func(v strict.Value) { req.readDelimiter(v) }),
		strict.May("format", func(v strict.Value) { req.format, _ = v.OneOf(csvFormat, jsonlFormat) }),
		strict.May("header", func(v strict.Value) { req.readHeader(v) }),
		strict.May("type", func(v strict.Value) { req.Type, _ = v.Text() }),
	}
	run := jobs.RunFields(&each, &req.Priority, &req.Tags, &req.RetryCount, &req.Timeout)
	err := payload.Read(raw, append(fields, run[:]...), func(whole strict.Value) {
		if req.Type == "" {
			whole.At("type").Fail("is required: the type of the jobs that the rows become")
		}
		if req.format == jsonlFormat {
			for _, name := range []string{"delimiter", "header", "columns"} {
				if !whole.Get(name).Null() {
					whole.At(name).Fail("means something only for CSV")
				}
			}
		}
	})
	if err != nil {
		return nil, err
	}
	if len(each) > 0 {
		req.shape, err = parseShape(each)
	}
	return req, err
}

func (req *request) readDelimiter(v strict.Value) {
	s, ok := v.Text()
	r := []rune(s)
	switch {
	case !ok:
	case len(r) != 1 || strings.ContainsRune("\r\n\"", r[0]) || r[0] == '\uFFFD':
		v.Fail(`must be one character, like ";" or "\t", not %q`, s)
	default:
		req.delimiter = r[0]
	}
}

func (req *request) readHeader(v strict.Value) {
	list, err := strict.Texts(v.Raw)
	if v.Check(err) {
		req.header = list
		v.Check(checkHeader(list))
	}
}

func (req *request) readColumns(v strict.Value) {
	req.columns = make(map[string]string)
	v.Each(func(of strict.Value) {
		kind, _ := of.OneOf(textCell, numberCell, boolCell, jsonCell)
		req.columns[of.Name()] = kind
	})
}

// checkHeader returns the problem with the names of columns, if any. Cells of a column
// without a name are left out.
func checkHeader(names []string) error {
	seen := make(map[string]int, len(names))
	for i, name := range names {
		if name == "" {
			continue
		}
		if first, twice := seen[name]; twice {
			return fmt.Errorf("has the name %s twice, for the columns %d and %d", jobs.Quote(name), first+1, i+1)
		}
		seen[name] = i
	}
	switch {
	case len(seen) == 0:
		return errors.New("has no names")
	case len(names) > maxColumns:
		return fmt.Errorf("has %d names, at most %d are allowed", len(names), maxColumns)
	}
	return nil
}

// Check validates a payload.
func (h *Handler) Check(p *jobs.Payload) error {
	_, err := parse(p.JSON)
	return err
}

// Targets are the types of which a job with this payload makes others.
func (h *Handler) Targets(payload json.RawMessage) []string {
	req, err := parse(payload)
	if err != nil {
		return nil // such a job is refused
	}
	return []string{req.Type}
}

// Handle submits the rows.
func (h *Handler) Handle(ctx context.Context, t *jobs.Task) (jobs.Result, error) {
	req, err := parse(t.Job.Payload)
	if err != nil {
		return jobs.Result{}, jobs.Permanent(err)
	}
	in, err := t.Input(Input)
	if err != nil {
		return jobs.Result{}, err
	}
	if req.format == "" {
		if req.format, err = formatOf(in); err != nil {
			return jobs.Result{}, jobs.Permanent(err)
		}
	}
	f, err := in.Open()
	if err != nil {
		return jobs.Result{}, err
	}
	defer f.Close() //nolint:errcheck // opened for reading only
	r := &run{Handler: h, task: t, req: req, file: f, size: in.File.Size, most: mostRows}
	if err := r.resume(); err != nil {
		return jobs.Result{}, err
	}
	if err := r.rows(ctx); err != nil {
		return jobs.Result{}, err
	}
	result := Result{
		Type: req.Type, Format: req.format, Rows: r.done.Rows, Submitted: r.done.Rows - r.done.Refused, Refused: r.done.Refused,
		Refusals: r.done.Refusals,
	}
	if r.done.Refused > 0 {
		if err := r.report(ctx); err != nil {
			return jobs.Result{}, err
		}
		result.URL = "/jobs/" + t.Job.ID.String() + "/result"
	}
	t.Progress(100, r.summary())
	t.Log(jobs.LevelInfo, r.summary())
	return jobs.Result{Value: result}, nil
}

// formatOf is the format of a file by what is known of it.
func formatOf(in *jobs.InputFile) (string, error) {
	media, _, _ := strings.Cut(strings.ToLower(in.File.ContentType), ";")
	switch strings.TrimSpace(media) {
	case "text/csv", "application/csv", "text/tab-separated-values":
		return csvFormat, nil
	case "application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines", "application/jsonlines", "application/json-lines":
		return jsonlFormat, nil
	}
	switch strings.ToLower(path.Ext(in.File.Name)) {
	case ".csv", ".tsv":
		return csvFormat, nil
	case ".jsonl", ".ndjson":
		return jsonlFormat, nil
	}
	return "", fmt.Errorf(`neither the content type of the file, %s, nor its name, %s, says what is in it; add "format": "csv" or "jsonl" to the payload`, jobs.Quote(in.File.ContentType), jobs.Quote(in.File.Name))
}

// done is how far an import has come. It is its checkpoint.
type done struct {
	Offset   int64     `json:"offset"` // bytes of the file that the rows so far take
	Lines    int       `json:"lines"`  // in these bytes
	Rows     int       `json:"rows"`
	Refused  int       `json:"refused"`
	Refusals []Refusal `json:"refusals,omitempty"`
}

// maxRefusals is how many refusals are listed in the result.
const maxRefusals = 10

// run is one attempt.
type run struct {
	*Handler
	task *jobs.Task
	req  *request
	file *os.File
	size int64

	done    done
	pending []pending // rows that were read after those
	bytes   int       // of their payloads
	good    int       // of them, the ones to submit
	most    int       // rows of the next batch
}

// pending is a row whose job has still to be submitted, or that is refused.
type pending struct {
	sub    *jobs.Submission
	line   int
	reason string
	end    int64 // the offset behind it
}

// resume goes on from the checkpoint.
func (r *run) resume() error {
	left := r.task.Checkpoint()
	if left == nil {
		return nil
	}
	if err := json.Unmarshal(left, &r.done); err != nil || r.done.Offset > r.size {
		return jobs.Permanentf("the checkpoint of the import cannot be read: %s", jobs.Quote(string(left)))
	}
	r.task.Logf(jobs.LevelInfo, "goes on behind %d rows, at line %d", r.done.Rows, r.done.Lines+1)
	return nil
}

// Bounds of what is submitted together.
const (
	mostRows  = 500
	mostBytes = 2 << 20 // of payloads
	mostAhead = 5000    // rows, refused ones included
)

// rows reads the file and submits its rows.
func (r *run) rows(ctx context.Context) error {
	from, err := openRows(r.req, r.file, r.size, r.done.Offset, r.done.Lines)
	if err != nil {
		return err
	}
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		next, err := from.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		r.add(next)
		if r.good >= r.most || r.bytes >= mostBytes || len(r.pending) >= mostAhead {
			if err := r.flush(ctx); err != nil {
				return err
			}
		}
	}
	for len(r.pending) > 0 {
		if err := r.flush(ctx); err != nil {
			return err
		}
	}
	return nil
}

// add makes a job of a row, or a refusal.
func (r *run) add(next row) {
	p := pending{line: next.line, end: next.end, reason: next.reason}
	if p.reason == "" {
		n := r.done.Rows + len(r.pending) + 1
		p.sub, p.reason = r.submission(&next, n)
	}
	if p.sub != nil {
		r.good++
		r.bytes += len(p.sub.Payload)
	}
	r.pending = append(r.pending, p)
}

// submission is the n-th row as a job, or the reason why it can be none.
func (r *run) submission(next *row, n int) (*jobs.Submission, string) {
	body := next.raw
	if r.req.shape != nil {
		var err error
		if body, err = r.req.shape.fill(next.value); err != nil {
			return nil, reasonOf(err)
		}
	}
	s := r.req.Submission
	s.ID, s.Payload, s.CreatedBy = rowID(r.task.Job, n), body, r.task.Job.CreatedBy
	if err := r.queue.Check(&s); err != nil {
		return nil, reasonOf(err)
	}
	return &s, ""
}

// maxReason bounds the reason of a refusal, in bytes.
const maxReason = 300

// reasonOf is an error as the reason of a refusal, with all that it points at.
func reasonOf(err error) string {
	var e *jobs.Error
	if !errors.As(err, &e) || len(e.Fields) < 2 {
		return jobs.Shorten(err.Error(), maxReason)
	}
	all := make([]string, len(e.Fields))
	for i, f := range e.Fields {
		all[i] = f.Pointer + ": " + f.Detail
	}
	return jobs.Shorten(strings.Join(all, "; "), maxReason)
}

func (r *run) summary() string {
	s := fmt.Sprintf("%d of %d rows submitted", r.done.Rows-r.done.Refused, r.done.Rows)
	if r.done.Refused > 0 {
		s += fmt.Sprintf(", %d refused", r.done.Refused)
	}
	return s
}

// settle counts the first n pending rows, which are submitted or refused, and leaves that
// for the next attempt.
func (r *run) settle(n int) error {
	if n == 0 {
		return nil
	}
	for _, p := range r.pending[:n] {
		r.done.Rows++
		if p.sub != nil {
			r.good--
			r.bytes -= len(p.sub.Payload)
			continue
		}
		r.done.Refused++
		if len(r.done.Refusals) < maxRefusals {
			r.done.Refusals = append(slices.Clip(r.done.Refusals), Refusal{p.line, p.reason})
		}
	}
	end := r.pending[n-1].end
	lines, err := linesBetween(r.file, r.done.Offset, end)
	if err != nil {
		return err
	}
	r.done.Offset, r.done.Lines = end, r.done.Lines+lines
	r.pending = slices.Delete(r.pending, 0, n)
	if err := r.task.SetCheckpoint(r.done); err != nil {
		return err
	}
	r.task.Progress(int(min(99, r.done.Offset*100/max(r.size, 1))), r.summary())
	return nil
}

// wait is how long a full queue is waited for with the worker in hand. Then the job is put
// off, so that imports cannot occupy the workers that would empty the queue.
const (
	wait      = 2 * time.Second
	waitAgain = 100 * time.Millisecond
	putOff    = 2 * time.Second
)
