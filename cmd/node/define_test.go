package node

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"jobstream/jobs"
)

type (
	order struct {
		Customer string `json:"customer"`
		Lines    []line `json:"lines"`
	}
	line struct {
		Item  string `json:"item"`
		Count int    `json:"count"`
	}
	invoice struct {
		Total int    `json:"total"`
		For   string `json:"for"`
	}
)

var bill = jobs.Define[order, invoice]("bill", jobs.Retries(1), jobs.Backoff{Kind: jobs.Constant, Base: time.Millisecond})

// billing does the jobs of bill.
func billing(_ context.Context, t *jobs.Task, in order) (invoice, error) {
	switch in.Customer {
	case "nobody":
		return invoice{}, jobs.Permanentf("there is no customer nobody")
	case "shy":
		return invoice{}, errors.New("try again")
	}
	out := invoice{For: in.Customer}
	for _, l := range in.Lines {
		out.Total += l.Count
	}
	return out, nil
}

// TestDefinition has jobs of a defined type made and done, and refused at every door.
func TestDefinition(t *testing.T) {
	t.Parallel()
	r := jobs.NewRegistry()
	bill.Handle(r, billing)
	n, _ := open(t, Options{HTTP: ":0", NATS: ":0"}, r.Types()...)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	in := order{"ACME", []line{{"a", 2}, {"b", 3}}}
	j, err := bill.Submit(ctx, n, in, jobs.Idempotency("once"))
	mustDo(t, err)
	if out, err := bill.Wait(ctx, n, j.ID); err != nil || out != (invoice{5, "ACME"}) {
		t.Errorf("got %+v, %v", out, err)
	}
	if again, err := bill.Submit(ctx, n, in, jobs.Idempotency("once")); err != nil || again.ID != j.ID {
		t.Errorf("with the same key: %v, %v", again, err)
	}
	var e *jobs.JobError
	j, err = bill.Submit(ctx, n, order{Customer: "nobody"}, jobs.Unique("u"), jobs.Priority(1))
	mustDo(t, err)
	if _, err := bill.Wait(ctx, n, j.ID); !errors.As(err, &e) || e.Kind != jobs.EndPermanent || e.Attempts != 1 || e.Message != "there is no customer nobody" {
		t.Errorf("a permanent error: %v", err)
	}
	j, err = bill.Submit(ctx, n, order{Customer: "shy"})
	mustDo(t, err)
	if _, err := bill.Wait(ctx, n, j.ID); !errors.As(err, &e) || e.Kind != jobs.EndFailed || e.Attempts != 2 || e.Message != "try again" {
		t.Errorf("an error that comes again: %v", err)
	}
	later, err := bill.Submit(ctx, n, in, jobs.Delay(time.Hour), jobs.Unique("later"))
	if err != nil || later.Status != jobs.Scheduled {
		t.Errorf("a delayed job: %v, %v", later, err)
	}
	var refused *jobs.Error
	if _, err := bill.Submit(ctx, n, in, jobs.Unique("later")); !errors.As(err, &refused) || refused.Kind != jobs.Duplicate || refused.JobID != later.ID {
		t.Errorf("a second job with the key: %v", err)
	}
	if _, err := bill.Submit(ctx, n, in, jobs.Tags("")); !errors.As(err, &refused) || refused.Fields[0].Pointer != "/tags" {
		t.Errorf("a bad tag: %v", err)
	}

	const body = `{"type":"bill","payload":{"customer":"ACME","lines":[{"item":"a","count":1},{"item":"b","conut":2}]}}`
	const wrong = `"pointer":"/payload/lines/1/conut","detail":"is not a known field"`
	answer := httptest.NewRecorder()
	n.Handler().ServeHTTP(answer, httptest.NewRequestWithContext(ctx, http.MethodPost, "http://localhost/jobs", strings.NewReader(body)))
	if answer.Code != http.StatusUnprocessableEntity || !strings.Contains(answer.Body.String(), wrong) {
		t.Errorf("REST answers %d %s", answer.Code, answer.Body)
	}
	nc, err := nats.Connect(n.NATSURL())
	mustDo(t, err)
	defer nc.Close()
	m, err := nc.Request("jobstream.submit", []byte(body), patience)
	if mustDo(t, err); m.Header.Get("Nats-Service-Error-Code") != "422" || !strings.Contains(string(m.Data), wrong) {
		t.Errorf("the service answers %v %s", m.Header, m.Data)
	}
	ends, err := nc.SubscribeSync("job.failed.bill.>")
	mustDo(t, err)
	mustDo(t, nc.Publish("jobs.bill", []byte(`{"customer":1}`)))
	m, err = ends.NextMsg(patience)
	if mustDo(t, err); !strings.Contains(string(m.Data), "/payload/customer: must be a text, not 1") {
		t.Errorf("a bare message becomes %s", m.Data)
	}
}
