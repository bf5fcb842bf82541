package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"jobstream/cmd/jobstream/internal/terminal"
)

type submitCommand struct {
	remote
	Type    string `arg:"" help:"The job type, one of jobstream types."`
	Payload string `short:"p" placeholder:"FILE|JSON" help:"The payload: JSON, or a file with it; - is the standard input."`
	terms
	Input   map[string]string `placeholder:"NAME=FILE" mapsep:"none" help:"A file that the job needs; it is uploaded. NAME=artifact:ID names one that is on the server. Repeat it for several."`
	Tag     []string          `placeholder:"TAG" sep:"none" help:"A tag to find it by. Repeat it for several."`
	OnlyKey string            `name:"idempotency-key" placeholder:"KEY" help:"Submitting again with the same key, within 24 hours, makes no other job."`
	Wait    bool              `short:"w" help:"Wait until the job has ended. The exit code is 3 if it fails."`
}

// terms are the fields of a submission that are plain values, by their names in the API.
type terms struct {
	Priority       *int   `placeholder:"N" help:"1 (first) to 5; 3 without it."`
	Delay          string `placeholder:"SPAN" help:"Start it that much later, like 10m."`
	RunAt          string `placeholder:"TIME" help:"Start it then, like 2030-01-31T08:00:00Z."`
	TTL            string `name:"ttl" placeholder:"SPAN" help:"Cancel it unless it has started that long after it could."`
	ExpiresAt      string `placeholder:"TIME" help:"Cancel it unless it has started by then."`
	Deadline       string `placeholder:"SPAN|TIME" help:"It fails unless it has ended by then."`
	RetryCount     *int   `placeholder:"N" help:"How often it is tried again after a failure."`
	Timeout        string `placeholder:"SPAN" help:"How long an attempt may take."`
	UniqueKey      string `placeholder:"KEY" help:"At most one unfinished job has this key."`
	ConcurrencyKey string `placeholder:"KEY" help:"Jobs of its type with this key run one at a time."`
	CallbackURL    string `name:"callback-url" placeholder:"URL" help:"It gets a POST with the job when that has ended."`
	Traceparent    string `placeholder:"TRACE" help:"Its place in a trace (W3C Trace Context), like $$TRACEPARENT."`
}

// into puts the terms into a submission.
func (t *terms) into(s map[string]any) {
	for name, value := range map[string]string{
		"delay": t.Delay, "run_at": t.RunAt, "ttl": t.TTL, "expires_at": t.ExpiresAt, "deadline": t.Deadline, "timeout": t.Timeout,
		"unique_key": t.UniqueKey, "concurrency_key": t.ConcurrencyKey, "callback_url": t.CallbackURL, "traceparent": t.Traceparent,
	} {
		if value != "" {
			s[name] = value
		}
	}
	for name, value := range map[string]*int{"priority": t.Priority, "retry_count": t.RetryCount} {
		if value != nil {
			s[name] = *value
		}
	}
}

// Help is shown by submit --help.
func (submitCommand) Help() string {
	return `Examples:
  jobstream submit report --wait
  jobstream submit email -p '{"to":"ann@example.com","subject":"Hello","body":"Hi"}' --delay 10m
  jobstream submit resize -p job.json --input image=photo.png --priority 1 --tag web`
}

// Run submits the job, and waits for its end if that is wanted.
func (c *submitCommand) Run(p *Program) error {
	payload, err := c.payload(p.Stdin)
	if err != nil {
		return err
	}
	s, err := c.open(p)
	if err != nil {
		return err
	}
	defer s.end()
	body := map[string]any{"type": c.Type}
	if payload != nil {
		body["payload"] = payload
	}
	c.into(body)
	if len(c.Tag) > 0 {
		body["tags"] = c.Tag
	}
	if len(c.Input) > 0 {
		if body["inputs"], err = c.inputs(s); err != nil {
			return err
		}
	}
	var headers []Header
	if c.OnlyKey != "" {
		headers = append(headers, Header{"Idempotency-Key", c.OnlyKey})
	}
	var j job
	text, err := s.Do(s.ctx, http.MethodPost, "/jobs", body, &j, headers...)
	if err != nil {
		return err
	}
	if c.Wait {
		return c.wait(s, &j)
	}
	if s.json {
		return s.raw(text)
	}
	line := fmt.Sprintf("%s is %s; its id is %s", j.name(), status(j.Status).style.Render(j.Status), j.ID)
	if j.RunAt != nil && !j.ended() {
		line += "; it starts " + ago(j.RunAt)
	}
	return s.printf("%s", line)
}

