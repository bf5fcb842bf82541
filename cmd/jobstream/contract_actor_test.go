package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/jobs"
	"jobstream/jobs/access"
	"jobstream/jobs/handlers/importer"
	"jobstream/jobs/schedule"
)

// asRole are the headers of a request with the token of a role.
func asRole(name string, more ...string) []string {
	return append([]string{"Authorization", "Bearer " + secretOf(name)}, more...)
}

// makers is a server with roles, and a token that may do all but administer.
func makers(t *testing.T, dir string, s setup) *house {
	t.Helper()
	change := s.change
	s.change = func(c *config.Config) {
		for name, scopes := range map[string][]string{
			"ci": {"submit", "manage", "read"}, "app": {"submit"}, "other": {"submit"}, "reader": {"read"}, "boss": {"manage", "submit"},
		} {
			c.Server.Auth.Tokens[name] = &config.Token{SHA256: access.HashOf(secretOf(name)).String(), Scopes: scopes}
		}
		c.Jobs["import"] = config.JobType{Run: "import", Timeout: time.Hour, Inputs: importer.Inputs()}
		if change != nil {
			change(c)
		}
	}
	return open(t, dir, s)
}

// TestContractCreatedBy makes jobs in every way, and asks whose they are. The answer is the
// same when the tracker has been lost.
func TestContractCreatedBy(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := setup{change: func(c *config.Config) {
		c.Schedules = []schedule.Spec{{
			Name: "configured", Every: time.Hour, EveryText: "1h", Timezone: "UTC", Type: "report", Priority: 3, RetryCount: -1,
			Overlap: schedule.Skip, CatchUp: schedule.None,
		}}
		c.Callbacks.Allow = []string{"127.0.0.1"}
	}}
	h := makers(t, dir, s)
	want := make(map[string]string) // the makers of jobs by their ids
	note := func(body []byte, by string) *seen {
		t.Helper()
		j := readJob(t, body)
		if j.CreatedBy != by {
			t.Errorf("%s is by %q, not by %q", body, j.CreatedBy, by)
		}
		want[j.ID] = by
		return j
	}
	const later = `{"type":"email","payload":` + letter + `,"delay":"1d"}`
	note(h.do("POST", "/jobs", later).body, "anonymous")
	mine := note(h.do("POST", "/jobs", later, asRole("ci")...).body, "ci")
	note(h.do("POST", "/jobs", later, "Authorization", "Bearer "+adminToken).body, "tests")
	note(h.call(h.login(t, "app"), "submit", later).Data, "app")
	note(h.call(h.dial(), "submit", later).Data, "anonymous")
	ops, err := nats.Connect(h.nats, nats.Token(adminToken), nats.NoReconnect())
	mustDo(t, err)
	t.Cleanup(ops.Close)
	note(h.call(ops, "submit", later).Data, "tests")
	var batch struct{ Jobs []json.RawMessage }
	mustDo(t, json.Unmarshal(h.do("POST", "/jobs/batch", `{"jobs":[`+later+`,`+later+`]}`, asRole("app")...).body, &batch))
	for _, one := range batch.Jobs {
		note(one, "app")
	}
	seq := h.accepted(h.login(t, "app"), "jobs.email", letter, "Job-Delay", "1d")
	note(h.do("GET", fmt.Sprintf("/jobs/%d", seq), "").body, "")

	// what jobs and schedules make is by whoever has made these
	if r := h.do("POST", "/schedules", `{"name":"nightly","every":"1s","type":"email","payload":`+letter+`}`, asRole("boss")...); r.code != http.StatusCreated || !strings.Contains(string(r.body), `"created_by":"boss"`) {
		t.Errorf("the schedule is %s", r.body)
	}
	fired := h.awaitFires("nightly", 1)[0]
	note(h.do("GET", "/jobs/"+fired.ID, "").body, "boss")
	h.do("DELETE", "/schedules/nightly", "", asRole("boss")...)
	note(h.do("POST", "/schedules/configured/run", "", asRole("ci")...).body, "ci")
	up := h.do("POST", "/artifacts", "{\"x\":1}\n", asRole("app", "Content-Type", "application/jsonl")...)
	var file struct{ ID string }
	mustDo(t, json.Unmarshal(up.body, &file))
	imported := note(h.do("POST", "/jobs", `{"type":"import","payload":{"type":"email","payload":`+letter+`,"tags":["row"]},"inputs":{"file":"`+file.ID+`"}}`, asRole("app")...).body, "app")
	h.await(imported.ID, "completed")
	rows, _ := h.list("?tag=row")
	for _, row := range rows {
		note(h.do("GET", "/jobs/"+row.ID, "").body, "app")
	}
	if len(rows) != 1 {
		t.Errorf("the import made %d jobs", len(rows))
	}
	called := note(h.do("POST", "/jobs", `{"type":"email","payload":`+letter+`,"callback_url":"http://127.0.0.1:1/"}`, asRole("app")...).body, "app")
	h.await(called.ID, "completed")
	callbacks, _ := h.list("?type=jobstream-webhook&tag=" + called.ID)
	for _, c := range callbacks {
		note(h.do("GET", "/jobs/"+c.ID, "").body, "app")
	}
	if len(callbacks) != 1 {
		t.Errorf("there are %d callbacks", len(callbacks))
	}

	// by hand, and by a bulk job
	doomed := note(h.do("POST", "/jobs", `{"type":"report","delay":"1d","tags":["doomed"]}`).body, "anonymous")
	h.do("POST", "/jobs/"+mine.ID+"/cancel", "", asRole("boss")...)
	h.do("POST", "/jobs/"+mine.ID+"/retry", "", asRole("ci")...)
	bulk := note(h.do("POST", "/jobs/bulk", `{"action":"cancel","filter":{"tag":"doomed"}}`, asRole("boss", "Prefer", "wait=60")...).body, "boss")
	h.await(bulk.ID, "completed")
	for id, whose := range map[string]map[string]string{
		mine.ID: {"submitted": "ci", "cancelled": "boss", "rerun": "ci"}, doomed.ID: {"submitted": "anonymous", "cancelled": "boss"},
		fmt.Sprint(seq): {"submitted": ""},
	} {
		all, _ := h.events(id)
		for _, e := range all {
			if by, ok := whose[e.Kind]; e.Actor != by {
				t.Errorf("%s of %s is by %q, not by %q (%v)", e.Kind, id, e.Actor, by, ok)
			}
		}
	}

	h.close()
	mustDo(t, os.Remove(filepath.Join(dir, "status.db")))
	h = makers(t, dir, s)
	found := 0
	for id, by := range want {
		r := h.do("GET", "/jobs/"+id, "")
		if r.code != http.StatusOK {
			continue // its message was trimmed, and its end notified to nobody
		}
		found++
		if j := readJob(t, r.body); j.CreatedBy != by {
			t.Errorf("without the tracker, %s is by %q, not by %q", r.body, j.CreatedBy, by)
		}
	}
	if found < 8 {
		t.Errorf("%d of %d jobs came back", found, len(want))
	}
}

