package node

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"jobstream/jobs"
	"jobstream/jobs/api"
)

// idOf is the id in an answer.
func idOf(t *testing.T, body []byte) string {
	t.Helper()
	var made struct{ ID string }
	if err := json.Unmarshal(body, &made); err != nil || made.ID == "" {
		t.Fatalf("no id in %s", body)
	}
	return made.ID
}

// TestDoors: each of three nodes admits jobs over each door, finds at once what another one
// has admitted, and shows a job as completed once another one has said so. Keys hold over
// all of them.
func TestDoors(t *testing.T) {
	t.Parallel()
	m := startMembers(t, 3)
	leader := m.leader()
	for i := range 3 {
		m.wait("all nodes are ready", func() bool { return m.get(i, "/readyz").Code == http.StatusOK })
	}
	const job = `{"type":"echo","payload":"x"}`
	everywhere := func(id string) {
		t.Helper()
		for k := range 3 {
			if w := m.get(k, "/jobs/"+id); w.Code != http.StatusOK {
				t.Errorf("node %d does not find a job that was admitted: %d %s", k+1, w.Code, w.Body)
			}
		}
		for k := range 3 {
			path := "/jobs/" + id
			if k == 0 {
				path += "?wait=60s"
			}
			if w := m.get(k, path); !strings.Contains(w.Body.String(), `"completed"`) {
				t.Errorf("node %d has not heard that the job is completed: %d %s", k+1, w.Code, w.Body)
			}
		}
	}
	for i, n := range m.nodes {
		w := m.do(i, http.MethodPost, "/jobs", job)
		if w.Code != http.StatusAccepted || w.Header().Get("Location") == "" || len(w.Header().Values("X-Request-Id")) != 1 {
			t.Fatalf("node %d: %d %v %s", i+1, w.Code, w.Header(), w.Body)
		}
		everywhere(idOf(t, w.Body.Bytes()))

		nc, err := nats.Connect("", nats.InProcessServer(n.member.broker))
		mustDo(t, err)
		defer nc.Close()
		for _, op := range []string{"submit", "run"} {
			a, err := nc.Request("jobstream."+op, []byte(job), time.Minute)
			mustDo(t, err)
			if a.Header.Get("Nats-Service-Error") != "" {
				t.Fatalf("node %d: %v %s", i+1, a.Header, a.Data)
			}
			everywhere(idOf(t, a.Data))
		}
		a, err := nc.Request("jobstream.submit", []byte(`{"type":"nope"}`), time.Minute)
		mustDo(t, err)
		if a.Header.Get("Nats-Service-Error-Code") != "422" || !strings.Contains(string(a.Data), "unknown_type") {
			t.Errorf("node %d: a bad submission is answered %v %s", i+1, a.Header, a.Data)
		}
		id := m.submit(i)
		everywhere(id.String())

		if w := m.do(i, http.MethodPost, "/jobs", `{"type":"nope"}`); w.Code != http.StatusUnprocessableEntity {
			t.Errorf("node %d: a bad submission is answered %d %s", i+1, w.Code, w.Body)
		}
		if w := m.get(i, "/jobs"); w.Code != http.StatusOK || w.Header().Get("Jobstream-Position") == "" || w.Header().Get("Jobstream-Age") == "" {
			t.Errorf("node %d: a list does not say how old it is: %d %v", i+1, w.Code, w.Header())
		}
		for _, path := range []string{"/types", "/workers", "/workers/stats", "/schedules", "/info", "/nodes", "/metrics", "/jobs/counts", "/stats/history", "/jobs/" + id.String() + "/log"} {
			if w := m.get(i, path); w.Code != http.StatusOK {
				t.Errorf("node %d: %s is answered %d %s", i+1, path, w.Code, w.Body)
			}
		}
		m.mustSee(i)
		// Nobody says from outside whose a request is.
		forged := m.do(i, http.MethodPost, "/types/echo/pause", "", "Jobstream-Passed-On", `{"Name":"mallory","Scopes":["admin"]}`)
		if forged.Code != http.StatusOK || strings.Contains(m.get(leader, "/types").Body.String(), "mallory") {
			t.Errorf("node %d: %d, and the types are %s", i+1, forged.Code, m.get(leader, "/types").Body)
		}
		if w := m.do(i, http.MethodPost, "/types/echo/resume", ""); w.Code != http.StatusOK {
			t.Errorf("node %d: %d %s", i+1, w.Code, w.Body)
		}
	}

	// One key at all doors together makes one job.
	var mu sync.Mutex
	ids := make(map[string]bool)
	var group sync.WaitGroup
	for k := range 12 {
		group.Go(func() {
			w := m.do(k%3, http.MethodPost, "/jobs", job, "Idempotency-Key", "once")
			mu.Lock()
			defer mu.Unlock()
			ids[idOf(t, w.Body.Bytes())] = true
		})
	}
	group.Wait()
	if len(ids) != 1 {
		t.Errorf("one key has made the jobs %v", ids)
	}
	goes := make(map[jobs.ID]bool)
	for _, n := range m.nodes {
		j, err := n.Submit(t.Context(), &jobs.Submission{Type: "echo", Priority: 1, RetryCount: -1, IdempotencyKey: "go"})
		mustDo(t, err)
		goes[j.ID] = true
	}
	if len(goes) != 1 {
		t.Errorf("one key in Go has made the jobs %v", goes)
	}
}

