package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/jobs"
	"jobstream/jobs/api"
)

// TestContractFigures has clients do random things by REST and NATS, each with a model
// of its own jobs. Now and then it compares the models with all figures: the stats, the
// counts, the lists by any filter, the types, and the notifications.
// JOBSTREAM_FIGURES=1h makes it run for so long; JOBSTREAM_SEED repeats a run.
func TestContractFigures(t *testing.T) {
	t.Parallel()
	rng := seeded(t)
	rounds, until := 4, time.Time{}
	if s := os.Getenv("JOBSTREAM_FIGURES"); s != "" {
		d, err := time.ParseDuration(s)
		mustDo(t, err)
		until = time.Now().Add(d)
	}
	dir := t.TempDir()
	h := openFigures(t, dir)
	nc := h.dial()
	m := &figures{ends: map[string]string{}, seen: map[string]bool{}}
	for i := range 4 {
		m.clients = append(m.clients, &modelled{
			name: fmt.Sprintf("client%d", i), rng: rand.New(rand.NewPCG(rng.Uint64(), uint64(i))),
			jobs: map[string]*fate{}, ended: map[string]string{}, keys: map[string][2]string{},
		})
	}
	for round := 0; round < rounds || time.Now().Before(until); round++ {
		var group sync.WaitGroup
		for _, c := range m.clients {
			c.h, c.nc = h, nc
			group.Go(func() {
				for range 150 {
					c.step(t)
				}
			})
		}
		group.Wait()
		if t.Failed() {
			return
		}
		m.check(t, h, nc)
		m.bulk(t, h, rng)
		m.check(t, h, nc)
		if rng.IntN(2) == 0 {
			h.close()
			h = openFigures(t, dir)
			nc = h.dial()
			m.check(t, h, nc)
		}
		if t.Failed() {
			return
		}
	}
}

const (
	heldAtOnce = 3  // held jobs that run at the same time
	figureTags = 4  // different tags
	figureKeys = 20 // different idempotency keys of a client
)

// openFigures starts a server with three types. Quick jobs fail as often as their
// payload says. Held ones run until they are cancelled. Those asleep wait an hour for
// their second attempt.
func openFigures(t *testing.T, dir string) *house {
	t.Helper()
	quick := jobs.HandlerFunc(func(_ context.Context, task *jobs.Task) (jobs.Result, error) {
		var p struct {
			Fails     int
			Permanent bool
		}
		if err := json.Unmarshal(task.Job.Payload, &p); err != nil {
			return jobs.Result{}, jobs.Permanent(err)
		}
		switch {
		case p.Permanent:
			return jobs.Result{}, jobs.Permanentf("as it was told")
		case task.Attempt <= p.Fails:
			return jobs.Result{}, errors.New("as it was told, for now")
		}
		return jobs.Result{}, nil
	})
	held := jobs.HandlerFunc(func(ctx context.Context, _ *jobs.Task) (jobs.Result, error) {
		<-ctx.Done()
		return jobs.Result{}, context.Cause(ctx)
	})
	asleep := jobs.HandlerFunc(func(context.Context, *jobs.Task) (jobs.Result, error) {
		return jobs.Result{}, errors.New("comes again in an hour")
	})
	return open(t, dir, setup{
		handlers: map[string]jobs.Handler{"quick": quick, "held": held, "asleep": asleep},
		change: func(c *config.Config) {
			c.Worker.ShutdownGrace = 0
			change := func(name string, f func(*config.JobType)) {
				typ := c.Jobs[name]
				typ.Timeout, typ.RetryCount = time.Hour, 1
				f(&typ)
				c.Jobs[name] = typ
			}
			change("quick", func(*config.JobType) {})
			change("held", func(typ *config.JobType) { typ.MaxWorkers = heldAtOnce })
			change("asleep", func(typ *config.JobType) { typ.Backoff = jobs.Backoff{Kind: jobs.Constant, Base: time.Hour} })
		},
	})
}

// fate is what a client knows of a job of its.
type fate struct {
	typ, tag string
	run      int
	status   string // "" = a quick one that will end by itself, as outcome says, or has
	outcome  string
	unique   string
	broken   bool // no job could be made of the message
}

