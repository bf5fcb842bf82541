package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"jobstream/cmd/jobstream/internal/history"
)

// The clients of a test bed. They are good ones: whatever is refused with a 503 or not
// answered at all they ask another node for, with the same key if it has one, as a balancer
// would that sends each request anywhere. They write down all that they ask and hear.

// crowd are clients at work.
type crowd struct {
	bed      *bed
	rng      func(client int) *rand.Rand
	wg       sync.WaitGroup
	cancel   context.CancelFunc
	accepted atomic.Int64
	bare     bool
}

// patient is how long a client waits for an answer. A node that is frozen gives none.
const patient = 3 * time.Second

// load lets clients loose until its stop is called. With bare ones, some publish bare
// messages, whose acknowledgement is a promise of the streams only.
func (b *bed) load(bare bool) *crowd {
	b.serving()
	b.listen()
	seed := b.rng.Uint64()
	ctx, cancel := context.WithCancel(b.t.Context())
	c := &crowd{bed: b, cancel: cancel, bare: bare, rng: func(i int) *rand.Rand { return rand.New(rand.NewPCG(seed, uint64(i))) }}
	for i := range 6 {
		l := c.client(ctx, i)
		all := []func(){l.plain, l.plain, l.plain, l.keyed, l.keyed, l.repeated, l.unique, l.unique, l.cancelled, l.retried, l.paused, l.batch, l.delayed, l.capped}
		c.wg.Go(func() {
			for ctx.Err() == nil {
				all[l.rng.IntN(len(all))]()
			}
		})
	}
	for i := range 2 {
		l := c.client(ctx, 10+i)
		c.wg.Go(l.overNATS)
	}
	many, keeper := c.client(ctx, 20), c.client(ctx, 21)
	keeper.schedules()
	c.wg.Go(func() {
		for ctx.Err() == nil {
			many.burst()
		}
	})
	c.wg.Go(keeper.pauses)
	return c
}

func (c *crowd) stop() {
	c.cancel()
	c.wg.Wait()
}

// more waits until so many more submissions are accepted.
func (c *crowd) more(n int64) {
	c.bed.t.Helper()
	want := c.accepted.Load() + n
	waitUntil(c.bed.t, func() bool { return c.accepted.Load() >= want })
}

// client is one of them.
type client struct {
	*crowd
	ctx  context.Context //nolint:containedctx // of all that it does
	http *http.Client
	rng  *rand.Rand
	at   int                    // the node that it asks
	shun map[int]history.Moment // nodes that it does not ask for a while
}

func (c *crowd) client(ctx context.Context, i int) *client {
	l := &client{crowd: c, ctx: ctx, rng: c.rng(i), shun: make(map[int]history.Moment)}
	l.elsewhere()
	l.http = &http.Client{Transport: &http.Transport{}, Timeout: patient}
	context.AfterFunc(ctx, l.http.CloseIdleConnections)
	return l
}

// reply is what a job or a refusal says.
type bedReply struct {
	ID     string
	Status any    // of a job its name, of a problem a number
	JobID  string `json:"job_id"`
	Run    int
	Detail string // of a problem
}

// once sends a request to a node. What comes of it is added to a, and written down.
func (l *client) once(m *member, a history.Ask, method, path, body string) (history.Ask, bedReply) {
	a, r, _ := l.send(m, a, method, path, body)
	l.seen(a) // without an answer it may have happened, too
	return a, r
}

// send sends a request to a node. What comes of it is added to a.
func (l *client) send(m *member, a history.Ask, method, path, body string) (history.Ask, bedReply, []byte) {
	var r bedReply
	a.Door, a.Begin, a.End = m.name, history.Now(), history.Never
	if a.NotBefore > 0 {
		a.NotBefore = a.Begin.Add(shortDelay)
	}
	req, err := http.NewRequestWithContext(l.ctx, method, m.rest+path, strings.NewReader(body))
	if err != nil {
		return a, r, nil
	}
	if a.Idempotent != "" {
		req.Header.Set("Idempotency-Key", a.Idempotent)
	}
	resp, err := l.http.Do(req)
	if err != nil {
		return a, r, nil
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return a, r, nil
	}
	l.hear(&a, &r, resp.StatusCode, answer)
	return a, r, answer
}

