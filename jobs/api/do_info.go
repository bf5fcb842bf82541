package api

import (
	"context"
	"encoding/json"
	"slices"

	"jobstream/jobs"
	"jobstream/jobs/access"
	"jobstream/jobs/form"
)

// Info is what a server says about itself.
type Info struct {
	Version  string   // "" = unknown
	Node     string   // its name, in events and records
	Features []string // what its configuration has switched on
}

// infoAnswer is the answer of GET /info.
type infoAnswer struct {
	Version   string        `json:"version"`
	Node      string        `json:"node"`
	Features  []string      `json:"features"`
	LogLevel  jobs.Level    `json:"log_level"`
	Principal infoPrincipal `json:"principal"`
}

type infoPrincipal struct {
	Name   string         `json:"name"`
	Scopes []access.Scope `json:"scopes"`
	Types  []string       `json:"types,omitempty"`
}

var infoDoc = form.Doc{
	Summary: "Look at the server and at yourself",
	Text:    "Everybody with a valid token may, and whoever needs none. An admin has all scopes.",
	Answer: form.Object(
		form.Need("version", form.Text(), "of the program; may be empty"),
		form.Need("node", form.Text(), "the name of this server"),
		form.Need("features", form.List(form.Text(), 0, 0), "what is switched on: `auth`, `callbacks`, `reload`"),
		form.Need("log_level", form.Text(), "of the server's log, like `info`; may be empty"),
		form.Need("principal", form.Object(
			form.Need("name", form.Text(), "of the token or subject, or `anonymous`"),
			form.Need("scopes", form.List(form.Text(), 0, 0), ""),
			form.May("types", form.List(form.Text(), 0, 0), "the only ones that it may use"),
		), "whose request it is"),
	).Named("Info"),
}

func info(_ context.Context, c Call, _ nothing) (Answer, error) {
	return Answer{JSON: &infoAnswer{
		Version: c.Info.Version, Node: c.Info.Node, Features: some(c.Info.Features), LogLevel: c.Reloader.LogLevel(),
		Principal: infoPrincipal{Name: c.Caller.Name, Scopes: append([]access.Scope{}, c.Caller.Scopes...), Types: slices.Clone(c.Caller.Types)},
	}}, nil
}

// AppendJSON appends the answer.
func (i *infoAnswer) AppendJSON(b []byte) []byte { return appendMarshalled(b, i) }

// appendMarshalled appends a value of texts and numbers.
func appendMarshalled(b []byte, v any) []byte {
	out, err := json.Marshal(v)
	if err != nil {
		panic(err) // texts and numbers always marshal
	}
	return append(b, out...)
}

var tagNames = []string{"prefix", "limit", "cursor", consistentName}

var tagsDoc = form.Doc{
	Summary: "List the tags of jobs",
	Text:    "In the order of their bytes.",
	Query:   queries(tagNames...),
	Answer: form.Object(
		form.Need("tags", form.List(form.Text(), 0, 0), ""),
		form.Need("next_cursor", form.Text(), "of the next page; empty on the last one"),
	).Named("Tags"),
}

// tagsQuery asks for a page of tags.
type tagsQuery struct {
	prefix, after string
	limit         int
}

func readTags(r Request) (q tagsQuery, err error) {
	query, err := r.Query()
	if err != nil {
		return q, err
	}
	p := params{known: tagNames}
	if err := p.query(query); err != nil {
		return q, err
	}
	q = tagsQuery{prefix: p.prefix, after: p.page.Cursor, limit: p.page.Limit}
	if q.limit == 0 {
		q.limit = jobs.DefaultLimit
	}
	return q, nil
}

// tagList is the answer of GET /tags. Its cursor is the last tag.
type tagList struct {
	Tags []string `json:"tags"`
	Next string   `json:"next_cursor"`
}

// AppendJSON appends the answer.
func (l *tagList) AppendJSON(b []byte) []byte { return appendMarshalled(b, l) }

func listTags(ctx context.Context, c Call, q tagsQuery) (Answer, error) {
	tags, last, err := c.Reader.Tags(ctx, q.prefix, q.after, q.limit)
	return Answer{JSON: &tagList{some(tags), last}}, err
}
