package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"jobstream/cmd/jobstream/internal/history"
)

// What the clients of a test bed do at several doors, and what they hear there.

// cappedType has a bound over all nodes of perType jobs at a time.
const (
	cappedType = "capped"
	perType    = 2
)

// shortDelay is that of delayed jobs.
const shortDelay = 1500 * time.Millisecond

// everywhere reads a job at all nodes at once.
func (l *client) everywhere(id string) {
	var wg sync.WaitGroup
	for _, m := range l.bed.living() {
		wg.Go(func() {
			l.once(m, history.Ask{What: history.Read, Job: id}, http.MethodGet, "/jobs/"+id, "")
		})
	}
	wg.Wait()
}

func (l *client) capped() {
	l.submit(cappedType, "", history.Ask{})
}

// delayed submits a job for later.
func (l *client) delayed() {
	l.submit("quick", fmt.Sprintf(`,"delay":%q`, shortDelay), history.Ask{NotBefore: 1})
}

// batch submits several jobs as one.
func (l *client) batch() {
	n := 2 + l.rng.IntN(4)
	from := l.bed.names.Add(int64(n)) - int64(n)
	names, texts := make([]string, n), make([]string, n)
	for i := range n {
		names[i] = fmt.Sprintf("n%d", from+1+int64(i))
		texts[i] = fmt.Sprintf(`{"type":"quick","payload":{"n":%q}}`, names[i])
	}
	l.elsewhere()
	got, _, answer := l.send(l.bed.nodes[l.at], history.Ask{What: history.Submit}, http.MethodPost, "/jobs/batch", `{"jobs":[`+strings.Join(texts, ",")+`]}`)
	var made struct{ Jobs []bedReply }
	if got.Code == http.StatusAccepted && (json.Unmarshal(answer, &made) != nil || len(made.Jobs) != n) {
		l.bed.t.Errorf("a batch of %d jobs is answered with %s", n, answer)
		return
	}
	for i, name := range names {
		a := got
		a.Name, a.Batch = name, names[0]
		if len(made.Jobs) == n {
			a.Job, a.Run = made.Jobs[i].ID, 1
			a.Status, _ = made.Jobs[i].Status.(string)
		}
		l.seen(a)
	}
	if got.Code != http.StatusAccepted {
		l.next()
	}
}

// burst submits many jobs at one time to all nodes, with one unique key: a single one is
// accepted, and holds it until it is cancelled. Others have one idempotency key: all are
// told of one job.
func (l *client) burst() {
	const many = 50
	key := fmt.Sprintf("burst%d", l.bed.names.Add(1))
	living := l.bed.living()
	var mu sync.Mutex
	accepted, made := make(map[string]bool), make(map[string]bool)
	answered := 0
	var wg sync.WaitGroup
	for i := range many {
		m := living[i%len(living)]
		wg.Go(func() {
			name := fmt.Sprintf("n%d", l.bed.names.Add(1))
			a, _ := l.once(m, history.Ask{What: history.Submit, Name: name, Unique: key},
				http.MethodPost, "/jobs", fmt.Sprintf(`{"type":"quick","payload":{"n":%q},"delay":"15s","unique_key":%q}`, name, key))
			mu.Lock()
			defer mu.Unlock()
			if a.Job != "" {
				made[a.Job] = true
			}
			if a.Code == http.StatusAccepted {
				accepted[a.Job] = true
			}
			if a.Code == http.StatusAccepted || a.Code == http.StatusConflict {
				answered++
			}
		})
	}
	wg.Wait()
	if len(accepted) > 1 || len(made) > 1 || answered == many && len(accepted) == 0 {
		l.bed.t.Errorf("of %d submissions with the unique key %s %v were accepted, and the jobs %v were named", many, key, accepted, made)
	}
	for id := range made {
		l.ask(history.Ask{What: history.Cancel, Job: id}, http.MethodPost, "/jobs/"+id+"/cancel", "", true)
	}
	name := "i" + key
	for i := range 4 {
		m := living[i%len(living)]
		wg.Go(func() {
			l.once(m, history.Ask{What: history.Submit, Name: name, Idempotent: name},
				http.MethodPost, "/jobs", fmt.Sprintf(`{"type":"quick","payload":{"n":%q}}`, name))
		})
	}
	wg.Wait()
	select {
	case <-time.After(time.Duration(l.rng.IntN(3000)) * time.Millisecond): // fifty are many
	case <-l.ctx.Done():
	}
}

// ear follows all changes as Server-Sent Events, at one node after the other.
type ear struct {
	l      *client
	cancel context.CancelFunc
	done   chan struct{}
	begun  chan struct{} // closed as soon as it hears

	mu   sync.Mutex
	last string // the id to come back with
	in   history.Stream
}

// listen has clients hear what nodes tell, from now on.
func (b *bed) listen() {
	b.t.Helper()
	if len(b.ears) > 0 {
		return
	}
	ctx, cancel := context.WithCancel(b.t.Context())
	c := &crowd{bed: b, cancel: cancel, rng: func(i int) *rand.Rand { return rand.New(rand.NewPCG(b.rng.Uint64(), uint64(i))) }}
	for i := range 2 {
		e := &ear{l: c.client(ctx, i), cancel: cancel, done: make(chan struct{}), begun: make(chan struct{})}
		e.in = history.Stream{Name: fmt.Sprint(i), Ends: make(map[history.Notice]bool)}
		b.ears = append(b.ears, e)
		go e.follow()
		select {
		case <-e.begun:
		case <-time.After(patience):
			b.t.Fatal("no node tells of changes")
		}
	}
	for i := range b.nodes {
		c.wg.Go(c.client(ctx, 10+i).notified)
	}
	b.t.Cleanup(c.stop)
}

