package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"jobstream/jobs"
	"jobstream/jobs/schedule"
	"jobstream/status/boltfile"
)

// step is what one transaction was made of.
type step struct {
	in       input
	batch    *batch
	commands []jobs.Command // instead of batch
}

// makes makes a step's transaction.
func (tr *tracker) makes(s step) (c *jobs.Commit, answers []answer, err error) {
	s.in.gone = &tr.gone
	if s.batch != nil {
		c, _, err = tr.fold(s.batch, s.in)
		return c, nil, err
	}
	tasks := make([]*task, len(s.commands))
	for i := range tasks {
		tasks[i] = &task{ctx: context.Background(), command: s.commands[i]}
	}
	answers, c, err = tr.doAll(tasks, s.in)
	return c, answers, err
}

// does makes a step's transaction, and says what came of it.
func (tr *tracker) does(s step) (outcome string) {
	tr.t.Helper()
	c, answers, err := tr.makes(s)
	if err != nil {
		tr.t.Fatalf("%+v: %v", s, err)
	}
	outcome = fmt.Sprintf("commit %d at %v:", c.Number, c.At)
	for _, ch := range c.Changes {
		outcome += " " + stateOf(ch.Before) + ">" + stateOf(ch.After)
	}
	for _, a := range answers {
		outcome += fmt.Sprintf("; %d changed, %d refused, %d known, %d removed, %d bytes, %v",
			len(a.effect.Changed), len(a.effect.Refused), len(a.effect.Known), a.effect.Removed, a.effect.Freed, a.err)
	}
	return outcome
}

func stateOf(j *jobs.Job) string {
	if j == nil {
		return "none"
	}
	return fmt.Sprintf("%d.%d.%s.%d", j.Key, j.Run, j.Status, j.Place)
}

// contents are everything in the file.
func (tr *tracker) contents() map[string]string {
	tr.t.Helper()
	all := make(map[string]string)
	tr.must(tr.db.View(func(tx *boltfile.Tx) error {
		return tx.ForEach(func(name []byte, b boltfile.Bucket) error {
			all[string(name)+" has the sequence"] = fmt.Sprint(b.Sequence())
			return b.ForEach(func(k, v []byte) error {
				all[fmt.Sprintf("%s %q", name, k)] = fmt.Sprintf("%q", v)
				return nil
			})
		})
	}))
	return all
}

// written is a command that was written down and read again.
func written(t tb, c jobs.Command) jobs.Command {
	t.Helper()
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatalf("%T: %v", c, err)
	}
	again := reflect.New(reflect.TypeOf(c))
	if err := json.Unmarshal(b, again.Interface()); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	return again.Elem().Interface().(jobs.Command)
}

// replayed is a step as a second tracker gets it: what is in it shares nothing with the
// first.
func (s step) replayed(t tb) step {
	t.Helper()
	if s.batch != nil {
		b := batch{jobs: s.batch.jobs, status: s.batch.status}
		for _, m := range s.batch.messages {
			m.Payload = slices.Clone(m.Payload)
			b.messages = append(b.messages, m)
		}
		b.events = slices.Clone(s.batch.events)
		s.batch = &b
	}
	s.commands = slices.Clone(s.commands)
	for i, c := range s.commands {
		s.commands[i] = written(t, c)
	}
	return s
}

// past draws steps by what a tracker has come to.
type past struct {
	*tracker
	rt    *rapid.T
	now   jobs.Time
	seq   uint64 // of JOBS
	drawn uint64 // messages
	all   []*jobs.Job
	sent  []jobs.Message
}

func (p *past) draw() step {
	p.all = p.tracker.all(jobs.Filter{Callbacks: true})
	p.now = p.now.Add(time.Duration(rapid.SampledFrom([]int64{1, 1e6, 1e9, 30e9, 13 * 3600e9}).Draw(p.rt, "later")))
	s := step{in: input{now: p.now, registry: termTypes}}
	s.in.webhooks = rapid.SampledFrom([]jobs.Webhooks{nil, {{URL: hookA, Types: []string{"email"}}, {URL: hookB, Statuses: []jobs.Status{jobs.Failed}}}}).Draw(p.rt, "webhooks")
	s.in.notified = rapid.Uint64Range(0, p.Number()).Draw(p.rt, "notified")
	s.in.outbox = rapid.Uint64Range(0, s.in.notified).Draw(p.rt, "outbox")
	if rapid.Bool().Draw(p.rt, "commands") {
		for range rapid.IntRange(1, 3).Draw(p.rt, "n") {
			name := rapid.SampledFrom(slices.Sorted(maps.Keys(drawCommand))).Draw(p.rt, "command")
			c := drawCommand[name](p, jobs.Stamp{Actor: name, At: p.now.Add(-time.Duration(rapid.Int64Range(0, 1e9).Draw(p.rt, "ago")))})
			s.commands = append(s.commands, c)
		}
		return s
	}
	pos := p.Positions()
	s.batch = &batch{jobs: pos.Jobs, status: pos.Status}
	for range rapid.IntRange(0, 4).Draw(p.rt, "messages") {
		s.batch.messages = append(s.batch.messages, p.drawSent())
		s.batch.jobs = p.seq
	}
	for range rapid.IntRange(0, 4).Draw(p.rt, "events") {
		if j := p.drawJob(); j != nil {
			s.batch.events = append(s.batch.events, p.drawEvent(j))
			s.batch.status++
		}
	}
	return s
}

