package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/jobs"
	"jobstream/jobs/api"
)

const letter = `{"to":"user@example.com","subject":"Hello","body":"Test email"}`

// TestContractBareMessages submits by publishing.
func TestContractBareMessages(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir(), setup{})
	nc := h.dial()
	seq := h.accepted(nc, "jobs.email", letter)
	j := h.await(seq, "completed")
	if j.Seq != seq || j.Priority != 3 || j.MaxAttempts != 4 || string(j.Payload) != letter || len(j.Tags) != 0 {
		t.Errorf("the plain message became %+v", j)
	}
	if id, err := uuid.Parse(j.ID); err != nil || id.Version() != 7 {
		t.Errorf("its id is %s", j.ID)
	}
	if j = h.await(h.accepted(nc, "jobs.email.1", letter), "completed"); j.Priority != 1 {
		t.Errorf("with a priority it became %+v", j)
	}
	if j = h.await(h.accepted(nc, "jobs.export", ""), "completed"); string(j.Payload) != "null" {
		t.Errorf("without a body it became %+v", j)
	}
	mustDo(t, nc.Publish("jobs.report.5", nil)) // without a reply, as nats pub does
	waitUntil(t, func() bool {
		found, _ := h.list("?type=report&status=completed")
		return len(found) == 1 && found[0].Priority == 5
	})
	id := uuid.NewString()
	seq = h.accepted(nc, "jobs.email.2", letter, "Job-Id", id, "Job-Tags", "a, b,ü", "Job-Retry-Count", "7", "Job-Timeout", "90s",
		"traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	j = h.await(id, "completed")
	if j.Seq != seq || j.ID != id || j.Priority != 2 || j.MaxAttempts != 8 || j.Timeout != 90 || !slices.Equal(j.Tags, []string{"a", "b", "ü"}) {
		t.Errorf("with all headers it became %+v", j)
	}
}

// TestContractBadMessages publishes what cannot be a job: each becomes a failed
// one that says why.
func TestContractBadMessages(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir(), setup{})
	nc := h.dial()
	listener := h.dial()
	failed, err := listener.SubscribeSync("job.failed")
	mustDo(t, err)
	mustDo(t, listener.Flush())
	tries := []struct {
		name, subject, body, header, why string
	}{
		{"no JSON", "jobs.email", `to=me`, "", "not JSON"},
		{"wrong UTF-8", "jobs.export", "{\"format\":\"\xff\"}", "", "not JSON"},
		{"no payload", "jobs.email", ``, "", "required"},
		{"unusable payload", "jobs.email", `{"subject":"s","body":"b"}`, "", "to"},
		{"unknown type", "jobs.nope", `{}`, "", `unknown job type "nope"`},
		{"unknown type with priority", "jobs.nope.1", `{}`, "", `unknown job type "nope"`},
		{"priority 9", "jobs.email.9", letter, "", "subject"},
		{"priority 0", "jobs.email.0", letter, "", "subject"},
		{"priority x", "jobs.email.first", letter, "", "subject"},
		{"long subject", "jobs.email.1.2", letter, "", "subject"},
		{"odd type", "jobs.e$mail", letter, "", "subject"},
		{"retry count x", "jobs.email", letter, "Job-Retry-Count: x", "Job-Retry-Count"},
		{"retry count -1", "jobs.email", letter, "Job-Retry-Count: -1", "Job-Retry-Count"},
		{"timeout x", "jobs.email", letter, "Job-Timeout: soon", "Job-Timeout"},
		{"timeout 0", "jobs.email", letter, "Job-Timeout: 0", "Job-Timeout"},
		{"id x", "jobs.email", letter, "Job-Id: mine", "Job-Id"},
		{"tags", "jobs.email", letter, "Job-Tags: " + strings.Repeat("x", 200), "Job-Tags"},
		{"header misspelt", "jobs.email", letter, "Job-Dealy: 1h", "Job-Dealy: is not known; known are Job-Id"},
		{"too deep", "jobs.export", strings.Repeat("[", 1000) + strings.Repeat("]", 1000), "", "deeper than 128"},
	}
	for _, try := range tries {
		t.Run(try.name, func(t *testing.T) {
			h := h.in(t)
			var header []string
			if name, value, ok := strings.Cut(try.header, ": "); ok {
				header = []string{name, value}
			}
			seq := h.accepted(nc, try.subject, try.body, header...)
			j := h.await(seq, "failed")
			if !strings.Contains(j.Error, try.why) || len(j.Errors) != 1 || j.Attempt != 0 || j.EndedAt == nil {
				t.Errorf("it became %+v, want an error with %q", j, try.why)
			}
			m, err := failed.NextMsg(patience)
			mustDo(t, err)
			if deep := strings.Repeat("[", 200); strings.Contains(string(m.Data), deep) {
				t.Error("the notification is nested deeper than many can read")
			}
			if told := readJob(t, m.Data); told.ID != j.ID || told.Status != "failed" {
				t.Errorf("the notification is %s", m.Data)
			}
			if r := h.do(http.MethodGet, "/jobs/"+j.ID, ""); r.code != http.StatusOK {
				t.Errorf("its id answers %d", r.code)
			}
		})
	}
	h.awaitStats(func(s *api.Stats) bool {
		return s.FailedJobs == int64(len(tries)) && s.QueuedJobs+s.ActiveWorkers == 0
	})
	h.await(h.submit(`{"type":"export","payload":{"format":"json"}}`).ID, "completed")
}

