package status

import (
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"

	"jobstream/jobs"
	"jobstream/status/boltfile"
)

// Whatever always breaks the fold is set aside, so that one message cannot stop the
// server. Folding the halves of its batch finds it, a line in a file describes it, and
// the position moves past it. A submission becomes a job that has failed and says so.

// asideName is the file of all that was set aside, in the tracker's folder. Its size is
// bounded by maxAside. One older file of that size is kept.
const (
	asideName   = "set-aside.jsonl"
	maxAside    = 1 << 20
	asideClip   = 16 << 10 // of one text in it
	asideTries  = 2        // of a message by itself, before it is set aside
	asideReason = "jobstream could not take this in, which is a bug in it: "
)

// foldError is an error of a fold before its commit. The disk has no part in it, so the
// same batch fails again.
type foldError struct{ err error }

func (e *foldError) Error() string { return e.err.Error() }
func (e *foldError) Unwrap() error { return e.err }

// size is the number of messages and events in b.
func (b *batch) size() int { return len(b.messages) + len(b.events) }

// halves are two batches that do the same as b, one after the other. The position in
// STATUS moves with the second one.
func (b *batch) halves() (first, second batch) {
	n := b.size() / 2
	second = batch{jobs: b.jobs, status: b.status}
	first.messages, second.messages, n = cut(b.messages, n)
	first.events, second.events, _ = cut(b.events, n)
	if k := len(first.messages); k > 0 {
		first.jobs = first.messages[k-1].Seq
	}
	return first, second
}

func cut[T any](list []T, n int) (head, tail []T, left int) {
	k := min(n, len(list))
	return list[:k], list[k:], n - k
}

// isolate folds a batch that failed with err, without the part that breaks it. It
// returns an error if no part does, or if nothing can be committed.
func (p *Projector) isolate(b *batch, err error, publish func(*jobs.Commit)) error {
	if b.size() == 0 {
		return err
	}
	if _, none := p.foldOnce(&batch{}, publish); none != nil {
		return err // it has nothing to do with what is in the batch
	}
	return p.pieces(b, publish)
}

// pieces folds the halves of a batch, and theirs. It sets aside what fails by itself.
func (p *Projector) pieces(b *batch, publish func(*jobs.Commit)) error {
	for try := 1; ; try++ {
		poison, err := p.foldOnce(b, publish)
		switch {
		case !poison:
			return err
		case b.size() == 0:
			return err
		case b.size() == 1 && try >= asideTries:
			return p.setAside(b, err, publish)
		case b.size() > 1:
			first, second := b.halves()
			if err := p.pieces(&first, publish); err != nil {
				return err
			}
			return p.pieces(&second, publish)
		}
	}
}

// foldOnce folds all of a batch and publishes the commits. poison says that the same
// batch would fail again.
func (p *Projector) foldOnce(b *batch, publish func(*jobs.Commit)) (poison bool, err error) {
	for part := *b; ; {
		c, rest, err := p.fold(&part, p.input())
		if err != nil {
			p.bits.Reset()
			var broke *foldError
			return errors.As(err, &broke), err
		}
		publish(c)
		if len(rest) == 0 {
			return false, nil
		}
		part = batch{events: rest, status: b.status}
	}
}

// setAside moves past the only message or event in b.
func (p *Projector) setAside(b *batch, why error, publish func(*jobs.Commit)) error {
	line := aside{At: jobs.Now().String(), Reason: why.Error()}
	var about slog.Attr
	var broke *boltfile.Panic
	if errors.As(why, &broke) {
		line.Stack = broke.Stack
	}
	instead := make([]batch, 0, 4)
	switch {
	case len(b.messages) > 0:
		m := &b.messages[0]
		line.ofMessage(m)
		about = (&jobs.Job{ID: m.ID, Type: m.Type, Terms: m.Terms}).LogAttr()
		instead = append(instead, failedJobs(&b.messages[0], why)...)
	case len(b.events) > 0:
		e := &b.events[0]
		line.ofEvent(e)
		about = jobs.LogAttr(e.ID, e.Type, e.Attempt, jobs.Trace{})
		if b.events[0].Kind.EndsAttempt() {
			instead = append(instead, failure(&b.events[0], why), batch{outcomes: b.events})
		}
	}
	file, err := p.appendAside(&line)
	p.log.Error("something that jobstream cannot take in was set aside; this is a bug in jobstream, please report it",
		about, "stream", line.Stream, "seq", line.Seq, "reason", line.Reason, "file", file, "error", err, "stack", line.Stack)
	for _, other := range append(instead, batch{}) {
		other.jobs, other.status = b.jobs, b.status
		var poison bool
		if poison, err = p.foldOnce(&other, publish); !poison {
			return err
		}
	}
	return err
}

