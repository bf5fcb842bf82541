package apidoc

import (
	"cmp"
	"encoding/json"
	"strings"

	"jobstream/jobs"
	"jobstream/jobs/api"
	"jobstream/jobs/form"
)

// AsyncAPI is the description of all subjects for clients, as AsyncAPI 3: the operations
// that the service offers, bare messages, and notifications.
func AsyncAPI(o Options) []byte {
	b := &asyncAPI{forms: newForms(api.Forms()), messages: make(map[string]any)}
	for _, op := range o.Operations {
		if op.NATS != nil {
			b.request(op)
		}
	}
	for i := range subjects {
		b.subject(&subjects[i])
	}
	b.messages["problem"] = map[string]any{
		"summary":     "An error",
		"contentType": "application/problem+json",
		"headers":     headersOf([]form.Param{{Name: "Nats-Service-Error-Code", Text: "the HTTP status", Schema: form.Text()}, {Name: "Nats-Service-Error", Text: "the detail", Schema: form.Text()}}, b.forms),
		"payload":     b.answer(problemForm),
	}
	return asText(ordered{
		{"asyncapi", "3.0.0"},
		{"info", map[string]any{"title": "jobstream", "version": cmp.Or(o.Version, "unknown"), "description": natsText, "license": map[string]any{"name": "MIT"}}},
		{"defaultContentType", "application/json"},
		{"servers", map[string]any{"nats": map[string]any{
			"host": "localhost:4222", "protocol": "nats", "description": "the NATS port of the server",
			"security": []any{map[string]any{"$ref": "#/components/securitySchemes/token"}},
		}}},
		{"channels", b.channels},
		{"operations", b.operations},
		{"components", map[string]any{
			"schemas": b.components, "messages": b.messages,
			"securitySchemes": map[string]any{"token": map[string]any{"type": "userPassword", "description": "a token of `server.auth` is the password of its name"}},
		}},
	})
}

const natsText = "Background jobs over NATS. Any client can use it.\n\n" +
	"Requests on `jobstream.<name>` and their answers have the bodies of REST; errors are the problem JSON, with the HTTP status in `Nats-Service-Error-Code`. " +
	"An answer that is too large for a message comes without some fields, which the header `Jobstream-Omitted` names."

// asyncAPI gathers the parts of a document.
type asyncAPI struct {
	*forms
	channels, operations ordered
	messages             map[string]any
}

// request describes an operation of the service: a channel for requests, one for answers.
func (b *asyncAPI) request(op *api.Operation) {
	d, key := &op.Doc, strings.ReplaceAll(op.Name, ".", "_")
	b.messages[key+"_request"] = map[string]any{
		"summary": d.Summary, "payload": b.forms.request(messageForm(op)), "headers": headersOf(natsHeaders(d.Headers), b.forms),
	}
	if d.Example != "" && messageHasBodyOnly(op) {
		b.messages[key+"_request"].(map[string]any)["examples"] = []any{map[string]any{"payload": json.RawMessage(d.Example)}}
	}
	var reply any = form.Object()
	if d.Answer != nil {
		reply = d.Answer
	}
	b.messages[key+"_answer"] = map[string]any{"summary": "The answer", "payload": b.answer(reply), "headers": headersOf(answerHeaders, b.forms)}
	b.channel(key, "jobstream."+op.Name, d.Summary, nil, key+"_request")
	b.channel(key+"_reply", "", "The inbox of the client", nil, key+"_answer", "problem")
	b.operations = append(b.operations, member{key, map[string]any{
		"action": "receive", "title": d.Summary, "summary": d.Summary,
		"description": join(d.Text, op.Needs()),
		"channel":     refTo("channels", key),
		"messages":    []any{refTo("channels", key+"/messages/"+key+"_request")},
		"reply": map[string]any{
			"address": map[string]any{"location": "$message.header#/reply", "description": "the reply subject of the request"},
			"channel": refTo("channels", key+"_reply"),
			"messages": []any{
				refTo("channels", key+"_reply/messages/"+key+"_answer"), refTo("channels", key+"_reply/messages/problem"),
			},
		},
	}})
}

func refTo(of, name string) map[string]any { return map[string]any{"$ref": "#/" + of + "/" + name} }

