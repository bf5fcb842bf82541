package report

import (
	"cmp"
	"embed"
	"fmt"
	"html/template"
	"io"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/figures"
)

// Bounds of the page's lists.
const (
	shownTypes   = 12
	shownFailing = 8
	shownErrors  = 3
)

// page is the data of page.html. All texts in it are plain and escaped there.
type page struct {
	Title  string
	Kind   string
	Zone   string
	Period string
	Made   string
	Empty  bool

	Story    string
	Tiles    []tile
	Volume   *volumeChart
	Types    *typeChart // all outcomes by type
	Success  *typeChart // success rate by type
	Wait     *spreadChart
	Run      *spreadChart
	Slowest  []slowRow
	Failing  []failingType
	Sections sections
}

// sections are the sections of a kind of report.
type sections struct{ Types, Success, Times, Slowest, Failing bool }

var sectionsOf = map[string]sections{
	kindSummary:     {true, true, true, true, true},
	kindPerformance: {Types: true, Times: true, Slowest: true},
	kindFailures:    {Success: true, Failing: true},
}

var titleOf = map[string]string{
	kindSummary:     "Job report",
	kindPerformance: "Performance report",
	kindFailures:    "Failure report",
}

// tile is a headline figure.
type tile struct{ Label, Value, Note string }

type slowRow struct{ Run, Kind, ID, Outcome, Status, Attempts, Started string }

type failingType struct {
	Name, Failed, Of string
	Rate             string
	Share            float64 // percent, for the bar
	Errors           []errorRow
	More             string
}

type errorRow struct{ Count, Text string }

//go:embed page.html style.css
var files embed.FS

var pageTemplate = template.Must(template.ParseFS(files, "page.html", "style.css"))

func (p *page) render(w io.Writer) error { return pageTemplate.ExecuteTemplate(w, "page.html", p) }

func newPage(kind string, s *summary, now jobs.Time) *page {
	byVolume := s.groups(func(a, b *group) int { return cmp.Compare(b.jobs(), a.jobs()) })
	return &page{
		Title:    titleOf[kind],
		Kind:     kind,
		Sections: sectionsOf[kind],
		Zone:     s.zone.String(),
		Period:   periodText(s.period.From.Std().In(s.zone), s.period.To.Std().In(s.zone)),
		Made:     now.Std().In(s.zone).Format("2 January 2006, 15:04 MST"),
		Empty:    s.total.jobs() == 0,
		Story:    story(s, byVolume),
		Tiles:    tiles(&s.total, s.period.To.Sub(s.period.From)),
		Volume:   newVolumeChart(s),
		Types:    newTypeChart(byVolume),
		Success:  newSuccessChart(byVolume),
		Wait:     newSpreadChart(byVolume, func(g *group) *figures.Histogram { return &g.wait }),
		Run:      newSpreadChart(byVolume, func(g *group) *figures.Histogram { return &g.run }),
		Slowest:  slowRows(s.slowest, s.zone),
		Failing:  failingTypes(s),
	}
}

func tiles(g *group, span time.Duration) []tile {
	rate := tile{Label: "Success rate", Value: "–", Note: "no job has ended yet"}
	if r := g.successRate(); r != nil {
		rate.Value = percent(*r)
		rate.Note = number(g.outcomes[failed]) + " of " + number(g.outcomes[completed]+g.outcomes[failed]) + " failed"
	}
	return []tile{
		{"Jobs", number(g.jobs()), pace(g.jobs(), span)},
		rate,
		timeTile("Median wait", &g.wait, 0.5, 0.95),
		timeTile("Run time, p95", &g.run, 0.95, 0.5),
		{"Retries", number(g.retries), "by " + plural(g.retried, "job")},
	}
}

func timeTile(label string, h *figures.Histogram, main, other float64) tile {
	if h.Count() == 0 {
		return tile{label, "–", "nothing measured yet"}
	}
	name := "median "
	if other != 0.5 {
		name = fmt.Sprintf("p%.0f ", other*100)
	}
	return tile{label, duration(h.Quantile(main)), name + duration(h.Quantile(other))}
}

// pace is the mean number of jobs in the smallest unit that gives at least one.
func pace(n int, span time.Duration) string {
	for _, u := range []struct {
		name string
		d    time.Duration
	}{{"second", time.Second}, {"minute", time.Minute}, {"hour", time.Hour}, {"day", day}} {
		if per := float64(n) / (float64(span) / float64(u.d)); per >= 1 && span >= u.d || u.d == day {
			return threeDigits(per) + " per " + u.name
		}
	}
	return ""
}

// story puts the most important figures into words.
func story(s *summary, byVolume []*group) string {
	n := s.total.jobs()
	if n == 0 {
		return ""
	}
	text := plural(n, "job") + " of " + plural(len(byVolume), "type") + " " + wereWas(n) + " submitted"
	if r := s.total.successRate(); r != nil {
		text += ", and " + percent(*r) + " of those that ended did so well"
	}
	text += "."
	if len(s.edges) > 1 {
		busiest := 0
		for i := range s.volume {
			if s.volume[i].jobs() > s.volume[busiest].jobs() {
				busiest = i
			}
		}
		text += fmt.Sprintf(" The busiest %s was %s with %s.", s.unit, s.unit.long(s.edges[busiest].Std().In(s.zone)), plural(s.volume[busiest].jobs(), "job"))
	}
	if all := s.total.outcomes[failed]; all > 0 {
		worst := byVolume[0]
		for _, g := range byVolume {
			if g.outcomes[failed] > worst.outcomes[failed] {
				worst = g
			}
		}
		text += fmt.Sprintf(" Most failures came from %s: %s of %s.", worst.name, number(worst.outcomes[failed]), number(all))
	}
	return text
}

func wereWas(n int) string {
	if n == 1 {
		return "was"
	}
	return "were"
}

func slowRows(list []slowJob, zone *time.Location) []slowRow {
	rows := make([]slowRow, len(list))
	for i, j := range list {
		rows[i] = slowRow{
			Run: duration(j.run), Kind: j.kind, ID: j.id.String(),
			Outcome: outcomeOf(j.status).String(), Status: j.status.String(),
			Attempts: number(j.attempts), Started: j.started.Std().In(zone).Format("2 Jan 2006, 15:04:05"),
		}
	}
	return rows
}

func failingTypes(s *summary) []failingType {
	var list []failingType
	for _, g := range s.groups(func(a, b *group) int { return cmp.Compare(b.outcomes[failed], a.outcomes[failed]) }) {
		n := g.outcomes[failed]
		if n == 0 || len(list) == shownFailing {
			break
		}
		rate := 1 - *g.successRate()
		f := failingType{
			Name: g.name, Failed: number(n), Of: plural(n+g.outcomes[completed], "ended job"),
			Rate: percent(rate), Share: round(rate * 100),
		}
		for _, e := range g.errors.top(shownErrors) {
			f.Errors = append(f.Errors, errorRow{number(e.sure()), e.text})
			n -= e.sure()
		}
		if n > 0 {
			f.More = plural(n, "more failure") + " with other errors"
		}
		list = append(list, f)
	}
	return list
}
