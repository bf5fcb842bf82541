package export

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/handlers/internal/history"
)

// cells takes the values of one row, one call per column.
type cells interface {
	// text takes foreign text.
	text(s string)
	// name takes jobstream's own text: an id, a status, a type.
	name(s string)
	integer(n int64)
	decimal(f float64)
	time(t jobs.Time) // 0 = none
	raw(json []byte)  // compact JSON
	list(items []string)
	none()
}

// column is a field of a record that can be exported.
type column struct {
	name  string
	write func(c cells, j *jobs.Job)
}

// columns has the fields of the job resource, under the same names and in the same
// order, and two derived ones. wait_ms is the time from submission to the first start,
// duration_ms the run time of the last attempt.
var columns = []column{
	{"id", func(c cells, j *jobs.Job) { c.name(j.ID.String()) }},
	{"seq", func(c cells, j *jobs.Job) { c.integer(int64(min(j.Seq, 1<<63-1))) }},
	{"type", func(c cells, j *jobs.Job) { c.text(j.Type) }},
	{"priority", func(c cells, j *jobs.Job) { c.integer(int64(j.Priority)) }},
	{"status", func(c cells, j *jobs.Job) { c.name(j.Status.String()) }},
	{"progress", func(c cells, j *jobs.Job) { c.integer(int64(j.Progress)) }},
	{"message", func(c cells, j *jobs.Job) { c.text(j.Message) }},
	{"attempt", func(c cells, j *jobs.Job) { c.integer(int64(j.Attempt)) }},
	{"max_attempts", func(c cells, j *jobs.Job) { c.integer(int64(j.MaxAttempts)) }},
	{"timeout", writeTimeout},
	{"payload", func(c cells, j *jobs.Job) { writeRaw(c, j.Payload) }},
	{"result", func(c cells, j *jobs.Job) { writeRaw(c, j.Result) }},
	{"error", func(c cells, j *jobs.Job) { c.text(j.Error) }},
	{"errors", writeErrors},
	{"tags", func(c cells, j *jobs.Job) { c.list(j.Tags) }},
	{"created_at", func(c cells, j *jobs.Job) { c.time(j.CreatedAt) }},
	{"updated_at", func(c cells, j *jobs.Job) { c.time(j.UpdatedAt) }},
	{"run_at", func(c cells, j *jobs.Job) { c.time(j.DueAt) }},
	{"started_at", func(c cells, j *jobs.Job) { c.time(j.StartedAt) }},
	{"ended_at", func(c cells, j *jobs.Job) { c.time(j.EndedAt) }},
	{"wait_ms", func(c cells, j *jobs.Job) { writeSpan(c, j, history.Wait) }},
	{"duration_ms", func(c cells, j *jobs.Job) { writeSpan(c, j, history.RunTime) }},
	{"node", func(c cells, j *jobs.Job) { c.text(j.Node) }},
	{"lost", func(c cells, j *jobs.Job) { c.integer(int64(j.Lost)) }},
	{"artifact", writeArtifact},
	{"fingerprint", func(c cells, j *jobs.Job) { c.text(j.Fingerprint()) }},
}

// defaultColumns are the columns of a request that names none. They leave out payloads
// and results, which may be large or private.
var defaultColumns = []string{
	"id", "type", "status", "priority", "attempt", "max_attempts",
	"created_at", "started_at", "ended_at", "wait_ms", "duration_ms", "error", "tags",
}

// Columns lists the names of all columns.
func Columns() []string {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = c.name
	}
	return names
}

// pick finds columns by name. All names must exist.
func pick(names []string) []column {
	picked := make([]column, 0, len(names))
	for _, name := range names {
		for _, c := range columns {
			if c.name == name {
				picked = append(picked, c)
			}
		}
	}
	return picked
}

func writeTimeout(c cells, j *jobs.Job) {
	if j.Timeout <= 0 {
		c.none()
		return
	}
	c.decimal(j.Timeout.Seconds())
}

func writeSpan(c cells, j *jobs.Job, span func(*jobs.Job) (time.Duration, bool)) {
	d, ok := span(j)
	if !ok {
		c.none()
		return
	}
	c.decimal(history.Milliseconds(d))
}

// writeRaw makes the JSON compact, so that it is one line. Records hold valid JSON; if
// one does not, it is exported as a string.
func writeRaw(c cells, raw json.RawMessage) {
	if len(raw) == 0 {
		c.none()
		return
	}
	var b bytes.Buffer
	b.Grow(len(raw))
	if json.Compact(&b, raw) != nil {
		c.raw(jobs.AppendString(nil, string(raw)))
		return
	}
	c.raw(bytes.ToValidUTF8(b.Bytes(), []byte("\uFFFD")))
}

func writeErrors(c cells, j *jobs.Job) {
	type attempt struct {
		Attempt int       `json:"attempt"`
		Error   string    `json:"error"`
		At      time.Time `json:"at"`
	}
	list := make([]attempt, len(j.Errors))
	for i, e := range j.Errors {
		list[i] = attempt{e.Attempt, e.Error, e.At.Std()}
	}
	c.raw(marshal(list))
}

func writeArtifact(c cells, j *jobs.Job) {
	if j.Artifact == nil {
		c.none()
		return
	}
	c.raw(marshal(struct {
		Name        string `json:"name"`
		ContentType string `json:"content_type"`
		Size        int64  `json:"size"`
		SHA256      string `json:"sha256"`
	}(*j.Artifact)))
}

// marshal is for strings, numbers and times, which cannot fail.
func marshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		return jobs.AppendString(nil, err.Error())
	}
	return b
}

// clean makes s UTF-8.
func clean(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