// drawJob is one of the latest jobs, nil if there is none.
func (p *past) drawJob() *jobs.Job {
	if len(p.all) == 0 {
		return nil
	}
	return p.all[len(p.all)-rapid.IntRange(1, min(len(p.all), 12)).Draw(p.rt, "job")]
}

func (p *past) drawKeys() (keys []uint64) {
	for range rapid.IntRange(1, 4).Draw(p.rt, "keys") {
		if j := p.drawJob(); j != nil && rapid.IntRange(0, 5).Draw(p.rt, "there") > 0 {
			keys = append(keys, j.Key)
		} else {
			keys = append(keys, 1_000_000)
		}
	}
	return keys
}

func (p *past) drawMessage() *jobs.Message {
	p.drawn++
	m := &jobs.Message{
		ID: jobs.DerivedID(p.drawn, 1), RetryCount: -1,
		Type:     rapid.SampledFrom([]string{"email", "email", "export", "export", "unknown"}).Draw(p.rt, "type"),
		Priority: jobs.Priority(rapid.IntRange(1, 5).Draw(p.rt, "priority")),
		Payload:  payloads[rapid.IntRange(0, len(payloads)-1).Draw(p.rt, "payload")],
		Tags:     rapid.SampledFrom([][]string{nil, {"red"}, {"red", "blue"}}).Draw(p.rt, "tags"),
	}
	var t jobs.Terms
	t.UniqueKey = rapid.SampledFrom([]string{"", "", "u", "v"}).Draw(p.rt, "unique")
	t.ConcurrencyKey = rapid.SampledFrom([]string{"", "", "a", "b"}).Draw(p.rt, "keyed")
	if rapid.IntRange(0, 3).Draw(p.rt, "put off") == 0 {
		t.RunAt = p.now.Add(seconds(rapid.IntRange(0, 20).Draw(p.rt, "delay")))
	}
	if rapid.IntRange(0, 3).Draw(p.rt, "bounded") == 0 {
		t.ExpiresAt, t.Deadline = p.now.Add(seconds(30)), p.now.Add(seconds(60))
	}
	if rapid.IntRange(0, 3).Draw(p.rt, "fired") == 0 {
		t.Schedule, t.ScheduledFor = "s", p.now.Add(-seconds(1))
		m.ID = schedule.FireID(t.Schedule, t.ScheduledFor)
	}
	t.CallbackURL = rapid.SampledFrom([]string{"", "", hookA, hookB}).Draw(p.rt, "callback")
	if rapid.IntRange(0, 3).Draw(p.rt, "with an input") == 0 {
		t.Inputs = []jobs.Input{{Name: "file", ID: p.drawInput()}}
	}
	if !jobs.AllZero(jobs.TermsFields, &t) {
		m.Terms = &t
	}
	if rapid.IntRange(0, 3).Draw(p.rt, "with a token") == 0 {
		m.Token = p.drawToken()
	}
	return m
}

// drawInput is one of a few inputs, which may be there.
func (p *past) drawInput() jobs.ID {
	return jobs.DerivedID(rapid.Uint64Range(1, 3).Draw(p.rt, "input"), 4)
}

func (p *past) drawToken() *jobs.Token {
	return jobs.NewToken("test", rapid.SampledFrom([]string{"k", "l"}).Draw(p.rt, "token"),
		rapid.SampledFrom([][]byte{[]byte("x"), []byte("y")}).Draw(p.rt, "body"))
}

// drawSent is a message as JOBS has it: a new one, one that came before, or a job that
// is published again.
func (p *past) drawSent() jobs.Message {
	var m jobs.Message
	switch j := p.drawJob(); rapid.SampledFrom([]string{"new", "new", "again", "moved"}).Draw(p.rt, "message") {
	case "again":
		m = *p.drawMessage()
		if len(p.sent) > 0 {
			m = p.sent[rapid.IntRange(0, len(p.sent)-1).Draw(p.rt, "sent")]
		}
	case "moved":
		m = *p.drawMessage()
		if j != nil {
			m = *j.Again()
		}
	default:
		m = *p.drawMessage()
	}
	p.seq++
	m.Seq, m.At, m.Checked = p.seq, p.now, rapid.Bool().Draw(p.rt, "checked")
	p.sent = append(p.sent, m)
	return m
}