// settled is the status that the job is bound to reach.
func (f *fate) settled() string {
	if f.status == "" {
		return f.outcome
	}
	return f.status
}

func over(status string) bool {
	return status == "completed" || status == "failed" || status == "cancelled"
}

// modelled is one client, with what it knows.
type modelled struct {
	h    *house
	nc   *nats.Conn
	name string
	rng  *rand.Rand

	jobs    map[string]*fate     // that there are
	deleted []string             // ids
	ended   map[string]string    // "<id>.<status>.<run>" of all ends that there were, and their type
	keys    map[string][2]string // idempotency key → what was sent with it, and the job's id
}

// end notes that a job has ended.
func (c *modelled) end(id string, status string) {
	f := c.jobs[id]
	f.status = status
	c.ended[fmt.Sprintf("%s.%s.%d", id, status, f.run)] = f.typ
}

// begin sets what a job does if nobody interferes.
func (f *fate) begin() {
	switch f.typ {
	case "held":
		f.status = "held"
	case "asleep":
		f.status = "retrying"
	default:
		f.status = ""
	}
}

// draft is a submission before it is one.
func (c *modelled) draft() (*fate, map[string]any) {
	f := &fate{run: 1, typ: []string{"quick", "quick", "quick", "held", "asleep"}[c.rng.IntN(5)], tag: fmt.Sprintf("t%d", c.rng.IntN(figureTags))}
	s := map[string]any{"type": f.typ, "tags": []string{f.tag, c.name}, "priority": 1 + c.rng.IntN(5)}
	if f.typ == "quick" {
		fails, retries, permanent := c.rng.IntN(3), c.rng.IntN(3), c.rng.IntN(6) == 0
		s["payload"], s["retry_count"] = map[string]any{"fails": fails, "permanent": permanent}, retries
		f.outcome = "completed"
		if permanent || fails > retries {
			f.outcome = "failed"
		}
		if c.rng.IntN(4) == 0 {
			s["concurrency_key"] = fmt.Sprintf("tenant%d", c.rng.IntN(3))
		}
	}
	f.begin()
	if c.rng.IntN(6) == 0 {
		s["delay"], f.status = "1h", "scheduled"
	}
	return f, s
}

func marshal(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	mustDo(t, err)
	return string(b)
}

// step does one random thing, and checks its answer.
func (c *modelled) step(t *testing.T) {
	switch n := c.rng.IntN(20); {
	case n < 6:
		c.submit(t)
	case n < 7:
		c.batch(t)
	case n < 9:
		c.bare(t)
	case n < 12:
		c.change(t, http.MethodPost, "/cancel")
	case n < 15:
		c.change(t, http.MethodPost, "/retry")
	case n < 17:
		c.change(t, http.MethodDelete, "")
	case n < 18:
		c.again(t)
	case n < 19:
		verb := []string{"pause", "resume"}[c.rng.IntN(2)]
		c.want(t, http.MethodPost, "/types/quick/"+verb, "", http.StatusOK)
	default:
		c.gone(t)
	}
}

// want makes a request and checks the answer's code.
func (c *modelled) want(t *testing.T, method, path, body string, codes ...int) *reply {
	t.Helper()
	r, err := c.h.try(t.Context(), method, path, body)
	if err != nil {
		t.Errorf("%s %s: %v", method, path, err)
		return &reply{}
	}
	if !slices.Contains(codes, r.code) {
		t.Errorf("%s: %s %s %s is answered with %d, want %v: %s", c.name, method, path, body, r.code, codes, r.body)
	}
	return r
}