// deaf waits until all ends are heard, and adds what was heard to the history.
func (b *bed) deaf() {
	b.t.Helper()
	deadline := history.Now().Add(patience / 2) // then it is judged nevertheless
	for _, e := range b.ears {
		waitUntil(b.t, func() bool { return history.Now() > deadline || e.knows(b.seen.Jobs) })
		e.cancel()
		<-e.done
		b.seen.Streams = append(b.seen.Streams, e.in)
	}
	b.ears = nil
}

func (e *ear) knows(all []history.Job) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, j := range all {
		if !e.in.Ends[history.Notice{Job: j.ID, Status: j.Status, Run: j.Run}] {
			return false
		}
	}
	return true
}

// follow listens to a node for a while, and goes on at another one.
func (e *ear) follow() {
	defer close(e.done)
	for e.l.ctx.Err() == nil {
		ctx, cancel := context.WithTimeout(e.l.ctx, time.Second+time.Duration(e.l.rng.IntN(10_000))*time.Millisecond)
		if !e.at(ctx, cancel, e.l.bed.nodes[e.l.at]) {
			e.l.next()
			select {
			case <-time.After(50 * time.Millisecond): // a good client does not insist
			case <-ctx.Done():
			}
		}
		cancel()
		e.l.elsewhere()
	}
}

// at listens to one node until the context ends, or nothing comes for long. It says whether
// there was anything to hear.
func (e *ear) at(ctx context.Context, cancel func(), m *member) (heard bool) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.rest+"/events", nil)
	if err != nil {
		return false
	}
	if e.last != "" {
		req.Header.Set("Last-Event-ID", e.last)
	}
	silence := time.AfterFunc(patient, cancel)
	defer silence.Stop()
	resp, err := (&http.Client{Transport: e.l.http.Transport}).Do(req)
	if err != nil {
		return false
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return false
	}
	var id, name, data string
	for r := bufio.NewReader(resp.Body); ; {
		line, err := r.ReadString('\n')
		if err != nil {
			return heard
		}
		silence.Reset(patient)
		field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch field {
		case "id":
			id = value
		case "event":
			name = value
		case "data":
			data = value
		case "":
			if value == "" {
				e.hear(m, id, name, data)
				heard, id, name, data = heard || id != "", "", "", ""
			}
		}
	}
}

// hear takes in one event.
func (e *ear) hear(m *member, id, name, data string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if id != "" {
		if e.last == "" {
			close(e.begun)
		}
		e.last = id
	}
	if name == "skipped" && !strings.Contains(data, "only_ends") {
		e.in.Skipped = append(e.in.Skipped, history.Skip{At: history.Now(), Says: m.name + " says " + data})
	}
	status, ok := strings.CutPrefix(name, "job.")
	if !ok || status != "completed" && status != "failed" && status != "cancelled" {
		return
	}
	j := bedReply{Run: 1}
	if err := json.Unmarshal([]byte(data), &j); err != nil {
		e.l.bed.t.Errorf("%s tells of %s with %s", m.name, name, data)
		return
	}
	n := history.Notice{Job: j.ID, Status: status, Run: j.Run}
	e.in.Ends[n] = true
	e.l.bed.seen.Hears(history.Heard{Notice: n, Door: m.name, At: history.Now()})
}

// notified listens to notifications at a node, and looks for some of these jobs at another.
func (l *client) notified() {
	for ; l.ctx.Err() == nil; l.next() {
		m := l.bed.nodes[l.at]
		nc, err := nats.Connect(m.nats, nats.NoReconnect(), nats.Timeout(patient))
		if err != nil {
			select {
			case <-time.After(50 * time.Millisecond): // a good client does not insist
			case <-l.ctx.Done():
			}
			continue
		}
		told := make(chan *nats.Msg, 10_000)
		if _, err := nc.ChanSubscribe("job.*.>", told); err == nil {
			l.hears(m, nc, told)
		}
		nc.Close()
	}
}

// hears takes in notifications until the connection is gone.
func (l *client) hears(m *member, nc *nats.Conn, told <-chan *nats.Msg) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for l.ctx.Err() == nil && !nc.IsClosed() {
		select {
		case msg := <-told:
			words := strings.Split(msg.Header.Get("ce-id"), ".")
			if len(words) != 3 {
				l.bed.t.Errorf("a notification at %s has the header %v", m.name, msg.Header)
				continue
			}
			n := history.Notice{Job: words[0], Status: words[1]}
			_, _ = fmt.Sscan(words[2], &n.Run)
			l.bed.seen.Hears(history.Heard{Notice: n, Door: m.name, At: history.Now()})
			if l.rng.IntN(20) == 0 {
				l.elsewhere()
				l.once(l.bed.nodes[l.at], history.Ask{What: history.Read, Job: n.Job}, http.MethodGet, "/jobs/"+n.Job, "")
			}
		case <-tick.C: // whether the connection lives
		case <-l.ctx.Done():
		}
	}
}
