package export

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/handlers/internal/payload"
)

// request is a payload in its parsed form.
type request struct {
	format *format
	filter jobs.Filter
	options
}

// options control how a file is written.
type options struct {
	columns []column
	zone    *time.Location // of times; nil = UTC
	bom     bool           // whether the file begins with a byte order mark
}

// format is a kind of file.
type format struct {
	name        string // and the extension of the file
	contentType string
	encoder     func(o options) encoder
}

var formats = []*format{
	{"csv", "text/csv; charset=utf-8", newCSV},
	{"json", "application/json", newJSON},
	{"jsonl", "application/x-ndjson", newJSONL},
}

func parse(raw json.RawMessage) (*request, error) {
	var filters *payload.Value // read last: its dates depend on the time zone
	req := &request{format: formats[0], options: options{columns: pick(defaultColumns)}}
	err := payload.ReadThen(raw, payload.Fields{
		"format": func(v payload.Value) {
			if name, ok := v.OneOf(formatNames()...); ok {
				req.format = formats[slices.Index(formatNames(), name)]
			}
		},
		"filters":  func(v payload.Value) { filters = &v },
		"columns":  func(v payload.Value) { req.columns = readColumns(v) },
		"timezone": func(v payload.Value) { req.zone = v.Zone() },
		"bom":      func(v payload.Value) { req.bom = v.Bool() },
	}, func(whole payload.Value) {
		if filters != nil {
			req.filter = readFilters(*filters, req.zone)
		}
		if req.bom && req.format != formats[0] {
			whole.At("bom").Fail("goes with the format csv only")
		}
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

func readFilters(v payload.Value, zone *time.Location) jobs.Filter {
	var f jobs.Filter
	date, span := payload.Period{Zone: zone}, payload.Period{Zone: zone}
	v.Object(payload.Fields{
		"date":   date.ReadDate,
		"from":   span.ReadFrom,
		"to":     span.ReadTo,
		"status": func(v payload.Value) { f.Statuses = v.Statuses(func(jobs.Status) bool { return true }) },
		"type":   func(v payload.Value) { f.Types = readTypes(v) },
		"tag":    func(v payload.Value) { f.Tags = readTags(v) },
	})
	if !date.Empty() && !span.Empty() {
		v.At("date").Fail("cannot stand together with from or to")
	}
	span.Check(v)
	if !date.Empty() {
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