// TestContractDuplicates publishes the same again by Job-Id and by Nats-Msg-Id.
func TestContractDuplicates(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir(), setup{})
	nc := h.dial()
	id := uuid.NewString()
	first := h.accepted(nc, "jobs.email", letter, "Job-Id", id)
	second := h.accepted(nc, "jobs.export.1", `{}`, "Job-Id", id)
	h.await(id, "completed")
	third := h.accepted(nc, "jobs.email", letter, "Job-Id", strings.ToUpper(id)) // also after its end
	last := h.accepted(nc, "jobs.export", `{}`)
	h.await(last, "completed") // so the others have been seen
	if j := h.job(id); j.Seq != first || j.Type != "email" {
		t.Errorf("the job is %+v", j)
	}
	for _, seq := range []uint64{second, third} { // whoever published it again finds what became of it
		if j := h.job(seq); j.ID != id || j.Seq != first {
			t.Errorf("sequence %d leads to %+v", seq, j)
		}
	}
	if found, _ := h.list(""); len(found) != 2 {
		t.Errorf("%d jobs are listed, want 2", len(found))
	}

	first = h.accepted(nc, "jobs.email", letter, "Nats-Msg-Id", "once")
	again := h.bare(nc, "jobs.email", letter, "Nats-Msg-Id", "once")
	if !again.Duplicate || again.Seq != first {
		t.Errorf("the repetition got %+v, want a duplicate of %d", again, first)
	}
	h.await(first, "completed")
	h.await(h.accepted(nc, "jobs.export", `{}`), "completed")
	if found, _ := h.list(""); len(found) != 4 {
		t.Errorf("%d jobs are listed, want 4", len(found))
	}
}

// TestContractDerivedID has the id of a bare message stay the same when the
// tracker is deleted and made anew from the streams.
func TestContractDerivedID(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := newPuppet()
	s := setup{
		handlers: map[string]jobs.Handler{"held": p, "quick": jobs.HandlerFunc(nothing)},
		change:   func(c *config.Config) { c.Worker.MaxWorkers, c.Worker.ShutdownGrace = 2, 0 },
	}
	h := open(t, dir, s)
	nc := h.dial()
	waiting := h.accepted(nc, "jobs.held.1", `{"n":1}`)
	ended := h.accepted(nc, "jobs.quick", `{"n":2}`)
	ids := map[uint64]string{waiting: h.await(waiting, "processing").ID, ended: h.await(ended, "completed").ID}
	p.next(t)
	h.close()
	mustDo(t, os.Remove(filepath.Join(dir, "status.db")))
	h = open(t, dir, s)
	p.next(t).finish()
	for seq, id := range ids {
		j := h.await(id, "completed")
		if want := fmt.Sprintf(`{"n":%d}`, map[uint64]int{waiting: 1, ended: 2}[seq]); string(j.Payload) != want {
			t.Errorf("job %d is %+v", seq, j)
		}
	}
}