// TestContractForgedHeaders: a bare message with a header of the server's own fails with the
// reason, and does nothing of what it claims.
func TestContractForgedHeaders(t *testing.T) {
	t.Parallel()
	h := makers(t, t.TempDir(), setup{})
	const later = `{"type":"email","payload":` + letter + `,"delay":"1d"}`
	if r := h.do("POST", "/schedules", `{"name":"nightly","every":"1d","type":"email","payload":`+letter+`}`, asRole("boss")...); r.code != http.StatusCreated {
		t.Fatal(string(r.body))
	}
	e := h.timetable("nightly")
	nc := h.login(t, "other")
	token := jobs.NewToken("principal app", "k", []byte(later))
	for _, forged := range [][]string{
		{"Job-Created-By", "app"},
		{"Job-Token", fmt.Sprintf("%x%x", token.Key, token.Body)},
		{"Job-Moved", "1"},
		{"Job-Batch-End", jobs.NewID().String()},
		{"Job-Schedule", "nightly"},
		{"Job-Scheduled-For", e.NextRunAt.Format(time.RFC3339Nano)},
		{"Job-Inputs", "{}"},
		{"Job-Seal", strings.Repeat("A", 16)},
		// the id of the schedule's next job, so that this would be a repeat
		{"Job-Id", schedule.FireID("nightly", jobs.TimeOf(*e.NextRunAt)).String()},
	} {
		j := h.await(h.accepted(nc, "jobs.email", letter, forged...), "failed")
		if !strings.Contains(j.Error, forged[0]) || j.CreatedBy != "" {
			t.Errorf("%s makes %+v", forged[0], j)
		}
	}
	r := h.do("POST", "/jobs", later, asRole("app", "Idempotency-Key", "k")...)
	if r.code != http.StatusAccepted || r.header.Get("Idempotent-Replay") != "" {
		t.Errorf("the key of app was used up: %d %s", r.code, r.body)
	}
	if now := h.timetable("nightly"); now.LastRunAt != nil || !now.NextRunAt.Equal(*e.NextRunAt) {
		t.Errorf("the schedule has become %+v", now)
	}
}

