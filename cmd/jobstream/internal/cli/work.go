package cli

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"jobstream/cmd/jobstream/internal/terminal"
)

type typesCommand struct {
	remote
	Type string `arg:"" optional:"" help:"Show this type, with its settings and its schema."`
}

// jobType is what the commands read of a type.
type jobType struct {
	Name   string `json:"name"`
	Run    string `json:"run"`
	Paused bool   `json:"paused"`
	Active int    `json:"active_workers"`
	Max    int    `json:"max_workers"`
	Depth  struct {
		Scheduled  int `json:"scheduled"`
		Pending    int `json:"pending"`
		Processing int `json:"processing"`
		Retrying   int `json:"retrying"`
	} `json:"depth"`
	Oldest      float64    `json:"oldest_seconds"`
	Description string     `json:"description"`
	PausedBy    string     `json:"paused_by"`
	PausedAt    *time.Time `json:"paused_at"`
	Minute      lastMinute `json:"last_minute"`
}

// lastMinute is what a type has done in it.
type lastMinute struct {
	In     int `json:"in"`
	Done   int `json:"done"`
	Failed int `json:"failed"`
	Wait   *percentiles
	Run    *percentiles
}

// percentiles of a span, in seconds.
type percentiles struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
}

// Run lists types, or shows one.
func (c *typesCommand) Run(p *Program) error {
	s, err := c.open(p)
	if err != nil {
		return err
	}
	defer s.end()
	if c.Type != "" {
		text, err := s.get(s.ctx, "/types/"+url.PathEscape(c.Type), nil, nil)
		if err != nil {
			return err
		}
		return s.raw(text)
	}
	var all struct {
		Types []jobType `json:"types"`
	}
	text, err := s.get(s.ctx, "/types", nil, &all)
	if err != nil {
		return err
	}
	if s.json {
		return s.raw(text)
	}
	rows := make([][]cell, len(all.Types))
	for i := range all.Types {
		rows[i] = all.Types[i].row()
	}
	return s.table([]string{"TYPE", "RUNS", ">WAITING", ">OLDEST", ">LATER", ">RUNNING", ">LAST MINUTE", ">FAILED", "DETAIL"}, rows)
}

func (t *jobType) row() []cell {
	says := text(t.Description)
	if t.Paused {
		says = cell{t.pause(), warn}
	}
	return []cell{
		text(t.Name),
		{t.Run, faint},
		number(t.Depth.Pending), text(seconds(t.Oldest)), number(t.Depth.Scheduled + t.Depth.Retrying),
		running(t.Active, t.Max), number(t.Minute.Done), failedOf(t.Minute.Failed), says,
	}
}

// pause says who has paused it.
func (t *jobType) pause() string {
	out := "paused"
	if t.PausedBy != "" {
		out += " by " + t.PausedBy
	}
	if t.PausedAt != nil {
		out += " " + ago(t.PausedAt)
	}
	return out
}

// running is a number of jobs, with its bound if there is one.
func running(n, most int) cell {
	if most == 0 {
		return number(n)
	}
	return text(fmt.Sprintf("%d/%d", n, most))
}

// failedOf is a number of failures.
func failedOf(n int) cell {
	if n == 0 {
		return number(0)
	}
	return cell{strconv.Itoa(n), bad}
}

type pauseCommand struct {
	remote
	Types   []string `arg:"" optional:"" name:"type" help:"The job types."`
	Workers bool     `help:"Pause the workers of this server instead: it starts no job of any type until it is resumed or starts anew."`
}

type resumeCommand struct {
	remote
	Types   []string `arg:"" optional:"" name:"type" help:"The job types."`
	Workers bool     `help:"Resume the workers of this server instead."`
}

// Run pauses types.
func (c *pauseCommand) Run(p *Program) error {
	return c.hold(p, "pause", "paused", c.Types, c.Workers)
}

// Run resumes types.
func (c *resumeCommand) Run(p *Program) error {
	return c.hold(p, "resume", "resumed", c.Types, c.Workers)
}