// TestContractService uses the NATS service.
func TestContractService(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir(), setup{handlers: map[string]jobs.Handler{"quick": jobs.HandlerFunc(nothing)}})
	nc := h.dial()
	m, err := nc.Request("$SRV.INFO.jobstream", nil, patience)
	mustDo(t, err)
	var info struct {
		Name, Version string
		Endpoints     []struct{ Name, Subject string }
	}
	mustDo(t, json.Unmarshal(m.Data, &info))
	var subjects []string
	for _, e := range info.Endpoints {
		subjects = append(subjects, e.Subject)
	}
	slices.Sort(subjects)
	var offered []string
	for _, op := range api.Operations() {
		if op.NATS != nil {
			offered = append(offered, "jobstream."+op.Name)
		}
	}
	slices.Sort(offered)
	if info.Name != "jobstream" || !slices.Equal(subjects, offered) {
		t.Errorf("the service says %s", m.Data)
	}
	for _, verb := range []string{"PING", "STATS"} {
		if m, err := nc.Request("$SRV."+verb+".jobstream", nil, patience); err != nil || !json.Valid(m.Data) {
			t.Errorf("%s: %v", verb, err)
		}
	}
	m = h.call(nc, "submit", `{"type":"quick","priority":2,"tags":["s"],"payload":{"a":1}}`)
	sent := readJob(t, m.Data)
	if code := m.Header.Get("Nats-Service-Error-Code"); code != "" || sent.Status != "pending" || sent.Priority != 2 {
		t.Errorf("submit answers %s: %s", code, m.Data)
	}
	done := h.await(sent.ID, "completed")
	for _, ref := range []string{`{"id":"` + done.ID + `"}`, fmt.Sprintf(`{"id":%d}`, done.Seq), fmt.Sprintf(`{"id":"%d"}`, done.Seq)} {
		m = h.call(nc, "get", ref)
		if r := h.do(http.MethodGet, "/jobs/"+done.ID, ""); strings.TrimSpace(string(r.body)) != string(m.Data) {
			t.Errorf("get %s answers %s, REST %s", ref, m.Data, r.body)
		}
	}
	for range 4 {
		h.await(h.submit(`{"type":"quick","tags":["r"]}`).ID, "completed")
	}
	for body, want := range map[string]int{
		``: 5, `{}`: 5, `{"tag":"s"}`: 1, `{"tag":["s","r"],"limit":3}`: 3, `{"status":"failed"}`: 0, `{"type":["quick"],"order":"asc","limit":"2"}`: 2,
	} {
		var page struct {
			Jobs []*seen
			Next string `json:"next_cursor"`
		}
		m = h.call(nc, "list", body)
		mustDo(t, json.Unmarshal(m.Data, &page))
		if len(page.Jobs) != want || (want < 5 && strings.Contains(body, "limit")) != (page.Next != "") {
			t.Errorf("list %s answers %s", body, m.Data)
		}
	}
	var s api.Stats
	mustDo(t, json.Unmarshal(h.call(nc, "stats", "").Data, &s))
	if s.CompletedJobs != 5 || s.Types["quick"].CompletedJobs != 5 || s.MaxWorkers != 10 {
		t.Errorf("stats are %+v", s)
	}
	for _, c := range []struct {
		endpoint, body string
		status         int
		code, pointer  string
	}{
		{"submit", ``, 400, "malformed_json", ""},
		{"submit", `{"type":`, 400, "malformed_json", ""},
		{"submit", `{"type":"nope"}`, 422, "unknown_type", "/type"},
		{"submit", `{"type":"email"}`, 422, "invalid_request", "/payload"},
		{"submit", `{"type":"quick","priority":7}`, 422, "invalid_request", "/priority"},
		{"submit", `{"type":"quick","delay":-7}`, 422, "invalid_request", "/delay"},
		{"run", `{"type":"nope"}`, 422, "unknown_type", "/type"},
		{"run", `{"type":"quick","wait":7}`, 422, "invalid_request", "/wait"},
		{"batch", `{}`, 422, "invalid_request", "/jobs"},
		{"batch", `{"jobs":[{"type":"quick"},{"type":"nope"}]}`, 422, "unknown_type", "/jobs/1/type"},
		{"cancel", `{"id":999999}`, 404, "not_found", ""},
		{"cancel", `{"id":1,"reason":5}`, 422, "invalid_request", "/reason"},
		{"cancel", `{"id":1}`, 409, "conflict", ""},
		{"retry", `{"id":1}`, 409, "conflict", ""},
		{"retry", `{"id":1,"reason":"x"}`, 422, "invalid_request", "/reason"},
		{"retry", `{}`, 422, "invalid_request", "/id"},
		{"delete", `{"id":999999}`, 404, "not_found", ""},
		{"delete", ``, 400, "malformed_json", ""},
		{"counts", `{"status":"done"}`, 422, "invalid_request", "/status"},
		{"counts", `{"error":"x"}`, 422, "invalid_request", "/error"},
		{"pause", `{"type":"nope"}`, 404, "not_found", ""},
		{"pause", `{}`, 422, "invalid_request", "/type"},
		{"resume", `{"type":"jobstream-bulk"}`, 404, "not_found", ""},
		{"get", `{"id":1,"wait":"11m"}`, 422, "invalid_request", "/wait"},
		{"get", ``, 400, "malformed_json", ""},
		{"get", `{}`, 422, "invalid_request", "/id"},
		{"get", `{"id":"nope"}`, 404, "not_found", ""},
		{"get", `{"id":"` + uuid.NewString() + `"}`, 404, "not_found", ""},
		{"get", `{"id":999999}`, 404, "not_found", ""},
		{"get", `{"id":[]}`, 422, "invalid_request", "/id"},
		{"list", `[]`, 422, "invalid_request", ""},
		{"list", `{"status":"done"}`, 422, "invalid_request", "/status"},
		{"list", `{"limit":0}`, 422, "invalid_request", "/limit"},
		{"list", `{"cursor":"garbage"}`, 422, "invalid_request", "/cursor"},
		{"list", `{"colour":"red"}`, 422, "invalid_request", "/colour"},
	} {
		m := h.call(nc, c.endpoint, c.body)
		if got := m.Header.Get("Nats-Service-Error-Code"); got != strconv.Itoa(c.status) || m.Header.Get("Nats-Service-Error") == "" {
			t.Errorf("%s %s has the headers %v", c.endpoint, c.body, m.Header)
		}
		p := wantProblem(t, m.Data, c.status, c.code)
		if c.pointer != "" && !slices.Contains(p.pointers(), c.pointer) {
			t.Errorf("%s %s: the errors are at %v, want %s", c.endpoint, c.body, p.pointers(), c.pointer)
		}
	}
	if found, _ := h.list(""); len(found) != 5 {
		t.Errorf("%d jobs are listed, want 5", len(found))
	}
}

