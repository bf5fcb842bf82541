package export

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/handlers/internal/payload"
	"jobstream/jobs/strict"
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
	var filters strict.Value // read last: its dates depend on the time zone
	req := &request{format: formats[0], options: options{columns: pick(defaultColumns)}}
	err := payload.Read(raw, []strict.Field{
		strict.May("bom", func(v strict.Value) { req.bom = v.Bool() }),
		strict.May("columns", func(v strict.Value) { req.columns = readColumns(v) }),
		strict.May("filters", func(v strict.Value) { filters = v }),
		strict.May("format", func(v strict.Value) {
			if name, ok := v.OneOf(formatNames()...); ok {
				req.format = formats[slices.Index(formatNames(), name)]
			}
		}),
		strict.May("timezone", func(v strict.Value) { req.zone = payload.Zone(v) }),
	}, func(whole strict.Value) {
		if !filters.Null() {
			req.filter = readFilters(filters, req.zone)
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

func readFilters(v strict.Value, zone *time.Location) jobs.Filter {
	var f jobs.Filter
	date, span := payload.Period{Zone: zone}, payload.Period{Zone: zone}
	v.Object(
		strict.May("date", date.ReadDate),
		strict.May("from", span.ReadFrom),
		strict.May("status", func(v strict.Value) {
			f.Statuses = payload.Statuses(v, func(jobs.Status) bool { return true })
		}),
		strict.May("tag", func(v strict.Value) { f.Tags = readTags(v) }),
		strict.May("to", span.ReadTo),
		strict.May("type", func(v strict.Value) { f.Types = readTypes(v) }),
	)
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

func readTypes(v strict.Value) (types []string) {
	v.Texts(func(item strict.Value, s string) {
		if !jobs.ValidTypeName(s) {
			item.Fail("%q cannot be a job type: letters, digits, _ and - only, at most %d", s, jobs.MaxTypeName)
		}
		types = append(types, s)
	})
	return types
}

func readTags(v strict.Value) (tags []string) {
	v.Texts(func(item strict.Value, s string) {
		if s == "" {
			item.Fail("must not be empty")
		}
		tags = append(tags, s)
	})
	return tags
}

func readColumns(v strict.Value) []column {
	var names []string
	v.Texts(func(item strict.Value, s string) {
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
