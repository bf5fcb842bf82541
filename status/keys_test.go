package status

import (
	"context"
	"slices"
	"strings"
	"testing"

	"jobstream/jobs"
	"jobstream/status/boltfile"
)

// unique is a submission with a unique key.
func unique(seq uint64, key string) *jobs.Message { return with(seq, jobs.Terms{UniqueKey: key}) }

// A unique key belongs to a job from its submission to its end, whatever happens
// to it meanwhile.
func TestUniqueKeyThroughLife(t *testing.T) {
	t.Parallel()
	type step struct {
		name string
		do   func(tr *tracker)
		free bool // afterwards
	}
	ev := func(kind jobs.Kind, at int) func(*tracker) {
		return func(tr *tracker) {
			tr.folds(nil, of(kind, tr.find(1), epoch.Add(seconds(at))))
		}
	}
	release := func(at int) func(*tracker) {
		return func(tr *tracker) {
			tr.folds(tr.released(epoch.Add(seconds(at)), tr.Positions().Jobs+1))
		}
	}
	cancel := func(tr *tracker) { tr.cancels(1) }
	retry := func(tr *tracker) { tr.retries(1) }
	for name, steps := range map[string][]step{
		"to its completion": {{"start", ev(jobs.KindStarted, 10), false}, {"retry", ev(jobs.KindRetrying, 20), false}, {"complete", ev(jobs.KindCompleted, 40), true}},
		"to its failure":    {{"start", ev(jobs.KindStarted, 10), false}, {"fail", ev(jobs.KindFailed, 20), true}},
		"cancelled":         {{"cancel", cancel, true}},
		"cancelled, rerun":  {{"cancel", cancel, true}, {"retry", retry, false}, {"release", release(30), false}, {"complete", ev(jobs.KindCompleted, 40), true}},
		"snoozed":           {{"snooze", ev(jobs.KindSnoozed, 10), false}, {"release", release(40), false}, {"complete", ev(jobs.KindCompleted, 50), true}},
		"deleted":           {{"cancel", cancel, true}, {"delete", func(tr *tracker) { tr.deletes(1) }, true}},
		"expired":           {{"expire", func(tr *tracker) { tr.expires(epoch.Add(seconds(5001))) }, true}},
	} {
		t.Run(name, func(t *testing.T) {
			tr := byHand(t)
			m := with(1, jobs.Terms{UniqueKey: "k", ExpiresAt: epoch.Add(seconds(5000))})
			tr.receives(m)
			check := func(what string, free bool) {
				tr.everywhere(func() {
					// Nobody waits for the answer, so the record says it.
					probe := unique(tr.Positions().Jobs+1, "k")
					c := tr.receives(probe)
					j := tr.find(probe.Seq)
					if ended := j.Status == jobs.Failed; ended == free || len(answers(c, jobs.SubmissionRefused)) != 0 {
						t.Fatalf("after %s: a second job is %s: %s", what, j.Status, j.Error)
					}
					if !free {
						if !strings.Contains(j.Error, m.ID.String()) || !strings.Contains(j.Error, `"k"`) {
							t.Errorf("it does not say who has the key: %s", j.Error)
						}
						return
					}
					tr.cancels(j.Key)
				})
			}
			check("its submission", false)
			for _, s := range steps {
				s.do(tr)
				check(s.name, s.free)
			}
		})
	}
}

// Of equal submissions in one transaction one becomes a job; those that were
// checked at a door are refused, and leave nothing behind.
func TestUniqueKeyAtTheDoor(t *testing.T) {
	t.Parallel()
	tr := openTemp(t, Options{Registry: termTypes, Checked: func(jobs.ID) bool { return true }})
	a, b, other := unique(1, "k"), unique(2, "k"), unique(3, "K")
	c := tr.folds([]*jobs.Message{a, b, other})
	if len(slices.Collect(c.Submitted())) != 2 || len(answers(c, jobs.SubmissionRefused)) != 1 || answers(c, jobs.SubmissionRefused)[0].ID != b.ID {
		t.Fatalf("%d submitted, refused %+v", len(slices.Collect(c.Submitted())), answers(c, jobs.SubmissionRefused))
	}
	if err := answers(c, jobs.SubmissionRefused)[0].Err; err.Kind != jobs.Duplicate || err.JobID != a.ID {
		t.Errorf("%+v", err)
	}
	tr.none(2)
	tr.verify()
	// Ended and free in one transaction with the next one: messages come first.
	c = tr.folds([]*jobs.Message{unique(4, "k")}, of(jobs.KindCompleted, tr.find(1), epoch.Add(seconds(60))))
	if len(answers(c, jobs.SubmissionRefused)) != 1 || len(slices.Collect(c.Ended())) != 1 {
		t.Fatalf("%+v", c)
	}
	if c = tr.receives(unique(5, "k")); len(slices.Collect(c.Submitted())) != 1 {
		t.Fatalf("the key is not free: %+v", c)
	}
	tr.verify()
}