func (c *modelled) submit(t *testing.T) {
	f, s := c.draft()
	holder := ""
	if c.rng.IntN(4) == 0 {
		f.unique, f.tag = fmt.Sprintf("%s-%d", c.name, c.rng.IntN(3)), "unique" // no bulk change chooses it
		s["unique_key"], s["tags"] = f.unique, []string{f.tag, c.name}
		holder = c.holder(f.unique)
	}
	var header []string
	key := fmt.Sprintf("%s-%d", c.name, c.rng.IntN(figureKeys))
	if _, used := c.keys[key]; !used && f.unique == "" && c.rng.IntN(2) == 0 {
		header = []string{"Idempotency-Key", key}
	}
	body := marshal(t, s)
	r, err := c.h.try(t.Context(), http.MethodPost, "/jobs", body, header...)
	switch {
	case err != nil:
		t.Error(err)
	case r.code == http.StatusConflict && holder != "":
	case r.code != http.StatusAccepted:
		t.Errorf("%s: %s is answered with %d: %s", c.name, body, r.code, r.body)
	default:
		c.freed(t, holder)
		id := readJob(t, r.body).ID
		c.jobs[id] = f
		if header != nil {
			c.keys[key] = [2]string{body, id}
		}
	}
}

// holder is the job that has a unique key, "" if none has; an open quick one may
// have ended by now.
func (c *modelled) holder(unique string) string {
	for id, f := range c.jobs {
		if unique != "" && f.unique == unique && !over(f.status) {
			return id
		}
	}
	return ""
}

// freed notes that the holder of a unique key has ended: another got its key.
func (c *modelled) freed(t *testing.T, holder string) {
	if holder == "" {
		return
	}
	f := c.jobs[holder]
	if f.status != "" {
		t.Errorf("%s: job %s is %s and has the key %s, but another got it", c.name, holder, f.status, f.unique)
	}
	c.end(holder, f.outcome)
}

// again repeats an earlier request by its idempotency key: nothing happens.
func (c *modelled) again(t *testing.T) {
	if len(c.keys) == 0 {
		return
	}
	key := c.pick(slices.Sorted(maps.Keys(c.keys)))
	sent := c.keys[key]
	r, err := c.h.try(t.Context(), http.MethodPost, "/jobs", sent[0], "Idempotency-Key", key)
	if err != nil || r.code != http.StatusAccepted || r.header.Get("Idempotent-Replay") != "true" || readJob(t, r.body).ID != sent[1] {
		t.Errorf("%s: %s with the key %s again: want job %s replayed, got %d %v %s, %v", c.name, sent[0], key, sent[1], r.code, r.header, r.body, err)
	}
}

func (c *modelled) batch(t *testing.T) {
	var fates []*fate
	var subs []any
	for range 1 + c.rng.IntN(5) {
		f, s := c.draft()
		fates, subs = append(fates, f), append(subs, s)
	}
	r := c.want(t, http.MethodPost, "/jobs/batch", marshal(t, map[string]any{"jobs": subs}), http.StatusAccepted)
	for i, id := range batchOf(t, r.body) {
		c.jobs[id] = fates[i]
	}
}

// bare publishes a message of which sometimes no job can be made.
func (c *modelled) bare(t *testing.T) {
	f := &fate{typ: "quick", tag: "bare", run: 1, outcome: "completed"}
	body := `{}`
	if c.rng.IntN(2) == 0 {
		body, f.outcome, f.broken = `{"fails":`, "failed", true
	}
	m := nats.NewMsg("jobs.quick")
	m.Data = []byte(body)
	m.Header.Set("Job-Tags", "bare,"+c.name)
	answer, err := c.nc.RequestMsg(m, patience)
	if err != nil {
		t.Error(err)
		return
	}
	var ack pubAck
	if err := json.Unmarshal(answer.Data, &ack); err != nil || ack.Error != nil {
		t.Errorf("%s: %s", c.name, answer.Data)
		return
	}
	r := c.want(t, http.MethodGet, fmt.Sprintf("/jobs/%d", ack.Seq), "", http.StatusOK)
	if r.code == http.StatusOK {
		c.jobs[readJob(t, r.body).ID] = f
	}
}

func (c *modelled) pick(from []string) string { return from[c.rng.IntN(len(from))] }