// TestConsistentLists: whoever has heard of a job finds it in the lists of every other node,
// over each door, if it asks for that.
func TestConsistentLists(t *testing.T) {
	t.Parallel()
	m := startMembers(t, 3)
	for i := range 3 {
		m.wait("all nodes are ready", func() bool { return m.get(i, "/readyz").Code == http.StatusOK })
	}
	clients := make([]*nats.Conn, 3)
	for i, n := range m.nodes {
		var err error
		clients[i], err = nats.Connect("", nats.InProcessServer(n.member.broker))
		mustDo(t, err)
		defer clients[i].Close()
	}
	over := func(i int, op, body string) string {
		a, err := clients[i].Request("jobstream."+op, []byte(body), time.Minute)
		mustDo(t, err)
		return string(a.Data)
	}
	for round := range 30 {
		at, other := round%3, (round+1+round/3%2)%3
		tag := fmt.Sprintf("round-%d", round)
		w := m.do(at, http.MethodPost, "/jobs", `{"type":"echo","payload":"x","tags":["`+tag+`"]}`)
		id := idOf(t, w.Body.Bytes())
		for path, want := range map[string]string{
			"/jobs?consistent=true&tag=" + tag:        id,
			"/jobs/counts?consistent=true&tag=" + tag: `"total":1,`,
			"/tags?consistent=true&prefix=" + tag:     tag,
		} {
			w := m.get(other, path)
			if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), want) {
				t.Errorf("node %d has made %s, and node %d answers %s with %d %s", at+1, id, other+1, path, w.Code, w.Body)
			}
			if w.Header().Get("Jobstream-Position") == "" {
				t.Errorf("%s does not say where it was read: %v", path, w.Header())
			}
		}
		id = idOf(t, []byte(over(at, "submit", `{"type":"echo","payload":"x","tags":["nats-`+tag+`"]}`)))
		if got := over(other, "list", `{"consistent":true,"tag":"nats-`+tag+`"}`); !strings.Contains(got, id) {
			t.Errorf("node %d has made %s, and node %d lists %s", at+1, id, other+1, got)
		}
		if got := over(other, "counts", `{"consistent":"true","tag":"nats-`+tag+`"}`); !strings.Contains(got, `"total":1,`) {
			t.Errorf("node %d has made %s, and node %d counts %s", at+1, id, other+1, got)
		}
	}
	for _, path := range []string{"/jobs?consistent=yes", "/jobs/counts?consistent=1", "/jobs?consistent=true&consistent=true", "/nodes?consistent=true"} {
		if w := m.get(0, path); w.Code != http.StatusUnprocessableEntity || !strings.Contains(w.Body.String(), "query/consistent") {
			t.Errorf("%s is answered %d %s", path, w.Code, w.Body)
		}
	}
}