// failedJobs are replacements for a message that cannot be folded, to be tried in order.
// Each makes a job that has failed, with as much of the message as possible.
func failedJobs(m *jobs.Message, why error) (instead []batch) {
	failed := jobs.Message{
		Seq: m.Seq, At: m.At, ID: m.ID, Type: m.Type, Priority: m.Priority, Payload: m.Payload,
		Problem: asideReason + clipTo(why.Error(), 1000),
	}
	bare := failed
	bare.Payload = nil
	another := bare // its id may be what cannot be looked up
	another.ID = jobs.DerivedID(m.Seq, m.At)
	for _, m := range []jobs.Message{failed, bare, another} {
		instead = append(instead, batch{messages: []jobs.Message{m}})
	}
	return instead
}

// failure replaces the end of an attempt that cannot be folded. The attempt has failed
// for good.
func failure(e *jobs.Event, why error) batch {
	return batch{outcomes: []jobs.Event{*e}, events: []jobs.Event{{
		Kind: jobs.KindFailed, ID: e.ID, Seq: e.Seq, Type: e.Type, Priority: e.Priority, CreatedAt: e.CreatedAt,
		MaxAttempts: e.MaxAttempts, Run: e.Run, Attempt: e.Attempt, At: e.At, StartedAt: e.StartedAt, Node: e.Node,
		Error: asideReason + clipTo(why.Error(), 1000),
	}}}
}

// aside is a line of the file with what was set aside.
type aside struct {
	At       string `json:"at"`
	Stream   string `json:"stream"`
	Seq      uint64 `json:"seq"` // in JOBS, also of an event
	Job      string `json:"job_id"`
	Type     string `json:"type"`
	Priority int    `json:"priority"`
	Kind     string `json:"kind"`
	Run      int    `json:"run,omitempty"`
	Attempt  int    `json:"attempt,omitempty"`
	Error    string `json:"error,omitempty"`
	Payload  string `json:"payload,omitempty"`
	Result   string `json:"result,omitempty"`
	Reason   string `json:"reason"`
	Stack    string `json:"stack,omitempty"`
}

func (a *aside) ofMessage(m *jobs.Message) {
	a.Stream, a.Seq, a.Job, a.Type, a.Priority = "JOBS", m.Seq, m.ID.String(), m.Type, int(m.Priority)
	a.Kind, a.Payload, a.Error = jobs.KindSubmitted.String(), clipTo(string(m.Payload), asideClip), m.Problem
}

func (a *aside) ofEvent(e *jobs.Event) {
	a.Stream, a.Seq, a.Job, a.Type, a.Priority = "STATUS", e.Seq, e.ID.String(), e.Type, int(e.Priority)
	a.Kind, a.Run, a.Attempt = e.Kind.String(), e.Run, e.Attempt
	a.Error, a.Result = clipTo(e.Error, asideClip), clipTo(string(e.Result), asideClip)
}

func clipTo(s string, n int) string {
	if len(s) > n {
		return s[:n] + "…"
	}
	return s
}

// appendAside appends a line to the file of what was set aside, and syncs it.
func (p *Projector) appendAside(line *aside) (path string, err error) {
	path = filepath.Join(filepath.Dir(p.path), asideName)
	if info, err := os.Stat(path); err == nil && info.Size() > maxAside {
		if err := os.Rename(path, path+".old"); err != nil {
			return path, err
		}
	}
	body, err := json.Marshal(line)
	if err != nil {
		return path, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return path, err
	}
	_, err = f.Write(append(body, '\n'))
	return path, errors.Join(err, f.Sync(), f.Close())
}
