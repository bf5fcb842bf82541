package api

import (
	"fmt"
	"maps"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/joblog"
	"jobstream/jobs/schedule"
	"jobstream/jobs/strict"
)

// OpenListing begins the answer of GET /jobs and jobstream.list:
//
//	{"jobs":[…],"next_cursor":"…","scanned":20000}
//
// The jobs follow, with commas between them, and then the text of [AppendListEnd].
// next_cursor is "" on the last page. A page without jobs but with a next_cursor means
// "go on". scanned is missing if it does not matter.
const OpenListing = `{"jobs":[`

// AppendListEnd appends the end of a list; see [OpenListing].
func AppendListEnd(b []byte, l *jobs.Listing) []byte {
	b = append(b, `],"next_cursor":`...)
	b = jobs.AppendString(b, l.Next)
	if l.ShowScanned {
		b = append(b, `,"scanned":`...)
		b = strconv.AppendInt(b, int64(l.Scanned), 10)
	}
	return append(b, '}')
}

// Bounds of a filter's parameters.
const (
	// MaxFilterValues is how often one parameter may be given, since every value is
	// compared with every job.
	MaxFilterValues = 100
	// MaxFilterText is the longest text to search for, in bytes.
	MaxFilterText = 256
)

// The parameters by their names in the query string and in JSON.
var (
	indexedNames = []string{"status", "type", "tag", "fingerprint", "schedule", "concurrency_key", "unique_key", "created_after", "created_before"}
	filterNames  = append(slices.Clone(indexedNames), "id", "priority",
		"started_after", "started_before", "ended_after", "ended_before", "error", "payload", "q", "created_by")
	countNames   = append(slices.Clone(indexedNames), consistentName)
	listNames    = append(slices.Clone(filterNames), "limit", "cursor", "order", "order_by", "include", consistentName)
	auditNames   = []string{"actor", "action", "after", "before", "limit", "cursor", consistentName}
	failureNames = []string{"type", "limit", "cursor", "order_by", consistentName}
	// repeated are those that may have several values.
	repeated = []string{"status", "type", "tag", "fingerprint", "schedule", "concurrency_key", "unique_key", "id", "created_by"}
)

// consistentName is the parameter of lists that the node which was asked answers. It
// changes their place, see [Operation.PlaceFor], so the readers only check it.
const consistentName = "consistent"

// ParseListQuery reads the query of GET /jobs. The fields of a [jobs.Filter] are
// status, type, tag, fingerprint, schedule, concurrency_key, unique_key, id, created_by and priority,
// which may repeat, created_after, created_before, started_after, started_before,
// ended_after, ended_before, error, payload and q. Besides there are limit, cursor, order
// (asc or desc), order_by, include (waiting) and consistent. An [*jobs.Error] names every
// wrong parameter.
func ParseListQuery(query url.Values) (jobs.Page, error) {
	p := params{known: listNames}
	if err := p.query(query); err != nil {
		return jobs.Page{}, err
	}
	return p.page, nil
}

// ParseListRequest reads the request of jobstream.list: a JSON object with the names of
// [ParseListQuery]. Its values are strings, numbers or lists of strings; for priority
// also lists of numbers. An empty body asks for the first page of all jobs.
func ParseListRequest(body []byte) (jobs.Page, error) {
	p := params{known: listNames}
	if len(body) > 0 {
		if err := p.body(body); err != nil {
			return jobs.Page{}, err
		}
	}
	return p.page, nil
}

// ParseCountsQuery reads the query of GET /jobs/counts: status, type, tag, fingerprint,
// schedule, concurrency_key and unique_key, which may repeat, created_after, created_before
// and consistent. They can be counted without reading all
// records. An [*jobs.Error] names every wrong parameter.
func ParseCountsQuery(query url.Values) (jobs.Filter, error) {
	p := params{known: countNames}
	if err := p.query(query); err != nil {
		return jobs.Filter{}, err
	}
	return p.page.Filter, nil
}