// TestContractUniqueKeys: a unique key is its token's own, at both doors. Bare messages and
// everybody without a token share theirs, and block nobody else.
func TestContractUniqueKeys(t *testing.T) {
	t.Parallel()
	h := makers(t, t.TempDir(), setup{})
	const later = `{"type":"email","payload":` + letter + `,"delay":"1d","unique_key":"k"}`
	bare := func() *seen {
		return h.job(h.accepted(h.login(t, "other"), "jobs.email", letter, "Job-Delay", "1d", "Job-Unique-Key", "k"))
	}
	first := bare()
	owners := []string{first.ID}
	h.do("POST", "/jobs", later).wantProblem(t, http.StatusConflict, "duplicate")
	for _, who := range [][]string{asRole("app"), asRole("ci")} {
		r := h.do("POST", "/jobs", later, who...)
		if r.code != http.StatusAccepted {
			t.Fatalf("%v is blocked: %s", who, r.body)
		}
		owners = append(owners, readJob(t, r.body).ID)
		var p struct {
			JobID string `json:"job_id"`
		}
		again := h.do("POST", "/jobs", later, who...)
		again.wantProblem(t, http.StatusConflict, "duplicate")
		mustDo(t, json.Unmarshal(again.body, &p))
		if p.JobID != owners[len(owners)-1] || !strings.Contains(string(again.body), `unique key \"k\"`) {
			t.Errorf("%v is answered with %s", who, again.body)
		}
		batch := h.do("POST", "/jobs/batch", `{"jobs":[`+later+`]}`, who...)
		batch.wantProblem(t, http.StatusConflict, "duplicate")
	}
	if m := h.call(h.login(t, "app"), "submit", later); !strings.Contains(string(m.Data), `"duplicate"`) {
		t.Errorf("over NATS it is %s", m.Data)
	}
	if m := h.call(h.login(t, "boss"), "submit", later); !strings.Contains(string(m.Data), `"created_by":"boss"`) {
		t.Errorf("over NATS it is %s", m.Data)
	}
	if j := bare(); j.Status != "failed" || !strings.Contains(j.Error, first.ID) || slices.Contains(owners[1:], first.ID) {
		t.Errorf("the second bare message makes %+v", j)
	}
	// the end of a job frees the key of its principal alone
	h.do("POST", "/jobs/"+owners[1]+"/cancel", "", asRole("boss")...)
	if r := h.do("POST", "/jobs", later, asRole("app")...); r.code != http.StatusAccepted {
		t.Errorf("the key is not free: %s", r.body)
	}
	h.do("POST", "/jobs", later, asRole("ci")...).wantProblem(t, http.StatusConflict, "duplicate")
	h.do("POST", "/jobs/"+owners[1]+"/retry", "", asRole("boss")...).wantProblem(t, http.StatusConflict, "duplicate")
}

