package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/jobs"
)

type failureShown struct {
	Fingerprint, Type, Error, Example, Job string
	Count                                  int
	Permanent                              bool
	First, Last                            time.Time
}

func (h *house) failures(query string) (all []failureShown) {
	h.t.Helper()
	r := h.do(http.MethodGet, "/failures"+query, "")
	var answer struct{ Failures []failureShown }
	if err := json.Unmarshal(r.body, &answer); r.code != http.StatusOK || err != nil || answer.Failures == nil {
		h.t.Fatalf("GET /failures%s: %d %s", query, r.code, r.body)
	}
	return answer.Failures
}

// TestContractFailures groups failed jobs by their errors, retries one group, and finds
// the rest after a restart.
func TestContractFailures(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := newPuppet()
	s := setup{handlers: map[string]jobs.Handler{"held": p}, change: func(c *config.Config) {
		typ := c.Jobs["held"]
		typ.RetryCount = 0
		c.Jobs["held"] = typ
	}}
	h := open(t, dir, s)
	if got := h.failures(""); len(got) != 0 {
		t.Fatalf("at first: %+v", got)
	}
	var ids []string
	for i, err := range []error{errors.New("order 10001 is gone"), errors.New("order 20002 is gone"), jobs.Permanent(errors.New("no such file"))} {
		ids = append(ids, h.submit(`{"type":"held","payload":{"n":%d}}`, i).ID)
		p.next(t).end <- err
		h.await(ids[i], "failed")
	}
	all := h.failures("")
	if len(all) != 2 || all[0].Job != ids[2] || !all[0].Permanent || all[0].Count != 1 || all[0].Example != "no such file" {
		t.Fatalf("the last failure: %+v", all)
	}
	group := all[1]
	if group.Count != 2 || group.Permanent || group.Type != "held" || group.Error != "order … is gone" || group.Job != ids[1] || group.Example != "order 20002 is gone" || !group.First.Before(group.Last) {
		t.Errorf("the group: %+v", group)
	}
	if got := h.failures("?order_by=count&limit=1"); len(got) != 1 || got[0].Fingerprint != group.Fingerprint {
		t.Errorf("the largest: %+v", got)
	}
	if got := h.failures("?type=email"); len(got) != 0 {
		t.Errorf("of another type: %+v", got)
	}
	found, _ := h.list("?order=asc&fingerprint=" + group.Fingerprint)
	if len(found) != 2 || found[0].ID != ids[0] || h.counts("?fingerprint="+group.Fingerprint).Total != 2 {
		t.Errorf("by fingerprint: %+v", found)
	}
	h.do(http.MethodGet, "/jobs?fingerprint=xyz", "").wantPointer(t, "query/fingerprint")
	h.do(http.MethodGet, "/failures?order_by=created", "").wantPointer(t, "query/order_by")
	h.do(http.MethodGet, "/failures?cursor=AAAA", "").wantPointer(t, "query/cursor")
	h.do(http.MethodGet, "/failures?status=failed", "").wantPointer(t, "query/status")

	h.close()
	h = open(t, dir, s)
	if got := h.failures(""); !slices.Equal(got, all) {
		t.Errorf("after a restart %+v, before it %+v", got, all)
	}
	bulk := fmt.Sprintf(`{"action":"retry","filter":{"fingerprint":%q}}`, group.Fingerprint)
	if r := h.do(http.MethodPost, "/jobs/bulk", strings.Replace(bulk, "{", `{"dry_run":true,`, 1)); !strings.Contains(string(r.body), `"matched":2`) {
		t.Errorf("the dry run: %s", r.body)
	}
	r := h.do(http.MethodPost, "/jobs/bulk", bulk)
	h.await(readJob(t, r.body).ID, "completed")
	for range 2 {
		p.next(t).finish()
	}
	h.await(ids[0], "completed")
	h.await(ids[1], "completed")
	if got := h.failures(""); len(got) != 1 || got[0].Job != ids[2] {
		t.Errorf("after the retry: %+v", got)
	}
}

