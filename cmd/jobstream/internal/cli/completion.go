package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"jobstream/jobs"
)

type completionCommand struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Help is shown by completion --help.
func (completionCommand) Help() string {
	return `Commands, flags, job types, ids, tags and schedules are completed; the server is asked for them.

  bash: add to ~/.bashrc    source <(jobstream completion bash)
  zsh:  add to ~/.zshrc     source <(jobstream completion zsh)
  fish:                     jobstream completion fish > ~/.config/fish/completions/jobstream.fish`
}

// scripts ask jobstream for each completion.
var scripts = map[string]string{
	"bash": `_jobstream() {
    local line
    COMPREPLY=()
    while IFS= read -r line; do
        COMPREPLY+=("${line%%$'\t'*}")
    done < <("${COMP_WORDS[0]}" __complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -o default -F _jobstream jobstream
`,
	"zsh": `#compdef jobstream
_jobstream() {
    local line
    local -a all
    while IFS= read -r line; do
        all+=("${${line//:/\\:}/$'\t'/:}")
    done < <("${words[1]}" __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)
    if (( ${#all} )); then _describe jobstream all; else _files; fi
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }
compdef _jobstream jobstream
`,
	"fish": `function __jobstream_complete
    set -l words (commandline -opc) (commandline -ct)
    $words[1] __complete -- $words[2..-1] 2>/dev/null
end
complete -c jobstream -f -a '(__jobstream_complete)'
complete -c jobstream -s p -l payload -r -F
complete -c jobstream -s c -l config -r -F
`,
}

// Run prints the script for a shell.
func (c *completionCommand) Run(p *Program) error {
	_, err := fmt.Fprint(p.Stdout, scripts[c.Shell])
	return err
}

// completeCommand is for the scripts.
type completeCommand struct {
	Words []string `arg:"" optional:"" help:"The words after jobstream, the last of which is to be completed."`
}

// candidate is a word that may stand at a place.
type candidate struct{ word, help string }

// completeWithin bounds the time that somebody waits for candidates.
const completeWithin = 2 * time.Second

// safe are the words that no shell sees anything else in: others put texts into tags.
var safe = regexp.MustCompile(`^[A-Za-z0-9_.:@/+=-]+$`)

// Run prints the candidates, a line each, with a tab before the help. Without a server
// there are only those that need none.
func (c *completeCommand) Run(p *Program) error {
	words := c.Words
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	if len(words) == 0 {
		words = []string{""}
	}
	ctx, cancel := context.WithTimeout(p.Ctx, completeWithin)
	defer cancel()
	q := &completer{p: p, ctx: ctx, node: p.Model.Node, word: words[len(words)-1]}
	for _, w := range words[:len(words)-1] {
		q.pass(w)
	}
	for _, found := range q.candidates() {
		if !strings.HasPrefix(found.word, q.word) || !safe.MatchString(found.word) {
			continue
		}
		if _, err := fmt.Fprintf(p.Stdout, "%s\t%s\n", found.word, clean(found.help)); err != nil {
			return err
		}
	}
	return nil
}

// completer reads the words of a command line up to one that is to be completed.
type completer struct {
	p      *Program
	ctx    context.Context
	node   *kong.Node // the command so far
	flag   *kong.Flag // it waits for its value; nil = none does
	place  int        // number of positional arguments so far
	server ServerFlags
	word   string
}

// pass reads a word before the one that is completed.
func (q *completer) pass(w string) {
	if q.flag != nil {
		q.given(q.flag.Name, w)
		q.flag = nil
		return
	}
	if strings.HasPrefix(w, "-") {
		name, value, has := strings.Cut(w, "=")
		for _, f := range q.flags() {
			if name != "--"+f.Name && (f.Short == 0 || name != "-"+string(f.Short)) {
				continue
			}
			if has {
				q.given(f.Name, value)
			} else if !f.IsBool() {
				q.flag = f
			}
		}
		return
	}
	for _, child := range q.node.Children {
		if child.Name == w {
			q.node = child
			return
		}
	}
	q.place++
}

// given remembers how to reach the server.
func (q *completer) given(flag, value string) {
	switch flag {
	case "url":
		q.server.URL = value
	case "token":
		q.server.Token = value
	case "config":
		q.server.File = value
	case "client-cert":
		q.server.Cert = value
	}
}

// flags are those that may stand here.
func (q *completer) flags() (all []*kong.Flag) {
	for n := q.node; n != nil; n = n.Parent {
		all = append(all, n.Flags...)
	}
	if q.node.DefaultCmd != nil {
		all = append(all, q.node.DefaultCmd.Flags...)
	}
	return all
}

