package importer

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	"jobstream/jobs"
)

// report reads the file once more, and leaves a file with the rows that are refused and the
// reasons, in the format of the import's. So nothing of it has to be kept until the end,
// over any number of attempts.
func (r *run) report(ctx context.Context) error {
	from, err := openRows(r.req, r.file, r.size, 0, 0)
	if err != nil {
		return err
	}
	w, err := r.task.Artifact()
	if err != nil {
		return fmt.Errorf("begin the report: %w", err)
	}
	defer w.Abort()
	buffer := bufio.NewWriterSize(w, 64<<10)
	out := r.reportTo(buffer, from)
	r.task.Progress(99, r.summary()+"; listing those that were refused")
	found := 0
	for n := 1; ; n++ {
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
		reason := next.reason
		if reason == "" {
			_, reason = r.submission(&next, n)
		}
		if reason == "" {
			continue
		}
		found++
		if err := out(&next, reason); err != nil {
			return fmt.Errorf("write the report: %w", err)
		}
	}
	if found != r.done.Refused {
		r.task.Logf(jobs.LevelWarn, "%d rows were refused, and %d would be now: the type has changed meanwhile", r.done.Refused, found)
	}
	if err := buffer.Flush(); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	contentType := "application/x-ndjson"
	if r.req.format == csvFormat {
		contentType = "text/csv; charset=utf-8"
	}
	if _, err := w.Commit("refused."+r.req.format, contentType); err != nil {
		return fmt.Errorf("finish the report: %w", err)
	}
	return nil
}

// reportTo writes rows to a report.
func (r *run) reportTo(w *bufio.Writer, from rows) func(next *row, reason string) error {
	if t, ok := from.(*table); ok {
		out := csv.NewWriter(w)
		out.Comma = t.in.Comma
		begun := false
		return func(next *row, reason string) error {
			if !begun {
				begun = true
				if err := out.Write(slices.Concat(t.header, []string{"line", "reason"})); err != nil {
					return err
				}
			}
			cells := make([]string, len(t.header), len(t.header)+2)
			copy(cells, next.cells) // of a row with too many, the first ones
			if err := out.Write(append(cells, strconv.Itoa(next.line), reason)); err != nil {
				return err
			}
			out.Flush()
			return out.Error()
		}
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return func(next *row, reason string) error {
		entry := struct {
			Line   int             `json:"line"`
			Reason string          `json:"reason"`
			Row    json.RawMessage `json:"row,omitempty"`
			Text   string          `json:"text,omitempty"` // of what is no JSON
		}{Line: next.line, Reason: reason, Row: next.raw, Text: next.text}
		if json.Valid(next.raw) {
			entry.Text = ""
		} else {
			entry.Row = nil
		}
		return enc.Encode(entry)
	}
}