func (p *past) drawEvent(j *jobs.Job) jobs.Event {
	e := of(rapid.SampledFrom([]jobs.Kind{
		jobs.KindStarted, jobs.KindStarted, jobs.KindProgress, jobs.KindCompleted, jobs.KindRetrying, jobs.KindSnoozed, jobs.KindFailed, jobs.KindReleased,
	}).Draw(p.rt, "kind"), j, p.now)
	if rapid.IntRange(0, 9).Draw(p.rt, "unknown") == 0 {
		e.Seq, e.ID = p.seq+1000, jobs.DerivedID(p.seq+1000, 2)
	}
	if j.Status == jobs.Processing && e.Kind != jobs.KindStarted {
		e.StartedAt = j.StartedAt
	}
	return e
}

func (p *past) drawSpec() schedule.Spec {
	s, err := schedule.ParseSpec([]byte(rapid.SampledFrom([]string{
		`{"name":"s","every":"10s","type":"email","payload":{ "to" : "<x>" }}`,
		`{"name":"s","cron":"@daily","type":"email","tags":["red"],"paused":true}`,
		`{"name":"t","every":"10s","type":"export","timeout":5}`,
	}).Draw(p.rt, "spec")))
	p.must(err)
	return *s
}

var payloads = []json.RawMessage{nil, []byte(`{}`), []byte(`{ "a" : "<&>" }`), fmt.Appendf(nil, `"%2000d"`, 1)}

var sources = []schedule.Source{schedule.FromAPI, schedule.FromAPI, schedule.FromConfig}

