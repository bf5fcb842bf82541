package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"jobstream/cmd/jobstream/internal/terminal"
)

type jobCommand struct {
	remote
	ID     string `arg:"" name:"id" help:"The job: its id or its seq."`
	Wait   bool   `short:"w" help:"Wait until it has ended. The exit code is 3 if it did not complete."`
	Events bool   `help:"Show only what has happened to it."`
	Lines  int    `default:"20" placeholder:"N" help:"Show the last N lines of its log (default: ${default})."`
}

// artifact is a file of a job.
type artifact struct {
	Name        string `json:"name"`
	ContentType string `json:"content_type"`
	Size        int64  `json:"size"`
}

// event is what has happened to a job.
type event struct {
	Kind     string     `json:"kind"`
	At       *time.Time `json:"at"`
	Attempt  int        `json:"attempt"`
	Progress int        `json:"progress"`
	Message  string     `json:"message"`
	Error    string     `json:"error"`
	Actor    string     `json:"actor"`
	Node     string     `json:"node"`
	Due      *time.Time `json:"run_at"`
}

// Run shows a job.
func (c *jobCommand) Run(p *Program) error {
	s, err := c.open(p)
	if err != nil {
		return err
	}
	defer s.end()
	path := "/jobs/" + url.PathEscape(c.ID)
	var j job
	text, err := s.Do(s.ctx, http.MethodGet, path, nil, &j)
	if err != nil {
		return err
	}
	if c.Wait && !j.ended() {
		ended, last, err := s.await(j.ID)
		if err != nil {
			return err
		}
		j, text = *ended, last
	}
	if err := c.show(s, path, &j, text); err != nil {
		return err
	}
	if c.Wait && j.Status != "completed" {
		return &JobError{j.ID, j.Status, j.Error}
	}
	return nil
}

func (c *jobCommand) show(s *session, path string, j *job, text []byte) error {
	if s.json && !c.Events {
		return s.raw(text)
	}
	var past struct {
		Events []event `json:"events"`
	}
	all, err := s.get(s.ctx, path+"/events", nil, &past)
	if err != nil {
		return err
	}
	if s.json {
		return s.raw(all)
	}
	if c.Events {
		return s.timeline(past.Events)
	}
	if err := s.facts(j, text); err != nil {
		return err
	}
	if err := s.head("What happened"); err != nil {
		return err
	}
	if err := s.timeline(past.Events); err != nil {
		return err
	}
	return c.logOf(s, path)
}

// head prints a heading.
func (s *session) head(text string) error { return s.printf("\n%s", bold.Render(text)) }

// facts prints what is known of a job.
func (s *session) facts(j *job, text []byte) error {
	var more struct {
		Payload   json.RawMessage `json:"payload"`
		Result    json.RawMessage `json:"result"`
		Tags      []string        `json:"tags"`
		Node      string          `json:"node"`
		CreatedBy string          `json:"created_by"`
		Artifact  *artifact       `json:"artifact"`
		Artifacts []artifact      `json:"artifacts"`
		UniqueKey string          `json:"unique_key"`
		ConcKey   string          `json:"concurrency_key"`
		Schedule  string          `json:"schedule"`
		Print     string          `json:"fingerprint"`
	}
	if err := json.Unmarshal(text, &more); err != nil {
		return err
	}
	if err := s.printf("%s  %s  %s", bold.Render(clean(j.name())), status(j.Status).style.Render(j.Status), faint.Render(j.ID)); err != nil {
		return err
	}
	if more.Artifact != nil && len(more.Artifacts) == 0 {
		more.Artifacts = []artifact{*more.Artifact}
	}
	var files []string
	for _, f := range more.Artifacts {
		files = append(files, fmt.Sprintf("%s (%s)", f.Name, terminal.Bytes(f.Size)))
	}
	progress := ""
	if j.Status == "processing" && j.Progress > 0 {
		progress = fmt.Sprintf("%s %d %%", terminal.Part(float64(j.Progress)/100), j.Progress)
	}
	waits := ""
	if j.Waiting != nil {
		waits = j.Waiting.String()
	}
	for _, f := range []struct{ name, value string }{
		{"waits", waits},
		{"error", j.Error},
		{"progress", progress},
		{"message", j.Message},
		{"attempt", fmt.Sprintf("%d of %d", j.Attempt, j.MaxAttempts)},
		{"took", j.took()},
		{"priority", strconv.Itoa(j.Priority)},
		{"created", at(j.CreatedAt)},
		{"created by", more.CreatedBy},
		{"schedule", more.Schedule},
		{"node", more.Node},
		{"tags", strings.Join(more.Tags, ", ")},
		{"unique key", more.UniqueKey},
		{"concurrency key", more.ConcKey},
		{"fingerprint", more.Print},
		{"files", strings.Join(files, ", ")},
		{"payload", compact(more.Payload)},
		{"result", compact(more.Result)},
	} {
		if f.value == "" {
			continue
		}
		if err := s.printf("%s %s", faint.Render(fmt.Sprintf("%-15s", f.name)), clean(f.value)); err != nil {
			return err
		}
	}
	return nil
}