// change cancels, retries or deletes some job.
func (c *modelled) change(t *testing.T, method, verb string) {
	if len(c.jobs) == 0 {
		return
	}
	id := c.pick(slices.Sorted(maps.Keys(c.jobs)))
	f := c.jobs[id]
	if f.broken && verb == "/retry" {
		return // what then happens is not what this test is about
	}
	done := http.StatusAccepted
	possible := !over(f.status) // for a cancel; an open quick one may be in either state
	switch verb {
	case "/retry":
		possible = f.status == "failed" || f.status == "cancelled"
	case "":
		possible, done = over(f.status), http.StatusNoContent
	}
	holder := ""
	if verb == "/retry" && possible {
		holder = c.holder(f.unique)
	}
	codes := []int{http.StatusConflict}
	switch {
	case f.status == "" || holder != "":
		codes = []int{done, http.StatusConflict}
	case possible:
		codes = []int{done}
	}
	r := c.want(t, method, "/jobs/"+id+verb, "", codes...)
	if r.code != done {
		return
	}
	if verb == "/cancel" {
		c.end(id, "cancelled")
		return
	}
	if f.status == "" { // so it had ended
		c.end(id, f.outcome)
	}
	c.freed(t, holder)
	c.applied(id, strings.TrimPrefix(verb, "/"))
}

// applied notes that an ended job was retried or deleted ("").
func (c *modelled) applied(id, verb string) {
	if verb == "retry" {
		c.jobs[id].run++
		c.jobs[id].begin()
		return
	}
	delete(c.jobs, id)
	c.deleted = append(c.deleted, id)
}

// gone looks for a job that was deleted.
func (c *modelled) gone(t *testing.T) {
	if len(c.deleted) > 0 {
		c.want(t, http.MethodGet, "/jobs/"+c.pick(c.deleted), "", http.StatusNotFound)
	}
}

// figures is what all clients know together.
type figures struct {
	clients []*modelled
	ends    map[string]string // of all clients; see modelled.ended
	seen    map[string]bool   // ce-ids of the notifications so far
	upTo    uint64            // the last sequence in NOTIFICATIONS that was read
}

// all are the jobs of all clients.
func (m *figures) all() map[string]*fate {
	all := map[string]*fate{}
	for _, c := range m.clients {
		maps.Copy(all, c.jobs)
	}
	return all
}

// tally counts the jobs by type and status, once all that end have ended. Of the
// held ones as many run as may.
func (m *figures) tally() map[string]map[string]int {
	n := map[string]map[string]int{"quick": {}, "held": {}, "asleep": {}}
	for _, f := range m.all() {
		n[f.typ][f.settled()]++
	}
	held := n["held"]
	held["processing"] = min(held["held"], heldAtOnce)
	held["pending"] = held["held"] - held["processing"]
	delete(held, "held")
	for _, of := range n {
		maps.DeleteFunc(of, func(_ string, k int) bool { return k == 0 })
	}
	return n
}

// check waits until all quick jobs have ended, and compares.
func (m *figures) check(t *testing.T, h *house, nc *nats.Conn) {
	t.Helper()
	h.do(http.MethodPost, "/types/quick/resume", "")
	want := m.tally()
	got := map[string]map[string]int{}
	deadline := time.Now().Add(patience)
	waitUntil(t, func() bool {
		counts := h.counts("?type=quick&type=held&type=asleep")
		for name := range want {
			got[name] = maps.Clone(counts.Types[name])
			delete(got[name], "total")
			maps.DeleteFunc(got[name], func(_ string, k int) bool { return k == 0 })
		}
		same := true
		for name, of := range want {
			same = same && maps.Equal(of, got[name])
		}
		if !same && time.Now().After(deadline) {
			t.Fatalf("the counts are %v, want %v", got, want)
		}
		return same
	})
	for _, c := range m.clients {
		for id, f := range c.jobs {
			if f.status == "" {
				c.end(id, f.outcome)
			}
		}
		maps.Copy(m.ends, c.ended)
	}
	m.checkStats(t, h, want)
	m.checkLists(t, h)
	m.checkNotifications(t, nc)
}

