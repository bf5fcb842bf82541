package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"jobstream/jobs"
	"jobstream/jobs/strict"
)

// OpenListing begins the answer of GET /jobs and jobstream.list:
//
//	{"jobs":[…],"next_cursor":"…","scanned":20000}
//
// The jobs follow, with commas between them, and then what [AppendListEnd]
// appends. next_cursor is "" behind the last page; no jobs with a next_cursor
// means "go on"; scanned is left out where it is not worth telling.
const OpenListing = `{"jobs":[`

// AppendListEnd appends what stands behind the jobs of a list; see [OpenListing].
func AppendListEnd(b []byte, l *jobs.Listing) []byte {
	b = append(b, `],"next_cursor":`...)
	b = jobs.AppendString(b, l.Next)
	if l.TellScanned {
		b = append(b, `,"scanned":`...)
		b = strconv.AppendInt(b, int64(l.Scanned), 10)
	}
	return append(b, '}')
}

// Bounds of a filter's parameters.
const (
	// MaxFilterValues is how often one parameter may be given: every value is
	// compared with every job that is looked at.
	MaxFilterValues = 100
	// MaxFilterText is the longest text that can be looked for, in bytes.
	MaxFilterText = 256
)

// The parameters by their names in the query string and in JSON.
var (
	countNames  = []string{"status", "type", "tag", "created_after", "created_before"}
	filterNames = []string{
		"status", "type", "tag", "priority", "created_after", "created_before",
		"started_after", "started_before", "ended_after", "ended_before", "error", "payload",
	}
	listNames = append(slices.Clone(filterNames), "limit", "cursor", "order")
)

// ParseListQuery reads what GET /jobs asks for from the query of its URL: the
// fields of a [jobs.Filter] as status, type, tag, priority (these may repeat),
// created_after, created_before, started_after, started_before, ended_after,
// ended_before, error and payload; then limit, cursor and order (asc or desc).
// An [*jobs.Error] names every bad parameter.
func ParseListQuery(query url.Values) (jobs.Page, error) {
	r := params{known: listNames, where: "query"}
	r.query(query)
	return r.result()
}

// ParseListRequest reads what jobstream.list asks for from JSON: an object with
// the names of [ParseListQuery] whose values are strings, numbers or lists of
// strings (of numbers too, for priority). An empty body asks for the first page
// of everything.
func ParseListRequest(body []byte) (jobs.Page, error) {
	r := params{known: listNames}
	if len(body) == 0 {
		return r.result()
	}
	if err := r.object(body, func(name string, raw json.RawMessage) ([]string, error) { return textValues(raw, name == "priority") }); err != nil {
		return jobs.Page{}, err
	}
	return r.result()
}

// ParseCountsQuery reads what GET /jobs/counts asks for from the query of its
// URL: status, type and tag, which may repeat, created_after and created_before.
// These can be counted without reading all records. An [*jobs.Error] names every bad
// parameter.
func ParseCountsQuery(query url.Values) (jobs.Filter, error) {
	r := params{known: countNames, where: "query"}
	r.query(query)
	p, err := r.result()
	return p.Filter, err
}

// ParseFilter reads a [jobs.Filter] from the JSON object raw, strictly:
//
//	{"status":["failed","cancelled"],"type":"email","tag":"a","priority":[1,2],
//	 "created_after":"2024-01-15T08:00:00Z","created_before":"2024-01-16",
//	 "started_after":…,"started_before":…,"ended_after":…,"ended_before":…,
//	 "error":"timeout","payload":"user@example.com"}
//
// Every field is optional; status, type, tag and priority take one value or a
// list that is not empty. Since whole sets of jobs are changed by what it says,
// nothing is guessed: see [jobs.Filter.Empty] for the filter that chooses all. An
// [*jobs.Error] names every bad field by its JSON pointer, below pointer (that of raw
// itself, "" if raw is the body).
func ParseFilter(raw json.RawMessage, pointer string) (jobs.Filter, error) {
	r := params{known: filterNames, where: pointer}
	raw = bytes.TrimSpace(raw)
	if pointer != "" && (len(raw) == 0 || raw[0] != '{') {
		return jobs.Filter{}, jobs.Invalid(pointer, `must be an object like {"status":"failed","type":"email"}, not `+strict.Describe(raw))
	}
	err := r.object(raw, filterValues)
	if e, ok := jobs.AsError(err); ok && e.Kind == jobs.MalformedJSON {
		return jobs.Filter{}, err
	}
	r.bad.within(pointer, err)
	p, err := r.result()
	return p.Filter, err
}

