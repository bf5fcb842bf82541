package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"
)

// TestContractInfo asks who somebody is, with every kind of token.
func TestContractInfo(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir(), setup{})
	var i struct {
		Version   *string
		Node      string
		Features  []string
		LogLevel  string `json:"log_level"`
		Principal struct {
			Name          string
			Scopes, Types []string
		}
	}
	mustDo(t, json.Unmarshal(h.do(http.MethodGet, "/info", "").body, &i))
	if i.Version == nil || i.Node == "" || i.LogLevel != "info" || i.Principal.Name != "anonymous" || !slices.Contains(i.Principal.Scopes, "read") || slices.Contains(i.Principal.Scopes, "admin") {
		t.Errorf("without a token: %+v", i)
	}
	mustDo(t, json.Unmarshal(h.do(http.MethodGet, "/info", "", "Authorization", "Bearer "+adminToken).body, &i))
	if i.Principal.Name != "tests" || !slices.Equal(i.Principal.Scopes, []string{"admin"}) || !slices.Contains(i.Features, "auth") {
		t.Errorf("as admin: %+v", i)
	}
	nc, _ := adminStreams(t, h.nats)
	if m := h.call(nc, "log_level", `{"level":"debug"}`); string(m.Data) != `{"level":"debug"}` {
		t.Errorf("over NATS the level of the log is %s", m.Data)
	}
	h.do(http.MethodGet, "/info", "", "Authorization", "Bearer nonsense").wantProblem(t, 401, "unauthorized")
	select {
	case <-h.log.has(`level=DEBUG msg="http request"`):
	case <-time.After(patience):
		t.Errorf("the log has no lines of the level debug:\n%s", h.log)
	}
	h.do(http.MethodGet, "/info?x=1", "").wantPointer(t, "query/x")
}

// TestContractTags lists tags, and the history of a job by the page.
func TestContractTags(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir(), setup{})
	j := h.submit(`{"type":"report","tags":["tenant-1","blue"]}`)
	h.submit(`{"type":"report","tags":["tenant-2"]}`)
	h.await(j.ID, "completed")
	tags := func(query, want string) (next string) {
		t.Helper()
		var a struct {
			Tags []string
			Next string `json:"next_cursor"`
		}
		r := h.do(http.MethodGet, "/tags"+query, "")
		mustDo(t, json.Unmarshal(r.body, &a))
		if got := fmt.Sprint(a.Tags); got != want || a.Tags == nil {
			t.Errorf("/tags%s: %s, want %s", query, r.body, want)
		}
		return a.Next
	}
	tags("", "[blue tenant-1 tenant-2]")
	tags("?prefix=x", "[]")
	next := tags("?prefix=tenant&limit=1", "[tenant-1]")
	tags("?prefix=tenant&cursor="+next, "[tenant-2]")
	h.do(http.MethodGet, "/tags?tag=x", "").wantPointer(t, "query/tag")

	var kinds []string
	for cursor := ""; ; {
		var a struct {
			Events []struct {
				Seq  int
				Kind string
			}
			Next string `json:"next_cursor"`
		}
		r := h.do(http.MethodGet, "/jobs/"+j.ID+"/events?limit=1"+cursor, "")
		mustDo(t, json.Unmarshal(r.body, &a))
		if len(a.Events) != 1 || a.Events[0].Seq != len(kinds)+1 {
			t.Fatalf("page %d: %s", len(kinds)+1, r.body)
		}
		kinds = append(kinds, a.Events[0].Kind)
		if a.Next == "" {
			break
		}
		cursor = "&cursor=" + a.Next
	}
	if len(kinds) < 3 || kinds[0] != "submitted" || kinds[len(kinds)-1] != "completed" {
		t.Errorf("all pages: %v", kinds)
	}
	h.do(http.MethodGet, "/jobs/"+j.ID+"/events?cursor=x", "").wantPointer(t, "query/cursor")
}