// hear reads an answer.
func (l *client) hear(a *history.Ask, r *bedReply, code int, answer []byte) {
	r.Run = 1
	if code/100 == 2 && (a.What == history.Pause || a.What == history.Resume || a.What == history.Paused) {
		var typ struct{ Paused bool }
		if err := json.Unmarshal(answer, &typ); err != nil {
			l.bed.t.Errorf("%s answers %d %s: %v", a.Door, code, answer, err)
		}
		a.Code, a.End, a.Yes = code, history.Now(), typ.Paused
		return
	}
	if err := json.Unmarshal(answer, r); err != nil { // it came as a whole
		l.bed.t.Errorf("%s answers %d %s: %v", a.Door, code, answer, err)
	}
	a.Code, a.End = code, history.Now()
	if code/100 == 2 {
		a.Job, a.Run = r.ID, r.Run
		a.Status, _ = r.Status.(string)
		return
	}
	a.Job = r.JobID
	a.Unsure = code == http.StatusServiceUnavailable && !strings.Contains(r.Detail, "lead")
}

func (l *client) seen(a history.Ask) {
	l.bed.seen.Asked(a)
	if a.Name == pausedType {
		l.bed.steps.Add(1)
	}
	if a.What == history.Submit && a.Code == http.StatusAccepted && !a.Bare {
		l.accepted.Add(1)
	}
}

// ask asks node after node, each request any of them, until one answers, if the same request may be made again.
func (l *client) ask(a history.Ask, method, path, body string, again bool) (history.Ask, bedReply) {
	for {
		l.elsewhere()
		got, r := l.once(l.bed.nodes[l.at], a, method, path, body)
		switch {
		case got.Unsure && !again: // it may have been done
			l.next()
			return got, r
		case got.Code == http.StatusServiceUnavailable || got.Code == http.StatusTooManyRequests:
		case got.Code == 0 && again:
		case got.Code == 0:
			l.next()
			return got, r
		default:
			return got, r
		}
		l.next()
		select {
		case <-time.After(50 * time.Millisecond): // a good client does not insist
		case <-l.ctx.Done():
			return got, r
		}
	}
}

// next does not ask this node for a while.
func (l *client) next() {
	l.shun[l.at] = history.Now().Add(time.Second)
	l.elsewhere()
}

// elsewhere chooses a node: any of those that it does not shun.
func (l *client) elsewhere() {
	var good []int
	for i := range l.bed.nodes {
		if l.shun[i] < history.Now() {
			good = append(good, i)
		}
	}
	if len(good) == 0 {
		l.at = l.rng.IntN(len(l.bed.nodes))
		return
	}
	l.at = good[l.rng.IntN(len(good))]
}

// submit submits a job; more are further fields. ok says that it was accepted.
func (l *client) submit(typ, more string, a history.Ask) (id string, ok bool) {
	a.What = history.Submit
	if a.Name == "" {
		a.Name = fmt.Sprintf("n%d", l.bed.names.Add(1))
	}
	body := fmt.Sprintf(`{"type":%q,"payload":{"n":%q}%s}`, typ, a.Name, more)
	got, _ := l.ask(a, http.MethodPost, "/jobs", body, a.Idempotent != "" || a.Unique != "")
	if got.Code != http.StatusAccepted {
		return "", false
	}
	switch l.rng.IntN(8) { // it is found at once
	case 0:
		l.everywhere(got.Job)
	case 1:
		l.read(got.Job, "")
	}
	return got.Job, true
}

func (l *client) read(id, query string) string {
	a, _ := l.ask(history.Ask{What: history.Read, Job: id}, http.MethodGet, "/jobs/"+id+query, "", true)
	return a.Status
}

func (l *client) plain() {
	typ := [...]string{"quick", "quick", "quick", "flaky", "doomed", "slow"}[l.rng.IntN(6)]
	l.submit(typ, fmt.Sprintf(`,"priority":%d`, 1+l.rng.IntN(5)), history.Ask{})
}

func (l *client) keyed() {
	l.submit("keyed", fmt.Sprintf(`,"concurrency_key":"tenant-%d"`, l.rng.IntN(3)), history.Ask{})
}

// repeated uses an idempotency key that several clients use at the time.
func (l *client) repeated() {
	key := fmt.Sprintf("i%d", l.bed.names.Load()/150)
	l.submit("quick", "", history.Ask{Name: key, Idempotent: key})
}

// unique uses a unique key that several clients use at the time, and looks for its end.
func (l *client) unique() {
	key := fmt.Sprintf("u%d", l.bed.names.Load()/400)
	typ := [...]string{"quick", "slow"}[l.rng.IntN(2)]
	if id, ok := l.submit(typ, fmt.Sprintf(`,"unique_key":%q`, key), history.Ask{Unique: key}); ok && l.rng.IntN(2) == 0 {
		l.read(id, "?wait=2s")
	}
}

// cancelled cancels a job at some moment of its life.
func (l *client) cancelled() {
	id, ok := l.submit([...]string{"slow", "flaky"}[l.rng.IntN(2)], "", history.Ask{})
	if !ok {
		return
	}
	select {
	case <-time.After(time.Duration(l.rng.IntN(300)) * time.Millisecond): // so that it may have begun
	case <-l.ctx.Done():
		return
	}
	l.ask(history.Ask{What: history.Cancel, Job: id}, http.MethodPost, "/jobs/"+id+"/cancel", "", true)
}