// A job that is to run again needs its key, and takes it.
func TestUniqueKeyAndRetry(t *testing.T) {
	t.Parallel()
	tr := byHand(t)
	tr.receives(unique(1, "k"))
	tr.cancels(1)
	tr.receives(unique(2, "k"))
	changed, refused, _ := tr.retries(1)
	if len(changed) != 0 || len(refused) != 1 || refused[0].Err.Kind != jobs.Duplicate || refused[0].Err.JobID != tr.find(2).ID {
		t.Fatalf("changed %v, refused %+v", changed, refused)
	}
	tr.states("cancelled", "pending")
	tr.cancels(2)
	// Of two that want it in one transaction the first one gets it.
	changed, refused, _ = tr.retries(2, 1)
	if !slices.Equal(changed, []uint64{2}) || len(refused) != 1 {
		t.Fatalf("changed %v, refused %+v", changed, refused)
	}
	tr.everywhere(func() { tr.states("cancelled", "pending due") })
}

// token is a submission with an idempotency key.
func token(seq uint64, key, body string) *jobs.Message {
	m := message(seq)
	m.Token = jobs.NewToken("http", key, []byte(body))
	return m
}

func TestTokens(t *testing.T) {
	t.Parallel()
	day := jobs.Time(jobs.TokenTime)
	for _, tt := range []struct {
		name   string
		before func(tr *tracker)
		second *jobs.Message
		at     jobs.Time // of the second, since the first
		want   string    // "replay", "mismatch" or "new"
	}{
		{name: "the same again", second: token(2, "k", "body"), want: "replay"},
		{name: "another body", second: token(2, "k", "other"), want: "mismatch"},
		{name: "another key", second: token(2, "K", "body"), want: "new"},
		{name: "just before the day is over", second: token(2, "k", "body"), at: day - 1, want: "replay"},
		{name: "after a day", second: token(2, "k", "body"), at: day, want: "new"},
		{name: "another body after a day", second: token(2, "k", "other"), at: day, want: "new"},
		{name: "the clock was set back", second: token(2, "k", "body"), at: -day, want: "replay"},
		{name: "the job has ended", before: func(tr *tracker) { tr.cancels(1) }, second: token(2, "k", "body"), want: "replay"},
		{name: "the job is gone", before: func(tr *tracker) { tr.cancels(1); tr.deletes(1) }, second: token(2, "k", "body"), want: "gone"},
		{name: "the job is gone, another body", before: func(tr *tracker) { tr.cancels(1); tr.deletes(1) }, second: token(2, "k", "other"), want: "mismatch"},
		{name: "the job is gone, after a day", before: func(tr *tracker) { tr.cancels(1); tr.deletes(1) }, second: token(2, "k", "body"), at: day, want: "new"},
		{name: "opened again", before: func(tr *tracker) { tr.reopen() }, second: token(2, "k", "body"), want: "replay"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tr := byHand(t)
			first := token(1, "k", "body")
			tr.receives(first)
			if tt.before != nil {
				tt.before(tr)
			}
			tt.second.At = first.At + tt.at
			c := tr.receives(tt.second)
			got := "new"
			switch {
			case len(answers(c, jobs.SubmissionReplayed)) == 1 && answers(c, jobs.SubmissionReplayed)[0].ID == tt.second.ID && answers(c, jobs.SubmissionReplayed)[0].Job.ID == first.ID:
				got = "replay"
				if j := answers(c, jobs.SubmissionReplayed)[0].Job; j.Key == 0 && j.Type == tt.second.Type && string(j.Payload) == string(tt.second.Payload) && j.CreatedAt == first.At && j.Message != "" {
					got = "gone"
				}
			case len(answers(c, jobs.SubmissionRefused)) == 1 && answers(c, jobs.SubmissionRefused)[0].ID == tt.second.ID && answers(c, jobs.SubmissionRefused)[0].Err.Kind == jobs.IdempotencyMismatch:
				got = "mismatch"
			}
			if got != tt.want {
				t.Fatalf("it is %s, want %s: %+v", got, tt.want, c)
			}
			switch j, err := tr.Find(2); {
			case err != nil:
				t.Fatal(err)
			case got == "replay" && (j == nil || j.ID != first.ID), (got == "mismatch" || got == "gone") && j != nil, got == "new" && (j == nil || j.ID != tt.second.ID):
				t.Errorf("by its sequence: %+v", j)
			}
			tr.verify()
			if got == "new" && tt.at >= day {
				// The token is now that of the second one.
				third := *tt.second
				third.Seq, third.ID, third.At = 3, jobs.NewID(), tt.second.At+day-1
				if c := tr.receives(&third); len(answers(c, jobs.SubmissionReplayed)) != 1 || answers(c, jobs.SubmissionReplayed)[0].Job.ID != tt.second.ID {
					t.Errorf("a third one: %+v", c)
				}
			}
		})
	}
}