// drawCommand has every command.
var drawCommand = map[string]func(p *past, by jobs.Stamp) jobs.Command{
	"cancel": func(p *past, by jobs.Stamp) jobs.Command {
		return jobs.Cancel{Stamp: by, Keys: p.drawKeys(), Reason: "by hand"}
	},
	"run now": func(p *past, by jobs.Stamp) jobs.Command { return jobs.RunNow{Stamp: by, Keys: p.drawKeys()} },
	"revise": func(p *past, by jobs.Stamp) jobs.Command {
		j := p.drawJob()
		if j == nil {
			j = &jobs.Job{Key: 1_000_000}
		}
		return drawRevision(p.rt, by, j)
	},
	"retry":  func(p *past, by jobs.Stamp) jobs.Command { return jobs.Retry{Stamp: by, Keys: p.drawKeys()} },
	"delete": func(p *past, by jobs.Stamp) jobs.Command { return jobs.Delete{Stamp: by, Keys: p.drawKeys()} },
	"expire": func(p *past, by jobs.Stamp) jobs.Command { return jobs.Expire{Stamp: by, Keys: p.drawKeys()} },
	"lose": func(p *past, by jobs.Stamp) jobs.Command {
		return jobs.Lose{Stamp: by, Keys: p.drawKeys(), MaxLost: rapid.IntRange(1, 3).Draw(p.rt, "max lost")}
	},
	"release": func(p *past, by jobs.Stamp) jobs.Command {
		return jobs.Release{Stamp: by, Keys: p.drawKeys(), Why: "stopped"}
	},
	"pause": func(p *past, by jobs.Stamp) jobs.Command {
		return jobs.Pause{Stamp: by, Type: "email", Paused: rapid.Bool().Draw(p.rt, "paused")}
	},
	"reserve": func(p *past, by jobs.Stamp) jobs.Command {
		var ms []*jobs.Message
		for range rapid.IntRange(1, 3).Draw(p.rt, "n") {
			m := p.drawMessage()
			m.Token = nil
			ms = append(ms, m)
		}
		var token *jobs.Token
		if rapid.Bool().Draw(p.rt, "with a token") {
			token = p.drawToken()
		}
		b := batchOf(token, ms...)
		for _, m := range ms {
			p.sent = append(p.sent, *m)
		}
		return jobs.Reserve{Stamp: by, Batch: b}
	},
	"forget tokens": func(p *past, by jobs.Stamp) jobs.Command {
		return jobs.ForgetTokens{Stamp: by, Before: by.At.Add(-jobs.TokenTime), Most: 2}
	},
	"disable": func(p *past, by jobs.Stamp) jobs.Command {
		return jobs.Disable{Stamp: by, URL: rapid.SampledFrom([]string{hookA, hookB}).Draw(p.rt, "url"), By: jobs.DerivedID(1, 1)}
	},
	"enable": func(p *past, by jobs.Stamp) jobs.Command {
		return jobs.Enable{Stamp: by, URL: rapid.SampledFrom([]string{hookA, hookB}).Draw(p.rt, "url")}
	},
	"keep an input": func(p *past, by jobs.Stamp) jobs.Command {
		return jobs.KeepInput{Stamp: by, ID: p.drawInput(), File: jobs.Artifact{Name: "a.csv", Size: 5, SHA256: "00"}}
	},
	"drop inputs": func(p *past, by jobs.Stamp) jobs.Command {
		return jobs.DropInputs{Stamp: by, Before: by.At.Add(-seconds(rapid.IntRange(0, 20).Draw(p.rt, "age"))), Most: 2}
	},
	"seed": func(p *past, by jobs.Stamp) jobs.Command {
		p.seq++
		j := jobs.NewJob(&jobs.Message{Seq: p.seq, At: p.now, ID: jobs.DerivedID(p.seq, 3), Type: "email", Priority: 3, Payload: []byte(`{ "a" : "<" }`)}, termTypes.Lookup("email"), true)
		if known := p.drawJob(); known != nil && known.Type != jobs.CallbackType && rapid.Bool().Draw(p.rt, "known") {
			j = known.Clone()
			j.Run += rapid.IntRange(0, 1).Draw(p.rt, "runs")
		}
		j.Cancel(p.now, "elsewhere")
		seed := &jobs.Job{} // as its notification has it
		p.must(seed.UnmarshalJSON(j.AppendJSON(nil)))
		return jobs.Seed{Stamp: by, Ended: []*jobs.Job{seed}}
	},
	"end rebuild": func(_ *past, by jobs.Stamp) jobs.Command { return jobs.EndRebuild{Stamp: by} },
	"rewind": func(p *past, by jobs.Stamp) jobs.Command {
		pos := p.Positions()
		pos.Status -= rapid.Uint64Range(0, pos.Status).Draw(p.rt, "back")
		return jobs.Rewind{Stamp: by, To: pos}
	},
	"put a schedule": func(p *past, by jobs.Stamp) jobs.Command {
		return schedule.Put{Stamp: by, Source: rapid.SampledFrom(sources).Draw(p.rt, "source"), Spec: p.drawSpec(), New: rapid.Bool().Draw(p.rt, "new")}
	},
	"pause a schedule": func(p *past, by jobs.Stamp) jobs.Command {
		return schedule.Pause{Stamp: by, Name: "s", Paused: rapid.Bool().Draw(p.rt, "paused")}
	},
	"delete a schedule": func(p *past, by jobs.Stamp) jobs.Command {
		return schedule.Delete{Stamp: by, Name: rapid.SampledFrom([]string{"s", "t"}).Draw(p.rt, "name"), Source: schedule.FromAPI}
	},
	"a schedule's time": func(p *past, by jobs.Stamp) jobs.Command {
		c := schedule.Dealt{Stamp: by, Name: "s", Time: by.At, Skipped: rapid.Bool().Draw(p.rt, "skipped")}
		if j := p.drawJob(); j != nil && !c.Skipped {
			c.Job, c.MadeAt = j.ID, j.CreatedAt
		}
		return c
	},
}

// The same messages, events and commands in the same transactions make the same file,
// also if the commands were written down in between, and the first tracker was opened
// anew now and then: nothing else decides.
func TestReplay(t *testing.T) {
	t.Parallel()
	dir, n := t.TempDir(), 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		first := open(rt, Options{Path: filepath.Join(dir, fmt.Sprint(n, "a")), Registry: termTypes})
		second := open(rt, Options{Path: filepath.Join(dir, fmt.Sprint(n, "b")), Registry: termTypes})
		defer func() {
			if err := errors.Join(first.Close(), second.Close()); err != nil {
				rt.Error(err)
			}
		}()
		p := &past{tracker: first, rt: rt, now: epoch}
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			if rapid.IntRange(0, 9).Draw(rt, "reopen") == 0 {
				gone := first.gone
				first.reopen()
				first.gone = gone
			}
			s := p.draw()
			again := s.replayed(rt)
			if a, b := first.does(s), second.does(again); a != b {
				rt.Fatalf("%+v\ncame to %s\nand then to %s", s, a, b)
			}
			a, b := first.contents(), second.contents()
			for k := range maps.Clone(a) {
				if a[k] != b[k] {
					rt.Fatalf("after %+v\n%s is %s\nand then %s", s, k, a[k], b[k])
				}
			}
			if len(a) != len(b) {
				rt.Fatalf("%d rows, and then %d", len(a), len(b))
			}
		}
	})
}
