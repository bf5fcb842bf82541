package cli

import (
	"bufio"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"jobstream/cmd/jobstream/internal/terminal"
)

// chosen are the jobs of a command that changes some: named ones, or all that a filter
// finds.
type chosen struct {
	IDs []string `arg:"" optional:"" name:"id" help:"The jobs: their ids or their seqs."`
	filter
	bulk
}

// bulk are the flags of a change of all jobs that a filter finds.
type bulk struct {
	All    bool `help:"All jobs, without a filter."`
	DryRun bool `help:"Only say how many jobs it would change."`
	Yes    bool `short:"y" help:"Do not ask."`
}

type cancelCommand struct {
	remote
	chosen
	Reason string `placeholder:"TEXT" help:"Why; the jobs show it as their error."`
}

type retryCommand struct {
	remote
	chosen
}

type deleteCommand struct {
	remote
	chosen
}

type runCommand struct {
	remote
	IDs []string `arg:"" name:"id" help:"The jobs: their ids or their seqs."`
}

// Help is shown by cancel --help.
func (cancelCommand) Help() string { return bulkHelp("cancel", "--type email --status pending") }

// Help is shown by retry --help.
func (retryCommand) Help() string {
	return bulkHelp("retry", "--status failed --type email --error timeout")
}

// Help is shown by delete --help.
func (deleteCommand) Help() string {
	return bulkHelp("delete", "--status completed --ended-before 30d")
}

func bulkHelp(verb, example string) string {
	return fmt.Sprintf(`Name jobs, or choose them by a filter. With a filter it says first how many jobs it would change, and asks. Without a terminal it needs --yes.

Examples:
  jobstream %[1]s 42 43
  jobstream %[1]s %[2]s
  jobstream %[1]s %[2]s --dry-run`, verb, example)
}

// Run cancels jobs.
func (c *cancelCommand) Run(p *Program) error {
	return c.change(&c.remote, p, &change{verb: "cancel", done: "cancelled", reason: c.Reason})
}

// Run retries jobs.
func (c *retryCommand) Run(p *Program) error {
	return c.change(&c.remote, p, &change{verb: "retry", done: "retried"})
}

// Run deletes jobs.
func (c *deleteCommand) Run(p *Program) error {
	return c.change(&c.remote, p, &change{verb: "delete", done: "deleted"})
}

// Run starts jobs now.
func (c *runCommand) Run(p *Program) error {
	s, err := c.open(p)
	if err != nil {
		return err
	}
	defer s.end()
	return s.each(c.IDs, &change{verb: "run", done: "no longer waiting for its moment"})
}

// change is what a command does to jobs.
type change struct {
	verb, done string // "cancel", "cancelled"
	reason     string // of a cancellation
}

// body is the body of a request for one job.
func (c *change) body() any {
	if c.reason == "" {
		return nil
	}
	return map[string]string{"reason": c.reason}
}

func (c *chosen) change(r *remote, p *Program, what *change) error {
	byFilter := len(c.query()) > 0 || c.All
	switch {
	case len(c.IDs) > 0 && byFilter:
		return Usagef("name jobs or choose them by flags, not both")
	case len(c.IDs) > 0 && c.DryRun:
		return Usagef("--dry-run is for jobs that are chosen by flags, like --status failed")
	case len(c.IDs) == 0 && !byFilter:
		return Usagef("which jobs? Name their ids, or choose them by flags like --status failed, or --all")
	}
	s, err := r.open(p)
	if err != nil {
		return err
	}
	defer s.end()
	if len(c.IDs) > 0 {
		return s.each(c.IDs, what)
	}
	return c.many(s, what)
}

// each changes one job after the other. A refusal stops none of the others.
func (s *session) each(ids []string, what *change) error {
	var refusals []error
	for _, id := range ids {
		method, path := http.MethodPost, "/jobs/"+url.PathEscape(id)+"/"+what.verb
		if what.verb == "delete" {
			method, path = http.MethodDelete, "/jobs/"+url.PathEscape(id)
		}
		var j job
		var out any = &j
		if method == http.MethodDelete {
			out = nil
		}
		text, err := s.Do(s.ctx, method, path, what.body(), out)
		switch {
		case err != nil && (s.ctx.Err() != nil || len(ids) == 1):
			return s.interrupted(err, "some jobs may have been changed")
		case err != nil:
			_, _ = fmt.Fprintf(s.p.Stderr, "%s: %v\n", clean(id), err)
			refusals = append(refusals, err)
		case s.json && out != nil:
			err = s.raw(text)
		case s.json:
			err = s.value(map[string]string{"deleted": id})
		case out == nil:
			err = s.printf("%s is deleted", clean(id))
		default:
			err = s.printf("%s is %s", j.name(), cmpDone(&j, what))
		}
		if err != nil && len(refusals) == 0 {
			return err
		}
	}
	if len(refusals) > 0 {
		return fmt.Errorf("%d of %d jobs are as they were", len(refusals), len(ids))
	}
	return nil
}

// cmpDone says how a job is after a change: a cancelled one that runs has still to end.
func cmpDone(j *job, what *change) string {
	if what.verb == "cancel" && !j.ended() {
		return "told to stop"
	}
	if what.verb == "run" {
		return what.done
	}
	return status(j.Status).style.Render(j.Status)
}

// many changes all jobs that the filter finds, once somebody has agreed.
func (c *chosen) many(s *session, what *change) error {
	body := map[string]any{"action": what.verb, "dry_run": true}
	if f := c.body(); len(f) > 0 {
		body["filter"] = f
	} else {
		body["all"] = true
	}
	if what.reason != "" {
		body["reason"] = what.reason
	}
	var would struct {
		Matched int `json:"matched"`
	}
	text, err := s.Do(s.ctx, http.MethodPost, "/jobs/bulk", body, &would)
	if err != nil {
		return err
	}
	switch {
	case c.DryRun && s.json:
		return s.raw(text)
	case c.DryRun:
		return s.printf("%s would be %s", plural(would.Matched), what.done)
	case would.Matched == 0 && !s.json:
		return s.printf("there are no such jobs to %s", what.verb)
	}
	if would.Matched > 0 && !c.Yes {
		if err := c.agree(s, what, would.Matched); err != nil {
			return err
		}
	}
	delete(body, "dry_run")
	var j job
	if _, err := s.Do(s.ctx, http.MethodPost, "/jobs/bulk", body, &j); err != nil {
		return err
	}
	return s.report(j.ID, what)
}

// report waits for the job that makes a change, and prints what it has done.
func (s *session) report(id string, what *change) error {
	j, err := s.awaitEnd(id)
	if err == nil && j.Status != "completed" {
		err = fmt.Errorf("not all jobs could be %s: %s", what.done, clean(j.Error))
	}
	return err
}

// agree asks for a yes.
func (c *chosen) agree(s *session, what *change, n int) error {
	if !terminal.Is(s.p.Stdin) || !terminal.Is(s.p.Stderr) {
		return Usagef("%s would be %s; repeat it with --yes to do it, or with --dry-run to see only the number", plural(n), what.done)
	}
	_, _ = fmt.Fprintf(s.p.Stderr, "%s will be %s. Go on? [y/N] ", plural(n), what.done)
	answer := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(s.p.Stdin).ReadString('\n') // "" with an error, which is no yes
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case yes := <-answer:
		if yes == "y" || yes == "yes" {
			return nil
		}
	case <-s.ctx.Done():
	}
	return fmt.Errorf("nothing has been changed")
}

func plural(n int) string {
	if n == 1 {
		return "1 job"
	}
	return fmt.Sprintf("%d jobs", n)
}