// However many equal submissions come together, one becomes a job.
func TestTokensTogether(t *testing.T) {
	t.Parallel()
	tr := byHand(t)
	var ms []*jobs.Message
	for seq := range uint64(50) {
		ms = append(ms, token(seq+1, "k", "body"))
	}
	ms[49].Token = jobs.NewToken("nats", "k", []byte("body")) // a realm of its own
	c := tr.folds(ms)
	if len(slices.Collect(c.Submitted())) != 2 || len(answers(c, jobs.SubmissionReplayed)) != 48 {
		t.Fatalf("%d submitted, %d replayed", len(slices.Collect(c.Submitted())), len(answers(c, jobs.SubmissionReplayed)))
	}
	tr.everywhere(func() {
		for seq := uint64(1); seq < 50; seq++ {
			if j := tr.find(seq); j.Key != 1 {
				t.Fatalf("%d leads to %d", seq, j.Key)
			}
		}
	})
	tr.cancels(1)
	tr.deletes(1)
	for seq := uint64(1); seq < 50; seq++ {
		tr.none(seq) // they went with the job
	}
	if keys, _ := tr.rows(bucketMoved); len(keys) != 0 {
		t.Errorf("%d sequences are left", len(keys))
	}
	if keys, _ := tr.rows(bucketAliases); len(keys) != 0 {
		t.Errorf("%d aliases are left", len(keys))
	}
}

// A bare message's Nats-Msg-Id stands for any body.
func TestBareDuplicate(t *testing.T) {
	t.Parallel()
	tr := byHand(t)
	a, b := message(1), message(2)
	a.Token, b.Token = jobs.NewToken("nats", "id", nil), jobs.NewToken("nats", "id", nil)
	b.Payload = []byte(`"another"`)
	if c := tr.receives(a, b); len(answers(c, jobs.SubmissionReplayed)) != 1 || answers(c, jobs.SubmissionReplayed)[0].Job.ID != a.ID {
		t.Fatalf("%+v", c)
	}
	if j := tr.find(2); j.ID != a.ID || string(j.Payload) != string(a.Payload) {
		t.Errorf("by the duplicate's sequence: %+v", j)
	}
}

// Recall answers for the door.
func TestRecall(t *testing.T) {
	t.Parallel()
	tr := byHand(t)
	now := jobs.Now()
	fresh, old := token(1, "fresh", "body"), token(2, "old", "body")
	fresh.At, old.At = now, now-jobs.Time(jobs.TokenTime)
	tr.receives(fresh, old)
	recall := func(key, body string) (string, error) {
		known, err := tr.Recall(jobs.NewToken("http", key, []byte(body)))
		if len(known) == 0 {
			return "", err
		}
		return known[0].ID.String(), err
	}
	tr.everywhere(func() {
		if id, err := recall("fresh", "body"); id != fresh.ID.String() || err != nil {
			t.Errorf("fresh: %q, %v", id, err)
		}
		if id, err := recall("old", "body"); id != "" || err != nil {
			t.Errorf("old: %q, %v", id, err)
		}
		if id, err := recall("never", "body"); id != "" || err != nil {
			t.Errorf("never: %q, %v", id, err)
		}
		_, err := recall("fresh", "other")
		if e, ok := jobs.AsError(err); !ok || e.Kind != jobs.IdempotencyMismatch || len(e.Fields) != 1 {
			t.Errorf("mismatch: %v", err)
		}
	})
	tr.cancels(1)
	tr.deletes(1)
	if id, err := recall("fresh", "body"); id != fresh.ID.String() || err != nil {
		t.Errorf("of a deleted job: %q, %v", id, err)
	}
}