// wait waits for the end of the job, and prints it.
func (c *submitCommand) wait(s *session, submitted *job) error {
	j, err := s.awaitEnd(submitted.ID)
	if err == nil && j.Status != "completed" {
		err = &JobError{j.ID, j.Status, j.Error}
	}
	return err
}

// awaitEnd waits until a job has ended, and prints what has become of it.
func (s *session) awaitEnd(id string) (*job, error) {
	j, text, err := s.await(id)
	if err != nil {
		return nil, err
	}
	if s.json {
		return j, s.raw(text)
	}
	return j, s.shortEnd(j, text)
}

// shortEnd prints what has become of a job.
func (s *session) shortEnd(j *job, text []byte) error {
	line := fmt.Sprintf("%s is %s", j.name(), status(j.Status).style.Render(j.Status))
	if took := j.took(); took != "" {
		line += " after " + took
	}
	if err := s.printf("%s", line); err != nil {
		return err
	}
	var more struct {
		Result   json.RawMessage `json:"result"`
		Artifact *artifact       `json:"artifact"`
	}
	if err := json.Unmarshal(text, &more); err != nil {
		return err
	}
	if more.Artifact != nil {
		if err := s.printf("file: %s (%s, %s)", clean(more.Artifact.Name), clean(more.Artifact.ContentType), terminal.Bytes(more.Artifact.Size)); err != nil {
			return err
		}
	}
	if len(more.Result) == 0 || string(more.Result) == "null" {
		return nil
	}
	return s.raw(more.Result)
}

// payload reads the payload; nil = there is none.
func (c *submitCommand) payload(stdin io.Reader) (json.RawMessage, error) {
	var text []byte
	var err error
	from := "the standard input"
	switch {
	case c.Payload == "":
		return nil, nil
	case c.Payload == "-":
		text, err = io.ReadAll(stdin)
	case json.Valid([]byte(c.Payload)):
		return json.RawMessage(c.Payload), nil
	case strings.ContainsAny(c.Payload[:1], `{["`):
		return nil, Usagef("-p: %w", whyNotJSON([]byte(c.Payload)))
	default:
		from = c.Payload
		text, err = os.ReadFile(c.Payload)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, Usagef("-p: %s is neither JSON nor a file; a text in JSON has quotes of its own: '\"…\"'", c.Payload)
	case err != nil:
		return nil, Usagef("-p: %w", err)
	case !json.Valid(text):
		return nil, Usagef("-p: in %s: %w", from, whyNotJSON(text))
	}
	return text, nil
}

func whyNotJSON(text []byte) error {
	var v any
	err := json.Unmarshal(text, &v)
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return fmt.Errorf("no JSON: %w (after %d bytes)", err, syntax.Offset)
	}
	return fmt.Errorf("no JSON: %w", err)
}

// inputs uploads the files that are named, and returns the ids of all.
func (c *submitCommand) inputs(s *session) (map[string]string, error) {
	ids := make(map[string]string, len(c.Input))
	for name, from := range c.Input {
		if id, there := strings.CutPrefix(from, "artifact:"); there {
			ids[name] = id
			continue
		}
		id, err := s.upload(from)
		if err != nil {
			return nil, fmt.Errorf("--input %s: %w", name, err)
		}
		ids[name] = id
	}
	return ids, nil
}

// upload stores a file on the server, and returns its id.
func (s *session) upload(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", &UsageError{err}
	}
	defer func() { _ = f.Close() }() // it is only read
	kind := mime.TypeByExtension(filepath.Ext(path))
	if kind == "" {
		kind = "application/octet-stream"
	}
	bar := terminal.On(s.p.Stderr)
	defer bar.End()
	shown := bar.Reading("sending "+clean(path), f)
	if info, err := f.Stat(); err == nil {
		shown.Expect(info.Size())
	}
	answer, err := s.Send(s.ctx, http.MethodPost, "/artifacts", shown, Header{"Content-Type", kind}, //nolint:bodyclose // whole closes it
		Header{"Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": filepath.Base(path)})})
	if err != nil {
		return "", err
	}
	text, err := whole(answer)
	if err != nil {
		return "", err
	}
	var made struct {
		ID string `json:"id"`
	}
	err = json.Unmarshal(text, &made)
	return made.ID, err
}
