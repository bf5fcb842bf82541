package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"jobstream/jobs"
)

// The load of the phases with workers elsewhere.
const (
	remoteConns = 4  // connections over NATS
	remoteLoops = 48 // of each, which ask and report by turns; 16 if they ask for many jobs
	remoteHTTP  = 64 // connections over HTTP
	manyAtOnce  = 16 // jobs of a request that asks for several
	leasedJobs  = 300
)

// Remote has the results with workers elsewhere, over NATS. Each comparison is with jobs
// that the server runs itself.
type Remote struct {
	One  Comparison `json:"one"`   // a request for each job, and one for its end
	Many Comparison `json:"by_16"` // a request for up to 16 jobs, and one for their ends
	// Leased is the time from a submission to the lease at a worker that waits for one.
	Leased Spreading `json:"leased_ms"`
	// Asked is the time from the ask to the lease of a job that waits.
	Asked Spreading `json:"asked_ms"`
	Fsync Spreading `json:"fsync_ms"` // of a small file in the same folder
}

// remoteOf are the flags with types whose work is done elsewhere.
func (b *bench) remoteOf() NodeOptions {
	o := b.options
	o.Port = -1
	var types []*jobs.Type
	for _, t := range b.c.types(nil) {
		t.Remote = true
		types = append(types, t)
	}
	o.Registry = jobs.NewRegistry(types...)
	return o
}

// remote is jobs that workers do over NATS, compared with jobs that the server runs.
func (b *bench) remote(ctx context.Context, dir string) error {
	r := &Remote{}
	b.report.Remote = r
	for _, part := range []struct {
		name string
		most int
		into *Comparison
	}{{"one", 1, &r.One}, {"many", manyAtOnce, &r.Many}} {
		c, err := b.besideOwn(ctx, filepath.Join(dir, part.name), phaseRemote, func(n *node) (func() error, error) {
			return n.workNATS(ctx, b.c, part.most)
		})
		if err != nil {
			return err
		}
		*part.into = *c
	}
	return b.withNode(ctx, filepath.Join(dir, "idle"), b.remoteOf(), func(n *node) (err error) {
		if r.Leased, r.Asked, err = n.leaseTimes(ctx, b.c); err == nil {
			r.Fsync, err = fsyncTimes(dir)
		}
		return err
	})
}

// remoteHTTP is jobs that workers do over HTTP, compared with jobs that the server runs.
func (b *bench) remoteHTTP(ctx context.Context, dir string) error {
	return overREST(ctx, func(serve func(*node) (addr string)) (err error) {
		b.report.RemoteHTTP, err = b.besideOwn(ctx, dir, phaseRemoteHTTP, func(n *node) (func() error, error) {
			return n.workHTTP(ctx, b.c, serve(n))
		})
		return err
	})
}

// besideOwn compares a node with workers elsewhere with one that runs its jobs itself.
func (b *bench) besideOwn(ctx context.Context, dir, name string, work func(*node) (stop func() error, err error)) (c *Comparison, err error) {
	err = b.withNode(ctx, filepath.Join(dir, "own"), b.options, func(own *node) error {
		return b.withNode(ctx, filepath.Join(dir, "elsewhere"), b.remoteOf(), func(n *node) error {
			stop, err := work(n)
			if err != nil {
				return err
			}
			c, err = takeTurns(ctx, name, b.turnsOf(n, b.c), b.turnsOf(own, b.c))
			return errors.Join(err, stop())
		})
	})
	return c, err
}

// working are loops of workers. The first error ends all.
type working struct {
	ctx    context.Context //nolint:containedctx // of the loops
	cancel context.CancelFunc
	group  sync.WaitGroup
	failed atomic.Pointer[error]
}

func newWorking(ctx context.Context) *working {
	w := &working{}
	w.ctx, w.cancel = context.WithCancel(ctx)
	return w
}

// loop repeats a step until the workers stop.
func (w *working) loop(step func(ctx context.Context) error) {
	w.group.Go(func() {
		for w.ctx.Err() == nil {
			if err := step(w.ctx); err != nil && w.ctx.Err() == nil {
				w.failed.CompareAndSwap(nil, &err)
				w.cancel()
			}
		}
	})
}