func TestForgetTokens(t *testing.T) {
	t.Parallel()
	tr := byHand(t)
	a, b := token(1, "a", ""), token(2, "b", "")
	a.At, b.At = 1000, 2000
	tr.receives(a, b)
	forget := func(before jobs.Time, want int) {
		t.Helper()
		oldest, err := tr.OldestToken()
		tr.must(err)
		if some := oldest != 0 && oldest < before; some != (want > 0) {
			t.Errorf("the oldest is of %v, and %d are from before %v", oldest, want, before)
		}
		tr.together(func() {
			e, err := tr.Do(context.Background(), jobs.ForgetTokens{Before: before, Most: 10})
			if e.Removed != want || err != nil {
				t.Errorf("forgot %d, %v; want %d", e.Removed, err, want)
			}
		})
	}
	forget(1000, 0)
	forget(1001, 1)
	if c := tr.receives(withToken(message(3), a.Token, 1001)); len(slices.Collect(c.Submitted())) != 1 {
		t.Errorf("a forgotten one: %+v", c)
	}
	// Used anew after its day it is as old as its last use.
	anew := withToken(message(4), b.Token, 2000+jobs.Time(jobs.TokenTime))
	if c := tr.receives(anew); len(slices.Collect(c.Submitted())) != 1 {
		t.Errorf("%+v", c)
	}
	forget(2001, 1)
	forget(anew.At, 0)
	forget(anew.At+1, 1)
	for _, bucket := range [][]byte{bucketTokens, bucketTokenAge} {
		if keys, _ := tr.rows(bucket); len(keys) != 0 {
			t.Errorf("%s: %d entries are left", bucket, len(keys))
		}
	}
}

// One command drops no more tokens than it says, the oldest first.
func TestForgetSomeTokens(t *testing.T) {
	t.Parallel()
	tr := byHand(t)
	for seq := uint64(1); seq <= 5; seq++ {
		tr.receives(token(seq, string(rune('a'+seq)), ""))
	}
	for _, want := range []int{2, 2, 1, 0} {
		tr.together(func() {
			e, err := tr.Do(context.Background(), jobs.ForgetTokens{Before: message(6).At, Most: 2})
			if e.Removed != want || err != nil {
				t.Errorf("forgot %d, %v; want %d", e.Removed, err, want)
			}
		})
		oldest, err := tr.OldestToken()
		if keys, _ := tr.rows(bucketTokens); err != nil || len(keys) > 0 && oldest != message(uint64(6-len(keys))).At {
			t.Errorf("the oldest of %d is of %v, %v", len(keys), oldest, err)
		}
	}
}

func withToken(m *jobs.Message, token *jobs.Token, at jobs.Time) *jobs.Message {
	m.Token, m.At = token, at
	return m
}

// A tracker that is made again from the streams knows the tokens of jobs whose
// end it had from elsewhere.
func TestTokensAfterRebuild(t *testing.T) {
	t.Parallel()
	tr := openTemp(t, Options{Registry: termTypes})
	m := token(1, "k", "body")
	ended := jobs.NewJob(m, termTypes.Lookup("email"), true)
	ended.Cancel(m.At, "")
	tr.must(tr.Seed(ended))
	tr.receives(m)
	tr.endsRebuild()
	if c := tr.receives(token(2, "k", "body")); len(answers(c, jobs.SubmissionReplayed)) != 1 || answers(c, jobs.SubmissionReplayed)[0].Job.ID != m.ID {
		t.Fatalf("%+v", c)
	}
}

