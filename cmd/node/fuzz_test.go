package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"jobstream/jobs"
	"jobstream/jobs/api"
)

// fuzzNode opens a node that is small in every respect, with a job of each state.
func fuzzNode(f *testing.F) (n *Node, id string) {
	f.Helper()
	stop := make(chan struct{})
	n, err := Open(f.Context(), Options{NATS: ":0", Dir: f.TempDir(), Bounds: Bounds{Queue: 50, Scheduled: 50}}, jobs.NewRegistry([]*jobs.Type{
		{Name: "quick", Handler: jobs.HandlerFunc(nothing)},
		{Name: "fail", Handler: jobs.HandlerFunc(func(context.Context, *jobs.Task) (jobs.Result, error) { return jobs.Result{}, errors.New("fails") })},
		{Name: "hold", Handler: jobs.HandlerFunc(func(ctx context.Context, _ *jobs.Task) (jobs.Result, error) {
			select {
			case <-ctx.Done():
			case <-stop:
			}
			return jobs.Result{}, ctx.Err()
		})},
		{Name: "far", Remote: true},
	}...))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		close(stop)
		if err := n.Shutdown(context.Background()); err != nil {
			f.Error(err)
		}
	})
	for _, body := range []string{`{"type":"hold"}`, `{"type":"far","tags":["a"]}`, `{"type":"fail","retry_count":0}`, `{"type":"quick","delay":"1h"}`} {
		w := httptest.NewRecorder()
		n.Handler().ServeHTTP(w, httptest.NewRequestWithContext(f.Context(), http.MethodPost, "http://localhost/jobs", strings.NewReader(body)))
		var j struct{ ID string }
		if err := json.Unmarshal(w.Body.Bytes(), &j); err != nil || w.Code != http.StatusAccepted {
			f.Fatalf("%d %s", w.Code, w.Body)
		}
		id = j.ID
	}
	return n, id
}

// shortly bounds the waits of requests.
const shortly = 20 * time.Millisecond

// operationNamed finds the place of an operation in the table.
func operationNamed(f *testing.F, name string) uint8 {
	f.Helper()
	for i, op := range api.Operations() {
		if op.Name == name {
			return uint8(i) //nolint:gosec // there are fewer than 256
		}
	}
	f.Fatalf("there is no operation %q", name)
	return 0
}