// stop ends the loops and returns the error of one that had failed.
func (w *working) stop() error {
	w.cancel()
	w.group.Wait()
	if p := w.failed.Load(); p != nil {
		return fmt.Errorf("a worker failed: %w", *p)
	}
	return nil
}

// askBody asks for jobs of all types.
func askBody(c *Options, most int, worker string) []byte {
	var names bytes.Buffer
	for i, name := range c.typeNames() {
		if i > 0 {
			names.WriteByte(',')
		}
		fmt.Fprintf(&names, "%q", name)
	}
	return fmt.Appendf(nil, `{"types":[%s],"max":%d,"wait":"30s","worker":%q}`, names.Bytes(), most, worker)
}

// leaseMark begins each lease in an answer. No payload of ours has it.
var leaseMark = []byte(`{"lease":"`)

// eachLease calls f with the tokens of an answer. It costs less than reading JSON, which
// is not what is to be measured.
func eachLease(answer []byte, f func(token []byte)) {
	for {
		_, rest, found := bytes.Cut(answer, leaseMark)
		if !found {
			return
		}
		token, after, _ := bytes.Cut(rest, []byte{'"'})
		f(token)
		answer = after
	}
}

// workNATS starts workers over NATS. Each asks for at most so many jobs at a time.
func (n *node) workNATS(ctx context.Context, c *Options, most int) (stop func() error, err error) {
	w := newWorking(ctx)
	var clients []*client
	closeAll := func() {
		for _, one := range clients {
			one.close()
		}
	}
	for i := range remoteConns {
		ask := askBody(c, most, fmt.Sprint("nats-", i)) // there is a bound on the leases of one worker
		one, err := dial(n.Broker, n.log)
		if err != nil {
			closeAll()
			return nil, errors.Join(err, w.stop())
		}
		clients = append(clients, one)
		loops := remoteLoops
		if most > 1 {
			loops /= 3
		}
		for range loops {
			w.loop(func(ctx context.Context) error { return workOnce(ctx, one.nc, ask, most) })
		}
	}
	return func() error {
		err := w.stop()
		closeAll()
		return err
	}, nil
}

// workOnce asks for jobs and ends them at once.
func workOnce(ctx context.Context, nc *nats.Conn, ask []byte, most int) error {
	answer, err := request(ctx, nc, "next", ask)
	if err != nil {
		return err
	}
	var body []byte
	eachLease(answer, func(token []byte) {
		if most == 1 {
			body = fmt.Appendf(body, `{"lease":"%s"}`, token)
			return
		}
		body = fmt.Appendf(body, `,{"lease":"%s"}`, token)
	})
	switch {
	case len(body) == 0:
		return nil
	case most == 1:
		_, err = request(ctx, nc, "done", body)
		return err
	}
	body[0] = '['
	answer, err = request(ctx, nc, "done_many", fmt.Appendf(nil, `{"done":%s]}`, body))
	if err == nil && bytes.Contains(answer, []byte(`"problem"`)) {
		err = fmt.Errorf("an end was refused: %s", answer)
	}
	return err
}

func request(ctx context.Context, nc *nats.Conn, verb string, body []byte) ([]byte, error) {
	m, err := nc.RequestWithContext(ctx, "jobstream.worker."+verb, body)
	if err != nil {
		return nil, err
	}
	if m.Header.Get("Nats-Service-Error-Code") != "" {
		return nil, fmt.Errorf("%s is answered with %s", verb, m.Data)
	}
	return m.Data, nil
}