// keyed is a submission with a concurrency key. Emails run one at a time,
// exports two.
func keyed(seq uint64, typ, key string, priority jobs.Priority) *jobs.Message {
	m := with(seq, jobs.Terms{ConcurrencyKey: key})
	m.Type, m.Priority = typ, priority
	return m
}

// The end of a turn gives it to the held job of the best priority that has waited
// longest. That job is put into the queue again.
func TestTurnsPassOn(t *testing.T) {
	t.Parallel()
	at := epoch.Add(seconds(100))
	end := func(kind jobs.Kind) func(tr *tracker) *jobs.Commit {
		return func(tr *tracker) *jobs.Commit { return tr.folds(nil, of(kind, tr.find(1), at)) }
	}
	for name, tt := range map[string]struct {
		do   func(tr *tracker) *jobs.Commit
		left string // what becomes of the first
	}{
		"completed": {end(jobs.KindCompleted), "completed"},
		"failed":    {end(jobs.KindFailed), "failed"},
		"retrying":  {end(jobs.KindRetrying), "retrying due"},
		"snoozed":   {end(jobs.KindSnoozed), "scheduled due"},
		"cancelled": {func(tr *tracker) *jobs.Commit { _, c := tr.cancels(1); return c }, "cancelled"},
		"expired":   {func(tr *tracker) *jobs.Commit { _, c := tr.expires(epoch.Add(seconds(5001))); return c }, "cancelled"},
	} {
		t.Run(name, func(t *testing.T) {
			tr := byHand(t)
			first := keyed(1, "email", "k", 3)
			first.Terms.ExpiresAt = epoch.Add(seconds(5000))
			tr.receives(first, keyed(2, "email", "k", 5), keyed(3, "email", "k", 3), keyed(4, "email", "k", 3), keyed(5, "email", "other", 3), keyed(6, "export", "k", 3))
			tr.everywhere(func() {
				tr.states("pending turn", "pending held", "pending held", "pending held", "pending turn", "pending turn")
			})
			if due := tr.dueKeys(at); len(due) != 0 {
				t.Fatalf("due: %v", due)
			}
			c := tt.do(tr)
			if c.Due() != 1 {
				t.Errorf("nobody is notified to publish the next one: due at %v", c.Due())
			}
			tr.everywhere(func() { tr.states(tt.left, "pending held", "pending due turn", "pending held") })
			c = tr.folds(tr.released(at, 7))
			if len(slices.Collect(c.Submitted())) != 1 || slices.Collect(c.Submitted())[0].Key != 3 || slices.Collect(c.Submitted())[0].Seq != 7 {
				t.Fatalf("%+v", slices.Collect(c.Submitted()))
			}
			tr.everywhere(func() { tr.states(tt.left, "pending held", "pending turn", "pending held") })
			// The rest, by age and then by priority.
			tr.folds(nil, of(jobs.KindCompleted, tr.find(3), at))
			tr.states(tt.left, "pending held", "completed", "pending due turn")
			tr.folds(nil, of(jobs.KindStarted, tr.find(4), at), of(jobs.KindFailed, tr.find(4), at))
			tr.states(tt.left, "pending due turn", "completed", "failed")
			tr.cancels(2)
			tr.verify()
		})
	}
}

// The limit is the type's.
func TestTurnsOfAType(t *testing.T) {
	t.Parallel()
	tr := byHand(t)
	var ms []*jobs.Message
	for seq := range uint64(4) {
		ms = append(ms, keyed(seq+1, "export", "k", 3))
	}
	tr.folds(ms)
	tr.states("pending turn", "pending turn", "pending held", "pending held")
	at := epoch.Add(seconds(100))
	tr.folds(nil, of(jobs.KindCompleted, tr.find(1), at), of(jobs.KindCompleted, tr.find(2), at))
	tr.states("completed", "completed", "pending due turn", "pending due turn")
	tr.verify()
	// With another limit in the settings turns go by that from then on.
	tr.receives(keyed(5, "export", "k", 3), keyed(6, "export", "k", 3))
	tr.o.Registry = jobs.NewRegistry(&jobs.Type{Name: "export", ConcurrencyPerKey: 3, Handler: noHandler{}}, termTypes.Lookup("email"))
	tr.reopen()
	tr.folds(tr.released(at, 7))
	tr.folds(nil, of(jobs.KindCompleted, tr.find(3), at))
	tr.states("completed", "completed", "completed", "pending turn", "pending due turn", "pending due turn")
	tr.verify()
}

