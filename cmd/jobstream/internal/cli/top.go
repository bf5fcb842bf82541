package cli

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"jobstream/cmd/jobstream/internal/terminal"
	"jobstream/jobs/figures"
)

type topCommand struct {
	ServerFlags
	Every time.Duration `default:"1s" placeholder:"SPAN" help:"A picture of so long, whole seconds up to 60s (default: ${default})."`
}

// Help is shown by top --help.
func (topCommand) Help() string {
	return "Keys: q quits, space holds the picture, up and down (or k and j) choose a type, p pauses or resumes it."
}

// Run shows what the server does, on the whole terminal, until q.
func (c *topCommand) Run(p *Program) error {
	if !terminal.Is(p.Stdout) || !terminal.Is(p.Stdin) {
		return Usagef("top needs a terminal; for programs there are jobstream stats -o json and GET /events?digest=1s")
	}
	if c.Every < time.Second || c.Every > time.Minute || c.Every%time.Second != 0 {
		return Usagef("--every must be whole seconds from 1s to 60s, not %s", c.Every)
	}
	r := remote{ServerFlags: c.ServerFlags}
	s, err := r.open(p)
	if err != nil {
		return err
	}
	defer s.end()
	program := tea.NewProgram(&top{s: s, every: c.Every}, tea.WithContext(s.ctx), tea.WithInput(p.Stdin), tea.WithOutput(p.Stdout),
		tea.WithEnvironment(p.Environ), tea.WithoutSignalHandler())
	ended := make(chan error, 1)
	go func() {
		err := s.follow(s.ctx, "/events?digest="+c.Every.String(), func(m *message) error {
			if m.event != "digest" {
				return nil
			}
			d := new(figures.Digest)
			if err := json.Unmarshal(m.data, d); err != nil {
				return fmt.Errorf("that is no server of this version: %w", err)
			}
			program.Send(d)
			return nil
		}, func(err error) { program.Send(lostMsg{err}) })
		ended <- err
		program.Quit()
	}()
	_, err = program.Run()
	select {
	case wrong := <-ended: // it has ended the program
		return wrong
	default:
	}
	if s.ctx.Err() != nil {
		return nil //nolint:nilerr // Ctrl-C is how it ends
	}
	return err
}

// lostMsg says that the server does not answer for now.
type lostMsg struct{ err error }

// doneMsg is the end of a change that somebody has asked for.
type doneMsg struct{ text string }

// top is the picture. The program calls it from one goroutine.
type top struct {
	s             *session
	every         time.Duration
	width, height int

	now    *figures.Digest // nil before the first one
	past   []float64       // jobs done a second, the latest last
	recent []figures.Change
	held   bool
	lost   error  // why there are no digests for now
	note   string // about the last change
	chosen string // the type; "" = the first one
}

// pastMost bounds the past, in digests.
const pastMost = 600

// Init implements [tea.Model].
func (t *top) Init() tea.Cmd { return nil }

// Update implements [tea.Model].
func (t *top) Update(m tea.Msg) (tea.Model, tea.Cmd) {
	switch m := m.(type) {
	case tea.WindowSizeMsg:
		t.width, t.height = m.Width, m.Height
	case lostMsg:
		t.lost = m.err
	case doneMsg:
		t.note = m.text
	case *figures.Digest:
		t.take(m)
	case tea.KeyPressMsg:
		return t, t.key(m.String())
	}
	return t, nil
}

// take takes the next digest.
func (t *top) take(d *figures.Digest) {
	t.lost = nil
	t.past = append(t.past, float64(d.Total.Done)/max(d.Seconds, 0.001))
	if len(t.past) > pastMost {
		t.past = slices.Clone(t.past[len(t.past)-pastMost:])
	}
	if t.held {
		return
	}
	t.now = d
	t.recent = append(t.recent, d.Sample...)
	if len(t.recent) > figures.MaxSample {
		t.recent = slices.Clone(t.recent[len(t.recent)-figures.MaxSample:])
	}
}

// names are the types, in their order.
func (t *top) names() []string {
	if t.now == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(t.now.Types))
}

// key does what a key stands for.
func (t *top) key(name string) tea.Cmd {
	names := t.names()
	at := max(slices.Index(names, t.chosen), 0)
	switch name {
	case "q", "esc", "ctrl+c":
		return tea.Quit
	case "space":
		t.held = !t.held
	case "up", "k":
		at--
	case "down", "j":
		at++
	case "p":
		if len(names) > 0 {
			return t.pause(names[at])
		}
	}
	if at >= 0 && at < len(names) {
		t.chosen = names[at]
	}
	return nil
}

// pause pauses a type, or resumes it.
func (t *top) pause(name string) tea.Cmd {
	verb, done := "pause", "paused"
	if t.now.Types[name].Paused {
		verb, done = "resume", "resumed"
	}
	return func() tea.Msg {
		if _, err := t.s.Do(t.s.ctx, http.MethodPost, "/types/"+url.PathEscape(name)+"/"+verb, nil, nil); err != nil {
			return doneMsg{bad.Render(clean(err.Error()))}
		}
		return doneMsg{clean(name) + " is " + done}
	}
}

