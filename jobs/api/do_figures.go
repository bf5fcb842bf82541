package api

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"jobstream/jobs"
	"jobstream/jobs/figures"
	"jobstream/jobs/form"
)

// ofHistory is the input of the operation stats.history.
type ofHistory struct {
	span  string
	types []string
}

var historyNames = []string{"range", "type"}

var statsHistoryDoc = form.Doc{
	Summary: "Look at the figures of the past",
	Text: "In columns: item `i` of each is of the period of `step_seconds` that begins at `from` + `i` × `step_seconds`. " +
		"A period that was not counted is null, because the server did not run. " +
		"`waiting`, `oldest_seconds` and `running` are the highest of the period.",
	Query: queries(historyNames...),
	Answer: form.Object(
		form.Need("range", form.OneOf(figures.Ranges()...), ""),
		form.Need("step_seconds", form.Count(), "the length of a period"),
		form.Need("from", form.Moment(), "the beginning of the first one"),
		form.Need("periods", form.Count(), "how many there are"),
		form.Need("total", seriesForm(), "of all types"),
		form.Need("types", form.Map(seriesForm()), "by type; of those that had jobs, or that were asked for"),
	).Named("StatsHistory"),
}

func seriesForm() form.Schema {
	var fields []form.Field
	for _, c := range figures.Columns() {
		values := form.Either(form.Count(), form.Schema{"type": "null"})
		if c.Seconds {
			values = form.Either(form.Number(), form.Schema{"type": "null"})
		}
		fields = append(fields, form.Need(c.Name, form.List(values, 0, 0), c.Text))
	}
	return form.Object(fields...).Named("Series")
}

func readHistoryQuery(r Request) (h ofHistory, err error) {
	query, err := r.Query()
	if err != nil {
		return h, err
	}
	p := params{known: historyNames}
	if err := p.query(query); err != nil {
		return h, err
	}
	if p.span == "" {
		p.span = figures.Ranges()[0]
	}
	return ofHistory{p.span, p.page.Types}, nil
}

// readSpan reads the range of a history.
func readSpan(text string) (string, error) {
	if ranges := figures.Ranges(); !slices.Contains(ranges, text) {
		return "", fmt.Errorf("must be one of %s, not %s", strings.Join(ranges, ", "), jobs.Quote(text))
	}
	return text, nil
}

func statsHistory(_ context.Context, c Call, h ofHistory) (Answer, error) {
	return Answer{JSON: c.Figures.History(h.span, h.types, jobs.Now().Std())}, nil
}
