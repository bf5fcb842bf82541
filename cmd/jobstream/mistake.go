package main

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/alecthomas/kong"
)

// mistake says what is wrong with a command line, and what would be right.
func mistake(err error) string {
	text, at := plainWords(err.Error()), (*kong.Node)(nil)
	var wrong *kong.ParseError
	if errors.As(err, &wrong) && wrong.Context != nil {
		at = wrong.Context.Selected()
	}
	if at != nil && at.Parent.DefaultCmd == at { // what was typed is its parent
		at = at.Parent
	}
	if at == nil || at.Type == kong.ApplicationNode {
		if word, is := strings.CutPrefix(text, "unexpected argument "); is {
			text = "there is no command " + word
		}
		return fmt.Sprintf("jobstream: %s\nRun \"jobstream --help\" for the commands.", text)
	}
	return fmt.Sprintf("jobstream %[1]s: %[2]s\nIts form is: jobstream %[3]s\nRun \"jobstream %[1]s --help\" for more.", at.Path(), text, at.Summary())
}

// missingArg is how kong says that an argument is not there.
var missingArg = regexp.MustCompile(`^expected "([^"]+)"$`)

// plainWords are those of kong, where people have better ones.
func plainWords(text string) string {
	text = missingArg.ReplaceAllString(text, "$1 is missing")
	for was, is := range map[string]string{
		"expected a valid 64 bit int but got": "must be a whole number, not",
		"expected duration but got":           "must be a span like 10s or 5m, not",
		"expected a float but got":            "must be a number, not",
	} {
		text = strings.Replace(text, was, is, 1)
	}
	return text
}
