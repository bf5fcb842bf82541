package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"jobstream/cmd/jobstream/internal/cli"
	"jobstream/cmd/jobstream/internal/config"
	"jobstream/jobs/access"
	"jobstream/jobs/api"
)

// audited is an entry of the audit log as clients see it.
type audited struct {
	At                            time.Time
	Actor, Action, Target, Detail string
	Refused                       bool
	Count                         int
	Since                         time.Time
}

func (e audited) String() string {
	s := fmt.Sprintf("%s %s", e.Actor, e.Action)
	if e.Refused {
		s += " refused"
	}
	return s
}

// audit reads pages of the log until the last one.
func (h *house) audit(query string, limit int) (all []audited) {
	h.t.Helper()
	cursor := ""
	for range 1000 {
		var page struct {
			Entries []audited
			Next    string `json:"next_cursor"`
		}
		r := h.do("GET", fmt.Sprintf("/audit?limit=%d&cursor=%s&%s", limit, url.QueryEscape(cursor), query), "", "Authorization", "Bearer "+adminToken)
		if r.code != http.StatusOK {
			h.t.Fatalf("the audit log is answered with %d: %s", r.code, r.body)
		}
		mustDo(h.t, json.Unmarshal(r.body, &page))
		if len(page.Entries) > limit {
			h.t.Errorf("a page has %d entries", len(page.Entries))
		}
		all = append(all, page.Entries...)
		if cursor = page.Next; cursor == "" {
			return all
		}
	}
	h.t.Fatal("the audit log has no end")
	return nil
}

