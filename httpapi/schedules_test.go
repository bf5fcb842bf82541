package httpapi_test

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"jobstream/httpapi"
	"jobstream/jobs"
	"jobstream/jobs/schedule"
)

// shelf is a schedule.Store in memory.
type shelf struct {
	mu      sync.Mutex
	entries map[string]*schedule.Entry
	err     error
}

func (s *shelf) ScheduleRuns(context.Context, string) ([]schedule.Run, error) { return nil, nil }

func (s *shelf) Schedules(context.Context) (all []*schedule.Entry, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(s.entries)) {
		all = append(all, s.entries[name])
	}
	return all, s.err
}

func (s *shelf) Schedule(_ context.Context, name string) (*schedule.Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.entries[name], s.err
}

func (s *shelf) Do(_ context.Context, c jobs.Command) (jobs.Effect, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change := c.(schedule.Command)
	name := change.Schedule()
	old := s.entries[name]
	e, err := change.Apply(old)
	if err == nil {
		err = s.err
	}
	if err != nil {
		return jobs.Effect{}, err
	}
	if s.entries[name] = e; e == nil {
		delete(s.entries, name)
	}
	return jobs.Effect{Value: schedule.Change{Old: old, New: e}}, nil
}

// scheduleRig is a server with schedules that are kept and run for real, only
// nothing fires them.
func scheduleRig(t *testing.T) (*rig, *shelf, *schedule.Book) {
	t.Helper()
	s := &shelf{entries: make(map[string]*schedule.Entry)}
	var r *rig
	book := schedule.NewBook(schedule.BookOptions{
		Store: s,
		Check: func(s *schedule.Spec) error { return r.reg.Check(&jobs.Submission{Type: s.Type, Payload: s.Payload}) },
		Submit: func(_ context.Context, m *jobs.Message) (*jobs.Job, bool, error) {
			m.At = jobs.Now()
			j := jobs.NewJob(m, r.reg.Lookup(m.Type), true)
			r.put(j)
			return j, false, nil
		},
	})
	r = newRig(t, func(o *httpapi.Options) { o.Backend.Schedules = book })
	return r, s, book
}

// scheduleResource is a schedule as REST shows it.
type scheduleResource struct {
	Name, Cron, Every, Timezone, Type, Overlap, Source string
	CatchUp                                            string `json:"catch_up"`
	Payload                                            json.RawMessage
	Priority                                           int
	Tags                                               []string
	Paused                                             bool
	NextRunAt                                          *time.Time `json:"next_run_at"`
	LastRunAt                                          *time.Time `json:"last_run_at"`
	LastJobID                                          *string    `json:"last_job_id"`
}

