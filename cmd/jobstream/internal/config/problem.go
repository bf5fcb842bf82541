package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"jobstream/jobs/setting"
)

// Problem is one problem of the configuration.
type Problem struct {
	Key   string // full path, like worker.max_workers; "" for a variable without a key
	Env   string // the environment variable or the flag, if the value came from one
	File  string // the file, if the value came from one
	Line  int    // from 1; 0 if it did not
	Value string // the given value, shortened; "" for secrets and missing values
	Text  string // the problem, and the allowed values
}

func (p Problem) String() string {
	var b strings.Builder
	switch {
	case p.Key != "":
		b.WriteString(p.Key + ": ")
	case p.Env != "":
		b.WriteString(p.Env + ": ")
	}
	if p.Value != "" {
		b.WriteString(p.Value + " ")
	}
	b.WriteString(p.Text)
	switch {
	case p.Key != "" && p.Env != "":
		b.WriteString(" (from " + p.Env + ")")
	case p.Line > 0:
		fmt.Fprintf(&b, " (%s line %d)", p.File, p.Line)
	}
	return b.String()
}

// Problems are all problems of a configuration, at least one.
type Problems []Problem

// Error has one line per problem.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// sorted lists the problems in reading order: down the file, then the environment.
func (l *loader) sorted() Problems {
	slices.SortStableFunc(l.problems, func(a, b Problem) int {
		switch {
		case (a.Env != "") == (b.Env != ""):
			return a.Line - b.Line
		case a.Env != "":
			return 1
		}
		return -1
	})
	return l.problems
}

// SyntaxError is the place at which a file stops being YAML.
type SyntaxError struct {
	File    string
	Line    int // from 1; 0 if unknown
	Column  int // from 1; 0 if unknown
	Message string
}

func (e *SyntaxError) Error() string {
	where := e.File
	if e.Line > 0 {
		where += fmt.Sprintf(":%d:%d", e.Line, e.Column)
	}
	return where + ": not YAML: " + e.Message
}

// show renders a value for a message.
func show(v any) string {
	switch v := v.(type) {
	case setting.Null:
		return "no value"
	case string:
		return quote(v)
	case []string, map[string]string:
		return mustJSON(v)
	case setting.FromText:
		return quote(string(v))
	case setting.JSON:
		if v[0] == '{' {
			return "a section"
		}
		return "a list"
	}
	return fmt.Sprint(v)
}

func quote(s string) string {
	const longest = 60
	if r := []rune(s); len(r) > longest {
		s = string(r[:longest]) + "…"
	}
	return strconv.Quote(s)
}

// nearest returns the probable meaning of got, or "". It is the only candidate that
// continues got, or one that is few edits away, or the only one that ends in the same
// word.
func nearest(got string, candidates []string, separator string) string {
	const longest = 200
	if len(got) > longest {
		return ""
	}
	goesOn := func(c string) bool {
		rest, ok := strings.CutPrefix(c, got)
		return ok && !strings.Contains(rest, separator)
	}
	if c := only(candidates, goesOn); c != "" {
		return c
	}
	best, bestDistance := "", 1+max(1, min(3, len(got)/5))
	for _, c := range candidates {
		if d := distance(strings.ToLower(got), strings.ToLower(c)); d < bestDistance {
			best, bestDistance = c, d
		}
	}
	if best != "" {
		return best
	}
	word := got[strings.LastIndex(got, separator)+1:]
	return only(candidates, func(c string) bool { return strings.HasSuffix(c, separator+word) })
}

// only is the candidate that fits, or "" if there is not exactly one: any choice would
// be a guess.
func only(candidates []string, fits func(string) bool) (found string) {
	for _, c := range candidates {
		if !fits(c) {
			continue
		}
		if found != "" {
			return ""
		}
		found = c
	}
	return found
}

// distance is the number of edits from a to b: insertions, deletions, replacements and
// swaps of neighbours.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d := min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(a)][len(b)]
}