// channel adds a channel; an address of "" stands for one that is not known before.
func (b *asyncAPI) channel(key, address, text string, parameters map[string]any, messages ...string) {
	of := make(map[string]any)
	for _, m := range messages {
		of[m] = refTo("components/messages", m)
	}
	c := map[string]any{"address": nil, "description": text, "messages": of}
	if address != "" {
		c["address"] = address
	}
	if parameters != nil {
		c["parameters"] = parameters
	}
	b.channels = append(b.channels, member{key, c})
}

// messageForm is the body of a request of the service: the parameters of the path and the
// query beside the fields of the body.
func messageForm(op *api.Operation) any {
	_, path, _ := strings.Cut(op.Route, " ")
	var fields []form.Field
	for _, p := range pathParams(path) {
		if strings.HasPrefix(path, "/jobs/{id}") {
			fields = append(fields, form.Need(p.Name, form.Either(form.Text(), form.Whole(1, 1<<53)), p.Text))
			continue
		}
		fields = append(fields, form.Need(p.Name, p.Schema, p.Text))
	}
	for _, p := range op.Doc.Query {
		if p.Repeats {
			p.Schema = form.OneOrMore(p.Schema, api.MaxFilterValues)
		}
		fields = append(fields, form.May(p.Name, p.Schema, p.Text))
	}
	if body, is := op.Doc.Body.(form.Schema); is {
		return body.And(fields...)
	}
	return form.Object(fields...)
}

func messageHasBodyOnly(op *api.Operation) bool {
	return !strings.Contains(op.Route, "{") && len(op.Doc.Query) == 0
}

// natsHeaders are the headers of a request that NATS has as well: a client there that
// prefers to wait uses jobstream.run.
func natsHeaders(all []form.Param) (some []form.Param) {
	for _, h := range all {
		if h.Name != "Prefer" {
			some = append(some, h)
		}
	}
	return some
}

var answerHeaders = []form.Param{
	{Name: "Jobstream-Omitted", Schema: form.Text(), Text: "fields that the answer had no room for"},
	{Name: "Idempotent-Replay", Schema: form.Text(), Text: "true: the same request has been answered before"},
}

func headersOf(all []form.Param, f *forms) any {
	var fields []form.Field
	for _, h := range all {
		fields = append(fields, form.May(h.Name, h.Schema, h.Text))
	}
	return f.answer(form.Object(fields...))
}

// subject is one that is not an endpoint of the service.
type subject struct {
	key, address string
	summary      string
	text         string
	parameters   map[string]any
	send         bool // by the server
	headers      []form.Param
	payload      any
	reply        any
}

var (
	typeParam     = map[string]any{"description": "the job type"}
	priorityParam = map[string]any{"description": "1 (first) to 5", "enum": []any{"1", "2", "3", "4", "5"}}
	statusParam   = map[string]any{"description": "how the job has ended", "enum": []any{"completed", "failed", "cancelled"}}
	idParam       = map[string]any{"description": "the job's id"}
)

var subjects = []subject{
	{
		key: "jobs_type", address: "jobs.{type}", summary: "Submit a job whose body is its payload", text: bareText,
		parameters: map[string]any{"type": typeParam}, headers: bareHeaders(), payload: form.Any(), reply: pubAck,
	},
	{
		key: "jobs_type_priority", address: "jobs.{type}.{priority}", summary: "Submit a job of a certain priority", text: bareText,
		parameters: map[string]any{"type": typeParam, "priority": priorityParam}, headers: bareHeaders(), payload: form.Any(), reply: pubAck,
	},
	{
		key: "job_status_type_id", address: "job.{status}.{type}.{id}", summary: "Be notified of the end of a job", send: true,
		text:       "At least once, after that is on disk. The stream NOTIFICATIONS keeps them for 72 hours under `job.<status>.<type>._`.",
		parameters: map[string]any{"status": statusParam, "type": typeParam, "id": idParam}, headers: cloudEvent, payload: jobs.Job{},
	},
	{
		key: "job_status", address: "job.{status}", summary: "Be notified of the ends of jobs on one plain subject", send: true,
		parameters: map[string]any{"status": statusParam}, headers: cloudEvent, payload: jobs.Job{},
	},
	{
		key: "worker_cancel", address: "jobstream.worker.cancel.{worker}", summary: "Be notified when a leased job is to stop", send: true,
		text:       "At the moment at which it is cancelled, times out or is lost. The next beat says the same.",
		parameters: map[string]any{"worker": map[string]any{"description": "the worker's name"}},
		payload:    form.Object(form.Need("lease", form.Text(), ""), form.Need("reason", form.Text(), "")),
	},
	{
		key: "job_log", address: "jobstream.log.{type}.{id}", summary: "Follow the log of a job", send: true,
		text:       "Entries as they are written, for those who listen at that moment.",
		parameters: map[string]any{"type": typeParam, "id": idParam}, payload: form.Any(),
	},
}