// filterOf reads a [jobs.Filter] from a JSON object, strictly:
//
//	{"status":["failed","cancelled"],"type":"email","tag":"a","priority":[1,2],
//	 "created_after":"2024-01-15T08:00:00Z","created_before":"2024-01-16",
//	 "started_after":…,"started_before":…,"ended_after":…,"ended_before":…,
//	 "error":"timeout","payload":"user@example.com","fingerprint":…,"schedule":…,
//	 "concurrency_key":…,"unique_key":…,"id":…,"q":"ann@"}
//
// Every field is optional. Those that may repeat in a query are one value or a list that
// is not empty. The result may change whole sets of jobs, so nothing is guessed: see
// [jobs.Filter.Empty] for the filter that chooses all.
func filterOf(v strict.Value) jobs.Filter {
	if !v.IsObject() {
		v.Fail(`must be an object like {"status":"failed","type":"email"}, not %s`, v)
		return jobs.Filter{}
	}
	p := params{known: filterNames}
	p.object(v, filterValues)
	return p.page.Filter
}

// params collects the parameters of a list.
type params struct {
	known   []string
	inQuery bool // they come from a query string, not from JSON
	page    jobs.Page
	jobs    []jobs.ID
	url     string
	wait    time.Duration
	log     joblog.Query
	follow  bool
	lastID  string
	byCount bool
	prefix  string
	actions []string
	preview preview
	span    string // of a history
	digest  int    // seconds
}

// body reads the JSON object of a request.
func (p *params) body(body []byte) error {
	return jobs.Read("", body, func(v strict.Value) { p.object(v, p.textValues) })
}

// object reads all fields of a JSON object. values converts each to texts. A null field
// counts as missing.
func (p *params) object(v strict.Value, values func(v strict.Value) ([]string, bool)) {
	v.Each(func(v strict.Value) {
		if v.Null() && slices.Contains(p.known, v.Name()) {
			return
		}
		if texts, ok := values(v); ok {
			p.set(v, texts)
		}
	})
}

// moment reads a time. In a query a + is a space, unless it is escaped.
func (p *params) moment(v string) (jobs.Time, error) {
	t, err := jobs.ParseMoment(v)
	if err != nil && p.inQuery && strings.Contains(v, " ") {
		if _, again := jobs.ParseMoment(strings.ReplaceAll(v, " ", "+")); again == nil {
			err = fmt.Errorf("%w; a + must be written as %%2B in a query", err)
		}
	}
	return t, err
}

// query reads all parameters of a query string, in the order of their names.
func (p *params) query(query url.Values) error {
	p.inQuery = true
	return jobs.Mistaken(strict.Read("query", nil, func(v strict.Value) {
		for _, name := range slices.Sorted(maps.Keys(query)) {
			p.set(v.At(name), query[name])
		}
	}))
}