// workHTTP starts workers over keep-alive connections.
func (n *node) workHTTP(ctx context.Context, c *Options, addr string) (stop func() error, err error) {
	w := newWorking(ctx)
	ask := requestTo(addr, "/leases", askBody(c, 1, "http"))
	var all connections
	for range remoteHTTP {
		conn, err := all.dial(ctx, addr)
		if err != nil {
			all.close()
			return nil, errors.Join(err, w.stop())
		}
		in := bufio.NewReader(conn)
		var answer []byte
		w.loop(func(context.Context) error {
			if answer, err = exchange(conn, in, ask, answer); err != nil {
				return err
			}
			var done []byte
			eachLease(answer, func(token []byte) { done = requestTo(addr, "/leases/"+string(token)+"/done", nil) })
			if done == nil {
				return nil
			}
			answer, err = exchange(conn, in, done, answer)
			return err
		})
	}
	return func() error {
		w.cancel()
		all.close() // no read waits for ever
		return w.stop()
	}, nil
}

// requestTo is a request over HTTP.
func requestTo(addr, path string, body []byte) []byte {
	return fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n%s", path, addr, len(body), body)
}

// exchange sends a request and reads the body of its answer into buf, which it returns.
func exchange(conn net.Conn, in *bufio.Reader, request, buf []byte) ([]byte, error) {
	if _, err := conn.Write(request); err != nil {
		return nil, err
	}
	length, err := readHead(in, "200")
	if err != nil {
		return nil, err
	}
	buf = slices.Grow(buf[:0], length)[:length]
	_, err = io.ReadFull(in, buf)
	return buf, err
}

// leaseTimes measures single leases on a node with nothing else to do.
func (n *node) leaseTimes(ctx context.Context, c *Options) (leased, asked Spreading, err error) {
	client, err := dial(n.Broker, n.log)
	if err != nil {
		return leased, asked, err
	}
	defer client.close()
	sub := &jobs.Submission{Type: c.typeNames()[0], Priority: jobs.DefaultPriority, RetryCount: -1, Payload: makePayload(c.Payload, 0)}
	submit := func() error {
		_, _, err := n.Submitter.Submit(ctx, sub)
		return err
	}
	var waited, came []int64
	for i := range leasedJobs {
		name := fmt.Sprint("w", i)
		ask := askBody(c, 1, name)
		// the ask waits for the job
		arrived := make(chan error, 1)
		var answer []byte
		var at time.Time
		go func() {
			var err error
			answer, err = request(ctx, client.nc, "next", ask)
			at = time.Now()
			arrived <- err
		}()
		if err := n.asked(ctx, name); err != nil {
			return leased, asked, err
		}
		begun := time.Now()
		if err := errors.Join(submit(), <-arrived); err != nil {
			return leased, asked, err
		}
		waited = append(waited, int64(at.Sub(begun)))
		if err := endAll(ctx, client.nc, answer); err != nil {
			return leased, asked, err
		}
		// the job waits for the ask
		if err := submit(); err != nil {
			return leased, asked, err
		}
		begun = time.Now()
		if answer, err = request(ctx, client.nc, "next", ask); err != nil {
			return leased, asked, err
		}
		came = append(came, int64(time.Since(begun)))
		if err := endAll(ctx, client.nc, answer); err != nil {
			return leased, asked, err
		}
	}
	return newSpreading(waited), newSpreading(came), nil
}

// asked waits until a worker has asked.
func (n *node) asked(ctx context.Context, name string) error {
	return n.until(ctx, func() (bool, error) {
		return slices.ContainsFunc(n.Pool.Leases().AtWork(), func(w jobs.Worker) bool { return w.Name == name }), nil
	})
}

func endAll(ctx context.Context, nc *nats.Conn, answer []byte) (err error) {
	eachLease(answer, func(token []byte) {
		_, e := request(ctx, nc, "done", fmt.Appendf(nil, `{"lease":"%s"}`, token))
		err = errors.Join(err, e)
	})
	return err
}

// fsyncTimes measures how long the disk takes to store a few bytes.
func fsyncTimes(dir string) (s Spreading, err error) {
	f, err := os.Create(filepath.Join(dir, "fsync"))
	if err != nil {
		return s, err
	}
	var all []int64
	for range leasedJobs {
		begun := time.Now()
		_, err := f.WriteString("x")
		if err = errors.Join(err, f.Sync()); err != nil {
			return s, errors.Join(err, f.Close())
		}
		all = append(all, int64(time.Since(begun)))
	}
	return newSpreading(all), f.Close()
}
