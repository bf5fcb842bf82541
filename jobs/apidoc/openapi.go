// Package apidoc makes the descriptions of the API from the table of operations: OpenAPI
// for REST, AsyncAPI for NATS. Whatever they say of an operation stands in the table; what
// holds for all of them stands here.
//
// Start reading at [OpenAPI] and [AsyncAPI]. forms.go turns the forms of requests and
// answers into JSON Schemas.
package apidoc

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"jobstream/jobs"
	"jobstream/jobs/access"
	"jobstream/jobs/api"
	"jobstream/jobs/form"
)

// Options are what a description is made of.
type Options struct {
	Version string // of the program; "" = unknown
	// Operations are those of the table, and whatever else is served: they have a route, a
	// status and a Doc. A scope of "" means that nobody needs a token.
	Operations []*api.Operation
}

// OpenAPI is the description of everything with a route, as OpenAPI 3.1.
func OpenAPI(o Options) []byte {
	b := &openAPI{forms: newForms(api.Forms()), responses: make(map[string]any)}
	var paths ordered
	for _, op := range o.Operations {
		method, path, routed := strings.Cut(op.Route, " ")
		if routed {
			paths.at(path)[strings.ToLower(method)] = b.operation(op, path)
		}
	}
	doc := ordered{
		{"openapi", "3.1.0"},
		{"info", map[string]any{"title": "jobstream", "version": cmp.Or(o.Version, "unknown"), "description": restText, "license": license}},
		{"servers", []any{map[string]any{"url": "/", "description": "this server"}}},
		{"tags", b.tags(o.Operations)},
		{"paths", paths},
		{"components", map[string]any{
			"schemas":   b.components,
			"responses": b.responses,
			"parameters": map[string]any{"RequestId": map[string]any{
				"name": "X-Request-Id", "in": "header", "schema": map[string]any{"type": "string", "maxLength": 128}, "description": "connects the request, its answer and the server's log",
			}},
			"headers": commonHeaders(),
			"securitySchemes": map[string]any{"token": map[string]any{
				"type": "http", "scheme": "bearer", "description": "a token of `server.auth`. Each operation names the scope that it needs; `admin` has all of them.",
			}},
		}},
	}
	return asText(doc)
}

var license = map[string]any{"name": "MIT", "identifier": "MIT"}

const restText = "Background jobs over REST. All of it is also explained in words in the reference that comes with the program.\n\n" +
	"Requests and answers are JSON, whatever the `Content-Type`. Unknown fields and parameters are refused. A field that is `null` counts as missing. " +
	"Times are RFC 3339, in UTC in answers. `HEAD` works wherever `GET` does. Answers may get more fields.\n\n" +
	"Errors are `application/problem+json` with a stable `code`. A request with an error stores nothing.\n\n" +
	"On loopback nobody needs a token, unless the server is configured so."

// openAPI gathers the parts of a document.
type openAPI struct {
	*forms
	responses map[string]any
}

// operation describes an operation.
func (b *openAPI) operation(op *api.Operation, path string) map[string]any {
	d := &op.Doc
	text := d.Text
	if op.Scope != "" {
		text = join(text, op.Needs())
	}
	if op.NATS != nil {
		text = join(text, "Over NATS: `jobstream."+op.Name+"`.")
	}
	out := map[string]any{
		"operationId": strings.ReplaceAll(op.Name, ".", "_"),
		"tags":        []any{groupOf(path)},
		"summary":     d.Summary,
		"parameters":  b.parameters(op, path),
		"responses":   b.answers(op),
		"security":    security(op.Scope),
	}
	if text != "" {
		out["description"] = text
	}
	if d.Body != nil {
		out["requestBody"] = map[string]any{"required": !d.Optional, "content": b.content(d.Body, d.Example)}
	}
	return out
}

func join(texts ...string) string {
	return strings.Join(slices.DeleteFunc(texts, func(s string) bool { return s == "" }), "\n\n")
}

// security is a token with the scope, or none: whether that is enough is a matter of the
// server's configuration.
func security(s access.Scope) []any {
	if s == "" {
		return []any{}
	}
	return []any{map[string]any{"token": []any{s}}, map[string]any{}}
}

// parameters describes those of the path, the query and the headers.
func (b *openAPI) parameters(op *api.Operation, path string) []any {
	all := []any{}
	for _, p := range pathParams(path) {
		all = append(all, b.parameter(p, "path"))
	}
	for _, p := range op.Doc.Query {
		all = append(all, b.parameter(p, "query"))
	}
	for _, p := range op.Doc.Headers {
		all = append(all, b.parameter(p, "header"))
	}
	return append(all, map[string]any{"$ref": "#/components/parameters/RequestId"})
}

// pathParams are the parameters of a path, as [api.PathParams] describes them.
func pathParams(path string) (all []form.Param) {
	segments := strings.Split(path, "/")
	for i, s := range segments {
		if !strings.HasPrefix(s, "{") {
			continue
		}
		p := api.PathParams[segments[i-1]+"/"+s]
		p.Name = strings.Trim(s, "{}")
		all = append(all, p)
	}
	return all
}