// set sets all values of one parameter.
func (p *params) set(v strict.Value, values []string) {
	if !slices.Contains(p.known, v.Name()) {
		v.Fail("is not a known parameter; known are %s", strings.Join(p.known, ", "))
		return
	}
	switch f := &p.page.Filter; v.Name() {
	case "status":
		each(v, values, func(text string) error {
			s, ok := jobs.ParseStatus(text)
			if !ok {
				return fmt.Errorf("%s is not a status; known are %s", jobs.Quote(text), strings.Join(jobs.StatusNames(), ", "))
			}
			f.Statuses = append(f.Statuses, s)
			return nil
		})
	case "type":
		each(v, values, func(text string) error { f.Types = append(f.Types, text); return nil })
	case "tag":
		each(v, values, func(text string) error { f.Tags = append(f.Tags, text); return nil })
	case "fingerprint":
		each(v, values, func(text string) error {
			f.Fingerprints = append(f.Fingerprints, text)
			if !jobs.IsFingerprint(text) {
				return fmt.Errorf("%s is not a fingerprint: 16 hex digits, as failed jobs have them", jobs.Quote(text))
			}
			return nil
		})
	case "schedule":
		each(v, values, func(text string) error { f.Schedules = append(f.Schedules, text); return nil })
	case "concurrency_key":
		each(v, values, func(text string) error { f.ConcurrencyKeys = append(f.ConcurrencyKeys, text); return nil })
	case "unique_key":
		each(v, values, func(text string) error { f.UniqueKeys = append(f.UniqueKeys, text); return nil })
	case "id":
		each(v, values, func(text string) error {
			f.IDs = append(f.IDs, text)
			if len(text) < minIDPrefix || !jobs.IsIDPrefix(text) {
				return fmt.Errorf("%s is not an id, nor the first %d or more characters of one", jobs.Quote(text), minIDPrefix)
			}
			return nil
		})
	case "actor", "created_by":
		each(v, values, func(text string) error { f.CreatedBy = append(f.CreatedBy, text); return nil })
	case "action":
		p.actions = values
	case "priority":
		each(v, values, func(text string) error {
			n, err := strict.Int([]byte(text), int(jobs.HighestPriority), int(jobs.LowestPriority))
			f.Priorities = append(f.Priorities, jobs.Priority(n))
			return err
		})
	case "job":
		each(v, values, func(text string) error {
			id, err := jobs.ParseID(text)
			p.jobs = append(p.jobs, id)
			return err
		})
	default:
		if len(values) != 1 { // a second value is an error, not ignored
			v.Fail("must have one value, not %d", len(values))
			return
		}
		v.Check(p.one(v.Name(), values[0]))
	}
}

// each reads the values of a parameter that may have many.
func each(v strict.Value, values []string, read func(string) error) {
	switch {
	case len(values) > MaxFilterValues:
		v.Fail("has %d values, at most %d are allowed", len(values), MaxFilterValues)
	case slices.Contains(values, ""):
		v.Fail("is empty")
	default:
		for _, text := range values {
			v.Check(read(text))
		}
	}
}

// one sets a parameter that has one value.
func (p *params) one(name, text string) (err error) {
	switch f := &p.page; name {
	case "after", "created_after":
		f.CreatedAfter, err = p.moment(text)
	case "before", "created_before":
		f.CreatedBefore, err = p.moment(text)
	case "started_after":
		f.StartedAfter, err = p.moment(text)
	case "started_before":
		f.StartedBefore, err = p.moment(text)
	case "ended_after":
		f.EndedAfter, err = p.moment(text)
	case "ended_before":
		f.EndedBefore, err = p.moment(text)
	case "error":
		f.Error, err = filterText(text)
	case "payload":
		f.Payload, err = filterText(text)
	case "q":
		if f.Query, err = filterText(strings.TrimSpace(text)); err != nil && f.Query == "" {
			err = fmt.Errorf("is empty")
		}
	case "order_by":
		err = p.orderBy(text)
	case "cron":
		p.preview.cron, err = filterText(strings.TrimSpace(text))
	case "every":
		if p.preview.every, err = jobs.ParseDuration(text); err == nil && p.preview.every == 0 {
			err = fmt.Errorf("must be above 0")
		}
	case "timezone":
		p.preview.zone = text
	case "n":
		p.preview.n, err = strict.Int([]byte(text), 1, schedule.MaxPreview)
	case "prefix":
		p.prefix, err = filterText(text)
	case "include":
		f.Waiting = text == "waiting"
		if !f.Waiting {
			err = fmt.Errorf("must be waiting, not %s", jobs.Quote(text))
		}
	case "url":
		p.url, err = text, jobs.CheckCallbackURL(text)
	case "wait":
		p.wait, err = ParseWait(text)
	case "attempt":
		p.log.Attempt, err = strict.Int([]byte(text), 1, math.MaxInt32)
	case "tail":
		p.log.Tail, err = strict.Int([]byte(text), 1, math.MaxInt32)
	case "digest":
		p.digest, err = digestOf(text)
	case "last_event_id":
		p.lastID = text
	case "range":
		p.span, err = readSpan(text)
	case consistentName:
		_, err = strict.Bool([]byte(text))
	case "follow":
		p.follow, err = strict.Bool([]byte(text))
	case "limit":
		f.Limit, err = strict.Int([]byte(text), 1, jobs.MaxLimit)
	case "cursor":
		f.Cursor = text
	case "order":
		f.Asc = text == "asc"
		if text != "asc" && text != "desc" {
			err = fmt.Errorf("must be asc or desc, not %s", jobs.Quote(text))
		}
	}
	return err
}

