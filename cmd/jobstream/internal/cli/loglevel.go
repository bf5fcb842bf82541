package cli

import "net/http"

type logLevelCommand struct {
	remote
	Level string `arg:"" optional:"" help:"debug, info, warn or error, from now on; without one the level is shown."`
}

// Help is shown by log-level --help.
func (logLevelCommand) Help() string {
	return "It changes what the running server logs, until it starts again, or until log.level is edited in its configuration and jobstream reload takes that up. At debug it also logs each line of each job's log, and each request."
}

// Run changes the level of the server's log, or shows it.
func (c *logLevelCommand) Run(p *Program) error {
	s, err := c.open(p)
	if err != nil {
		return err
	}
	defer s.end()
	var is struct {
		Level string `json:"log_level"`
	}
	if c.Level != "" {
		is.Level = c.Level
		_, err = s.Do(s.ctx, http.MethodPut, "/log", map[string]string{"level": c.Level}, nil)
	} else {
		_, err = s.get(s.ctx, "/info", nil, &is)
	}
	switch {
	case err != nil:
		return err
	case s.json:
		return s.value(map[string]string{"level": is.Level})
	}
	return s.printf("the level of the log is %s", clean(is.Level))
}
