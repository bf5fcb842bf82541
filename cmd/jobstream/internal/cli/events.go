package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// message is one of the server's stream of events.
type message struct {
	id, event string
	data      []byte
}

// follow reads the stream of events at a path until ctx ends, or use returns an error. It
// comes back after an interruption, with the last id; lost says why it was interrupted.
func (c *Client) follow(ctx context.Context, path string, use func(*message) error, lost func(error)) error {
	last, pause := "", pauseFirst
	for {
		err := c.stream(ctx, path, &last, func(m *message) error {
			pause = pauseFirst
			return use(m)
		})
		var stop *stopError
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // that is how it ends
		case errors.As(err, &stop):
			return stop.err
		case !passing(err) && !errors.Is(err, errCutOff):
			return err
		}
		lost(err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
		pause = min(2*pause, pauseMost)
	}
}

// stopError is an error of the one who uses a stream.
type stopError struct{ err error }

func (e *stopError) Error() string { return e.err.Error() }

// errCutOff says that a stream has ended.
var errCutOff = errors.New("the server has ended the stream of events")

// maxMessage bounds a message, in bytes.
const maxMessage = 16 << 20

// stream reads one answer with events, and keeps the last id.
func (c *Client) stream(ctx context.Context, path string, last *string, use func(*message) error) error {
	headers := []Header{{"Accept", "text/event-stream"}}
	if *last != "" {
		headers = append(headers, Header{"Last-Event-ID", *last})
	}
	answer, err := c.Send(ctx, http.MethodGet, path, nil, headers...)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }() // nobody wants more
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(nil, maxMessage)
	var m message
	for lines.Scan() {
		name, value, _ := bytes.Cut(lines.Bytes(), []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(name) {
		case "id":
			m.id = string(value)
		case "event":
			m.event = string(value)
		case "data":
			m.data = append(m.data, value...)
		case "":
			if len(lines.Bytes()) > 0 { // a comment
				continue
			}
			if m.id != "" {
				*last = m.id
			}
			if m.event != "" {
				if err := use(&m); err != nil {
					return &stopError{err}
				}
			}
			m = message{}
		}
	}
	return errCutOff
}

type tailCommand struct {
	remote
	Type   []string `placeholder:"TYPE" sep:"none" help:"Only jobs of this type. Repeat it and others for several."`
	Status []string `placeholder:"STATUS" sep:"none" help:"Only changes to this status."`
	Job    []string `placeholder:"ID" sep:"none" help:"Only this job, by its id."`
	Count  int      `placeholder:"N" help:"End after so many changes."`
}

// Help is shown by tail --help.
func (tailCommand) Help() string {
	return "As JSON it prints a line for each change: {\"event\":\"job.completed\",\"job\":{…}}. It outlasts a restart of the server."
}

// Run follows the changes of jobs.
func (c *tailCommand) Run(p *Program) error {
	s, err := c.open(p)
	if err != nil {
		return err
	}
	defer s.end()
	query := url.Values{}
	for name, values := range map[string][]string{"type": c.Type, "status": c.Status, "job": c.Job} {
		if len(values) > 0 {
			query[name] = values
		}
	}
	path := "/events"
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	silent, left := false, c.Count
	err = s.follow(s.ctx, path, func(m *message) error {
		silent = false
		if err := s.tell(m); err != nil || !strings.HasPrefix(m.event, jobEvent) {
			return err
		}
		if left--; left == 0 {
			return errEnough
		}
		return nil
	}, func(err error) {
		if !silent {
			_, _ = fmt.Fprintf(p.Stderr, "%v\nIt is asked again until it answers.\n", err)
		}
		silent = true
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// errEnough ends a stream that has had all that was wanted.
var errEnough = errors.New("that is enough")

// jobEvent begins the names of the changes of jobs.
const jobEvent = "job."

// tell prints a message.
func (s *session) tell(m *message) error {
	kind, is := strings.CutPrefix(m.event, jobEvent)
	if !is {
		var why struct{ Reason, Detail string }
		_ = json.Unmarshal(m.data, &why) // else its name says enough
		_, err := fmt.Fprintf(s.p.Stderr, "%s: %s %s\n", m.event, why.Reason, clean(why.Detail))
		return err
	}
	if s.json {
		_, err := fmt.Fprintf(s.p.Stdout, "{\"event\":%q,\"job\":%s}\n", m.event, m.data)
		return err
	}
	var j struct {
		job
		UpdatedAt *time.Time `json:"updated_at"`
	}
	if err := json.Unmarshal(m.data, &j); err != nil {
		return fmt.Errorf("that is no server of this version: %w", err)
	}
	when := ""
	if j.UpdatedAt != nil {
		when = j.UpdatedAt.Local().Format("15:04:05.000")
	}
	says := saying(&j.job)
	return s.printf("%s  %s  %s  %s", faint.Render(when), status(kind).style.Render(fmt.Sprintf("%-10s", kind)), clean(j.name()), says.style.Render(clean(says.text)))
}
