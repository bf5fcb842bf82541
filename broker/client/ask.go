package client

import (
	"context"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"jobstream/jobs"
	"jobstream/jobs/api"
)

// askTime is how long the server keeps most asks for which it has no job.
const askTime = 30 * time.Second

// ask is a request for jobs. Unlike other requests it has a subscription of its own: if its
// answer comes when nobody waits any more, the jobs in it are given back. Otherwise they
// would wait for the end of their leases.
type ask struct {
	w   *worker
	got chan *nats.Msg

	mu   sync.Mutex
	over bool // nobody waits
}

// answered takes the answer.
func (a *ask) answered(m *nats.Msg) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.over {
		a.got <- m
		return
	}
	a.late(m)
}

// late gives back what has come too late.
func (a *ask) late(m *nats.Msg) {
	if leases, err := leasesOf(m); err == nil {
		go a.w.giveBack(leases)
	}
}

// leave ends the wait for the answer.
func (a *ask) leave() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.over = true
	select {
	case m := <-a.got:
		a.late(m)
	default:
	}
}

func leasesOf(m *nats.Msg) ([]jobs.Lease, error) {
	body, err := answerOf(m)
	if err != nil {
		return nil, err
	}
	return api.ReadLeases(body)
}

// next asks once. wait is how long the server keeps the ask if it has no job.
func (w *worker) next(ctx context.Context, most int, wait time.Duration) ([]jobs.Lease, error) {
	body := api.AppendAsk(nil, &jobs.Ask{Types: w.types, Max: most, Wait: wait, Worker: w.o.Name})
	if w.c.way != nil {
		return w.nextOver(ctx, body)
	}
	dropped := w.c.nc.StatusChanged(nats.RECONNECTING, nats.CLOSED)
	defer w.c.nc.RemoveStatusListener(dropped)
	if err := w.c.closed(); err != nil {
		return nil, err
	}
	if !w.c.nc.IsConnected() {
		return nil, errAway
	}
	a := &ask{w: w, got: make(chan *nats.Msg, 1)}
	reply := w.c.nc.NewInbox()
	sub, err := w.c.nc.Subscribe(reply, a.answered)
	if err != nil {
		return nil, err
	}
	if err := sub.AutoUnsubscribe(1); err != nil {
		return nil, err
	}
	if err := w.c.nc.PublishRequest(subject("worker.next"), reply, body); err != nil {
		return nil, err
	}
	timer := time.NewTimer(askTime + patience)
	defer timer.Stop()
	select {
	case m := <-a.got:
		return leasesOf(m)
	case <-dropped:
		err = errDropped
	case <-timer.C:
		err = errNoAnswer
	case <-ctx.Done():
		err = context.Cause(ctx)
		w.withdraw()
	}
	a.leave()
	time.AfterFunc(2*time.Minute, func() { _ = sub.Unsubscribe() }) // a server that had stopped may still answer
	return nil, err
}

// nextOver is next without NATS. The end of its context withdraws an ask there. An answer
// that was on its way then is given back.
func (w *worker) nextOver(ctx context.Context, body []byte) ([]jobs.Lease, error) {
	answer, err := w.c.try(ctx, "worker.next", nil, body, askTime+patience)
	if err != nil {
		return nil, err
	}
	leases, err := api.ReadLeases(answer)
	if ctx.Err() == nil || err != nil {
		return leases, err
	}
	w.giveBack(leases)
	return nil, context.Cause(ctx)
}

// withdraw ends the ask of a worker that stops. Else the server would give it what the
// worker returns. The server forgets an ask with its connection only; one that is not the
// client's own stays as it is.
func (w *worker) withdraw() {
	if !w.c.own {
		return
	}
	if err := w.c.nc.ForceReconnect(); err != nil {
		w.log.Debug("the last ask for jobs stays at the server", "worker", w.o.Name, "error", err)
	}
}

// giveBack returns jobs that were not begun, if the server can be reached.
func (w *worker) giveBack(leases []jobs.Lease) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.life), reportTime)
	defer cancel()
	for i := range leases {
		body := api.AppendGiveBack(nil, leases[i].Token, &jobs.GiveBack{Reason: "its worker could not begin it"})
		if _, err := w.c.call(ctx, "worker.release", nil, body, patience); err != nil {
			w.log.Warn("a job could not be given back; its lease ends", leases[i].Job.LogAttr(), "error", err)
		}
	}
}
