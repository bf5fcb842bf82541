package report

import (
	"fmt"
	"math"
	"strings"
	"time"

	"jobstream/jobs/figures"
)

// The charts are SVG. Their marks stand at percentages of its size, so they fill any
// width while lines stay thin and circles round. The words around them are HTML and
// keep their size. All places here are percentages from the left or the top.

// mark is a place on an axis with its label.
type mark struct {
	At    float64
	Label string
	Minor bool // may be left out on a narrow page
}

// piece is a part of a bar.
type piece struct {
	Outcome  string
	At, Size float64
}

// legendItem explains a colour.
type legendItem struct{ Outcome, Label, Count string }

// volumeChart has a bar for every bucket of time, stacked by outcome.
type volumeChart struct {
	Title, Text string
	Unit        string
	Y, X        []mark
	Bars        []volumeBar
	Legend      []legendItem
}

type volumeBar struct {
	X, Width float64
	Text     string
	Pieces   []piece
	Label    string
	Counts   []string // total, then by outcome as in the legend
}

const maxLabels = 14 // on the time axis; half as many on a narrow page

func newVolumeChart(s *summary) *volumeChart {
	top, step := scale(s.highest())
	c := &volumeChart{
		Title:  "Jobs by " + s.unit.String(),
		Unit:   s.unit.String(),
		Text:   fmt.Sprintf("%s in bars by %s of submission, stacked by outcome; at most %s in one bar.", plural(s.total.jobs(), "job"), s.unit, number(s.highest())),
		Legend: legend(&s.total.outcomes),
	}
	for v := 0; v <= top; v += step {
		c.Y = append(c.Y, mark{At: round(100 - 100*float64(v)/float64(top)), Label: number(v)})
	}
	width := 100 / float64(len(s.edges))
	every := (len(s.edges) + maxLabels - 1) / maxLabels
	for i, edge := range s.edges {
		bar := volumeBar{
			X: round((float64(i) + 0.12) * width), Width: round(0.76 * width),
			Label: s.unit.long(edge.Std().In(s.zone)),
		}
		bar.Pieces = stack(s.volume[i], top)
		bar.Counts = append(bar.Counts, number(s.volume[i].jobs()))
		for _, item := range c.Legend {
			bar.Counts = append(bar.Counts, number(s.volume[i][outcomeNamed(item.Outcome)]))
		}
		bar.Text = bar.Label + ": " + countsText(&s.volume[i])
		c.Bars = append(c.Bars, bar)
		if i%every == 0 {
			c.X = append(c.X, mark{At: round((float64(i) + 0.5) * width), Label: s.unit.short(edge.Std().In(s.zone)), Minor: i/every%2 == 1})
		}
	}
	return c
}

func (s *summary) highest() int {
	n := 0
	for i := range s.volume {
		n = max(n, s.volume[i].jobs())
	}
	return n
}

// scale returns the top of an axis from 0 that holds n, and its step. There are about four
// steps, each of 1, 2 or 5 times a power of ten.
func scale(n int) (top, step int) {
	step = 1
	for i := 0; step*4 < n; i++ {
		step = []int{1, 2, 5}[i%3] * int(math.Pow10(i/3))
	}
	return max((n+step-1)/step, 1) * step, step
}

// stack builds a bar from the ground up.
func stack(c counts, top int) []piece {
	var pieces []piece
	y := 100.0
	for o, n := range c {
		if n > 0 {
			h := 100 * float64(n) / float64(top)
			y -= h
			pieces = append(pieces, piece{outcome(o).String(), round(y), round(h)})
		}
	}
	return pieces
}

func outcomeNamed(name string) outcome {
	for o, known := range outcomeNames {
		if known == name {
			return outcome(o)
		}
	}
	return unfinished
}

// legend lists the outcomes that occur, the best first.
func legend(c *counts) []legendItem {
	var list []legendItem
	for o := numOutcomes - 1; o >= 0; o-- {
		if c[o] > 0 {
			list = append(list, legendItem{o.String(), o.String(), number(c[o])})
		}
	}
	return list
}

func countsText(c *counts) string {
	text := plural(c.jobs(), "job")
	var parts []string
	for _, item := range legend(c) {
		parts = append(parts, item.Count+" "+item.Label)
	}
	if len(parts) > 0 {
		text += " (" + strings.Join(parts, ", ") + ")"
	}
	return text
}

// typeChart has a bar for every type.
type typeChart struct {
	Bars []typeBar
	More string // the types that are left out
}

type typeBar struct {
	Name, Text, Value, Note string
	Pieces                  []piece
}