// params gathers the parameters of a list, and what is wrong with them.
type params struct {
	known []string
	where string // goes before the names in errors
	page  jobs.Page
	bad   fieldErrors
}

// result is what was asked for, or an *Error that names every bad parameter.
func (r *params) result() (jobs.Page, error) {
	if len(r.bad) > 0 {
		return jobs.Page{}, jobs.InvalidFields(r.bad...)
	}
	return r.page, nil
}

func (r *params) fail(name, format string, args ...any) {
	r.bad.add(r.where+strict.Pointer(name), fmt.Errorf(format, args...))
}

// object takes all fields of a JSON object, by the texts that values makes of
// each. A null is as if its field were not there.
func (r *params) object(body []byte, values func(name string, raw json.RawMessage) ([]string, error)) error {
	return jobs.EachField(body, func(name string, raw json.RawMessage) {
		if string(raw) == "null" && slices.Contains(r.known, name) {
			return
		}
		texts, err := values(name, raw)
		if err != nil {
			r.fail(name, "%s", err)
			return
		}
		r.set(name, texts)
	})
}

// moment reads a time. In a query a + is a space, unless it is escaped.
func (r *params) moment(v string) (jobs.Time, error) {
	t, err := jobs.ParseMoment(v)
	if err != nil && r.where == "query" && strings.Contains(v, " ") {
		if _, again := jobs.ParseMoment(strings.ReplaceAll(v, " ", "+")); again == nil {
			err = fmt.Errorf("%w; a + must be written as %%2B in a query", err)
		}
	}
	return t, err
}

// query takes all parameters of a query string, in the order of their names.
func (r *params) query(query url.Values) {
	for _, name := range slices.Sorted(maps.Keys(query)) {
		r.set(name, query[name])
	}
}

// set takes all values of one parameter.
func (r *params) set(name string, values []string) {
	if !slices.Contains(r.known, name) {
		r.fail(name, "is not a known parameter; known are %s", strings.Join(r.known, ", "))
		return
	}
	switch p := &r.page; name {
	case "status":
		r.each(name, values, func(v string) error {
			s, ok := jobs.ParseStatus(v)
			if !ok {
				return fmt.Errorf("%s is not a status; known are %s", jobs.Quote(v), strings.Join(jobs.StatusNames(), ", "))
			}
			p.Statuses = append(p.Statuses, s)
			return nil
		})
	case "type":
		r.each(name, values, func(v string) error { p.Types = append(p.Types, v); return nil })
	case "tag":
		r.each(name, values, func(v string) error { p.Tags = append(p.Tags, v); return nil })
	case "priority":
		r.each(name, values, func(v string) error {
			n, err := strict.Int([]byte(v), int(jobs.HighestPriority), int(jobs.LowestPriority))
			p.Priorities = append(p.Priorities, jobs.Priority(n))
			return err
		})
	default:
		r.one(name, values)
	}
}

// each takes the values of a parameter that may have many.
func (r *params) each(name string, values []string, read func(string) error) {
	if len(values) > MaxFilterValues {
		r.fail(name, "has %d values, at most %d are allowed", len(values), MaxFilterValues)
		return
	}
	if slices.Contains(values, "") {
		r.fail(name, "is empty")
		return
	}
	for _, v := range values {
		if err := read(v); err != nil {
			r.fail(name, "%s", err)
		}
	}
}