func (q *completer) candidates() (all []candidate) {
	switch {
	case q.flag != nil:
		return q.values(q.flag.Name, q.flag.Enum)
	case strings.HasPrefix(q.word, "-"):
		for _, f := range q.flags() {
			if !f.Hidden {
				all = append(all, candidate{"--" + f.Name, f.Help})
			}
		}
		return all
	}
	for _, child := range q.node.Children {
		if !child.Hidden && q.place == 0 {
			all = append(all, candidate{child.Name, child.Help})
		}
	}
	at := q.node
	if at.DefaultCmd != nil {
		at = at.DefaultCmd
	}
	if n := len(at.Positional); n > 0 && (q.place < n || at.Positional[n-1].IsCumulative()) {
		arg := at.Positional[min(q.place, n-1)]
		name := arg.Name
		if arg.Name == "name" {
			name = "schedule"
		}
		all = append(all, q.values(name, arg.Enum)...)
	}
	return all
}

// changeable are the statuses of the jobs that a command is for; others are for all.
var changeable = map[string][]string{
	"cancel": {"scheduled", "pending", "processing", "retrying"}, "retry": {"failed", "cancelled"},
	"delete": {"completed", "failed", "cancelled"}, "run": {"scheduled", "retrying"},
}

// values are those of a flag or argument, by its name.
func (q *completer) values(name, enum string) (all []candidate) {
	if enum != "" {
		for v := range strings.SplitSeq(enum, ",") {
			all = append(all, candidate{word: v})
		}
		return all
	}
	fixed := map[string][]string{
		"status": jobs.StatusNames(), "priority": {"1", "2", "3", "4", "5"}, "order": {"desc", "asc"}, "level": {"debug", "info", "warn", "error"}, "order-by": {"created", "ended", "run_at", "started"},
	}
	if name == "order-by" && q.node.Name == "failures" {
		return []candidate{{word: "count"}}
	}
	for _, v := range fixed[name] {
		all = append(all, candidate{word: v})
	}
	switch name {
	case "type":
		return q.named("/types", "types", "name", "description")
	case "schedule":
		return q.named("/schedules", "schedules", "name", "type")
	case "fingerprint":
		return q.named("/failures", "failures", "fingerprint", "error")
	case "tag":
		return q.tags()
	case "id", "job":
		return q.ids(name == "job")
	}
	return all
}

// ask reads one resource. Without an answer there is nothing to complete.
func (q *completer) ask(path string, query url.Values, out any) bool {
	c, err := q.server.Connect(q.p)
	if err != nil {
		return false
	}
	defer c.Close()
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	_, err = c.Do(q.ctx, http.MethodGet, path, nil, out)
	return err == nil
}

// named are the names in a list, and what helps to choose one.
func (q *completer) named(path, list, name, help string) (all []candidate) {
	var answer map[string]json.RawMessage
	var items []map[string]any
	if !q.ask(path, nil, &answer) || json.Unmarshal(answer[list], &items) != nil {
		return nil
	}
	for _, item := range items {
		word, _ := item[name].(string)
		text, _ := item[help].(string)
		all = append(all, candidate{word, text})
	}
	return all
}

func (q *completer) tags() (all []candidate) {
	var answer struct{ Tags []string }
	query := url.Values{}
	if q.word != "" {
		query.Set("prefix", q.word)
	}
	if q.ask("/tags", query, &answer) {
		for _, t := range answer.Tags {
			all = append(all, candidate{word: t})
		}
	}
	return all
}

// shortestID is the least length of a beginning of ids that the server finds jobs by.
const shortestID = 4

// ids are jobs that the command is for: their seqs, unless an id has been begun, or only
// an id will do.
func (q *completer) ids(only bool) (all []candidate) {
	query := url.Values{"limit": {"50"}}
	if s := changeable[q.node.Name]; s != nil {
		query["status"] = s
	}
	_, err := strconv.ParseUint(q.word, 10, 64)
	begun := err != nil && len(q.word) >= shortestID
	if begun {
		query.Set("id", q.word)
	}
	var answer struct{ Jobs []job }
	if !q.ask("/jobs", query, &answer) {
		return nil
	}
	for i := range answer.Jobs {
		j := &answer.Jobs[i]
		word := strconv.FormatUint(j.Seq, 10)
		if begun || only {
			word = j.ID
		}
		all = append(all, candidate{word, strings.TrimSpace(j.Type + " " + j.Status + " " + j.says())})
	}
	slices.SortStableFunc(all, func(a, b candidate) int { return strings.Compare(a.word, b.word) })
	return all
}
