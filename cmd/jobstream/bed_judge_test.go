package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"jobstream/cmd/jobstream/internal/history"
	"jobstream/jobs"
)

// What a test bed has seen is put together and judged.

// serving is the node that leads and serves, when there is one.
func (b *bed) serving() (found *member) {
	b.t.Helper()
	waitUntil(b.t, func() bool {
		for _, m := range b.living() {
			resp, err := http.Get(m.rest + "/types") //nolint:noctx // it may be down
			if err != nil {
				continue
			}
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK && (len(b.nodes) == 1 || m.leads()) { // one that is alone has a name of its own
				found = m
				return true
			}
		}
		return false
	})
	return found
}

// finish waits until nothing is left to do, and judges what was seen.
func (b *bed) finish() {
	b.t.Helper()
	m := b.serving()
	b.resume(m)
	waitFinished(b.t, m.c)
	b.collect(m)
	b.judge()
}

// resume lets the paused type go on, and pauses the schedule.
func (b *bed) resume(m *member) {
	b.t.Helper()
	mustPost(b.t, m.c, "/types/"+pausedType+"/resume", "", http.StatusOK)
	mustPost(b.t, m.c, "/schedules/"+tick+"/pause", "", http.StatusOK)
}

// collect adds to the history what a node shows and what handlers have written.
func (b *bed) collect(m *member) {
	b.t.Helper()
	b.seen.Jobs = jobsOf(b.t, m.rest)
	for _, m := range b.nodes {
		m.deposed()
		b.seen.Runs = append(b.seen.Runs, runsOf(b.t, m.name, m.dir)...)
	}
	for i := range b.seen.Runs {
		if key := b.seen.Runs[i].Key; strings.HasPrefix(key, "keyed/") {
			b.seen.AtOnce[key] = perKey
		}
	}
	var told map[string]map[string]bool
	deadline := history.Now().Add(patience)
	waitUntil(b.t, func() bool {
		told = notifications(b.t, m.c) // the last ones follow the commit that ended their job
		for _, j := range b.seen.Jobs {
			if !told[j.ID][fmt.Sprintf("%s.%s.%d", j.ID, j.Status, j.Run)] {
				return history.Now() > deadline // it is judged with the rest
			}
		}
		return true
	})
	b.deaf()
	for job, ids := range told {
		for id := range ids {
			n := history.Notice{Job: job}
			words := strings.Split(id, ".")
			if len(words) != 3 {
				b.t.Errorf("a notification has the ce-id %s", id)
				continue
			}
			n.Status = words[1]
			_, _ = fmt.Sscan(words[2], &n.Run)
			b.seen.Notices = append(b.seen.Notices, n)
		}
	}
}

// deposed adds to the history when a node was deposed.
func (m *member) deposed() {
	for _, c := range m.lives {
		for line := range strings.Lines(c.logged()) {
			if !strings.Contains(line, `msg="this node does not lead any more"`) || strings.Contains(line, "resigned=true") {
				continue
			}
			at, err := time.Parse(time.RFC3339Nano, attribute(line, "time="))
			mustDo(m.bed.t, err)
			m.bed.seen.Broken(history.Fault{Node: m.name, What: "deposed", From: history.At(at).Add(-election), To: history.At(at)})
		}
	}
}

// jobsOf is everything that the tracker behind a door shows.
func jobsOf(t *testing.T, rest string) (all []history.Job) {
	t.Helper()
	for from := ""; ; {
		var page struct {
			Jobs       []*jobs.Job
			NextCursor string `json:"next_cursor"`
		}
		if code := get(t, rest+"/jobs?order=asc&limit=500"+from, &page); code != http.StatusOK {
			t.Fatalf("the list of jobs answers %d", code)
		}
		for _, j := range page.Jobs {
			all = append(all, shown(j))
		}
		if page.NextCursor == "" {
			return all
		}
		from = "&cursor=" + url.QueryEscape(page.NextCursor)
	}
}

func shown(j *jobs.Job) history.Job {
	var p struct{ N string }
	_ = json.Unmarshal(j.Payload, &p) // a job of a schedule has none
	s := history.Job{
		ID: j.ID.String(), Name: p.N, Status: j.Status.String(), Run: j.Run, Attempt: j.Attempt, Most: j.MaxAttempts,
		Ended: history.Moment(j.EndedAt), NeverRan: j.Attempt == 0 && j.Status == jobs.Failed,
		Steady: j.Type == "quick" || j.Type == "slow" || j.Type == cappedType || j.Type == pausedType,
	}
	if strings.HasPrefix(p.N, "i") {
		s.Idempotent = p.N
	}
	if j.Terms != nil {
		s.Unique, s.Schedule, s.For = j.Terms.UniqueKey, j.Terms.Schedule, history.Moment(j.Terms.ScheduledFor)
	}
	return s
}

// judge reports what must not be in the history, up to some problems.
func (b *bed) judge() {
	b.t.Helper()
	problems := b.seen.Problems()
	for i, p := range problems {
		if i == 20 {
			b.t.Errorf("and %d problems more", len(problems)-i)
			break
		}
		b.t.Error(p)
	}
	b.t.Logf("%d requests, %d jobs, %d runs, %d notifications, %d heard ones, %d streams and %d faults were judged",
		len(b.seen.Asks), len(b.seen.Jobs), len(b.seen.Runs), len(b.seen.Notices), len(b.seen.Heard), len(b.seen.Streams), len(b.seen.Faults))
}

// gap says for how long nothing was accepted at a time, at any door and at each one whose
// node was well, and complains beyond a bound.
func (b *bed) gap(from history.Moment, most time.Duration) {
	b.t.Helper()
	gap, began := b.seen.Gap("", from, history.Now())
	b.t.Logf("the longest time without an accepted submission was %s", gap.Round(time.Millisecond))
	if gap > most {
		b.t.Errorf("nothing was accepted for %s, from %s after the start on; %s is the most", gap, began.Sub(b.begun), most)
	}
	for _, m := range b.nodes {
		gap, began := b.seen.DoorGap(m.name, from, history.Now(), patient)
		b.t.Logf("at %s it was %s", m.name, gap.Round(time.Millisecond))
		if gap > most+2*patient { // a client may wait in vain, and comes back a while later
			b.t.Errorf("%s, which was well, accepted nothing for %s, from %s after the start on; %s is the most", m.name, gap, began.Sub(b.begun), most)
		}
	}
}
