package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"

	"charm.land/lipgloss/v2"
	"charm.land/lipgloss/v2/table"
	"github.com/charmbracelet/colorprofile"
	"github.com/charmbracelet/x/ansi"

	"jobstream/cmd/jobstream/internal/terminal"
	"jobstream/jobs"
)

// OutputFlag is the flag of the commands that print what a server answers.
type OutputFlag struct {
	Output string `short:"o" enum:"auto,table,json" default:"auto" placeholder:"FORM" help:"table or json (default: a table on a terminal, else JSON)."`
}

// page is where a command prints.
type page struct {
	out   io.Writer // colours are lost if it shows none
	json  bool      // JSON is wanted
	live  bool      // it is a terminal, so what is printed may be replaced
	width int       // of its lines; 0 = any
}

// on returns the page of a command.
func (o *OutputFlag) on(p *Program) *page {
	s := &page{out: colorprofile.NewWriter(p.Stdout, p.Environ)}
	if s.live = terminal.Is(p.Stdout); s.live {
		s.width, _ = terminal.Size(p.Stdout)
	}
	s.json = o.JSON(p)
	return s
}

// JSON says whether JSON is wanted.
func (o *OutputFlag) JSON(p *Program) bool {
	return o.Output == "json" || o.Output == "auto" && !terminal.Is(p.Stdout)
}

// printf prints a line.
func (s *page) printf(format string, args ...any) error {
	_, err := fmt.Fprintf(s.out, format+"\n", args...)
	return err
}

// raw prints JSON as the server has sent it: as it is, or indented for a terminal.
func (s *page) raw(text []byte) error {
	var out bytes.Buffer
	if !s.live || json.Indent(&out, text, "", "  ") != nil {
		out.Reset()
		out.Write(bytes.TrimSpace(text))
	}
	out.WriteByte('\n')
	b := out.Bytes()
	if s.live {
		b = []byte(cleanLines(out.String()))
	}
	_, err := s.out.Write(b)
	return err
}

// value prints v as JSON.
func (s *page) value(v any) error {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}
	return s.raw(out.Bytes())
}

// Styles, all of the sixteen colours of a terminal, so that its theme decides.
var (
	plain = lipgloss.NewStyle()
	bold  = plain.Bold(true)
	faint = plain.Faint(true)
	good  = plain.Foreground(lipgloss.Green)
	bad   = plain.Foreground(lipgloss.Red)
	busy  = plain.Foreground(lipgloss.Blue)
	warn  = plain.Foreground(lipgloss.Yellow)
	later = plain.Foreground(lipgloss.Cyan)
)

// statusStyles are the colours of statuses, and of the kinds of a job's events.
var statusStyles = map[string]lipgloss.Style{
	jobs.Scheduled.String(): later, jobs.Processing.String(): busy, jobs.Retrying.String(): warn,
	jobs.Completed.String(): good, jobs.Failed.String(): bad, jobs.Cancelled.String(): faint, "started": busy,
}

// cell is one of a table, with a style of its own.
type cell struct {
	text  string
	style lipgloss.Style
}

func text(v string) cell { return cell{v, plain} }

func number[T int | int64 | uint64](v T) cell {
	if v == 0 {
		return cell{"0", faint}
	}
	return text(fmt.Sprint(v))
}

func status(name string) cell {
	style, has := statusStyles[name]
	if !has {
		style = plain
	}
	return cell{name, style}
}

// narrowest is the least width of the last column of a table.
const narrowest = 12

// table prints rows below headers; the last column takes what the page leaves it. A header
// that begins with ">" is that of a column of numbers.
func (s *page) table(headers []string, rows [][]cell) error {
	_, err := fmt.Fprintln(s.out, render(headers, rows, s.width))
	return err
}

func render(headers []string, rows [][]cell, width int) string {
	last := len(headers) - 1
	widths, right := make([]int, len(headers)), make([]bool, len(headers))
	names := make([]string, len(headers))
	for i, h := range headers {
		names[i], right[i] = strings.CutPrefix(h, ">")
		widths[i] = ansi.StringWidth(names[i])
	}
	texts := make([][]string, len(rows))
	for r, row := range rows {
		for i, c := range row {
			shown := clean(c.text)
			texts[r] = append(texts[r], shown)
			widths[i] = max(widths[i], ansi.StringWidth(shown))
		}
	}
	if width > 0 {
		rest := width
		for _, w := range widths[:last] {
			rest -= w + 2
		}
		for _, row := range texts {
			row[last] = ansi.Truncate(row[last], max(rest, narrowest), "…")
		}
	}
	t := table.New().Headers(names...).Rows(texts...).Wrap(false).
		BorderTop(false).BorderBottom(false).BorderLeft(false).BorderRight(false).BorderHeader(false).BorderColumn(false).BorderRow(false)
	t.StyleFunc(func(row, col int) lipgloss.Style {
		style := faint
		if row != table.HeaderRow {
			style = rows[row][col].style
		}
		if right[col] {
			style = style.AlignHorizontal(lipgloss.Right)
		}
		if col < last {
			style = style.PaddingRight(2)
		}
		return style
	})
	lines := strings.Split(t.Render(), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}

// clean is a text in one line, without what would change a terminal: jobs and clients put
// anything into theirs.
func clean(s string) string {
	return strings.Join(strings.Fields(cleanLines(s)), " ")
}

// cleanLines is clean for texts of several lines.
func cleanLines(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case r == '\r':
			return ' '
		case unicode.IsControl(r) || r != '\u200d' && unicode.Is(unicode.Cf, r): // also those that turn the direction of text
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// span is a length of time for people, with two units at most.
func span(d time.Duration) string {
	two := func(a int64, unit string, b int64, lower string) string {
		if b == 0 {
			return fmt.Sprintf("%d %s", a, unit)
		}
		return fmt.Sprintf("%d %s %d %s", a, unit, b, lower)
	}
	d = max(d, 0)
	s := int64(d / time.Second)
	switch {
	case d < time.Microsecond:
		return "0 s"
	case d < time.Millisecond:
		return fmt.Sprintf("%d µs", d.Microseconds())
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 10*time.Second:
		return strconv.FormatFloat(d.Truncate(100*time.Millisecond).Seconds(), 'f', -1, 64) + " s"
	case s < 60:
		return fmt.Sprintf("%d s", s)
	case s < 3600:
		return two(s/60, "m", s%60, "s")
	case s < 86400:
		return two(s/3600, "h", s/60%60, "m")
	}
	return two(s/86400, "d", s/3600%24, "h")
}

// seconds is a number of seconds for people; "" if it is 0.
func seconds(v float64) string {
	if v == 0 {
		return ""
	}
	return span(time.Duration(v * float64(time.Second)))
}

// ago is how long t lies back; "" if it is nil.
func ago(t *time.Time) string {
	if t == nil {
		return ""
	}
	d := time.Since(*t)
	if d < 0 {
		return "in " + span(-d)
	}
	return span(d) + " ago"
}