// retried lets a job that has failed run again.
func (l *client) retried() {
	if id, ok := l.submit("second", "", history.Ask{}); ok && l.read(id, "?wait=2s") == "failed" {
		l.ask(history.Ask{What: history.Retry, Job: id}, http.MethodPost, "/jobs/"+id+"/retry", "", true)
	}
}

// tick is a schedule that fires all the time.
const tick = "tick"

// schedules makes it, if there is none yet.
func (l *client) schedules() {
	body := fmt.Sprintf(`{"name":%q,"every":"1s","type":"quick","overlap":"queue"}`, tick)
	if got, _ := l.ask(history.Ask{What: "schedule"}, http.MethodPost, "/schedules", body, true); got.Code == http.StatusCreated || got.Code == http.StatusConflict {
		l.bed.seen.Periodic(tick, time.Second)
	}
}

const pausedType = "parked"

// enoughSteps are so many that those which are on their way then can be judged as well.
const enoughSteps = history.MostSteps - 200

// paused reads whether a type is paused, which it is now and then.
func (l *client) paused() {
	if l.rng.IntN(4) > 0 || l.bed.steps.Load() > enoughSteps {
		return // many reads take long to judge
	}
	l.ask(history.Ask{What: history.Paused, Name: pausedType}, http.MethodGet, "/types/"+pausedType, "", true)
}

// pauses pauses a type and lets it go on, again and again, until there is enough to judge.
func (l *client) pauses() {
	for n := 0; l.ctx.Err() == nil && l.bed.steps.Load() <= enoughSteps; n++ {
		l.submit(pausedType, "", history.Ask{})
		what, path := history.Pause, "/pause"
		if n%2 == 1 {
			what, path = history.Resume, "/resume"
		}
		got, _ := l.ask(history.Ask{What: what, Name: pausedType}, http.MethodPost, "/types/"+pausedType+path, "", false)
		d := time.Duration(100+l.rng.IntN(300)) * time.Millisecond
		if got.Code/100 != 2 {
			d += time.Second // each one that may have been done makes it harder to judge
		}
		select {
		case <-time.After(d): // others read it meanwhile
		case <-l.ctx.Done():
		}
	}
}

// overNATS submits through the NATS ports.
func (l *client) overNATS() {
	for l.ctx.Err() == nil {
		m := l.bed.nodes[l.at]
		nc, err := nats.Connect(m.nats, nats.NoReconnect(), nats.Timeout(patient))
		if err != nil {
			l.next()
			select {
			case <-time.After(50 * time.Millisecond): // a good client does not insist
			case <-l.ctx.Done():
			}
			continue
		}
		for l.ctx.Err() == nil && l.byMessage(nc, m.name) {
		}
		nc.Close()
		l.next()
	}
}

// byMessage submits one job. It says whether the connection is worth to be kept.
func (l *client) byMessage(nc *nats.Conn, door string) bool {
	a := history.Ask{What: history.Submit, Door: door, Name: fmt.Sprintf("n%d", l.bed.names.Add(1)), End: history.Never}
	ctx, cancel := context.WithTimeout(l.ctx, patient)
	defer cancel()
	if l.bare && l.rng.IntN(2) == 0 {
		msg := nats.NewMsg("jobs.quick." + string('1'+rune(l.rng.IntN(5))))
		msg.Data = fmt.Appendf(nil, `{"n":%q}`, a.Name)
		id := uuid.NewString()
		msg.Header.Set("Job-Id", id)
		a.Bare, a.Begin = true, history.Now()
		answer, err := nc.RequestMsgWithContext(ctx, msg)
		if err == nil && !bytes.Contains(answer.Data, []byte(`"error"`)) {
			a.Code, a.Job, a.End = http.StatusAccepted, id, history.Now()
		}
		l.seen(a)
		return err == nil
	}
	typ := [...]string{"quick", "slow"}[l.rng.IntN(2)]
	a.Begin = history.Now()
	answer, err := nc.RequestWithContext(ctx, "jobstream.submit", fmt.Appendf(nil, `{"type":%q,"payload":{"n":%q}}`, typ, a.Name))
	var r bedReply
	if err == nil {
		code := http.StatusAccepted
		if said := answer.Header.Get("Nats-Service-Error-Code"); said != "" {
			_, _ = fmt.Sscan(said, &code)
		}
		l.hear(&a, &r, code, answer.Data)
	}
	l.seen(a)
	return err == nil && a.Code != http.StatusServiceUnavailable
}
