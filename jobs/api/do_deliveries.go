package api

import (
	"context"
	"encoding/json"
	"net/url"

	"jobstream/jobs"
	"jobstream/jobs/form"
)

// deliveriesQuery asks for a page of callbacks, which their users know as deliveries.
type deliveriesQuery struct {
	jobs.Page
	url string // only of this URL; "" = of any
}

var deliveryNames = []string{"job", "url", "status", "limit", "cursor", "order", consistentName}

// parseDeliveriesQuery reads the query of GET /deliveries: job, an id, and status, which
// may repeat; url, limit, cursor and order. An [*jobs.Error] names every wrong parameter.
func parseDeliveriesQuery(query url.Values) (deliveriesQuery, error) {
	p := params{known: deliveryNames}
	if err := p.query(query); err != nil {
		return deliveriesQuery{}, err
	}
	q := deliveriesQuery{p.page, p.url}
	q.Types = []string{jobs.CallbackType}
	switch {
	case len(p.jobs) > 0:
		for _, id := range p.jobs {
			q.Tags = append(q.Tags, id.String())
		}
	case q.url != "":
		q.Tags = []string{jobs.CallbackTag(q.url)}
	}
	return q, nil
}

func readDeliveriesQuery(r Request) (deliveriesQuery, error) {
	query, err := r.Query()
	if err != nil {
		return deliveriesQuery{}, err
	}
	return parseDeliveriesQuery(query)
}

// deliveries is the answer of GET /deliveries.
type deliveries struct {
	Deliveries []delivery `json:"deliveries"`
	// Disabled are the URLs that get nothing any more. They are on the first page only.
	Disabled []disabledURL `json:"disabled,omitempty"`
	Next     string        `json:"next_cursor"`
}

// AppendJSON appends the answer.
func (d *deliveries) AppendJSON(b []byte) []byte {
	out, err := json.Marshal(d)
	if err != nil {
		panic(err) // texts, numbers and JSON that was read before
	}
	return append(b, out...)
}

// delivery is a callback without its content.
type delivery struct {
	ID          jobs.ID         `json:"id"`
	Job         string          `json:"job"`
	Event       string          `json:"event"` // like job.completed
	URL         string          `json:"url"`
	Status      string          `json:"status"`
	Attempts    int             `json:"attempts"`
	MaxAttempts int             `json:"max_attempts"`
	Last        json.RawMessage `json:"last,omitempty"` // of the last attempt that has ended: http_status, ms
	Error       string          `json:"error,omitempty"`
	CreatedAt   string          `json:"created_at"`
	NextAt      string          `json:"next_at,omitempty"`
	EndedAt     string          `json:"ended_at,omitempty"`
}

type disabledURL struct {
	URL      string  `json:"url"`
	Since    string  `json:"since"`
	Delivery jobs.ID `json:"delivery"` // that it has answered with 410
}

// maxDeliveryError bounds an error in the list, in bytes.
const maxDeliveryError = 512

func deliveryOf(j *jobs.Job, c *jobs.Callback) delivery {
	d := delivery{
		ID: j.ID, Job: c.ID[:min(len(c.ID), len(jobs.ID{}.String()))], Event: c.Type, URL: c.URL, Status: j.Status.String(),
		Attempts: j.Attempt, MaxAttempts: j.MaxAttempts, Last: j.Result, Error: jobs.Shorten(j.Error, maxDeliveryError),
		CreatedAt: j.CreatedAt.String(), EndedAt: j.EndedAt.String(),
	}
	if len(d.Last) == 0 {
		d.Last = j.Checkpoint
	}
	if !j.Status.Ended() {
		d.NextAt = j.DueAt.String()
	}
	return d
}

var deliveryListDoc = form.Doc{
	Summary: "List callbacks and webhooks",
	Text:    "The newest delivery comes first. `status` is that of the delivery.",
	Query:   queries(deliveryNames...),
	Answer:  deliveries{},
}

func listDeliveries(ctx context.Context, c Call, q deliveriesQuery) (Answer, error) {
	out := &deliveries{Deliveries: []delivery{}}
	found, err := c.Reader.List(ctx, q.Page, func(j *jobs.Job) bool {
		var cb jobs.Callback
		// A payload can be lost with the tracker.
		if json.Unmarshal(j.Payload, &cb) == nil && (q.url == "" || cb.URL == q.url) {
			out.Deliveries = append(out.Deliveries, deliveryOf(j, &cb))
		}
		return true
	})
	if err != nil {
		return Answer{}, err
	}
	if out.Next = found.Next; q.Cursor != "" {
		return Answer{JSON: out}, nil
	}
	disabled, err := c.Reader.Disabled(ctx)
	for _, d := range disabled {
		if q.url == "" || d.URL == q.url {
			out.Disabled = append(out.Disabled, disabledURL{d.URL, d.Since.String(), d.By})
		}
	}
	return Answer{JSON: out}, err
}