func TestSchedules(t *testing.T) {
	r, _, _ := scheduleRig(t)
	var list struct{ Schedules []scheduleResource }
	a := r.do(t, "GET", "/schedules", "")
	if a.wantJSON(t, http.StatusOK, &list); len(list.Schedules) != 0 || string(a.body) != "{\"schedules\":[]}\n" {
		t.Errorf("without any: %s", a.body)
	}

	a = r.do(t, "POST", "/schedules", `{"name":"daily","cron":"0 3 * * *","timezone":"Europe/Berlin","type":"email","payload":{"to":"x"},"tags":["t"]}`)
	var e scheduleResource
	a.wantJSON(t, http.StatusCreated, &e)
	if a.Header.Get("Location") != "/schedules/daily" || e.Name != "daily" || e.Cron != "0 3 * * *" || e.Timezone != "Europe/Berlin" ||
		e.Type != "email" || string(e.Payload) != `{"to":"x"}` || e.Priority != 3 || !slices.Equal(e.Tags, []string{"t"}) || e.Paused ||
		e.Overlap != "skip" || e.CatchUp != "one" || e.Source != "api" || e.LastRunAt != nil || e.LastJobID != nil {
		t.Errorf("%s at %s", a.body, a.Header.Get("Location"))
	}
	if e.NextRunAt == nil || !e.NextRunAt.After(time.Now()) || time.Until(*e.NextRunAt) > 25*time.Hour {
		t.Errorf("it runs next at %v", e.NextRunAt)
	}
	if b := r.do(t, "GET", "/schedules/daily", ""); string(b.body) != string(a.body) {
		t.Errorf("GET shows\n%s, POST\n%s", b.body, a.body)
	}
	if b := r.do(t, "HEAD", "/schedules/daily", ""); b.StatusCode != http.StatusOK || len(b.body) != 0 {
		t.Errorf("HEAD: %d", b.StatusCode)
	}

	a = r.do(t, "PUT", "/schedules/often", `{"every":90,"type":"cleanup"}`)
	e = scheduleResource{}
	if a.wantJSON(t, http.StatusCreated, &e); e.Every != "90s" || a.Header.Get("Location") != "/schedules/often" {
		t.Errorf("%s", a.body)
	}
	a = r.do(t, "PUT", "/schedules/often", `{"name":"often","every":"2m","type":"cleanup","priority":1}`)
	e = scheduleResource{}
	if a.wantJSON(t, http.StatusOK, &e); e.Every != "2m" || e.Priority != 1 || a.Header.Get("Location") != "" {
		t.Errorf("%s", a.body)
	}
	a = r.do(t, "GET", "/schedules", "")
	if a.wantJSON(t, http.StatusOK, &list); len(list.Schedules) != 2 || list.Schedules[0].Name != "daily" || list.Schedules[1].Name != "often" {
		t.Errorf("%s", a.body)
	}

	a = r.do(t, "POST", "/schedules/often/pause", "")
	e = scheduleResource{}
	if a.wantJSON(t, http.StatusOK, &e); !e.Paused || e.NextRunAt != nil {
		t.Errorf("%s", a.body)
	}
	a = r.do(t, "POST", "/schedules/often/run", "")
	var j jobs.Job
	if a.wantJSON(t, http.StatusAccepted, &j); a.Header.Get("Location") != "/jobs/"+j.ID.String() || j.Type != "cleanup" || j.Priority != 1 {
		t.Errorf("%s at %s", a.body, a.Header.Get("Location"))
	}
	r.do(t, "GET", a.Header.Get("Location"), "").wantJSON(t, http.StatusOK, &j)
	a = r.do(t, "POST", "/schedules/often/resume", "{}")
	e = scheduleResource{}
	if a.wantJSON(t, http.StatusOK, &e); e.Paused || e.NextRunAt == nil {
		t.Errorf("%s", a.body)
	}

	if a = r.do(t, "DELETE", "/schedules/often", ""); a.StatusCode != http.StatusNoContent || len(a.body) != 0 {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	r.do(t, "DELETE", "/schedules/often", "").wantProblem(t, 404, "not_found")
}

func TestSchedulesRefused(t *testing.T) {
	r, shelf, book := scheduleRig(t)
	fixed, err := schedule.ParseSpec([]byte(`{"name":"fixed","every":"1h","type":"cleanup"}`))
	if err != nil {
		t.Fatal(err)
	}
	if err := book.Adopt(t.Context(), []*schedule.Spec{fixed}); err != nil {
		t.Fatal(err)
	}
	const body = `{"name":"a","every":"1h","type":"cleanup"}`
	var made json.RawMessage
	r.do(t, "POST", "/schedules", body).wantJSON(t, http.StatusCreated, &made)
	tests := []struct {
		method, path, body string
		status             int
		code, pointers     string
	}{
		{"POST", "/schedules", body, 409, "conflict", ""},
		{"POST", "/schedules", "", 400, "malformed_json", ""},
		{"POST", "/schedules", "{", 400, "malformed_json", ""},
		{"POST", "/schedules", `{"name":"b"}`, 422, "invalid_request", "/type /cron"},
		{"POST", "/schedules", `{"name":"b","type":"cleanup","cron":"0 0 30 2 *"}`, 422, "invalid_request", "/cron"},
		{"POST", "/schedules", `{"name":"b","type":"cleanup","cron":"@daily","timezone":"Mars"}`, 422, "invalid_request", "/timezone"},
		{"POST", "/schedules", `{"name":"b","type":"cleanup","every":"0.5s"}`, 422, "invalid_request", "/every"},
		{"POST", "/schedules", `{"name":"b","type":"cleanup","every":"5s","cron":"@daily"}`, 422, "invalid_request", "/every"},
		{"POST", "/schedules", `{"name":"b","type":"cleanup","every":"5s","surprise":1}`, 422, "invalid_request", "/surprise"},
		{"POST", "/schedules", `{"name":"b","type":"fax","every":"5s"}`, 422, "unknown_type", "/type"},
		{"POST", "/schedules", `{"name":"b","type":"email","every":"5s","payload":{}}`, 422, "invalid_request", "/payload/to"},
		{"POST", "/schedules?x=1", body, 422, "invalid_request", "query/x"},
		{"POST", "/schedules", `{"payload":"` + strings.Repeat("x", 1024) + `"}`, 413, "payload_too_large", ""},
		{"PUT", "/schedules/b", `{"name":"c","every":"5s","type":"cleanup"}`, 422, "invalid_request", "/name"},
		{"PUT", "/schedules/b%20c", `{"every":"5s","type":"cleanup"}`, 422, "invalid_request", "/name"},
		{"PUT", "/schedules/b", `{"every":"5s","type":"fax"}`, 422, "unknown_type", "/type"},
		{"GET", "/schedules?limit=5", "", 422, "invalid_request", "query/limit"},
		{"GET", "/schedules/a?x=1", "", 422, "invalid_request", "query/x"},
		{"GET", "/schedules/b", "", 404, "not_found", ""},
		{"GET", "/schedules/%00", "", 404, "not_found", ""},
		{"POST", "/schedules/b/run", "", 404, "not_found", ""},
		{"POST", "/schedules/b/pause", "", 404, "not_found", ""},
		{"POST", "/schedules/b/resume", "", 404, "not_found", ""},
		{"POST", "/schedules/a/stop", "", 404, "not_found", ""},
		{"POST", "/schedules/a/run", `{"payload":{}}`, 422, "invalid_request", "/payload"},
		{"POST", "/schedules/a/run?x=1", "", 422, "invalid_request", "query/x"},
		{"DELETE", "/schedules", "", 405, "method_not_allowed", ""},
		{"GET", "/schedules/a/run", "", 405, "method_not_allowed", ""},
		{"POST", "/schedules", `{"name":"fixed","every":"1h","type":"cleanup"}`, 409, "conflict", ""},
		{"PUT", "/schedules/fixed", `{"every":"1h","type":"cleanup"}`, 409, "conflict", ""},
		{"DELETE", "/schedules/fixed", "", 409, "conflict", ""},
		{"POST", "/schedules/fixed/pause", "", 409, "conflict", ""},
		{"POST", "/schedules/fixed/resume", "", 409, "conflict", ""},
	}
	for _, tt := range tests {
		t.Run(tt.method+" "+tt.path+" "+tt.body, func(t *testing.T) {
			p := r.do(t, tt.method, tt.path, tt.body).wantProblem(t, tt.status, tt.code, strings.Fields(tt.pointers)...)
			if tt.code == "conflict" && (strings.Contains(tt.path, "fixed") || strings.Contains(tt.body, "fixed")) && !strings.Contains(p.Detail, "configuration") {
				t.Errorf("it does not say why: %s", p.Detail)
			}
		})
	}
	var j jobs.Job
	r.do(t, "POST", "/schedules/fixed/run", "").wantJSON(t, http.StatusAccepted, &j)
	var e scheduleResource
	if r.do(t, "GET", "/schedules/fixed", "").wantJSON(t, http.StatusOK, &e); e.Source != "config" {
		t.Errorf("its source is %q", e.Source)
	}
	r.server.Drain()
	r.do(t, "POST", "/schedules/fixed/run", "").wantProblem(t, 503, "shutting_down")

	shelf.mu.Lock()
	shelf.err = errors.New("the disk is on fire")
	shelf.mu.Unlock()
	for _, path := range []string{"/schedules", "/schedules/a"} {
		if p := r.do(t, "GET", path, "").wantProblem(t, 500, "internal"); strings.Contains(p.Detail, "fire") {
			t.Errorf("it shows what it should not: %s", p.Detail)
		}
	}
}