func newTypeChart(byVolume []*group) *typeChart {
	c := &typeChart{}
	if len(byVolume) == 0 {
		return c
	}
	all, widest := 0, byVolume[0].jobs()
	for _, g := range byVolume {
		all += g.jobs()
	}
	for _, g := range byVolume[:min(shownTypes, len(byVolume))] {
		c.Bars = append(c.Bars, typeBar{
			Name: g.name, Text: g.name + ": " + countsText(&g.outcomes), Pieces: row(&g.outcomes, widest),
			Value: number(g.jobs()), Note: percent(float64(g.jobs()) / float64(all)),
		})
	}
	c.More = leftOut(byVolume)
	return c
}

// row is a bar from the left, the best outcome first.
func row(c *counts, widest int) []piece {
	var pieces []piece
	x := 0.0
	for o := numOutcomes - 1; o >= 0; o-- {
		if n := c[o]; n > 0 {
			w := 100 * float64(n) / float64(widest)
			pieces = append(pieces, piece{o.String(), round(x), round(w)})
			x += w
		}
	}
	return pieces
}

// newSuccessChart fills each bar to the success rate of its type.
func newSuccessChart(byVolume []*group) *typeChart {
	c := &typeChart{More: leftOut(byVolume)}
	for _, g := range byVolume[:min(shownTypes, len(byVolume))] {
		bar := typeBar{Name: g.name, Value: "–", Text: g.name + ": no job has ended yet"}
		if rate := g.successRate(); rate != nil {
			ended := counts{completed: g.outcomes[completed], failed: g.outcomes[failed]}
			bar.Value = percent(*rate)
			bar.Text = g.name + ": " + countsText(&ended)
			bar.Note = number(ended[failed]) + " failed"
			bar.Pieces = row(&ended, ended.jobs())
		}
		c.Bars = append(c.Bars, bar)
	}
	return c
}

func leftOut(groups []*group) string {
	n := 0
	for _, g := range groups[min(shownTypes, len(groups)):] {
		n += g.jobs()
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("and %s with %s", plural(len(groups)-shownTypes, "more type"), plural(n, "job"))
}

// spreadChart shows percentiles of a duration by type, on a logarithmic axis.
type spreadChart struct {
	Axis []mark
	Rows []spreadRow
}

type spreadRow struct {
	Name, Text string
	Points     []spreadPoint // of percentiles, ascending
	From, To   float64       // of the line through them
}

type spreadPoint struct {
	Name, Value string
	At          float64
}

var percentiles = []float64{0.5, 0.9, 0.95, 0.99}

func newSpreadChart(byVolume []*group, of func(*group) *figures.Histogram) *spreadChart {
	c := &spreadChart{}
	lo, hi := math.Inf(1), math.Inf(-1)
	shown := byVolume[:min(shownTypes, len(byVolume))]
	for _, g := range shown {
		if h := of(g); h.Count() > 0 {
			lo = min(lo, decade(h.Quantile(percentiles[0])))
			hi = max(hi, decade(h.Quantile(percentiles[len(percentiles)-1])))
		}
	}
	if lo > hi {
		return c
	}
	lo, hi = math.Floor(lo), math.Floor(hi)+1
	at := func(d time.Duration) float64 { return round(100 * (decade(d) - lo) / (hi - lo)) }
	for e := lo; e <= hi; e++ {
		d := time.Duration(math.Pow(10, e) * float64(time.Microsecond))
		c.Axis = append(c.Axis, mark{At: at(d), Label: axisText(d), Minor: int(e-lo)%2 == 1})
	}
	for _, g := range shown {
		if h := of(g); h.Count() > 0 {
			c.Rows = append(c.Rows, newSpreadRow(g.name, h, at))
		}
	}
	return c
}

func newSpreadRow(name string, h *figures.Histogram, at func(time.Duration) float64) spreadRow {
	r := spreadRow{Name: name}
	var parts []string
	for _, q := range percentiles {
		d := h.Quantile(q)
		p := spreadPoint{fmt.Sprintf("p%.0f", q*100), duration(d), at(d)}
		r.Points = append(r.Points, p)
		parts = append(parts, p.Name+" "+p.Value)
	}
	r.Text = name + ": " + strings.Join(parts, ", ")
	r.From, r.To = r.Points[0].At, r.Points[len(r.Points)-1].At
	return r
}

// decade is the logarithm of d in µs; shorter durations count as 1 µs.
func decade(d time.Duration) float64 {
	return math.Log10(float64(max(d, time.Microsecond)) / float64(time.Microsecond))
}

// axisText keeps to plain powers of ten: 1 ms, 10 s, 1,000 s.
func axisText(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%d µs", d/time.Microsecond)
	case d < time.Second:
		return fmt.Sprintf("%d ms", d/time.Millisecond)
	}
	return number(int(d/time.Second)) + " s"
}