// one takes the value of a parameter that has one; a second is an error rather
// than ignored.
func (r *params) one(name string, values []string) {
	if len(values) != 1 {
		r.fail(name, "must have one value, not %d", len(values))
		return
	}
	var err error
	switch p, v := &r.page, values[0]; name {
	case "created_after":
		p.CreatedAfter, err = r.moment(v)
	case "created_before":
		p.CreatedBefore, err = r.moment(v)
	case "started_after":
		p.StartedAfter, err = r.moment(v)
	case "started_before":
		p.StartedBefore, err = r.moment(v)
	case "ended_after":
		p.EndedAfter, err = r.moment(v)
	case "ended_before":
		p.EndedBefore, err = r.moment(v)
	case "error":
		p.Error, err = filterText(v)
	case "payload":
		p.Payload, err = filterText(v)
	case "limit":
		p.Limit, err = strict.Int([]byte(v), 1, jobs.MaxLimit)
	case "cursor":
		p.Cursor = v
	case "order":
		p.Asc = v == "asc"
		if v != "asc" && v != "desc" {
			err = fmt.Errorf("must be asc or desc, not %s", jobs.Quote(v))
		}
	}
	if err != nil {
		r.fail(name, "%s", err)
	}
}

func filterText(v string) (string, error) {
	switch {
	case v == "":
		return "", fmt.Errorf("is empty")
	case len(v) > MaxFilterText:
		return "", fmt.Errorf("has %d bytes, at most %d are allowed", len(v), MaxFilterText)
	}
	return v, nil
}

// textValues reads a string, a number or a list of strings as the texts that a
// query string would have. With numbers, the list may have numbers as well.
func textValues(raw json.RawMessage, numbers bool) ([]string, error) {
	switch c := raw[0]; {
	case c == '"':
		s, err := strict.Text(raw)
		return []string{s}, err
	case strict.IsNumber(raw):
		return []string{string(raw)}, nil
	case c == '[':
		if values, ok := listValues(raw, true, numbers); ok {
			return values, nil
		}
	}
	return nil, fmt.Errorf("must be a string, a number or a list of strings, not %s", strict.Describe(raw))
}

// filterValues reads the value of a field of [ParseFilter].
func filterValues(name string, raw json.RawMessage) ([]string, error) {
	switch name {
	case "priority":
		if strict.IsNumber(raw) {
			return []string{string(raw)}, nil
		}
		if values, ok := listValues(raw, false, true); ok && len(values) > 0 {
			return values, nil
		}
		return nil, fmt.Errorf("must be a number or a list of numbers, not %s", strict.Describe(raw))
	case "status", "type", "tag":
		if values, ok := listValues(raw, true, false); ok {
			if len(values) == 0 {
				return nil, fmt.Errorf("is an empty list; leave it out to choose all")
			}
			return values, nil
		}
		if raw[0] != '"' {
			return nil, fmt.Errorf("must be a string or a list of strings, not %s", strict.Describe(raw))
		}
	}
	if !slices.Contains(filterNames, name) {
		return nil, nil // whatever it is, it is unknown
	}
	s, err := strict.Text(raw)
	return []string{s}, err
}

// listValues reads a list of strings, or of numbers, as texts.
func listValues(raw json.RawMessage, texts, numbers bool) (values []string, ok bool) {
	var list []json.RawMessage
	if raw[0] != '[' || json.Unmarshal(raw, &list) != nil {
		return nil, false
	}
	values = make([]string, len(list))
	for i, entry := range list {
		switch {
		case numbers && strict.IsNumber(entry):
			values[i] = string(entry)
		case texts && entry[0] == '"':
			s, err := strict.Text(entry)
			if err != nil {
				return nil, false
			}
			values[i] = s
		default:
			return nil, false
		}
	}
	return values, true
}

// ParseRefText reads a job's UUID or its sequence in JOBS, as it stands in a
// path. Either id or seq is set. Anything else is an [*jobs.Error] of kind
// [jobs.NotFound], as is a sequence with leading zeros: one job has one address.
func ParseRefText(s string) (id jobs.ID, seq uint64, err error) {
	if len(s) == 36 {
		if id, err = jobs.ParseID(s); err == nil {
			return id, 0, nil
		}
	} else if s != "" && s[0] >= '1' && s[0] <= '9' {
		if seq, err = strconv.ParseUint(s, 10, 64); err == nil {
			return jobs.ID{}, seq, nil
		}
	}
	return jobs.ID{}, 0, jobs.NoSuchJob(s)
}