// mustSee checks what a node says about the nodes of a cluster that is well.
func (m *members) mustSee(i int) {
	m.t.Helper()
	var all struct{ Nodes []api.NodeInfo }
	if err := json.Unmarshal(m.get(i, "/nodes").Body.Bytes(), &all); err != nil || len(all.Nodes) != 3 {
		m.t.Fatalf("node %d knows %+v, %v", i+1, all, err)
	}
	leaders := 0
	for _, n := range all.Nodes {
		if n.Leader {
			leaders++
		}
		if n.Differs || n.Name == m.nodes[i].o.Name && n.Hash == "" {
			m.t.Errorf("node %d says of a node: %+v", i+1, n)
		}
	}
	if leaders != 1 {
		m.t.Errorf("node %d knows %d nodes that lead", i+1, leaders)
	}
	found, err := m.nodes[i].member.back.Load().Inspector.Inspect(m.t.Context())
	mustDo(m.t, err)
	for _, f := range found {
		if strings.HasPrefix(f.Check, "node.") || strings.HasPrefix(f.Check, "file.") {
			m.t.Errorf("node %d is well, and the doctor finds %+v", i+1, f)
		}
	}
	if text := m.get(i, "/metrics").Body.String(); !strings.Contains(text, `jobstream_node_leader{node="`) || !strings.Contains(text, "jobstream_cluster_members 3") {
		m.t.Errorf("node %d has no metrics of the nodes", i+1)
	}
}

// TestEventsEverywhere: whoever follows changes at a node that does not lead goes on when
// another node begins to, and may go on at yet another one.
func TestEventsEverywhere(t *testing.T) {
	t.Parallel()
	m := startMembers(t, 3)
	leader := m.leader()
	at, third := (leader+1)%3, (leader+2)%3
	seen, last := m.follow(at, ""), ""
	until := func(seen <-chan [2]string, id jobs.ID) {
		t.Helper()
		for late := time.After(time.Minute); ; {
			select {
			case e, ok := <-seen:
				if !ok {
					t.Fatal("the events have ended")
				}
				if last = e[0]; strings.Contains(e[1], id.String()) && strings.Contains(e[1], `"completed"`) {
					return
				}
			case <-late:
				t.Fatalf("no event of job %v", id)
			}
		}
	}
	until(seen, m.submit(leader))
	m.stop(leader)
	m.leader()
	a := m.submit(third)
	until(seen, a)
	b := m.submit(at)
	until(m.follow(third, last), b)
}

// follow gives the ids and the data of the events of a node.
func (m *members) follow(i int, last string) <-chan [2]string {
	m.t.Helper()
	ctx, cancel := context.WithCancel(m.t.Context())
	m.t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, m.nodes[i].HTTPURL()+"/events", nil)
	mustDo(m.t, err)
	if last != "" {
		r.Header.Set("Last-Event-ID", last)
	}
	a, err := http.DefaultClient.Do(r) //nolint:bodyclose // whoever reads the lines does
	mustDo(m.t, err)
	if a.StatusCode != http.StatusOK {
		m.t.Fatal(a.Status)
	}
	seen := make(chan [2]string, 1000)
	begun := make(chan struct{})
	go func() {
		defer close(seen)
		defer func() { _ = a.Body.Close() }()
		id, first := "", true
		for lines := bufio.NewScanner(a.Body); lines.Scan(); {
			if v, ok := strings.CutPrefix(lines.Text(), "id: "); ok {
				if id = v; first {
					close(begun)
					first = false
				}
			} else if v, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				seen <- [2]string{id, v}
			}
		}
	}()
	select {
	case <-begun:
	case <-time.After(time.Minute):
		m.t.Fatalf("node %d sends no events", i+1)
	}
	return seen
}

// TestPassedOnAgain: a submission that comes twice from another node, as the answer was lost,
// makes one job. A key or none makes no difference.
func TestPassedOnAgain(t *testing.T) {
	t.Parallel()
	m := startMembers(t, 3)
	leader := m.leader()
	from := m.nodes[(leader+1)%3].member
	for _, key := range []string{"", "key"} {
		id := jobs.NewID()
		for range 3 {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://leader/jobs", strings.NewReader(`{"type":"echo","payload":1}`))
			mustDo(t, err)
			r.Header.Set("Jobstream-Passed-On", fmt.Sprintf(`{"Name":"anonymous","Scopes":["submit"],"Remote":"192.0.2.1:1","Job":%q}`, id))
			if key != "" {
				r.Header.Set("Idempotency-Key", key)
			}
			a, err := from.Send(r, true)
			mustDo(t, err)
			var made struct{ ID jobs.ID }
			err = json.NewDecoder(a.Body).Decode(&made)
			mustDo(t, a.Body.Close())
			if err != nil || a.StatusCode != http.StatusAccepted || made.ID != id {
				t.Errorf("key %q: %s, job %v, want %v (%v)", key, a.Status, made.ID, id, err)
			}
		}
	}
	if w := m.get(leader, "/jobs/counts"); !strings.Contains(w.Body.String(), `"total":2`) {
		t.Errorf("there are other jobs than two: %s", w.Body)
	}
}
