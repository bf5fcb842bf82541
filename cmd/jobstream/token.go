package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/access"
)

// tokenCommand has the commands about tokens.
type tokenCommand struct {
	New newTokenCommand `cmd:"" help:"Make a token. It is printed once, with its lines for the configuration."`
}

type newTokenCommand struct {
	Name    string   `required:"" placeholder:"NAME" help:"Whose it is: 1 to 64 letters, digits, _ and -. Events and the audit show it."`
	Scope   []string `required:"" placeholder:"SCOPE" enum:"submit,read,manage,work,admin" help:"What it may do: submit, read, manage, work or admin. Repeat it for several."`
	Type    []string `placeholder:"TYPE" help:"A job type that it may submit and work on (default: all). Repeat it for several."`
	Expires string   `placeholder:"WHEN" help:"How long it is valid, like 90d, or its last day, like 2030-01-31 (default: for ever)."`
}

// Run makes a token. Nothing is stored: its lines have to be put into the configuration.
func (c *newTokenCommand) Run(p *program) error {
	if !access.ValidName(c.Name) {
		return &usageError{Err: fmt.Errorf("--name: %q is not a name for a token: 1 to 64 letters, digits, _ and -, and neither %s nor %s", c.Name, access.Anonymous, access.Operator)}
	}
	expires, err := expiry(c.Expires)
	if err != nil {
		return &usageError{Err: fmt.Errorf("--expires: %w", err)}
	}
	token := access.NewToken()
	line := fmt.Sprintf("%s: {sha256: %s, scopes: [%s]", c.Name, access.HashOf(token), strings.Join(c.Scope, ", "))
	if len(c.Type) > 0 {
		line += ", types: [" + strings.Join(c.Type, ", ") + "]"
	}
	if expires != "" {
		line += ", expires: " + expires
	}
	_, err = fmt.Fprintf(p.Stdout, "%s\n\n# Keep the token: it is nowhere else. Put this line into the configuration, below\n# server.auth.tokens, or into the file that server.auth.tokens_file names:\n%s}\n", token, line)
	return err
}

// expiry is the last day of a token, as the configuration has it.
func expiry(text string) (string, error) {
	if text == "" {
		return "", nil
	}
	if _, err := time.Parse(time.DateOnly, text); err == nil {
		return text, nil
	}
	d, err := jobs.ParseDuration(text)
	if err != nil || d <= 0 {
		return "", errors.New("must be how long, like 90d, or a day, like 2030-01-31")
	}
	return time.Now().Add(d).UTC().Format(time.RFC3339), nil
}