// TestContractOwnJobs: a token that may only submit sees its own jobs, at both doors, and
// those of others look as if they were not there.
func TestContractOwnJobs(t *testing.T) {
	t.Parallel()
	h := makers(t, t.TempDir(), setup{change: func(c *config.Config) {
		c.Server.Auth.Anonymous = []string{"submit"}
		c.Jobs["resize"] = config.JobType{Run: "import", Timeout: time.Hour, Inputs: importer.Inputs()}
	}})
	const mail = `{"type":"email","payload":` + letter + `,"delay":"1d"}`
	mine := readJob(t, h.do("POST", "/jobs", mail, asRole("app")...).body)
	others := readJob(t, h.do("POST", "/jobs", mail, asRole("other")...).body)
	nobodys := readJob(t, h.do("POST", "/jobs", mail).body)
	exported := readJob(t, h.do("POST", "/jobs", `{"type":"export"}`, asRole("ci", "Prefer", "wait=60")...).body)
	for path, code := range map[string]int{"": 200, "?wait=10ms": 200, "/events": 200, "/log": 200, "/result": 404, "/artifacts": 200, "/artifacts/x": 404} {
		for _, ref := range []string{mine.ID, fmt.Sprint(mine.Seq)} {
			if r := h.do("GET", "/jobs/"+ref+path, "", asRole("app")...); r.code != code {
				t.Errorf("%s is answered with %d: %s", path, r.code, r.body)
			}
		}
		hidden := []string{others.ID, fmt.Sprint(others.Seq), nobodys.ID, exported.ID}
		for _, ref := range append(hidden, jobs.NewID().String()) {
			if r := h.do("GET", "/jobs/"+ref+path, "", asRole("app")...); r.code != 404 || !strings.Contains(string(r.body), "there is no job") {
				t.Errorf("%s%s is answered with %d: %s", ref, path, r.code, r.body)
			}
		}
		h.do("GET", "/jobs/"+nobodys.ID+path, "").wantProblem(t, http.StatusForbidden, "forbidden")
		if r := h.do("GET", "/jobs/"+mine.ID+path, "", asRole("reader")...); r.code != code {
			t.Errorf("%s for a reader: %d", path, r.code)
		}
	}
	// the waiting sees the end
	if r := h.do("POST", "/jobs/"+mine.ID+"/run", "", asRole("boss")...); r.code != http.StatusAccepted {
		t.Error(string(r.body))
	}
	if j := readJob(t, h.do("GET", "/jobs/"+mine.ID+"?wait=1m", "", asRole("app")...).body); j.Status != "completed" {
		t.Errorf("it is %+v", j)
	}

	ids := func(body []byte) (all []string) {
		t.Helper()
		var page struct{ Jobs []seen }
		mustDo(t, json.Unmarshal(body, &page))
		for _, j := range page.Jobs {
			all = append(all, j.ID)
		}
		return all
	}
	for query, want := range map[string][]string{
		"": {mine.ID}, "?created_by=app": {mine.ID}, "?type=email&status=completed": {mine.ID}, "?type=export": nil,
	} {
		if got := ids(h.do("GET", "/jobs"+query, "", asRole("app")...).body); !slices.Equal(got, want) {
			t.Errorf("the list%s is %v", query, got)
		}
	}
	h.do("GET", "/jobs?created_by=other", "", asRole("app")...).wantProblem(t, http.StatusForbidden, "forbidden")
	h.do("GET", "/jobs?created_by=app&created_by=other", "", asRole("app")...).wantProblem(t, http.StatusForbidden, "forbidden")
	if got := ids(h.do("GET", "/jobs?created_by=app&created_by=other&order=asc", "", asRole("reader")...).body); !slices.Equal(got, []string{mine.ID, others.ID}) {
		t.Errorf("a reader's list is %v", got)
	}
	for _, path := range []string{"/jobs", "/jobs/counts", "/types", "/events", "/workers"} {
		h.do("GET", path, "").wantProblem(t, http.StatusForbidden, "forbidden")
		if path != "/jobs" {
			h.do("GET", path, "", asRole("app")...).wantProblem(t, http.StatusForbidden, "forbidden")
		}
	}
	for _, path := range []string{"/cancel", "/retry", "/run"} {
		h.do("POST", "/jobs/"+mine.ID+path, "", asRole("app")...).wantProblem(t, http.StatusForbidden, "forbidden")
	}

	nc := h.login(t, "app")
	if m := h.call(nc, "get", `{"id":"`+mine.ID+`"}`); readJob(t, m.Data).ID != mine.ID {
		t.Errorf("over NATS it is %s", m.Data)
	}
	wantProblem(t, h.call(nc, "get", `{"id":"`+others.ID+`"}`).Data, http.StatusNotFound, "not_found")
	wantProblem(t, h.call(nc, "get", fmt.Sprintf(`{"id":%d}`, others.Seq)).Data, http.StatusNotFound, "not_found")
	if m := h.call(nc, "list", `{}`); !slices.Equal(ids(m.Data), []string{mine.ID}) {
		t.Errorf("over NATS the list is %s", m.Data)
	}
	wantProblem(t, h.call(nc, "list", `{"created_by":"other"}`).Data, http.StatusForbidden, "forbidden")

	// nor do files of others reach it as inputs
	for _, body := range []string{
		`{"type":"resize","payload":{"type":"email"},"inputs":{"file":{"job":"` + exported.ID + `"}}}`,
		`{"jobs":[{"type":"resize","payload":{"type":"email"},"inputs":{"file":{"job":"` + exported.ID + `"}}}]}`,
	} {
		path := "/jobs"
		if strings.HasPrefix(body, `{"jobs"`) {
			path = "/jobs/batch"
		}
		p := h.do("POST", path, body, asRole("app")...).wantProblem(t, http.StatusUnprocessableEntity, "invalid_request")
		if !strings.Contains(p.Detail, "there is no job "+exported.ID) || !strings.HasSuffix(p.Errors[0].Pointer, "/inputs/file") {
			t.Errorf("%s is refused with %+v", body, p)
		}
		if r := h.do("POST", path, body, asRole("ci")...); r.code != http.StatusAccepted {
			t.Errorf("a reader may use it: %s", r.body)
		}
	}
}