const bareText = "A message that cannot be a job becomes a failed job that says why. A request, or a JetStream publish, is answered when the message is stored."

var pubAck = form.Object(
	form.Need("stream", form.Text(), "JOBS"),
	form.May("seq", form.Count(), "`GET /jobs/{seq}` finds the job"),
	form.May("duplicate", form.Bool(), "a message with this `Nats-Msg-Id` was stored before"),
	form.May("error", form.Any(), "why it was refused"),
).Named("PubAck")

var cloudEvent = []form.Param{
	{Name: "ce-id", Schema: form.Text(), Text: "`<id>.<status>.<run>`, the same at every repetition"},
	{Name: "ce-type", Schema: form.Text(), Text: "jobstream.job.completed, and so on"},
	{Name: "ce-subject", Schema: form.ID(), Text: "the job's id"},
	{Name: "ce-source", Schema: form.Text(), Text: "who has sent it"},
	{Name: "ce-time", Schema: form.Moment(), Text: "when the job has ended"},
	{Name: "ce-specversion", Schema: form.Text(), Text: "1.0"},
	{Name: jobs.TraceHeader, Schema: form.Text(), Text: "where the job is in a trace, if it is in one"},
}

// bareHeaders are those of a bare message.
func bareHeaders() []form.Param {
	all := []form.Param{
		{Name: "Job-Id", Schema: form.ID(), Text: "the job's id; a message with one that was seen before is ignored"},
		{Name: "Nats-Msg-Id", Schema: form.Text(), Text: "the same one within 24 hours is ignored"},
		{Name: "Job-Tags", Schema: form.Text(), Text: "separated by commas"},
		{Name: "Job-Retry-Count", Schema: form.Text(), Text: "retries after the first attempt, instead of the type's"},
		{Name: "Job-Timeout", Schema: form.Text(), Text: "seconds, or like 5m, instead of the type's"},
	}
	for i := range jobs.TermsFields {
		f := &jobs.TermsFields[i]
		if f.Server {
			continue
		}
		if f.SpanHeader != "" {
			all = append(all, form.Param{Name: f.SpanHeader, Schema: form.Text(), Text: f.Doc})
		}
		all = append(all, form.Param{Name: f.Header, Schema: form.Text(), Text: f.Doc})
	}
	return all
}

// subject describes a subject that is not an endpoint.
func (b *asyncAPI) subject(s *subject) {
	b.messages[s.key] = map[string]any{"summary": s.summary, "payload": b.answer(s.payload), "headers": headersOf(s.headers, b.forms)}
	b.channel(s.key, s.address, s.summary, s.parameters, s.key)
	action := "receive"
	if s.send {
		action = "send"
	}
	of := map[string]any{
		"action": action, "title": s.summary, "summary": s.summary, "channel": refTo("channels", s.key), "messages": []any{refTo("channels", s.key+"/messages/"+s.key)},
	}
	if s.text != "" {
		of["description"] = s.text
	}
	if s.reply != nil {
		b.messages[s.key+"_answer"] = map[string]any{"summary": "The answer", "payload": b.answer(s.reply)}
		b.channel(s.key+"_reply", "", "The inbox of the client", nil, s.key+"_answer")
		of["reply"] = map[string]any{
			"address":  map[string]any{"location": "$message.header#/reply", "description": "the reply subject of the message"},
			"channel":  refTo("channels", s.key+"_reply"),
			"messages": []any{refTo("channels", s.key+"_reply/messages/"+s.key+"_answer")},
		}
	}
	b.operations = append(b.operations, member{s.key, of})
}