// FuzzREST makes any request for any operation of a server. Its answer is never a server
// error, and says what is wrong in JSON with a stable code.
func FuzzREST(f *testing.F) {
	n, id := fuzzNode(f)
	for _, s := range []struct{ op, param, query, header, value, body string }{
		{"submit", "", "", "Idempotency-Key", `"k"`, `{"type":"quick","payload":{"a":[1,null]},"priority":1,"delay":"1s","tags":["a"],"unique_key":"u","callback_url":"https://example.com"}`},
		{"submit", "", "", "Prefer", "wait=5", `{"type":"far","concurrency_key":"c","ttl":60,"deadline":"2h"}`},
		{"batch", "", "", "", "", `{"jobs":[{"type":"quick"},{"type":"fail","inputs":{"file":{"job":"x"}}}]}`},
		{"bulk", "", "", "", "", `{"action":"retry","status":["failed"],"type":["fail"],"dry_run":true}`},
		{"artifact.create", "", "sha256=00", "Content-Disposition", `attachment; filename*=UTF-8''%e2%82%ac`, "abc"},
		{"list", "", "status=failed&type=fail&limit=2&order=asc&created_after=2026-01-01&payload=a&error=b&cursor=x", "", "", ""},
		{"counts", "", "tag=a&priority=1", "", "", ""},
		{"get", id, "wait=1s", "", "", ""},
		{"get", "1", "", "", "", ""},
		{"history", "2", "", "", "", ""},
		{"log", id, "attempt=1&tail=10", "Accept", "application/x-ndjson", ""},
		{"result", id, "", "Range", "bytes=0-1,-5", ""},
		{"cancel", id, "", "", "", `{"reason":"no"}`},
		{"resize", "", "", "", "", `{"max_workers":3,"types":{"quick":{"max_workers":1}}}`},
		{"worker.next", "", "", "", "", `{"types":["far"],"max":2,"wait":"0s","worker":"w-1"}`},
		{"worker.progress", "x", "", "", "", `{"percent":45,"message":"m","log":["a",{"level":"warn","text":"b"}],"checkpoint":{}}`},
		{"worker.fail", "x", "", "", "", `{"error":"e","permanent":true,"retry_after":"30s"}`},
		{"worker.artifact", "x", "", "Content-Type", "text/plain; charset=", "abc"},
		{"schedule.put", "s", "", "", "", `{"cron":"*/5 * * * *","type":"quick","timezone":"Europe/Berlin"}`},
		{"delivery.list", "", "status=failed&job=1&url=https://example.com", "", "", ""},
	} {
		f.Add(operationNamed(f, s.op), s.param, s.query, s.header, s.value, []byte(s.body))
	}
	h := n.Handler()
	f.Fuzz(func(t *testing.T, which uint8, param, query, header, value string, body []byte) {
		op := api.Operations()[int(which)%len(api.Operations())]
		method, path, ok := strings.Cut(op.Route, " ")
		if !ok {
			return
		}
		ctx, cancel := context.WithTimeout(t.Context(), shortly)
		defer cancel()
		r := httptest.NewRequestWithContext(ctx, method, "http://localhost/", bytes.NewReader(body))
		raw := make([]string, 0, 4)
		for part := range strings.SplitSeq(path, "/") {
			if strings.HasPrefix(part, "{") {
				part = url.PathEscape(param)
			}
			raw = append(raw, part)
		}
		r.URL.RawPath = strings.Join(raw, "/")
		var err error
		if r.URL.Path, err = url.PathUnescape(r.URL.RawPath); err != nil {
			t.Fatal(err)
		}
		r.URL.RawQuery = query
		if header != "" && !strings.EqualFold(header, "Host") {
			r.Header[http.CanonicalHeaderKey(header)] = []string{value}
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		late := ctx.Err() != nil && w.Code == http.StatusServiceUnavailable
		if w.Code >= 500 && !late {
			t.Fatalf("%s %s?%s %s: %q\n%q\ngives %d %s", method, r.URL.RawPath, query, header, value, body, w.Code, w.Body)
		}
		if w.Code < 400 {
			return
		}
		var p struct{ Code, Detail string }
		if err := json.Unmarshal(w.Body.Bytes(), &p); method != http.MethodHead && (err != nil || p.Code == "") {
			t.Fatalf("%s %s?%s %s: %q\n%q\ngives %d %s: %v", method, r.URL.RawPath, query, header, value, body, w.Code, w.Body, err)
		}
	})
}

// FuzzService sends any request to any endpoint of the NATS service. None gives an error of
// the server.
func FuzzService(f *testing.F) {
	n, id := fuzzNode(f)
	nc, err := nats.Connect(n.NATSURL())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(nc.Close)
	for _, s := range []struct{ op, header, value, body string }{
		{"submit", "Idempotency-Key", "k", `{"type":"quick","payload":{"a":[1,null]},"run_at":"2026-12-24T18:00:00Z","tags":["a"]}`},
		{"run", "", "", `{"type":"quick"}`},
		{"list", "", "", `{"status":["failed","pending"],"limit":2,"cursor":"x"}`},
		{"counts", "", "", `{"type":"quick"}`},
		{"get", "", "", `{"id":"` + id + `","wait":"1s"}`},
		{"cancel", "", "", `{"id":2,"reason":"r"}`},
		{"pause", "", "", `{"type":"quick"}`},
		{"worker.next", "", "", `{"types":["far"],"wait":0,"max":100}`},
		{"worker.beat", "", "", `{"leases":["x"],"worker":"a@b#1"}`},
		{"worker.done_many", "", "", `{"done":[{"lease":"x","result":{"a":1}}]}`},
		{"worker.release", "", "", `{"lease":"x","delay":"1s","reason":"r"}`},
	} {
		f.Add(operationNamed(f, s.op), s.header, s.value, []byte(s.body))
	}
	f.Fuzz(func(t *testing.T, which uint8, header, value string, body []byte) {
		op := api.Operations()[int(which)%len(api.Operations())]
		if op.NATS == nil || len(body) > 100_000 {
			return
		}
		m := &nats.Msg{Subject: "jobstream." + op.Name, Data: body}
		if header != "" && !strings.ContainsAny(header+value, "\r\n") {
			m.Header = nats.Header{header: {value}}
		}
		answer, err := nc.RequestMsg(m, shortly)
		if errors.Is(err, nats.ErrTimeout) || errors.Is(err, nats.ErrBadHeaderMsg) {
			return // it waits for a job, or the client itself has refused the header
		}
		if err != nil {
			t.Fatalf("%s %q: %v", op.Name, body, err)
		}
		if code := answer.Header.Get(micro.ErrorCodeHeader); code >= "500" && code != "503" {
			t.Fatalf("%s %q gives %s %s", op.Name, body, code, answer.Data)
		}
		if !json.Valid(answer.Data) {
			t.Fatalf("%s %q gives %q", op.Name, body, answer.Data)
		}
	})
}
