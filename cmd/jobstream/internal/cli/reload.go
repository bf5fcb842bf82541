package cli

import (
	"net/http"
	"strings"
)

type reloadCommand struct{ remote }

// reloaded is what a reload has changed: names of types, and keys.
type reloaded struct {
	Added        []string `json:"added"`
	Changed      []string `json:"changed"`
	Removed      []string `json:"removed"`
	TakenUp      []string `json:"taken_up"`
	NeedsRestart []string `json:"needs_restart"`
}

// Run has the server take up its configuration, and prints what has changed.
func (c *reloadCommand) Run(p *Program) error {
	s, err := c.open(p)
	if err != nil {
		return err
	}
	defer s.end()
	var done reloaded
	text, err := s.Do(s.ctx, http.MethodPost, "/reload", nil, &done)
	switch {
	case err != nil:
		return err
	case s.json:
		return s.raw(text)
	}
	return s.printf("%s", done.String())
}

// String says what has changed, a line for each kind of change.
func (r *reloaded) String() string {
	var lines []string
	line := func(what string, names []string) {
		if len(names) > 0 {
			lines = append(lines, what+": "+clean(strings.Join(names, ", ")))
		}
	}
	line("added", r.Added)
	line("changed", r.Changed)
	line("removed", r.Removed)
	line("taken up", r.TakenUp)
	if len(lines) == 0 {
		lines = append(lines, "no job type has changed")
	}
	line("needs a restart", r.NeedsRestart)
	return strings.Join(lines, "\n")
}