// A job that waits for its time has no turn, and asks for one when that has
// come.
func TestTurnsOfScheduledJobs(t *testing.T) {
	t.Parallel()
	tr := byHand(t)
	runAt := epoch.Add(seconds(1000))
	late := keyed(1, "email", "k", 3)
	late.Terms.RunAt = runAt
	tr.receives(late, keyed(2, "email", "k", 3))
	tr.states("scheduled due", "pending turn")
	tr.folds(tr.released(runAt, 3))
	tr.everywhere(func() { tr.states("pending held", "pending turn") })
	tr.folds(nil, of(jobs.KindCompleted, tr.find(2), runAt))
	tr.states("pending due turn", "completed")
	tr.folds(tr.released(runAt, 4))
	tr.everywhere(func() { tr.states("pending turn", "completed") })
}

// A copy of a message that comes late gives nobody a turn, and takes none.
func TestTurnsAndStaleCopies(t *testing.T) {
	t.Parallel()
	tr := byHand(t)
	at := epoch.Add(seconds(100))
	tr.receives(keyed(1, "email", "k", 3), keyed(2, "email", "k", 3))
	tr.folds([]*jobs.Message{again(tr.find(2), 3, at), again(tr.find(1), 4, at)})
	tr.everywhere(func() { tr.states("pending turn", "pending held") })
	tr.folds(nil, of(jobs.KindRetrying, tr.find(1), at))
	tr.folds([]*jobs.Message{again(tr.find(1), 5, at.Add(1))}) // long before it is due
	tr.everywhere(func() { tr.states("retrying due", "pending due turn") })
}

// A turn ends with an attempt though the next attempt begins and fails in the
// same transaction.
func TestTurnOfTwoAttemptsTogether(t *testing.T) {
	t.Parallel()
	tr := byHand(t)
	at := epoch.Add(seconds(100))
	tr.receives(keyed(1, "email", "k", 3))
	tr.folds(nil, of(jobs.KindRetrying, tr.find(1), at))
	tr.receives(keyed(2, "email", "k", 3))
	tr.folds(nil, of(jobs.KindCompleted, tr.find(2), at))
	j := tr.find(1)
	j2 := j.Clone()
	j2.Seq = 3
	tr.folds([]*jobs.Message{again(j, 3, j.DueAt)}, of(jobs.KindRetrying, j2, j.DueAt.Add(1)))
	tr.everywhere(func() { tr.states("retrying due", "completed") })
	if j := tr.find(1); j.Failures != 2 {
		t.Errorf("%+v", j)
	}
}

// A record that was made from events alone gets its keys with its submission.
func TestKeysOfLateSubmissions(t *testing.T) {
	t.Parallel()
	tr := openTemp(t, Options{Registry: termTypes})
	a, b := keyed(1, "email", "k", 3), keyed(2, "email", "k", 3)
	a.Terms.UniqueKey = "u"
	tr.folds(nil, event(jobs.KindStarted, a, 1))
	tr.receives(a, b)
	tr.states("processing turn", "pending held")
	tr.endsRebuild()
	tr.receives(unique(3, "u"))
	tr.everywhere(func() { tr.states("processing turn", "pending held", "failed") })

	// The same for one that waits for its second attempt.
	c := keyed(4, "email", "c", 3)
	tr.must(tr.db.Update(func(tx *boltfile.Tx) error { return tx.Bucket(bucketMeta).Put(keyRebuild, []byte{1}) }))
	tr.folds(nil, event(jobs.KindRetrying, c, 1))
	tr.receives(c)
	if got := tr.state(4); got != "retrying due" {
		t.Errorf("%q", got)
	}
	tr.verify()
}

// Whoever loses a job to an end that is known from elsewhere passes its turn on.
func TestSeedEndsATurn(t *testing.T) {
	t.Parallel()
	tr := openTemp(t, Options{Registry: termTypes})
	tr.receives(keyed(1, "email", "k", 3), keyed(2, "email", "k", 3))
	ended := tr.find(1).Clone()
	ended.Run++
	ended.Cancel(epoch, "")
	ended.Slot = false
	tr.must(tr.Seed(ended))
	tr.everywhere(func() { tr.states("cancelled", "pending due turn") })
}