// hold pauses or resumes.
func (r *remote) hold(p *Program, verb, done string, types []string, workers bool) error {
	if (len(types) > 0) == workers {
		return Usagef("name the job types to %s, or give --workers", verb)
	}
	s, err := r.open(p)
	if err != nil {
		return err
	}
	defer s.end()
	paths := map[string]string{}
	for _, t := range types {
		paths[t] = "/types/" + url.PathEscape(t) + "/" + verb
	}
	if workers {
		paths["the workers"] = "/workers/" + verb
	}
	for _, name := range slices.Sorted(maps.Keys(paths)) {
		text, err := s.Do(s.ctx, http.MethodPost, paths[name], nil, nil)
		switch {
		case err != nil:
			return err
		case s.json:
			err = s.raw(text)
		case workers:
			err = s.printf("%s are %s", name, done)
		default:
			err = s.printf("%s is %s", clean(name), done)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

type failuresCommand struct {
	remote
	Type    []string `placeholder:"TYPE" sep:"none" help:"Only of this type. Repeat it for several."`
	Limit   int      `default:"50" placeholder:"N" help:"At most so many groups, 500 at most (default: ${default})."`
	Cursor  string   `placeholder:"CURSOR" help:"Go on where a list has ended: its next_cursor."`
	OrderBy string   `placeholder:"MOMENT" help:"count: the largest groups first (default: the latest)."`
	current
}

// Help is shown by failures --help.
func (failuresCommand) Help() string {
	return "Retry or delete a group by its fingerprint:\n  jobstream retry --fingerprint 0123456789abcdef"
}

// Run lists failures.
func (c *failuresCommand) Run(p *Program) error {
	s, err := c.open(p)
	if err != nil {
		return err
	}
	defer s.end()
	query := url.Values{"limit": {strconv.Itoa(c.Limit)}}
	if len(c.Type) > 0 {
		query["type"] = c.Type
	}
	for name, value := range map[string]string{"cursor": c.Cursor, "order_by": c.OrderBy} {
		if value != "" {
			query.Set(name, value)
		}
	}
	c.set(query)
	var all struct {
		Failures []struct {
			Fingerprint, Type, Error string
			Count                    int
			Permanent                bool
			First, Last              *time.Time
		} `json:"failures"`
		NextCursor string `json:"next_cursor"`
	}
	body, err := s.get(s.ctx, "/failures", query, &all)
	switch {
	case err != nil:
		return err
	case s.json:
		return s.raw(body)
	case len(all.Failures) == 0:
		return s.printf("no job has failed")
	}
	rows := make([][]cell, len(all.Failures))
	for i, f := range all.Failures {
		mends := text("")
		if f.Permanent {
			mends = cell{"no retry mends it", faint}
		}
		rows[i] = []cell{failedOf(f.Count), text(f.Type), {f.Fingerprint, faint}, text(ago(f.First)), text(ago(f.Last)), mends, text(f.Error)}
	}
	if err := s.table([]string{">JOBS", "TYPE", "FINGERPRINT", "FIRST", "LAST", "", "ERROR"}, rows); err != nil {
		return err
	}
	if all.NextCursor != "" {
		return s.printf("%s", faint.Render("there are more: --limit, or --cursor "+all.NextCursor))
	}
	return nil
}

type statsCommand struct{ remote }

// stats are the numbers of the server, or of a type.
type stats struct {
	Active    int        `json:"active_workers"`
	Max       int        `json:"max_workers"`
	Queued    int        `json:"queued_jobs"`
	Scheduled int        `json:"scheduled_jobs"`
	Completed int        `json:"completed_jobs"`
	Failed    int        `json:"failed_jobs"`
	Cancelled int        `json:"cancelled_jobs"`
	Retrying  int        `json:"retrying_jobs"`
	Oldest    float64    `json:"oldest_seconds"`
	Minute    lastMinute `json:"last_minute"`
}

// Run shows numbers of jobs and workers.
func (c *statsCommand) Run(p *Program) error {
	s, err := c.open(p)
	if err != nil {
		return err
	}
	defer s.end()
	var all struct {
		stats
		Uptime float64          `json:"uptime_seconds"`
		Paused bool             `json:"paused"`
		Types  map[string]stats `json:"types"`
		Node   struct {
			Disk   int64   `json:"disk_free_bytes"`
			Commit float64 `json:"commit_ms"`
		} `json:"node"`
	}
	body, err := s.get(s.ctx, "/workers/stats", nil, &all)
	if err != nil {
		return err
	}
	if s.json {
		return s.raw(body)
	}
	paused := ""
	if all.Paused {
		paused = ", " + warn.Render("paused")
	}
	if err := s.printf("%d of %d workers busy%s, up for %s, %s of disk free\n", all.Active, all.Max, paused, span(time.Duration(all.Uptime)*time.Second), terminal.Bytes(all.Node.Disk)); err != nil {
		return err
	}
	var rows [][]cell
	for _, name := range slices.Sorted(maps.Keys(all.Types)) {
		t := all.Types[name]
		rows = append(rows, t.row(name))
	}
	total := all.row("all")
	for i := range total {
		total[i].style = total[i].style.Bold(true)
	}
	return s.table([]string{"TYPE", ">WAITING", ">OLDEST", ">RUNNING", ">SCHEDULED", ">RETRYING", ">COMPLETED", ">FAILED", ">CANCELLED", ">WAIT P95", ">RUN P95"}, append(rows, total))
}

func (t *stats) row(name string) []cell {
	p95 := func(p *percentiles) cell {
		if p == nil {
			return text("")
		}
		return text(seconds(p.P95))
	}
	return []cell{
		text(name), number(max(t.Queued-t.Active-t.Retrying, 0)), text(seconds(t.Oldest)), running(t.Active, t.Max), number(t.Scheduled), number(t.Retrying),
		number(t.Completed), failedOf(t.Failed), number(t.Cancelled), p95(t.Minute.Wait), p95(t.Minute.Run),
	}
}

type schedulesCommand struct {
	List   listSchedulesCommand  `cmd:"" default:"withargs" help:"List the schedules, or show one (the default)."`
	Run    runScheduleCommand    `cmd:"" help:"Submit the job of a schedule now, outside its plan."`
	Pause  pauseScheduleCommand  `cmd:"" help:"Pause a schedule: it makes no jobs."`
	Resume resumeScheduleCommand `cmd:"" help:"Resume a schedule."`
	Delete deleteScheduleCommand `cmd:"" help:"Delete a schedule. Its jobs stay."`
}

type listSchedulesCommand struct {
	remote
	Name string `arg:"" optional:"" help:"Show this schedule."`
}

// oneSchedule is a command about one.
type oneSchedule struct {
	remote
	Name string `arg:"" help:"The schedule."`
}

type (
	runScheduleCommand    struct{ oneSchedule }
	pauseScheduleCommand  struct{ oneSchedule }
	resumeScheduleCommand struct{ oneSchedule }
	deleteScheduleCommand struct{ oneSchedule }
)

// Run lists schedules.
func (c *listSchedulesCommand) Run(p *Program) error {
	s, err := c.open(p)
	if err != nil {
		return err
	}
	defer s.end()
	if c.Name != "" {
		body, err := s.get(s.ctx, schedulePath(c.Name), nil, nil)
		if err != nil {
			return err
		}
		return s.raw(body)
	}
	var all struct {
		Schedules []struct {
			Name     string     `json:"name"`
			Cron     string     `json:"cron"`
			Every    any        `json:"every"`
			Timezone string     `json:"timezone"`
			Type     string     `json:"type"`
			Paused   bool       `json:"paused"`
			Next     *time.Time `json:"next_run_at"`
			Last     *time.Time `json:"last_run_at"`
			Problem  string     `json:"problem"`
			Source   string     `json:"source"`
		} `json:"schedules"`
	}
	body, err := s.get(s.ctx, "/schedules", nil, &all)
	switch {
	case err != nil:
		return err
	case s.json:
		return s.raw(body)
	case len(all.Schedules) == 0:
		return s.printf("there are no schedules; POST /schedules makes one, or the section schedules of the configuration")
	}
	rows := make([][]cell, len(all.Schedules))
	for i, d := range all.Schedules {
		when, says := d.Cron+" "+d.Timezone, text("")
		if d.Cron == "" {
			when = fmt.Sprint("every ", every(d.Every))
		}
		switch {
		case d.Problem != "":
			says = cell{d.Problem, bad}
		case d.Paused:
			says = cell{"paused", warn}
		}
		rows[i] = []cell{text(d.Name), text(d.Type), text(when), text(ago(d.Next)), text(ago(d.Last)), {d.Source, faint}, says}
	}
	return s.table([]string{"NAME", "TYPE", "WHEN", "NEXT", "LAST", "FROM", "DETAIL"}, rows)
}

// every is the period of a schedule: a number is of seconds.
func every(v any) string {
	if n, is := v.(float64); is {
		return seconds(n)
	}
	return fmt.Sprint(v)
}

func schedulePath(name string) string { return "/schedules/" + url.PathEscape(name) }

// Run runs a schedule now.
func (c *runScheduleCommand) Run(p *Program) error { return c.do(p, http.MethodPost, "/run", "") }

// Run pauses a schedule.
func (c *pauseScheduleCommand) Run(p *Program) error {
	return c.do(p, http.MethodPost, "/pause", "paused")
}

// Run resumes a schedule.
func (c *resumeScheduleCommand) Run(p *Program) error {
	return c.do(p, http.MethodPost, "/resume", "resumed")
}

// Run deletes a schedule.
func (c *deleteScheduleCommand) Run(p *Program) error {
	return c.do(p, http.MethodDelete, "", "deleted")
}

// do makes a request about the schedule. Without done the answer is a job.
func (c *oneSchedule) do(p *Program, method, action, done string) error {
	s, err := c.open(p)
	if err != nil {
		return err
	}
	defer s.end()
	body, err := s.Do(s.ctx, method, schedulePath(c.Name)+action, nil, nil)
	switch {
	case err != nil:
		return err
	case s.json && len(body) > 0:
		return s.raw(body)
	case s.json:
		return s.value(map[string]string{done: c.Name})
	case done != "":
		return s.printf("%s is %s", clean(c.Name), done)
	}
	var j job
	if err := json.Unmarshal(body, &j); err != nil {
		return fmt.Errorf("that is no server of this version: %w", err)
	}
	return s.printf("%s is %s; its id is %s", strings.TrimSpace(j.name()), status(j.Status).style.Render(j.Status), j.ID)
}