// TestContractLists orders and filters lists in every way that has an index, and finds
// jobs from a search box.
func TestContractLists(t *testing.T) {
	t.Parallel()
	p := newPuppet()
	h := open(t, t.TempDir(), setup{handlers: map[string]jobs.Handler{"held": p}, change: func(c *config.Config) { c.Worker.MaxWorkers = 2 }})
	nc := h.dial()
	a := h.submit(`{"type":"held","tags":["Alpha"],"payload":{"to":"ann@example.com"}}`)
	first := p.next(t)
	b := h.submit(`{"type":"held","unique_key":"order 7"}`)
	second := p.next(t)
	h.await(b.ID, "processing")
	h.await(a.ID, "processing")
	c := h.submit(`{"type":"held","concurrency_key":"tenant 1"}`)
	late := h.submit(`{"type":"held","delay":"2h"}`)
	soon := h.submit(`{"type":"held","delay":"1h"}`)
	ids := func(query string) (all []string) {
		t.Helper()
		found, _ := h.list(query)
		for _, j := range found {
			all = append(all, j.ID)
		}
		return all
	}
	want := func(query string, want ...*seen) {
		t.Helper()
		var all []string
		for _, j := range want {
			all = append(all, j.ID)
		}
		if got := ids(query); !slices.Equal(got, all) {
			t.Errorf("%s finds %v, want %v", query, got, all)
		}
	}
	want("?order_by=run_at&order=asc", soon, late)
	want("?order_by=run_at", late, soon)
	want("?order_by=started&order=asc", a, b)
	want("?order_by=ended")
	second.finish()
	h.await(b.ID, "completed")
	first.finish()
	h.await(a.ID, "completed")
	want("?order_by=ended", a, b)
	want("?order_by=ended&status=failed")
	want("?order_by=ended&status=pending")
	want("?id="+a.ID+"&id="+strings.ToUpper(b.ID), b, a)
	want("?id=" + a.ID + "&status=failed")
	want("?unique_key=order+7", b)
	want("?concurrency_key=tenant+1&concurrency_key=none", c)
	want("?schedule=none")
	want("?q=ANN@example", a)
	want("?q=alpha", a)
	want("?q="+b.ID[:30], b)
	want(fmt.Sprint("?q=", late.Seq), late)
	want("?q=held&order_by=run_at", late, soon)
	found, next := h.list("?order_by=ended&limit=1")
	if len(found) != 1 || next == "" {
		t.Fatalf("a page of one: %+v, %q", found, next)
	}
	want("?order_by=ended&limit=1&cursor="+url.QueryEscape(next), b)
	h.do(http.MethodGet, "/jobs?order_by=run_at&cursor="+url.QueryEscape(next), "").wantPointer(t, "query/cursor")
	for query, pointer := range map[string]string{
		"order_by=seq": "query/order_by", "id=12": "query/id", "id=xyzxyz": "query/id", "include=all": "query/include", "q=": "query/q", "q=%20": "query/q", "schedule=": "query/schedule",
	} {
		h.do(http.MethodGet, "/jobs?"+query, "").wantPointer(t, pointer)
	}
	var shown struct {
		Jobs []struct {
			ID      string
			Waiting *struct{ Reason string }
		}
	}
	check := func(body []byte) {
		t.Helper()
		mustDo(t, json.Unmarshal(body, &shown))
		if len(shown.Jobs) != 2 || shown.Jobs[0].Waiting == nil || shown.Jobs[0].Waiting.Reason != "scheduled" {
			t.Errorf("with include=waiting: %s", body)
		}
	}
	check(h.do(http.MethodGet, "/jobs?status=scheduled&include=waiting", "").body)
	check(h.call(nc, "list", `{"status":"scheduled","include":"waiting","order_by":"run_at"}`).Data)
	if m := h.call(nc, "list", fmt.Sprintf(`{"id":[%q,%q]}`, soon.ID, late.ID)); strings.Count(string(m.Data), `"id":`) != 2 {
		t.Errorf("by ids over NATS: %s", m.Data)
	}
	r := h.do(http.MethodPost, "/jobs/bulk", fmt.Sprintf(`{"action":"cancel","filter":{"id":[%q,%q]}}`, soon.ID, a.ID))
	h.await(readJob(t, r.body).ID, "completed")
	h.await(soon.ID, "cancelled")
	want("?order_by=run_at", late)
}