// TestContractNotifications listens in every way.
func TestContractNotifications(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir(), setup{handlers: map[string]jobs.Handler{"good": jobs.HandlerFunc(nothing), "bad": jobs.HandlerFunc(failing)}})
	nc := h.dial()
	subscribe := func(subject string) *nats.Subscription {
		s, err := nc.SubscribeSync(subject)
		mustDo(t, err)
		return s
	}
	subs := map[string]*nats.Subscription{}
	for _, subject := range []string{"job.completed.>", "job.completed", "job.failed.>", "job.failed", "job.*.>", "job.completed.good.*", "job.*.bad.*", "job.cancelled.>"} {
		subs[subject] = subscribe(subject)
	}
	mustDo(t, nc.Flush())
	good := h.await(h.submit(`{"type":"good","payload":{"a":"b"},"tags":["x"]}`).ID, "completed")
	bad := h.await(h.submit(`{"type":"bad"}`).ID, "failed")
	for subject, want := range map[string][]*seen{
		"job.completed.>": {good}, "job.completed": {good}, "job.completed.good.*": {good},
		"job.failed.>": {bad}, "job.failed": {bad}, "job.*.bad.*": {bad}, "job.*.>": {good, bad},
	} {
		for _, j := range want {
			m, err := subs[subject].NextMsg(patience)
			mustDo(t, err)
			full := "job." + j.Status + "." + j.Type + "." + j.ID
			if m.Subject != full && m.Subject != subject {
				t.Errorf("%s brought %s", subject, m.Subject)
			}
			rest := strings.TrimSpace(string(h.do(http.MethodGet, "/jobs/"+j.ID, "").body))
			if string(m.Data) != rest {
				t.Errorf("%s brought %s, REST shows %s", subject, m.Data, rest)
			}
			for name, value := range map[string]string{
				"ce-specversion": "1.0", "ce-type": "jobstream.job." + j.Status, "ce-id": j.ID + "." + j.Status + ".1",
				"ce-time": j.EndedAt.Format(time.RFC3339Nano),
			} {
				if got := m.Header.Get(name); got != value {
					t.Errorf("%s: %s is %q, want %q", subject, name, got, value)
				}
			}
			if m.Header.Get("ce-source") == "" {
				t.Errorf("%s: there is no ce-source", subject)
			}
		}
	}
	// one that comes later shows that nothing came twice or in the wrong place
	last := h.await(h.submit(`{"type":"good"}`).ID, "completed")
	m, err := subs["job.*.>"].NextMsg(patience)
	mustDo(t, err)
	if readJob(t, m.Data).ID != last.ID {
		t.Errorf("job.*.> brought %s", m.Data)
	}
	mustDo(t, nc.Flush())
	for _, subject := range []string{"job.failed.>", "job.failed", "job.*.bad.*", "job.cancelled.>"} {
		if n, _, _ := subs[subject].Pending(); n != 0 {
			t.Errorf("%s brought %d more", subject, n)
		}
	}
}