// View implements [tea.Model].
func (t *top) View() tea.View {
	v := tea.NewView(t.picture())
	v.AltScreen = true
	v.WindowTitle = "jobstream top"
	return v
}

// picture is the whole screen.
func (t *top) picture() string {
	if t.width == 0 {
		return ""
	}
	lines := []string{t.headline()}
	if t.now != nil {
		lines = append(lines, t.totals(), t.chart(), "")
		lines = append(lines, strings.Split(t.types(), "\n")...)
		lines = append(lines, "", bold.Render("Just now")+faint.Render(fmt.Sprintf("  %d more not shown", t.now.Skipped)))
		room := max(t.height-len(lines)-1, 0)
		for _, c := range t.recent[max(len(t.recent)-room, 0):] {
			lines = append(lines, change1(&c))
		}
	}
	lines = lines[:min(len(lines), max(t.height-1, 1))]
	for len(lines) < t.height-1 {
		lines = append(lines, "")
	}
	lines = append(lines, t.foot())
	for i := range lines {
		lines[i] = ansi.Truncate(lines[i], t.width, "…")
	}
	return strings.Join(lines, "\n")
}

// change1 is a line about a change of a job.
func change1(c *figures.Change) string {
	return fmt.Sprintf("%s  %s  %s #%d  %s", faint.Render(c.At.Local().Format("15:04:05")), status(c.Status).style.Render(fmt.Sprintf("%-10s", c.Status)),
		clean(c.Type), c.Seq, bad.Render(clean(c.Error)))
}

func (t *top) headline() string {
	state := good.Render("live")
	switch {
	case t.lost != nil:
		state = bad.Render("no answer: " + clean(t.lost.Error()))
	case t.held:
		state = warn.Render("held, space goes on")
	case t.now == nil:
		state = faint.Render("waiting for the first picture")
	}
	out := bold.Render("jobstream") + "  " + t.s.base + "  " + state
	if t.now != nil {
		out += "  " + faint.Render(t.now.At.Local().Format(time.TimeOnly))
	}
	return out
}

func (t *top) totals() string {
	d := t.now
	per := func(n int) string { return fmt.Sprintf("%.0f/s", float64(n)/max(d.Seconds, 0.001)) }
	out := fmt.Sprintf("in %s  done %s  failed %s  waiting %d  workers %d/%d", per(d.Total.In), per(d.Total.Done), per(d.Total.Failed), d.Total.Waiting, d.Workers.Busy, d.Workers.Max)
	if d.Workers.Paused {
		out += " " + warn.Render("paused")
	}
	if w := d.Total.Wait; w != nil {
		out += fmt.Sprintf("  wait p50 %s p99 %s", seconds(w.P50), seconds(w.P99))
	}
	return out + "  disk free " + terminal.Bytes(d.Node.DiskFree)
}

// chart is the throughput of the past as a line of blocks.
func (t *top) chart() string {
	blocks := []rune(" ▁▂▃▄▅▆▇█")
	shown := t.past[max(len(t.past)-max(t.width-24, 8), 0):]
	most := max(slices.Max(shown), 1)
	var b strings.Builder
	for _, v := range shown {
		b.WriteRune(blocks[int(v/most*float64(len(blocks)-1)+0.5)])
	}
	return good.Render(b.String()) + faint.Render(fmt.Sprintf("  done, up to %.0f/s", most))
}

// types is the table of types.
func (t *top) types() string {
	names := t.names()
	chosen := max(slices.Index(names, t.chosen), 0)
	rows := make([][]cell, len(names))
	for i, name := range names {
		f := t.now.Types[name]
		rows[i] = t.row(name, &f)
		if i == chosen {
			for c := range rows[i] {
				rows[i][c].style = rows[i][c].style.Reverse(true)
			}
		}
	}
	return render([]string{"TYPE", ">WAITING", ">OLDEST", ">RUNNING", ">LATER", ">IN", ">DONE", ">RETRIED", ">FAILED", ">WAIT P95", ">RUN P95", "DETAIL"}, rows, t.width)
}

func (t *top) row(name string, f *figures.Recent) []cell {
	p95 := func(p *figures.Percentiles) cell {
		if p == nil {
			return text("")
		}
		return text(seconds(p.P95))
	}
	says := text(reasons(f.Reasons))
	if f.Paused {
		says = cell{"paused", warn}
	}
	return []cell{
		text(name), number(f.Waiting), text(seconds(f.OldestSeconds)), number(f.Running), number(f.Scheduled + f.Retrying), number(f.In), number(f.Done),
		number(f.Retried), failedOf(f.Failed), p95(f.Wait), p95(f.Run), says,
	}
}

// reasons says for what the jobs of a type wait.
func reasons(by map[string]int) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(by)) {
		all = append(all, fmt.Sprintf("%s %d", strings.ReplaceAll(name, "_", " "), by[name]))
	}
	return strings.Join(all, ", ")
}

func (t *top) foot() string {
	keys := faint.Render("q quit  space hold  ↑↓ type  p pause or resume it")
	if t.note != "" {
		return t.note + "  " + keys
	}
	return keys
}
