package status

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"jobstream/jobs"
)

const hookA, hookB = "https://a.example/hook", "https://b.example/hook?x=1"

// withCallback is a submission of an email with a callback_url.
func withCallback(seq uint64, url string) *jobs.Message {
	m := message(seq)
	m.Terms = &jobs.Terms{CallbackURL: url}
	return m
}

// callbacks are all callbacks, in the order of their keys.
func (tr *tracker) callbacks() []*jobs.Job {
	return tr.all(jobs.Filter{Types: []string{jobs.CallbackType}})
}

func contentOf(t tb, j *jobs.Job) (c jobs.Callback) {
	t.Helper()
	if err := json.Unmarshal(j.Payload, &c); err != nil {
		t.Fatalf("%s: %v", j.Payload, err)
	}
	return c
}

// TestCallbackIsInTheCommitOfTheEnd looks at each commit on a job's way, and at what a
// callback must not touch.
func TestCallbackIsInTheCommitOfTheEnd(t *testing.T) {
	t.Parallel()
	tr := byHand(t)
	m := withCallback(1, hookA)
	tr.receives(m)
	tr.folds(nil, event(jobs.KindStarted, m, 1), event(jobs.KindRetrying, m, 1))
	if len(tr.callbacks()) != 0 {
		t.Fatal("a job that has not ended has a callback")
	}
	unfinished, scheduled := tr.Totals()
	c := tr.folds(nil, event(jobs.KindStarted, m, 2), event(jobs.KindCompleted, m, 2))
	all := tr.callbacks()
	if len(all) != 1 || len(c.Changes) != 2 || c.Changes[1].After.ID != all[0].ID || c.Changes[1].Before != nil {
		t.Fatalf("%d callbacks, and the commit has %+v", len(all), c.Changes)
	}
	cb, content := all[0], contentOf(t, all[0])
	job := tr.job(m.ID)
	if cb.ID != jobs.CallbackID(m.ID, 1, hookA) || cb.Status != jobs.Pending || cb.Place != jobs.Due || !cb.Slot || cb.MaxAttempts != 10 || cb.Seq != 0 {
		t.Errorf("%+v", cb)
	}
	if content.URL != hookA || content.Webhook || content.ID != m.ID.String()+".completed.1" || string(content.Job) != string(job.AppendJSON(nil)) {
		t.Errorf("%s", cb.Payload)
	}
	if u, s := tr.Totals(); u != unfinished-1 || s != scheduled || c.Load.Unfinished != u {
		t.Errorf("%d unfinished and %d scheduled jobs, of %d and %d", u, s, unfinished, scheduled)
	}
	if due, _, err := tr.Due(1, 10, 10); err != nil || len(due) != 0 {
		t.Errorf("due among jobs: %d, %v", keysOf(due), err)
	}
	if due := tr.dueKeys(1); !slices.Equal(due, []uint64{cb.Key}) {
		t.Errorf("due: %d", due)
	}
	if got := keysOf(tr.all(jobs.Filter{})); !slices.Equal(got, []uint64{1}) {
		t.Errorf("a list of all jobs has %d", got)
	}
	ctx, cancel := within(t)
	defer cancel()
	if counts, err := tr.Counts(ctx, jobs.Filter{}); err != nil || counts.Total != 1 {
		t.Errorf("counted %+v, %v", counts, err)
	}
	if counts, err := tr.Counts(ctx, jobs.Filter{Tags: []string{m.ID.String()}}); err != nil || counts.Total != 0 {
		t.Errorf("counted by a tag %+v, %v", counts, err)
	}
	if high, err := tr.HighestKey(); err != nil || high != 1 {
		t.Errorf("the highest sequence is %d, %v", high, err)
	}
	tr.verify()
	// Repeats of the end, and a restart, change nothing.
	tr.folds(nil, event(jobs.KindCompleted, m, 2))
	tr.reopen()
	if again := tr.callbacks(); len(again) != 1 || again[0].ID != cb.ID {
		t.Errorf("%+v", again)
	}
	// Its own way is that of any job, but its end is notified to nobody.
	entries := tr.entries()
	tr.receives(tr.released(epoch, 2)...)
	if cb = tr.job(cb.ID); cb.Place != jobs.InQueue || cb.Seq != 2 || tr.find(2).ID != cb.ID {
		t.Errorf("published: %+v", cb)
	}
	tr.verify()
	tr.reopen()
	tr.verify()
	done := event(jobs.KindCompleted, &jobs.Message{ID: cb.ID, Seq: 2, Type: cb.Type, Priority: 3, At: epoch}, 1)
	tr.folds(nil, done)
	if cb = tr.job(cb.ID); cb.Status != jobs.Completed || tr.entries() != entries || len(tr.callbacks()) != 1 {
		t.Errorf("ended: %+v, %d entries in the outbox, of %d", cb, tr.entries(), entries)
	}
	tr.verify()
}