// TestContractDurableConsumer listens with a durable consumer that is away for
// a while: it misses none.
func TestContractDurableConsumer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := setup{handlers: map[string]jobs.Handler{"quick": jobs.HandlerFunc(nothing)}}
	h := open(t, dir, s)
	want := map[string]bool{}
	some := func() {
		for range 5 {
			want[h.await(h.submit(`{"type":"quick"}`).ID, "completed").ID+".completed.1"] = true
		}
	}
	consumer := func() jetstream.Consumer {
		js, err := jetstream.New(h.dial())
		mustDo(t, err)
		c, err := js.CreateOrUpdateConsumer(t.Context(), "NOTIFICATIONS", jetstream.ConsumerConfig{
			Durable: "mine", FilterSubject: "job.completed.>", AckPolicy: jetstream.AckExplicitPolicy,
		})
		mustDo(t, err)
		return c
	}
	got := map[string]int{}
	take := func(n int) {
		c := consumer()
		for range n {
			m, err := c.Next(jetstream.FetchMaxWait(patience))
			mustDo(t, err)
			got[m.Headers().Get("ce-id")]++
			if id := readJob(t, m.Data()).ID; m.Subject() != "job.completed.quick._" || m.Headers().Get("ce-subject") != id {
				t.Errorf("the notification of job %s is on %s, with %v", id, m.Subject(), m.Headers())
			}
			mustDo(t, m.DoubleAck(t.Context()))
		}
	}
	some()
	take(3)
	some()
	h.close()
	h = open(t, dir, s)
	some()
	take(12)
	for id := range want {
		if got[id] != 1 {
			t.Errorf("%s came %d times", id, got[id])
		}
	}
	info, err := consumer().Info(t.Context())
	mustDo(t, err)
	if info.NumPending != 0 || info.NumAckPending != 0 {
		t.Errorf("%d more are pending", info.NumPending+uint64(info.NumAckPending))
	}
}