// at is a moment, and how long it lies back.
func at(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.Local().Format(time.DateTime) + " (" + ago(t) + ")"
}

// compact is JSON in a line; "" if it is null.
func compact(v json.RawMessage) string {
	if string(v) == "null" {
		return ""
	}
	return string(v)
}

// timeline prints the history of a job, with the time since its beginning.
func (s *session) timeline(all []event) error {
	rows := make([][]cell, len(all))
	for i, e := range all {
		when, since := "", ""
		if e.At != nil {
			when = e.At.Local().Format("15:04:05.000")
			if i > 0 && all[0].At != nil {
				since = "+" + span(e.At.Sub(*all[0].At))
			}
		}
		attempt := ""
		if e.Attempt > 0 {
			attempt = strconv.Itoa(e.Attempt)
		}
		rows[i] = []cell{{when, faint}, {since, faint}, text(attempt), status(e.Kind), text(e.says())}
	}
	return s.table([]string{"TIME", ">SINCE", ">RUN", "EVENT", "DETAIL"}, rows)
}

// says is the text about an event.
func (e *event) says() string {
	var all []string
	if e.Progress > 0 {
		all = append(all, fmt.Sprintf("%d %%", e.Progress))
	}
	for _, text := range []string{e.Error, e.Message} {
		if text != "" {
			all = append(all, text)
		}
	}
	if e.Due != nil {
		all = append(all, "next "+e.Due.Local().Format("15:04:05"))
	}
	if e.Node != "" {
		all = append(all, "on "+e.Node)
	}
	if e.Actor != "" {
		all = append(all, "by "+e.Actor)
	}
	return strings.Join(all, ", ")
}

// logOf prints the end of a job's log, if it has one.
func (c *jobCommand) logOf(s *session, path string) error {
	if c.Lines <= 0 {
		return nil
	}
	lines, err := s.Do(s.ctx, http.MethodGet, path+"/log?tail="+strconv.Itoa(c.Lines), nil, nil)
	var refused *RefusedError
	if errors.As(err, &refused) && refused.Status == http.StatusNotFound || err == nil && len(lines) == 0 {
		return nil
	}
	if err == nil {
		err = s.head("Log")
	}
	if err != nil {
		return err
	}
	return s.printf("%s", strings.TrimRight(cleanLines(string(lines)), "\n"))
}

type logCommand struct {
	remote
	ID      string `arg:"" name:"id" help:"The job: its id or its seq."`
	Follow  bool   `short:"f" help:"Go on until the job has ended."`
	Attempt int    `placeholder:"N" help:"Only this attempt."`
	Tail    int    `short:"n" placeholder:"N" help:"Only the last N lines."`
}

// Run prints the log of a job: as text, or with -o json an object a line.
func (c *logCommand) Run(p *Program) error {
	s, err := c.open(p)
	if err != nil {
		return err
	}
	defer s.end()
	query := url.Values{}
	for name, n := range map[string]int{"attempt": c.Attempt, "tail": c.Tail} {
		if n != 0 {
			query.Set(name, strconv.Itoa(n))
		}
	}
	if c.Follow {
		query.Set("follow", "true")
	}
	accept := "text/plain"
	if c.Output == "json" {
		accept = "application/x-ndjson"
	}
	path := "/jobs/" + url.PathEscape(c.ID) + "/log"
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	answer, err := s.Send(s.ctx, http.MethodGet, path, nil, Header{"Accept", accept})
	if err != nil {
		return s.interrupted(err, "the job goes on")
	}
	defer func() { _ = answer.Body.Close() }() // all of it has been read, or nobody wants it
	to := p.Stdout
	if s.live {
		to = cleaner{p.Stdout}
	}
	if _, err := io.Copy(to, answer.Body); err != nil && s.ctx.Err() == nil {
		return fmt.Errorf("the log was cut off: %w", err)
	}
	return nil
}

// cleaner writes what does not change a terminal. It may see half of a character as two
// errors, at the borders of what it gets.
type cleaner struct{ to io.Writer }

func (c cleaner) Write(b []byte) (int, error) {
	if _, err := io.WriteString(c.to, cleanLines(string(b))); err != nil {
		return 0, err
	}
	return len(b), nil
}
