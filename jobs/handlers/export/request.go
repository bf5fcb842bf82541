package export

import (
	"encoding/json"
	"slices"
	"strings"

	"jobstream/jobs"
	"jobstream/jobs/handlers/internal/payload"
)

// request is a payload after reading.
type request struct {
	format  *format
	filter  jobs.Filter
	columns []column
}

// format is a kind of file.
type format struct {
	name        string // also the end of the file's name
	contentType string
	encoder     func(columns []column) encoder
}

var formats = []*format{
	{"csv", "text/csv; charset=utf-8", newCSV},
	{"json", "application/json", newJSON},
	{"jsonl", "application/x-ndjson", newJSONL},
}

func parse(raw json.RawMessage) (*request, error) {
	req := &request{format: formats[0], columns: pick(defaultColumns)}
	err := payload.Read(raw, payload.Fields{
		"format": func(v payload.Value) {
			if name, ok := v.OneOf(formatNames()...); ok {
				req.format = formats[slices.Index(formatNames(), name)]
			}
		},
		"filters": func(v payload.Value) { req.filter = readFilters(v) },
		"columns": func(v payload.Value) { req.columns = readColumns(v) },
	})
	if err != nil {
		return nil, err
	}
	return req, nil
}

func formatNames() []string {
	names := make([]string, len(formats))
	for i, f := range formats {
		names[i] = f.name
	}
	return names
}

func readFilters(v payload.Value) jobs.Filter {
	var f jobs.Filter
	var date, span payload.Period
	v.Object(payload.Fields{
		"date":   date.ReadDate,
		"from":   span.ReadFrom,
		"to":     span.ReadTo,
		"status": func(v payload.Value) { f.Statuses = v.Statuses(func(jobs.Status) bool { return true }) },
		"type":   func(v payload.Value) { f.Types = readTypes(v) },
		"tag":    func(v payload.Value) { f.Tags = readTags(v) },
	})
	if date != (payload.Period{}) && span != (payload.Period{}) {
		v.At("date").Fail("cannot stand together with from or to")
	}
	span.Check(v)
	if date != (payload.Period{}) {
		span = date
	}
	f.CreatedAfter, f.CreatedBefore = span.From, span.To
	return f
}

func readTypes(v payload.Value) (types []string) {
	v.Texts(func(item payload.Value, s string) {
		if !jobs.ValidTypeName(s) {
			item.Fail("%q cannot be a job type: letters, digits, _ and - only, at most %d", s, jobs.MaxTypeName)
		}
		types = append(types, s)
	})
	return types
}

func readTags(v payload.Value) (tags []string) {
	v.Texts(func(item payload.Value, s string) {
		if s == "" {
			item.Fail("must not be empty")
		}
		tags = append(tags, s)
	})
	return tags
}

func readColumns(v payload.Value) []column {
	var names []string
	v.Texts(func(item payload.Value, s string) {
		switch {
		case !slices.Contains(Columns(), s):
			item.Fail("%q is not a column; known are %s", s, strings.Join(Columns(), ", "))
		case slices.Contains(names, s):
			item.Fail("%q is given twice", s)
		default:
			names = append(names, s)
		}
	})
	if v.IsEmptyList() {
		v.Fail("must name at least one column")
	}
	return pick(names)
}