func (m *figures) checkStats(t *testing.T, h *house, want map[string]map[string]int) {
	t.Helper()
	cumulated := map[string]map[string]int64{"quick": {}, "held": {}, "asleep": {}}
	for what, typ := range m.ends {
		cumulated[typ][strings.Split(what, ".")[1]]++
	}
	var s *api.Stats
	h.awaitStats(func(now *api.Stats) bool { s = now; return now.ActiveWorkers == want["held"]["processing"] })
	var sum api.TypeStats
	for name, n := range want {
		got := s.Types[name]
		is := []int64{
			int64(got.QueuedJobs), int64(got.ScheduledJobs), int64(got.RetryingJobs), int64(got.ActiveWorkers),
			got.CompletedJobs, got.FailedJobs, got.CancelledJobs,
		}
		must := []int64{
			int64(n["pending"]), int64(n["scheduled"]), int64(n["retrying"]), int64(n["processing"]),
			cumulated[name]["completed"], cumulated[name]["failed"], cumulated[name]["cancelled"],
		}
		if !slices.Equal(is, must) {
			t.Errorf("stats of %s: queued, scheduled, retrying, active, completed, failed, cancelled are %v, want %v", name, is, must)
		}
		sum.QueuedJobs += got.QueuedJobs
		sum.ScheduledJobs += got.ScheduledJobs
		sum.RetryingJobs += got.RetryingJobs
		sum.FailedJobs += got.FailedJobs
		sum.CancelledJobs += got.CancelledJobs
		var typ struct{ Depth map[string]int }
		mustDo(t, json.Unmarshal(h.do(http.MethodGet, "/types/"+name, "").body, &typ))
		for key, status := range map[string]string{"pending": "pending", "scheduled": "scheduled", "processing": "processing", "retrying": "retrying"} {
			if typ.Depth[key] != n[status] {
				t.Errorf("type %s has %d %s, want %d", name, typ.Depth[key], key, n[status])
			}
		}
	}
	if s.QueuedJobs != sum.QueuedJobs || s.ScheduledJobs != sum.ScheduledJobs || s.RetryingJobs != sum.RetryingJobs ||
		s.FailedJobs != sum.FailedJobs || s.CancelledJobs != sum.CancelledJobs {
		t.Errorf("the stats are not the sum of their types: %s", s.AppendJSON(nil))
	}
}

// checkLists compares the lists by several filters, whole, with the models.
func (m *figures) checkLists(t *testing.T, h *house) {
	t.Helper()
	all := m.all()
	running := 0
	check := func(query url.Values, fits func(*fate) bool) {
		t.Helper()
		want := map[string]bool{}
		for id, f := range all {
			if fits(f) {
				want[id] = true
			}
		}
		got := map[string]bool{}
		for cursor := ""; ; {
			page := maps.Clone(query)
			page.Set("limit", "97")
			if cursor != "" {
				page.Set("cursor", cursor)
			}
			found, next := h.list("?" + page.Encode())
			for _, j := range found {
				f := all[j.ID]
				if got[j.ID] {
					t.Errorf("%v: job %s comes twice", query, j.ID)
				}
				got[j.ID] = true
				switch {
				case f == nil:
					t.Errorf("%v: nobody knows job %s", query, j.ID)
				case f.status == "held" && (j.Status == "processing" || j.Status == "pending"):
					if j.Status == "processing" {
						running++
					}
				case f.settled() != j.Status:
					t.Errorf("%v: job %s is %s, want %s", query, j.ID, j.Status, f.settled())
				}
			}
			if cursor = next; cursor == "" {
				break
			}
		}
		if !maps.Equal(want, got) {
			t.Errorf("the list of %v has %d jobs, want %d", query, len(got), len(want))
		}
		if counts := h.counts("?" + query.Encode()); counts.Total != len(want) {
			t.Errorf("the count of %v is %d, want %d", query, counts.Total, len(want))
		}
	}
	types := func(more url.Values) url.Values { // the server's own jobs left out
		more["type"] = []string{"quick", "held", "asleep"}
		return more
	}
	check(types(url.Values{}), func(*fate) bool { return true })
	if held := m.tally()["held"]["processing"]; running != held {
		t.Errorf("%d held jobs are listed as processing, want %d", running, held)
	}
	for _, status := range []string{"scheduled", "retrying", "completed", "failed", "cancelled"} {
		check(types(url.Values{"status": {status}}), func(f *fate) bool { return f.settled() == status })
	}
	check(url.Values{"status": {"pending", "processing"}, "type": {"held"}}, func(f *fate) bool { return f.status == "held" })
	for i := range figureTags {
		tag := fmt.Sprintf("t%d", i)
		check(types(url.Values{"tag": {tag}, "status": {"completed", "failed"}}), func(f *fate) bool {
			return f.tag == tag && (f.settled() == "completed" || f.settled() == "failed")
		})
	}
}