func (b *openAPI) parameter(p form.Param, in string) map[string]any {
	schema := p.Schema
	if p.Repeats {
		schema = form.List(schema, 0, api.MaxFilterValues)
	}
	out := map[string]any{"name": p.Name, "in": in, "description": p.Text, "schema": b.request(schema)}
	if in == "path" {
		out["required"] = true
	}
	if p.Example != "" {
		out["example"] = p.Example
	}
	return out
}

// content describes a body.
func (b *openAPI) content(body any, example string) map[string]any {
	if types, is := body.(form.Content); is {
		return contentOf(types)
	}
	media := map[string]any{"schema": b.request(body)}
	if example != "" {
		media["example"] = json.RawMessage(example)
	}
	return map[string]any{"application/json": media}
}

func contentOf(types form.Content) map[string]any {
	all := make(map[string]any, len(types))
	for _, t := range types {
		all[t] = map[string]any{"schema": map[string]any{}}
	}
	return all
}

// answers describes the answers by their statuses.
func (b *openAPI) answers(op *api.Operation) map[string]any {
	d := &op.Doc
	all := map[string]any{strconv.Itoa(op.Status): b.success(d, op.Status, d.Answer)}
	for status, of := range d.Others {
		if codes, is := of.(form.Problem); is {
			all[strconv.Itoa(status)] = b.problem(status, codes)
			continue
		}
		all[strconv.Itoa(status)] = b.success(d, status, of)
	}
	codes := make(map[int][]jobs.ErrorKind)
	for _, code := range codesOf(op) {
		status := api.HTTPStatus(&jobs.Error{Kind: code})
		codes[status] = append(codes[status], code)
	}
	for status, of := range codes {
		if key := strconv.Itoa(status); all[key] == nil {
			all[key] = b.problem(status, of)
		}
	}
	return all
}

// codesOf are all codes that an operation may answer with: its own, and those that follow
// from what it is.
func codesOf(op *api.Operation) []jobs.ErrorKind {
	codes := []jobs.ErrorKind{jobs.Forbidden, jobs.Internal} // forbidden: for requests from elsewhere, too
	if op.Scope != "" {
		codes = append(codes, jobs.Unauthorized, jobs.TooMany, jobs.InvalidRequest, jobs.ShuttingDown, jobs.Unavailable)
	}
	if !strings.HasPrefix(op.Route, "GET ") {
		codes = append(codes, jobs.MalformedJSON, jobs.PayloadTooLarge)
	}
	if strings.Contains(op.Route, "{") {
		codes = append(codes, jobs.NotFound)
	}
	codes = append(codes, op.Doc.Codes...)
	slices.Sort(codes)
	return slices.Compact(codes)
}

// success describes an answer that is not an error.
func (b *openAPI) success(d *form.Doc, status int, of any) map[string]any {
	headers := map[string]any{"X-Request-Id": headerRef("X-Request-Id")}
	if d.Address && status != http.StatusOK {
		headers["Location"] = headerRef("Location")
	}
	for _, h := range d.Headers {
		switch {
		case h.Name == "Idempotency-Key":
			headers["Idempotent-Replay"] = headerRef("Idempotent-Replay")
		case h.Name == "Prefer" && status == http.StatusOK:
			headers["Preference-Applied"] = headerRef("Preference-Applied")
		}
	}
	out := map[string]any{"description": statusText(status), "headers": headers}
	switch types, is := of.(form.Content); {
	case is:
		out["content"] = contentOf(types)
		if slices.Contains(types, "*/*") { // a file
			headers["ETag"], headers["Content-Disposition"] = headerRef("ETag"), headerRef("Content-Disposition")
		}
	case of != nil:
		out["content"] = map[string]any{"application/json": map[string]any{"schema": b.answer(of)}}
	}
	return out
}

func headerRef(name string) map[string]any {
	return map[string]any{"$ref": "#/components/headers/" + name}
}

// commonHeaders are the headers of answers.
func commonHeaders() map[string]any {
	all := make(map[string]any)
	for name, text := range map[string]string{
		"X-Request-Id":        "that of the request, or a new one",
		"Location":            "the path of what was made, or of what stands in the way",
		"Retry-After":         "when another try makes sense, in seconds",
		"WWW-Authenticate":    "how to say who you are",
		"Idempotent-Replay":   "true: the same request has been answered before",
		"Preference-Applied":  "the wait, if the job has ended within it",
		"ETag":                "of the content, for If-None-Match and If-Range",
		"Content-Disposition": "the file's name",
	} {
		all[name] = map[string]any{"description": text, "schema": map[string]any{"type": "string"}}
	}
	return all
}

// statusText is what a status means here.
func statusText(status int) string {
	switch status {
	case http.StatusAccepted:
		return "Accepted: it is on disk, and will be done"
	case http.StatusCreated:
		return "Made"
	case http.StatusNoContent:
		return "Done"
	case http.StatusServiceUnavailable:
		return "Not now"
	}
	return http.StatusText(status)
}