// TestCallbacksOfEveryEnd: whatever ends a job, who wants to know is notified, once per run.
func TestCallbacksOfEveryEnd(t *testing.T) {
	t.Parallel()
	tr := openTemp(t, Options{Registry: termTypes, Webhooks: jobs.Webhooks{
		{URL: hookB, Types: []string{"email", "unknown"}, Statuses: []jobs.Status{jobs.Failed, jobs.Cancelled}},
	}})
	tr.endsRebuild()
	var events []string
	made := func(want ...string) {
		t.Helper()
		var got []string
		for _, j := range tr.callbacks() {
			c := contentOf(t, j)
			if name := fmt.Sprint(c.Type, " ", c.ID[len(c.ID)-1:], " ", c.URL[8:9]); !slices.Contains(events, j.ID.String()) {
				events = append(events, j.ID.String())
				got = append(got, name)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("made %q, want %q", got, want)
		}
		tr.verify()
	}
	m := withCallback(1, hookA)
	tr.receives(m)
	made()
	tr.cancels(1)
	made("job.cancelled 1 b", "job.cancelled 1 a")
	tr.retries(1)
	made()
	again := tr.released(epoch.Add(seconds(1)), 2)
	for _, r := range again {
		if r.ID == m.ID {
			tr.receives(r)
		}
	}
	tr.cancels(1)
	made("job.cancelled 2 b", "job.cancelled 2 a")

	same := withCallback(10, hookB) // it is the webhook's own
	tr.receives(same)
	tr.folds(nil, event(jobs.KindFailed, same, 1))
	made("job.failed 1 b")

	bad := withCallback(11, hookA)
	bad.Payload = []byte("no JSON")
	tr.receives(bad)
	made("job.failed 1 b", "job.failed 1 a")
	unknown := withCallback(12, hookA)
	unknown.Type = "unknown"
	tr.receives(unknown)
	made("job.failed 1 b", "job.failed 1 a")
	unwanted := withCallback(13, "ftp://a")
	unwanted.Problem = "a bad header"
	tr.receives(unwanted)
	made("job.failed 1 b")

	expired := message(14)
	expired.Terms = &jobs.Terms{ExpiresAt: expired.At.Add(seconds(10)), CallbackURL: hookA}
	tr.receives(expired)
	tr.expires(expired.At.Add(seconds(20)))
	made("job.cancelled 1 b", "job.cancelled 1 a")
	completed := message(15)
	tr.receives(completed)
	tr.folds(nil, event(jobs.KindCompleted, completed, 1))
	made() // nobody wants it
}

// TestCallbacksTakeTurns: those to one host are published a few at a time.
func TestCallbacksTakeTurns(t *testing.T) {
	t.Parallel()
	tr := byHand(t)
	for seq := uint64(1); seq <= 5; seq++ {
		url := hookA
		if seq == 5 {
			url = hookB
		}
		m := withCallback(seq, fmt.Sprint(url, "&", seq))
		tr.receives(m)
		tr.folds(nil, event(jobs.KindCompleted, m, 1))
	}
	all := tr.callbacks()
	places := ""
	for _, j := range all {
		places += fmt.Sprint(j.Place, " ")
	}
	if places != "1 1 2 2 1 " || tr.live.Len() != 0 {
		t.Errorf("places %s, %d in the queue", places, tr.live.Len())
	}
	tr.verify()
	tr.cancels(all[0].Key)
	if j := tr.job(all[2].ID); j.Place != jobs.Due || !j.Slot {
		t.Errorf("the next one: %+v", j)
	}
	tr.verify()
}

// TestCallbackIsBounded: a large job comes without what makes it large.
func TestCallbackIsBounded(t *testing.T) {
	t.Parallel()
	tr := byHand(t)
	large := "\"" + strings.Repeat("x", jobs.MaxCallback) + "\""
	for i, c := range []struct{ payload, result, want string }{
		{`{}`, `{}`, ""}, {large, `{}`, "payload"}, {`{}`, large, "payload result errors"}, {large, large, "payload result errors"},
	} {
		m := withCallback(uint64(i+1), hookA)
		m.Payload = json.RawMessage(c.payload)
		tr.folds([]*jobs.Message{m})
		e := event(jobs.KindCompleted, m, 1)
		e.Result = json.RawMessage(c.result)
		tr.folds(nil, e)
		cb := tr.job(jobs.CallbackID(m.ID, 1, hookA))
		content := contentOf(t, cb)
		if got := strings.Join(content.Omitted, " "); got != c.want || len(cb.Payload) > jobs.MaxCallback+1000 {
			t.Errorf("%d: omits %q, want %q; %d bytes", i, got, c.want, len(cb.Payload))
		}
	}
}

// TestForgedCallback: nobody else can have requests made and signed.
func TestForgedCallback(t *testing.T) {
	t.Parallel()
	tr := byHand(t)
	m := message(1)
	m.Type, m.Payload = jobs.CallbackType, []byte(`{"url":"https://a.example","data":{}}`)
	for i, moved := range []bool{false, true} {
		m.Seq, m.ID, m.Moved = uint64(i+1), jobs.NewID(), moved
		tr.receives(m)
		if j := tr.job(m.ID); j.Status != jobs.Failed || j.Error != "only the server itself makes callbacks" {
			t.Errorf("moved %v: %+v", moved, j)
		}
	}
}

// TestDisabledURL gets nothing until it is enabled, also over a restart.
func TestDisabledURL(t *testing.T) {
	t.Parallel()
	tr := openTemp(t, Options{Registry: termTypes, Webhooks: jobs.Webhooks{{URL: hookB}}})
	tr.endsRebuild()
	do := func(c jobs.Command) {
		t.Helper()
		if _, err := tr.Prepare(c); err != nil {
			t.Fatal(err)
		}
	}
	end := func(seq uint64, want ...string) {
		t.Helper()
		m := withCallback(seq, hookA)
		tr.receives(m)
		before := len(tr.callbacks())
		tr.folds(nil, event(jobs.KindCompleted, m, 1))
		var got []string
		for _, j := range tr.callbacks()[before:] {
			got = append(got, contentOf(t, j).URL)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%d: made %q, want %q", seq, got, want)
		}
	}
	end(1, hookB, hookA)
	by := tr.callbacks()[0].ID
	do(jobs.Disable{Stamp: jobs.Stamp{At: epoch}, URL: hookB, By: by})
	end(2, hookA)
	tr.reopen()
	end(3, hookA)
	if is, err := tr.IsDisabled(hookB); err != nil || !is {
		t.Errorf("%v, %v", is, err)
	}
	if all, err := tr.Disabled(); err != nil || !slices.Equal(all, []jobs.DisabledURL{{URL: hookB, Since: epoch, By: by}}) {
		t.Errorf("%v, %v", all, err)
	}
	do(jobs.Enable{Stamp: jobs.Stamp{At: epoch}, URL: hookB})
	end(4, hookB, hookA)

	commands := make([]*task, maxDisabled+2)
	for i := range commands {
		c := jobs.Disable{Stamp: jobs.Stamp{At: epoch.Add(seconds(i))}, URL: fmt.Sprint("https://", i), By: by}
		commands[i] = &task{ctx: t.Context(), command: c}
	}
	if _, _, err := tr.doAll(commands, tr.input()); err != nil {
		t.Fatal(err)
	}
	all, err := tr.Disabled()
	oldest := slices.ContainsFunc(all, func(d jobs.DisabledURL) bool { return d.URL == "https://0" || d.URL == "https://1" })
	if err != nil || len(all) != maxDisabled || oldest {
		t.Errorf("%d are kept, the oldest among them: %v; %v", len(all), oldest, err)
	}
}

// TestCallbacksOfARebuild: a tracker that is rebuilt from the streams repeats nothing that
// the lost one is known to have begun.
func TestCallbacksOfARebuild(t *testing.T) {
	t.Parallel()
	tr := openTemp(t, Options{Registry: termTypes, Webhooks: jobs.Webhooks{{URL: hookB}}})
	now := jobs.Now()
	at := func(seq uint64, ago time.Duration) (*jobs.Message, jobs.Event) {
		m := withCallback(seq, hookA)
		m.At = now.Add(-ago)
		e := event(jobs.KindCompleted, m, 1)
		e.StartedAt, e.At = m.At, m.At
		return m, e
	}
	notified, e1 := at(1, time.Minute)
	j := jobs.NewJob(notified, termTypes.Lookup("email"), true)
	jobs.Apply(j, &e1)
	tr.must(tr.Seed(j))
	_, old := at(2, 2*time.Hour)
	submitted, recent := at(3, time.Minute)
	first, later := at(4, time.Minute)
	tr.folds(nil, e1, old, recent)
	tr.folds([]*jobs.Message{notified, submitted}) // the URL comes with it
	tr.folds([]*jobs.Message{first}, later)
	tr.folds(nil, e1, old, recent, later)
	var got []string
	for _, j := range tr.callbacks() {
		c := contentOf(t, j)
		got = append(got, fmt.Sprint(c.URL == hookA, " ", c.ID))
	}
	want := []string{
		"false " + submitted.ID.String() + ".completed.1", "true " + submitted.ID.String() + ".completed.1",
		"false " + first.ID.String() + ".completed.1", "true " + first.ID.String() + ".completed.1",
	}
	if !slices.Equal(got, want) {
		t.Errorf("made %q, want %q", got, want)
	}
	// A callback whose message JOBS still has is found there, with its key in JOBS.
	lost := tr.callbacks()[0].Clone()
	other := openTemp(t, Options{Registry: termTypes})
	lost.ID = jobs.NewID()
	again := lost.Again()
	again.Seq, again.At = 9, now
	other.folds([]*jobs.Message{again})
	if j := other.job(lost.ID); j == nil || j.Status != jobs.Pending || j.Key != 9 || string(j.Payload) != string(lost.Payload) || !j.Slot {
		t.Errorf("%+v", j)
	}
	other.verify()
}
