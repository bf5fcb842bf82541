package cli

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"jobstream/cmd/jobstream/internal/terminal"
)

type jobsCommand struct {
	remote
	filter
	Limit   int    `default:"50" placeholder:"N" help:"At most so many (default: ${default})."`
	Cursor  string `placeholder:"CURSOR" help:"Go on where a list has ended: its next_cursor."`
	Order   string `placeholder:"desc|asc" help:"Newest first (desc, the default) or oldest first (asc)."`
	OrderBy string `placeholder:"MOMENT" help:"created (the default), ended, run_at (of those that wait for it) or started (of running ones)."`
	Waiting bool   `help:"Say why each job waits."`
	current
	Watch bool          `help:"Show the list again and again, until Ctrl-C. As JSON, print each job when it is new or has changed."`
	Every time.Duration `default:"2s" placeholder:"SPAN" help:"How often --watch looks (default: ${default})."`
}

// Help is shown by jobs --help.
func (jobsCommand) Help() string {
	return `Examples:
  jobstream jobs --status failed --type email --error timeout --created-after 2d
  jobstream jobs --order-by run_at --order asc
  jobstream jobs --status failed -o json | jq -r '.jobs[].id'`
}

// maxPage is how many jobs the server lists by one request.
const maxPage = 500

// list is the jobs that were found. Its JSON is that of the API.
type list struct {
	Jobs       []json.RawMessage `json:"jobs"`
	NextCursor string            `json:"next_cursor"`
}

// Run lists jobs.
func (c *jobsCommand) Run(p *Program) error {
	if c.Limit < 1 {
		return Usagef("--limit must be 1 or more, not %d", c.Limit)
	}
	if c.Every < 100*time.Millisecond {
		return Usagef("--every must be 100ms or more, not %s", c.Every)
	}
	s, err := c.open(p)
	if err != nil {
		return err
	}
	defer s.end()
	if c.Watch {
		return c.watch(s)
	}
	found, err := c.find(s)
	if err != nil {
		return err
	}
	if s.json {
		return s.value(found)
	}
	shown, err := found.jobs()
	if err != nil {
		return err
	}
	if len(shown) == 0 {
		return s.printf("there are no such jobs")
	}
	if err := s.printf("%s", jobsTable(shown, s.width)); err != nil {
		return err
	}
	if found.NextCursor != "" {
		return s.printf("%s", faint.Render("there are more: --limit, or --cursor "+found.NextCursor))
	}
	return nil
}

// find reads pages until there are enough jobs, or no more.
func (c *jobsCommand) find(s *session) (*list, error) {
	query := c.query()
	for name, value := range map[string]string{"cursor": c.Cursor, "order": c.Order, "order_by": c.OrderBy} {
		if value != "" {
			query.Set(name, value)
		}
	}
	c.set(query)
	if c.Waiting {
		query.Set("include", "waiting")
	}
	return s.findJobs(query, c.Limit)
}

// findJobs reads pages of jobs until there are enough, or no more.
func (s *session) findJobs(query url.Values, limit int) (*list, error) {
	all := &list{Jobs: []json.RawMessage{}}
	for {
		query.Set("limit", strconv.Itoa(min(limit-len(all.Jobs), maxPage)))
		var part list
		if _, err := s.get(s.ctx, "/jobs", query, &part); err != nil {
			return nil, err
		}
		all.Jobs = append(all.Jobs, part.Jobs...)
		if all.NextCursor = part.NextCursor; part.NextCursor == "" || len(all.Jobs) >= limit {
			return all, nil
		}
		query.Set("cursor", part.NextCursor)
	}
}

// jobs are the jobs as the commands read them.
func (l *list) jobs() ([]job, error) {
	all := make([]job, len(l.Jobs))
	for i, text := range l.Jobs {
		if err := json.Unmarshal(text, &all[i]); err != nil {
			return nil, fmt.Errorf("that is no server of this version: %w", err)
		}
	}
	return all, nil
}

// wide is the width from which lists have ids; each job has its seq anyway.
const wide = 120

// jobsTable shows jobs in a page of this width; 0 = any.
func jobsTable(all []job, width int) string {
	headers := []string{"STATUS", "TYPE", ">SEQ", "ID", ">RUN", "CREATED", ">TOOK", "DETAIL"}
	rows := make([][]cell, len(all))
	for i := range all {
		j := &all[i]
		rows[i] = []cell{
			status(j.Status), text(j.Type), text(strconv.FormatUint(j.Seq, 10)),
			{j.ID, faint},
			text(fmt.Sprintf("%d/%d", j.Attempt, j.MaxAttempts)), text(ago(j.CreatedAt)), text(j.took()), saying(j),
		}
	}
	if width > 0 && width < wide {
		headers = append(headers[:3:3], headers[4:]...)
		for i, row := range rows {
			rows[i] = append(row[:3:3], row[4:]...)
		}
	}
	return render(headers, rows, width)
}

// saying is the text about a job in a list.
func saying(j *job) cell {
	if j.Error != "" && (j.Status == "failed" || j.Status == "retrying") {
		return cell{j.says(), bad}
	}
	return text(j.says())
}

// watch shows the list again and again.
func (c *jobsCommand) watch(s *session) error {
	tick := time.NewTicker(c.Every)
	defer tick.Stop()
	seen := map[string]string{}
	for {
		found, err := c.find(s)
		if s.ctx.Err() != nil {
			return nil //nolint:nilerr // Ctrl-C is how it ends
		}
		switch {
		case err != nil && !passing(err):
			return err
		case err != nil:
			_, _ = fmt.Fprintf(s.p.Stderr, "%v\n", err) // and look again
		case s.json:
			err = s.changed(found, seen)
		default:
			err = c.redraw(s, found)
		}
		if err != nil && !passing(err) {
			return err
		}
		select {
		case <-tick.C:
		case <-s.ctx.Done():
			return nil
		}
	}
}

// changed prints the jobs that differ from what was seen, a line each.
func (s *session) changed(found *list, seen map[string]string) error {
	now := make(map[string]string, len(found.Jobs))
	for _, text := range found.Jobs {
		var j struct {
			ID string `json:"id"`
		}
		if err := json.Unmarshal(text, &j); err != nil {
			return err
		}
		now[j.ID] = string(text)
		if seen[j.ID] != string(text) {
			if _, err := fmt.Fprintf(s.p.Stdout, "%s\n", text); err != nil {
				return err
			}
		}
	}
	clear(seen)
	for id, text := range now {
		seen[id] = text
	}
	return nil
}

// clearScreen moves the cursor to the start of an empty screen.
const clearScreen = "\x1b[H\x1b[2J"

// redraw shows the list on an empty screen, as far as it fits.
func (c *jobsCommand) redraw(s *session, found *list) error {
	all, err := found.jobs()
	if err != nil {
		return err
	}
	width, height := terminal.Size(s.p.Stdout)
	if s.live {
		_, err = fmt.Fprint(s.p.Stdout, clearScreen)
	}
	if err != nil {
		return err
	}
	head := fmt.Sprintf("%s, every %s, Ctrl-C ends it", time.Now().Format(time.TimeOnly), span(c.Every))
	lines := []string{faint.Render(head), "", "there are no such jobs"}
	if len(all) > 0 {
		lines = append(lines[:2], strings.Split(jobsTable(all, width), "\n")...)
	}
	if s.live && len(lines) > height-1 {
		lines = lines[:max(height-1, 1)]
	}
	return s.printf("%s", strings.Join(lines, "\n"))
}