// minIDPrefix is the length of the shortest beginning of an id.
const minIDPrefix = 4

// orderBy sets the order of a list of jobs, or of failures.
func (p *params) orderBy(text string) (err error) {
	known := jobs.OrderNames()
	if !slices.Contains(p.known, "include") {
		known = []string{"last", "count"}
		p.byCount = text == "count"
	}
	p.page.Order, _ = jobs.ParseOrder(text)
	if !slices.Contains(known, text) {
		err = fmt.Errorf("must be %s or %s, not %s", strings.Join(known[:len(known)-1], ", "), known[len(known)-1], jobs.Quote(text))
	}
	return err
}

// maxDigest is the longest period of digests in seconds.
const maxDigest = 60

// digestOf reads a period of whole seconds.
func digestOf(text string) (seconds int, err error) {
	d, err := jobs.ParseDuration(text)
	if err != nil || d < time.Second || d > maxDigest*time.Second || d%time.Second != 0 {
		return 0, fmt.Errorf("must be whole seconds from 1s to %ds, not %s", maxDigest, jobs.Quote(text))
	}
	return int(d / time.Second), nil
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

// textValues reads a string, a number or a list of strings as the texts of a query
// string. The list of priorities may contain numbers.
func (p *params) textValues(v strict.Value) ([]string, bool) {
	numbers := v.Name() == "priority" && slices.Contains(p.known, "priority")
	switch {
	case v.IsText():
		s, ok := v.Text()
		return []string{s}, ok
	case v.IsNumber(), v.Name() == consistentName:
		return []string{string(v.Raw)}, true
	}
	values, ok := listValues(v, true, numbers)
	if !ok {
		v.Fail("must be a string, a number or a list of strings, not %s", v)
	}
	return values, ok
}

// filterValues reads the value of a field of [filterOf].
func filterValues(v strict.Value) ([]string, bool) {
	switch v.Name() {
	case "priority":
		if v.IsNumber() {
			return []string{string(v.Raw)}, true
		}
		if values, ok := listValues(v, false, true); ok && len(values) > 0 {
			return values, true
		}
		v.Fail("must be a number or a list of numbers, not %s", v)
		return nil, false
	}
	if slices.Contains(repeated, v.Name()) {
		if values, ok := listValues(v, true, false); ok {
			if len(values) == 0 {
				v.Fail("is an empty list; leave it out to choose all")
			}
			return values, len(values) > 0
		}
		if !v.IsText() {
			v.Fail("must be a string or a list of strings, not %s", v)
			return nil, false
		}
	}
	if !slices.Contains(filterNames, v.Name()) {
		return nil, true // it is unknown in any case
	}
	s, ok := v.Text()
	return []string{s}, ok
}

// listValues reads a list of strings, or of numbers, as texts.
func listValues(v strict.Value, texts, numbers bool) (values []string, ok bool) {
	ok = v.IsList()
	if !ok {
		return nil, false
	}
	v.Items(func(item strict.Value) {
		switch {
		case numbers && item.IsNumber():
			values = append(values, string(item.Raw))
		case texts && item.IsText():
			s, _ := item.Text()
			values = append(values, s)
		default:
			ok = false
		}
	})
	return values, ok
}

// ParseRefText reads a job's reference in a path: its UUID or its sequence in JOBS.
// Either id or seq is set. Anything else is an [*jobs.Error] of kind [jobs.NotFound].
// So is a sequence with leading zeros, because one job has one address.
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
