package client

import (
	"context"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/api"
)

// beat renews the leases of all tasks, three times while each lasts, until the life of the
// worker ends.
func (w *worker) beat() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(time.Until(w.nextBeat()))
		select {
		case <-timer.C:
		case <-w.news:
		case <-w.sooner:
			continue
		case <-w.life.Done():
			return
		}
		tokens, span := w.living()
		if len(tokens) == 0 {
			continue
		}
		sent := time.Now()
		if b, err := w.sendBeat(tokens, span/3); err == nil {
			w.renewed(tokens, sent, &b)
			continue
		}
		select { // soon again, since some leases may be about to end
		case <-time.After(min(span/20, time.Second)):
		case <-w.life.Done():
		}
	}
}

// nextBeat is when a beat is due.
func (w *worker) nextBeat() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.due = time.Now().Add(jobs.MaxLease)
	for _, t := range w.tasks {
		if at := t.due(); at.Before(w.due) {
			w.due = at
		}
	}
	return w.due
}

// sendBeat sends a beat, as soon as there is a connection.
func (w *worker) sendBeat(tokens []string, patience time.Duration) (b jobs.Beats, err error) {
	ctx, cancel := context.WithTimeoutCause(w.life, patience, errNoAnswer)
	defer cancel()
	if err := w.c.connected(ctx); err != nil {
		return b, err
	}
	answer, err := w.c.try(ctx, "worker.beat", nil, api.AppendBeat(nil, w.o.Name, tokens), patience)
	if err != nil {
		return b, err
	}
	return api.ReadBeats(answer)
}

// renew renews leases of which no task has begun.
func (w *worker) renew(leases []jobs.Lease) (jobs.Beats, error) {
	tokens := make([]string, len(leases))
	for i := range leases {
		tokens[i] = leases[i].Token
	}
	return w.sendBeat(tokens, leases[0].Span/3)
}

// living are the tokens of all tasks, and the shortest span of their leases.
func (w *worker) living() (tokens []string, span time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	span = jobs.MaxLease
	for token, t := range w.tasks {
		tokens = append(tokens, token)
		span = min(span, t.lease.Span)
	}
	return tokens, span
}

// renewed takes the answer to a beat for these leases.
func (w *worker) renewed(tokens []string, sent time.Time, b *jobs.Beats) {
	w.mu.Lock()
	defer w.mu.Unlock()
	lost := make(map[string]bool, len(b.Lost))
	for _, token := range b.Lost {
		lost[token] = true
	}
	for _, token := range tokens {
		t := w.tasks[token]
		if t == nil {
			continue
		}
		reason, cancelled := b.Cancelled[token]
		switch {
		case cancelled:
			t.revoke(causeOf(reason))
		case lost[token]:
			t.revoke(t.whyLost())
		default:
			t.lasts(sent)
		}
	}
}