// TestContractStreams finds what operators look at with the nats tool.
func TestContractStreams(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir(), setup{})
	js, err := jetstream.New(h.dial())
	mustDo(t, err)
	var names []string
	list := js.StreamNames(t.Context())
	for name := range list.Name() {
		names = append(names, name)
	}
	slices.Sort(names)
	if !slices.Equal(names, []string{"JOBS", "NOTIFICATIONS", "STATUS"}) {
		t.Errorf("the streams are %v", names)
	}
	stream, err := js.Stream(t.Context(), "JOBS")
	mustDo(t, err)
	lanes := map[string]bool{}
	consumers := stream.ConsumerNames(t.Context())
	for name := range consumers.Name() {
		lanes[name] = true
	}
	for _, kind := range []string{"email", "export", "cleanup", "report"} {
		for p := 1; p <= 5; p++ {
			if name := fmt.Sprintf("%s-%d", kind, p); !lanes[name] {
				t.Errorf("the consumer %s is missing", name)
			}
		}
	}
	stream, err = js.Stream(t.Context(), "NOTIFICATIONS")
	mustDo(t, err)
	if age := stream.CachedInfo().Config.MaxAge; age != 72*time.Hour {
		t.Errorf("NOTIFICATIONS keeps for %v", age)
	}
}

// TestContractGarbage throws random bytes at every door for a second.
func TestContractGarbage(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	h := open(t, t.TempDir(), setup{})
	nc := h.dial()
	junk := func() string {
		b := make([]byte, rng.IntN(200))
		for i := range b {
			b[i] = byte(rng.IntN(256))
		}
		if rng.IntN(2) == 0 { // nearly right
			seeds := []string{`{"type":"email","payload":` + letter + `}`, `{"type":"export","tags":["a"],"priority":1}`, letter, `{"id":12}`}
			text := []byte(seeds[rng.IntN(len(seeds))])
			for range rng.IntN(4) {
				text[rng.IntN(len(text))] = byte(rng.IntN(256))
			}
			return string(text)
		}
		return string(b)
	}
	token := func() string {
		const letters = "abcXYZ0129-_$~!:/\\\"'{}äö€"
		runes := []rune(letters)
		some := make([]rune, 1+rng.IntN(8))
		for i := range some {
			some[i] = runes[rng.IntN(len(runes))]
		}
		return string(some)
	}
	end := time.Now().Add(time.Second)
	n := 0
	for ; time.Now().Before(end); n++ {
		switch rng.IntN(4) {
		case 0:
			r := h.do([]string{"POST", "PUT", "GET", "DELETE"}[rng.IntN(4)], []string{"/jobs", "/workers", "/jobs/1", "/" + fmt.Sprint(rng.IntN(9))}[rng.IntN(4)], junk())
			if r.code >= 500 {
				t.Errorf("REST answers %d: %s", r.code, r.body)
			}
		case 1:
			subject := "jobs." + []string{"email", "export", "nope", token(), token() + "." + token()}[rng.IntN(5)]
			m := nats.NewMsg(subject)
			m.Data = []byte(junk())
			if name := []string{"", "Job-Id", "Job-Tags", "Job-Timeout", "Job-Retry-Count", "Job-Moved", token()}[rng.IntN(7)]; name != "" {
				m.Header.Set(strings.NewReplacer(":", "", "\\", "", "/", "").Replace(name), strings.NewReplacer("\r", "", "\n", "").Replace(junk()))
			}
			_ = nc.PublishMsg(m) // the client refuses some by itself
		case 2:
			m := h.call(nc, []string{"submit", "get", "list"}[rng.IntN(3)], junk())
			if code := m.Header.Get("Nats-Service-Error-Code"); strings.HasPrefix(code, "5") {
				t.Errorf("the service answers %s: %s", code, m.Data)
			}
		case 3:
			mustDo(t, nc.Publish("status.completed.email."+uuid.NewString(), []byte(junk())))
		}
	}
	mustDo(t, nc.Flush())
	t.Logf("%d pieces", n)
	j := h.submit(`{"type":"export","priority":5}`)
	h.await(j.ID, "completed")
	if r := h.do(http.MethodGet, "/readyz", ""); r.code != http.StatusOK {
		t.Errorf("readyz answers %d: %s", r.code, r.body)
	}
	h.awaitStats(func(s *api.Stats) bool { return s.QueuedJobs+s.RetryingJobs+s.ActiveWorkers == 0 })
	for _, id := range h.pages("", "", 500) {
		if j := h.job(id); j.EndedAt == nil {
			t.Errorf("job %s is %s", id, j.Status)
		}
	}
	if strings.Contains(h.log.String(), "panic") {
		t.Error("something panicked")
	}
}