// checkNotifications reads what has come since the last time: in the end there is
// one notification for each end, repetitions left out.
func (m *figures) checkNotifications(t *testing.T, nc *nats.Conn) {
	t.Helper()
	_, js := adminStreams(t, nc.ConnectedUrl())
	stream, err := js.Stream(t.Context(), "NOTIFICATIONS")
	mustDo(t, err)
	wanted := map[string]bool{}
	for what := range m.ends {
		wanted[what] = true
	}
	deadline := time.Now().Add(patience)
	waitUntil(t, func() bool {
		info, err := stream.Info(t.Context())
		mustDo(t, err)
		for m.upTo < info.State.LastSeq {
			m.upTo++
			msg, err := stream.GetMsg(t.Context(), m.upTo)
			mustDo(t, err)
			id := msg.Header.Get("ce-id")
			if strings.Contains(msg.Subject, ".jobstream-bulk.") {
				continue
			}
			if m.ends[id] == "" {
				t.Errorf("there is a notification %q on %s, but no such end", id, msg.Subject)
			}
			m.seen[id] = true
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d ends were notified, want %d", len(m.seen), len(wanted))
		}
		return len(m.seen) >= len(wanted)
	})
	if !maps.Equal(m.seen, wanted) {
		t.Errorf("%d ends were notified, want %d, or others", len(m.seen), len(wanted))
	}
}

// bulk changes all jobs that a filter chooses, after a dry run.
func (m *figures) bulk(t *testing.T, h *house, rng *rand.Rand) {
	t.Helper()
	action := []string{"cancel", "retry", "delete"}[rng.IntN(3)]
	tag := fmt.Sprintf("t%d", rng.IntN(figureTags))
	statuses := map[string][]string{
		"cancel": {"pending", "processing", "scheduled", "retrying"}, "retry": {"failed", "cancelled"}, "delete": {"completed", "failed"},
	}[action]
	type chosen struct {
		client *modelled
		id     string
	}
	var chosenOnes []chosen
	for _, c := range m.clients {
		for id, f := range c.jobs {
			fits := slices.Contains(statuses, f.settled()) || f.status == "held" && action == "cancel"
			if f.tag == tag && fits {
				chosenOnes = append(chosenOnes, chosen{c, id})
			}
		}
	}
	filter := map[string]any{"tag": tag, "status": statuses}
	var dry struct{ Matched int }
	r := h.do(http.MethodPost, "/jobs/bulk", marshal(t, map[string]any{"action": action, "filter": filter, "dry_run": true}))
	if err := json.Unmarshal(r.body, &dry); err != nil || dry.Matched != len(chosenOnes) {
		t.Errorf("a dry run of %s on %v matches %s, want %d", action, filter, r.body, len(chosenOnes))
	}
	r = h.do(http.MethodPost, "/jobs/bulk", marshal(t, map[string]any{"action": action, "filter": filter}), "Prefer", "wait=60")
	j := h.await(readJob(t, r.body).ID, "completed")
	var result struct{ Changed, Refused int }
	if err := json.Unmarshal(j.Result, &result); err != nil || result.Changed != len(chosenOnes) || result.Refused != 0 {
		t.Errorf("%s on %v changed %s, want %d", action, filter, j.Result, len(chosenOnes))
	}
	for _, x := range chosenOnes {
		switch action {
		case "cancel":
			x.client.end(x.id, "cancelled")
		case "retry":
			x.client.applied(x.id, "retry")
		case "delete":
			x.client.applied(x.id, "")
		}
	}
}
