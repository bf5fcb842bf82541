package jobs

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
)

// ListJSON is the answer of GET /jobs and jobstream.list:
// {"jobs":[…],"next_cursor":"…"}. next is "" behind the last page.
func ListJSON(found []*Job, next string) []byte {
	size := 64
	for _, j := range found {
		size += 640 + len(j.Payload) + len(j.Result) // most jobs, without growing
	}
	b := append(make([]byte, 0, size), `{"jobs":[`...)
	for i, j := range found {
		if i > 0 {
			b = append(b, ',')
		}
		b = j.AppendJSON(b)
	}
	b = append(b, `],"next_cursor":`...)
	b = AppendString(b, next)
	return append(b, '}')
}

// MaxFilterValues is how often one parameter of a list may be given: every
// value is compared with every job that is looked at.
const MaxFilterValues = 100

// ParseListQuery reads what GET /jobs asks for from the query of its URL.
func ParseListQuery(query url.Values) (Page, error) {
	q := PageQuery{Where: "query/"}
	for _, name := range sortedNames(query) {
		q.set(name, query[name])
	}
	return q.Page()
}

// ParseListRequest reads what jobstream.list asks for from JSON: an object with
// the names of [ParseListQuery] whose values are strings, numbers or lists of
// strings. An empty body asks for the first page of everything.
func ParseListRequest(body []byte) (Page, error) {
	q := PageQuery{Where: "/"}
	if len(body) == 0 {
		return q.Page()
	}
	err := EachField(body, func(name string, raw json.RawMessage) {
		values, err := textValues(raw)
		if err != nil {
			q.fail(escapePointer(name), "%s", err)
			return
		}
		q.set(name, values)
	})
	if err != nil {
		return Page{}, err
	}
	return q.Page()
}

// set takes all values of one parameter. A filter's may be many; of the rest
// only one makes sense, and a second is an error rather than ignored.
func (q *PageQuery) set(name string, values []string) {
	switch name {
	case "status", "type", "tag":
		if len(values) > MaxFilterValues {
			q.fail(name, "has %d values, at most %d are allowed", len(values), MaxFilterValues)
			return
		}
		if slices.Contains(values, "") {
			q.fail(name, "is empty")
			return
		}
	case "created_after", "created_before", "limit", "cursor", "order":
		if len(values) != 1 {
			q.fail(name, "must have one value, not %d", len(values))
			return
		}
	default:
		q.Set(escapePointer(name), "") // says that it is unknown, once
		return
	}
	for _, v := range values {
		q.Set(name, v)
	}
}

func sortedNames(query url.Values) []string {
	names := make([]string, 0, len(query))
	for name := range query {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// textValues reads a string, a number or a list of strings as the texts that a
// query string would have.
func textValues(raw json.RawMessage) ([]string, error) {
	switch c := raw[0]; {
	case c == '"':
		s, err := stringValue(raw)
		return []string{s}, err
	case c == '-' || c >= '0' && c <= '9':
		return []string{string(raw)}, nil
	case c == '[':
		var list []*string
		if json.Unmarshal(raw, &list) == nil && !slices.Contains(list, nil) {
			values := make([]string, len(list))
			for i, s := range list {
				values[i] = *s
			}
			return values, nil
		}
	}
	return nil, fmt.Errorf("must be a string, a number or a list of strings, not %s", describe(raw))
}

// ParseRef reads which job a request of the service is about:
// {"id":"…"} with the job's UUID or its sequence in JOBS, the latter also as a
// number. Either id or seq is set.
func ParseRef(body []byte) (id ID, seq uint64, err error) {
	var bad fieldErrors
	var ref string
	given := false
	err = EachField(body, func(name string, raw json.RawMessage) {
		if name != "id" {
			bad.add("/"+escapePointer(name), fmt.Errorf("is not a known field; known is id"))
			return
		}
		given = true
		if raw[0] == '[' {
			bad.add("/id", fmt.Errorf("must be a string or a number, not a list"))
			return
		}
		values, wrong := textValues(raw)
		if wrong != nil {
			bad.add("/id", fmt.Errorf("must be a string or a number, not %s", describe(raw)))
			return
		}
		ref = values[0]
	})
	if err != nil {
		return ID{}, 0, err
	}
	if !given {
		bad.add("/id", fmt.Errorf("is required"))
	}
	if len(bad) > 0 {
		return ID{}, 0, InvalidFields(bad...)
	}
	return ParseRefText(ref)
}

// ParseRefText reads a job's UUID or its sequence in JOBS, as it stands in a
// path. Either id or seq is set. Anything else is an [*Error] of kind
// [NotFound], as is a sequence with leading zeros: one job has one address.
func ParseRefText(s string) (id ID, seq uint64, err error) {
	if len(s) == 36 {
		if id, err = ParseID(s); err == nil {
			return id, 0, nil
		}
	} else if s != "" && s[0] >= '1' && s[0] <= '9' {
		if seq, err = strconv.ParseUint(s, 10, 64); err == nil {
			return ID{}, seq, nil
		}
	}
	return ID{}, 0, NoSuchJob(s)
}

// NoSuchJob is the error for a reference that leads to no job.
func NoSuchJob(ref string) *Error {
	return &Error{Kind: NotFound, Detail: "there is no job " + quote(ref)}
}