// TestContractAudit does everything that changes something, at both doors, and finds it in
// the log. A restart changes nothing in that.
func TestContractAudit(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := setup{change: func(c *config.Config) {
		c.Server.Auth.Tokens["manager"] = &config.Token{SHA256: access.HashOf(secretOf("manager")).String(), Scopes: []string{"manage", "submit"}}
	}}
	h := makers(t, dir, s)
	const mail = `{"type":"email","payload":` + letter + `,"delay":"1d"}`
	mine := readJob(t, h.do("POST", "/jobs", mail, asRole("app")...).body)
	other := readJob(t, h.do("POST", "/jobs", mail, asRole("other")...).body)
	bare := h.job(h.accepted(h.login(t, "app"), "jobs.email", letter, "Job-Delay", "1d"))
	nc := h.login(t, "manager")
	manager, admin := asRole("manager"), []string{"Authorization", "Bearer " + adminToken}
	did := make(map[string]bool) // operations that are tried here
	var want []string            // entries, the oldest first
	do := func(action, method, path, body, target string, who ...string) {
		t.Helper()
		r := h.do(method, path, body, who...)
		if r.code >= 300 {
			t.Fatalf("%s %s is answered with %d: %s", method, path, r.code, r.body)
		}
		did[action] = true
		actor := "manager"
		if slices.Equal(who, admin) {
			actor = "tests"
		}
		want = append(want, strings.Join([]string{actor, action, target}, " "))
		if action == "bulk" {
			want[len(want)-1] += readJob(t, r.body).ID
		}
	}
	over := func(action, body, target string) {
		t.Helper()
		if m := h.call(nc, action, body); m.Header.Get("Nats-Service-Error-Code") != "" {
			t.Fatalf("%s is answered with %s", action, m.Data)
		}
		want = append(want, "manager "+action+" "+target)
	}
	job := "/jobs/" + mine.ID
	do("revise", "PATCH", job, `{"priority":1}`, mine.ID, manager...)
	do("cancel", "POST", job+"/cancel", "", mine.ID, manager...)
	do("retry", "POST", fmt.Sprintf("/jobs/%d/retry", mine.Seq), "", mine.ID, manager...)
	h.await(mine.ID, "completed")
	do("delete", "DELETE", job, "", mine.ID, manager...)
	do("run_now", "POST", "/jobs/"+other.ID+"/run", "", other.ID, manager...)
	h.await(other.ID, "completed")
	over("delete", `{"id":"`+other.ID+`"}`, other.ID)
	do("pause", "POST", "/types/email/pause", "", "email", manager...)
	do("resume", "POST", "/types/email/resume", "", "email", manager...)
	over("pause", `{"type":"export"}`, "export")
	over("resume", `{"type":"export"}`, "export")
	do("resize", "PUT", "/workers", `{"max_workers":5}`, "", manager...)
	do("worker.pause", "POST", "/workers/pause", "", "", manager...)
	do("worker.resume", "POST", "/workers/resume", "", "", manager...)
	do("schedule.create", "POST", "/schedules", `{"name":"s","every":"1d","type":"email","payload":`+letter+`}`, "s", manager...)
	do("schedule.put", "PUT", "/schedules/s", `{"every":"2d","type":"email","payload":`+letter+`}`, "s", manager...)
	do("schedule.pause", "POST", "/schedules/s/pause", "", "s", manager...)
	do("schedule.resume", "POST", "/schedules/s/resume", "", "s", manager...)
	do("schedule.run", "POST", "/schedules/s/run", "", "s", manager...)
	do("schedule.delete", "DELETE", "/schedules/s", "", "s", manager...)
	do("bulk", "POST", "/jobs/bulk", `{"action":"cancel","filter":{"tag":"x"}}`, "", manager...)
	h.do("POST", "/jobs/bulk", `{"action":"cancel","all":true,"dry_run":true}`, manager...)
	did["node.remove"] = true // this server is alone
	did["reload"] = true      // this server has no configuration to read again
	do("log_level", "PUT", "/log", `{"level":"warn"}`, "warn", admin...)
	do("backup", "GET", "/backup", "", "", admin...)
	// what fails, or only reads, is no entry
	h.do("POST", job+"/cancel", "", manager...).wantProblem(t, http.StatusNotFound, "not_found")
	h.do("POST", "/types/nope/pause", "", manager...).wantProblem(t, http.StatusNotFound, "not_found")
	h.do("GET", "/jobs", "", admin...)
	for _, op := range api.Operations() {
		if changes := op.Scope == access.Manage || op.Scope == access.Admin && op.Name != "audit" && op.Name != "doctor"; changes && !did[op.Name] {
			t.Errorf("this test does not try %s", op.Name)
		}
	}

	check := func() {
		t.Helper()
		for _, limit := range []int{500, 4, 1} {
			var got, submitted []string
			last := time.Now().Add(time.Hour)
			for _, e := range h.audit("", limit) {
				if e.At.After(last) {
					t.Errorf("%v comes after an older one", e)
				}
				last = e.At
				if line := strings.Join([]string{e.Actor, e.Action, e.Target}, " "); e.Action == "submit" {
					submitted = append(submitted, line)
				} else {
					got = append(got, line)
				}
				if e.Action == "resize" && e.Detail != `{"max_workers":5}` {
					t.Errorf("the resize is %+v", e)
				}
			}
			slices.Reverse(got)
			if !slices.Equal(got, want) {
				t.Errorf("the log, by %d, has\n%s\nwant\n%s", limit, strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			if !slices.Contains(submitted, " submit "+bare.ID) || len(submitted) != 3 { // the run of the schedule, the bulk change
				t.Errorf("the submissions, by %d, are %q", limit, submitted)
			}
		}
	}
	check()
	h.close()
	h = makers(t, dir, s)
	check()

	all := h.audit("", 500)
	middle := all[len(all)/2].At.Format(time.RFC3339Nano)
	for query, keep := range map[string]func(e audited) bool{
		"actor=tests":                        func(e audited) bool { return e.Actor == "tests" },
		"actor=manager&actor=tests":          func(e audited) bool { return e.Actor != "" },
		"action=cancel&action=submit":        func(e audited) bool { return e.Action == "cancel" || e.Action == "submit" },
		"after=" + middle:                    func(e audited) bool { return !e.At.Before(all[len(all)/2].At) },
		"before=" + middle + "&action=pause": func(e audited) bool { return e.At.Before(all[len(all)/2].At) && e.Action == "pause" },
		"actor=nobody":                       func(audited) bool { return false },
	} {
		var want []audited
		for _, e := range all {
			if keep(e) {
				want = append(want, e)
			}
		}
		if got := h.audit(query, 3); !slices.Equal(got, want) {
			t.Errorf("%s chooses\n%v\nwant\n%v", query, got, want)
		}
	}
	for _, query := range []string{"cursor=x", "cursor=1.2", "limit=0", "after=x", "before=x", "after=2026-01-01&after=2026-01-02", "nope=1"} {
		h.do("GET", "/audit?"+query, "", admin...).wantProblem(t, http.StatusUnprocessableEntity, "invalid_request")
	}
}

// TestContractAuditRefusals: refused attempts are counted in the log, and a flood of them
// neither pushes anything out nor costs an entry each.
func TestContractAuditRefusals(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	h := makers(t, dir, setup{})
	h.do("POST", "/types/email/pause", "", asRole("boss")...)
	const flood = 2000
	for range flood {
		h.do("POST", "/types/email/resume", "", asRole("app")...).wantProblem(t, http.StatusForbidden, "forbidden")
	}
	h.do("GET", "/audit", "", asRole("ci")...).wantProblem(t, http.StatusForbidden, "forbidden")
	h.do("GET", "/audit", "").wantProblem(t, http.StatusForbidden, "forbidden")
	h.do("POST", "/jobs", `{"type":"export"}`, asRole("app")...).wantProblem(t, http.StatusForbidden, "forbidden")
	wantProblem(t, h.call(h.login(t, "reader"), "pause", `{"type":"email"}`).Data, http.StatusForbidden, "forbidden")
	want := []string{"anonymous audit refused", "app resume refused", "app submit refused", "boss pause", "ci audit refused", "reader pause refused"}
	var all []audited
	waitUntil(t, func() bool {
		all = h.audit("", 500)
		var got []string
		for _, e := range all {
			if !slices.Contains(got, e.String()) {
				got = append(got, e.String())
			}
		}
		slices.Sort(got)
		return slices.Equal(got, want)
	})
	n := 0
	for _, e := range all {
		if e.Refused && (e.Count < 1 || e.Since.After(e.At)) || !e.Refused && e.Count != 0 {
			t.Errorf("an entry is %+v", e)
		}
		if e.Action == "resume" {
			n += e.Count
		}
	}
	if n > flood || len(all) > 30 {
		t.Errorf("%d entries, with %d refusals of %d", len(all), n, flood)
	}
	h.close()
	h = makers(t, dir, setup{})
	if again := h.audit("", 500); !slices.Equal(again, all) && len(again) < len(all) {
		t.Errorf("after a restart there are %v", again)
	}
	mustDo(t, os.Remove(filepath.Join(dir, cli.OperatorFile)))
}