// problemForm describes what [api.Problem] writes.
var problemForm = form.Object(
	form.Need("type", form.Text(), "a URI; about:blank"),
	form.Need("title", form.Text(), "what the code means"),
	form.Need("status", form.Whole(400, 599), "the HTTP status"),
	form.Need("detail", form.Text(), "what is wrong with this request"),
	form.Need("code", form.OneOf(allCodes()...), "stable, for programs"),
	form.May("job_id", form.ID(), "the job that stands in the way"),
	form.May("job", form.Object(form.Need("status", form.Text(), ""), form.Need("attempt", form.Count(), ""), form.Need("error", form.Text(), "")), "what has become of the job of a lost lease"),
	form.May("errors", form.List(jobs.FieldError{}, 1, 0), "the wrong fields: JSON pointers into the body, or `query/…` or `header/…`"),
).Named("Problem")

func allCodes() []jobs.ErrorKind {
	return []jobs.ErrorKind{
		jobs.MalformedJSON, jobs.Unauthorized, jobs.Forbidden, jobs.NotFound, jobs.NoArtifact, jobs.MethodNotAllowed, jobs.Conflict, jobs.Duplicate,
		jobs.PayloadTooLarge, jobs.AnswerTooLarge, jobs.InvalidRequest, jobs.IdempotencyMismatch, jobs.UnknownType, jobs.LeaseLost, jobs.TooMany,
		jobs.QueueFull, jobs.StorageFull, jobs.ShuttingDown, jobs.Unavailable, jobs.Internal,
	}
}

// problem refers to the answer with one of these codes.
func (b *openAPI) problem(status int, codes []jobs.ErrorKind) map[string]any {
	names, titles := make([]string, len(codes)), make([]string, len(codes))
	for i, code := range codes {
		names[i], titles[i] = string(code), "`"+string(code)+"`"
	}
	key := fmt.Sprintf("%d-%s", status, strings.Join(names, "-"))
	if b.responses[key] == nil {
		headers := map[string]any{"X-Request-Id": headerRef("X-Request-Id")}
		switch {
		case status == http.StatusUnauthorized:
			headers["WWW-Authenticate"] = headerRef("WWW-Authenticate")
		case status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable:
			headers["Retry-After"] = headerRef("Retry-After")
		case slices.Contains(codes, jobs.Duplicate):
			headers["Location"] = headerRef("Location")
		}
		b.responses[key] = map[string]any{
			"description": http.StatusText(status) + ": " + strings.Join(titles, ", "),
			"headers":     headers,
			"content": map[string]any{"application/problem+json": map[string]any{"schema": map[string]any{"allOf": []any{
				b.answer(problemForm), map[string]any{"properties": map[string]any{"code": map[string]any{"enum": names}, "status": map[string]any{"const": status}}},
			}}}},
		}
	}
	return map[string]any{"$ref": "#/components/responses/" + key}
}

// groups are the first segments of paths, in the order in which they are shown.
var groups = ordered{
	{"jobs", "Submit jobs, look at them, change them."},
	{"failures", "Failed jobs, in groups."},
	{"events", "What happens, as it happens."},
	{"stats", "Figures over time."},
	{"artifacts", "Files for jobs."},
	{"types", "What jobs can do."},
	{"workers", "Who does it."},
	{"leases", "Doing jobs elsewhere: workers in any language, anywhere."},
	{"schedules", "Jobs at certain times."},
	{"deliveries", "Callbacks and webhooks."},
	{"server", "The server itself: its health, its configuration, its description."},
}

// groupOf is the group of a path.
func groupOf(path string) string {
	first, _, _ := strings.Cut(path[1:], "/")
	for _, g := range groups {
		if g.name == first {
			return first
		}
	}
	return "server"
}

// tags describes the groups that have operations.
func (b *openAPI) tags(operations []*api.Operation) (all []any) {
	used := make(map[string]bool)
	for _, op := range operations {
		if _, path, routed := strings.Cut(op.Route, " "); routed {
			used[groupOf(path)] = true
		}
	}
	for _, g := range groups {
		if used[g.name] {
			all = append(all, map[string]any{"name": g.name, "description": g.value})
		}
	}
	return all
}

// ordered is an object whose members stay in order.
type ordered []member

type member struct {
	name  string
	value any
}

// at is the object of this name, which is made if need be.
func (o *ordered) at(name string) map[string]any {
	for _, m := range *o {
		if m.name == name {
			return m.value.(map[string]any)
		}
	}
	made := make(map[string]any)
	*o = append(*o, member{name, made})
	return made
}

// MarshalJSON writes the members in order.
func (o ordered) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, m := range o {
		if i > 0 {
			b = append(b, ',')
		}
		b = jobs.AppendString(b, m.name)
		b = append(b, ':')
		value, err := json.Marshal(m.value)
		if err != nil {
			return nil, err
		}
		b = append(b, value...)
	}
	return append(b, '}'), nil
}

// asText writes a document.
func asText(doc any) []byte {
	b, err := json.Marshal(doc)
	if err != nil {
		panic(err) // it is made of texts, numbers and lists
	}
	return append(b, '\n')
}
