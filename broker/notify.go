package broker

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"jobstream/broker/internal/wire"
	"jobstream/jobs"
)

// Notifier publishes notifications and waits until they are stored. Its lock lets one call
// at a time through, which uses the fields below it; answers has a lock of its own.
type Notifier struct {
	server  *Server
	conn    *wire.Conn
	crowd   *crowd
	answers noticeAnswers

	one     sync.Mutex
	head    []byte // buffers
	body    []byte
	plain   [jobs.NumStatus]bool // by status: somebody listens to the plain subject
	crowded bool                 // there are many clients
	room    int                  // bytes that may be sent to them before the next look at who is behind
	mosts   []int                // bytes that each notification of a batch may have
}

// noticeAnswers collects the stream's answers to a batch of notifications. mu guards all
// fields but reply.
type noticeAnswers struct {
	reply string // subjects for answers begin with it and end with a batch's number

	mu      sync.Mutex
	batch   uint64        // the number of the one whose answers count
	open    int           // of its notifications, those that have no answer yet
	refusal error         // of the first of them that was not stored
	done    chan struct{} // closed when none is open
}

func openNotifier(s *Server, conn *wire.Conn, c *crowd) (*Notifier, error) {
	n := &Notifier{server: s, conn: conn, crowd: c, answers: noticeAnswers{reply: newReply() + "."}}
	_, err := conn.Subscribe(n.answers.reply+"*", n.answers.answered)
	return n, err
}

const (
	noticeBatch = 1000    // notifications that wait for their answers together
	noticeBytes = 4 << 20 // likewise, bytes
)

// Notify publishes that these jobs have ended, each on job.<status>.<type>.<id>. It returns
// when all are stored. Listeners to the plain subject job.<status> get them there, too.
//
// A notification may have as many bytes as the broker's largest message, or 32 KiB where
// hundreds get it. A larger job goes without its payload, then without its result; the
// header [HeaderOmitted] says so.
func (n *Notifier) Notify(ctx context.Context, ended []*jobs.Job) error {
	n.one.Lock()
	defer n.one.Unlock()
	n.findListeners()
	for len(ended) > 0 {
		done, err := n.notifySome(ctx, ended)
		if err != nil {
			return err
		}
		ended = ended[done:]
	}
	return nil
}

// findListeners finds out which plain subjects have listeners. The stream could publish
// there by itself (RePublish). But it would make a message for every job, listeners or not,
// which costs 5 % of the throughput.
func (n *Notifier) findListeners() {
	acc := n.server.srv.GlobalAccount()
	for _, s := range [...]jobs.Status{jobs.Completed, jobs.Failed, jobs.Cancelled} {
		n.plain[s] = acc.SubscriptionInterest("job." + s.String())
	}
}

// notifySome publishes some of the jobs, waits for the stream's answer to each, and returns
// their number. If one is refused, all of them have to be published again; a repetition has
// the same ce-id. The stream's last sequence would be no proof, since others can publish
// there, too.
func (n *Notifier) notifySome(ctx context.Context, ended []*jobs.Job) (int, error) {
	n.crowded = n.crowd.crowded()
	fan, most := n.fanOut(ended[0])
	if n.lacksRoom(fan) {
		var err error
		if n.room, err = n.crowd.awaitRoom(ctx, fan); err != nil {
			return 0, err
		}
	}
	mosts := append(n.mosts[:0], most)
	count, size := 1, ended[0].SizeHint()
	for n.room -= fan; count < len(ended) && count < noticeBatch && size <= noticeBytes; count++ {
		if fan, most = n.fanOut(ended[count]); n.lacksRoom(fan) {
			break
		}
		n.room -= fan
		size += ended[count].SizeHint()
		mosts = append(mosts, most)
	}
	n.mosts = mosts
	done, reply := n.answers.expect(count)
	for i, j := range ended[:count] {
		if err := n.publishNotice(j, reply, mosts[i]); err != nil {
			return 0, err
		}
	}
	return count, n.answers.await(ctx, done)
}

// lacksRoom says whether clients have to read before fan more bytes are sent to them.
func (n *Notifier) lacksRoom(fan int) bool { return fan > max(n.room, 0) }

func (n *Notifier) publishNotice(j *jobs.Job, reply string, most int) error {
	var omitted string
	n.body, omitted = j.AppendFitting(n.body[:0], nil, most)
	trace := j.Trace()
	if of := n.server.o.Trace; of != nil {
		trace = of(j)
	}
	n.head = appendNoticeHeader(n.head[:0], j, n.server.o.Node, omitted, trace)
	var name [192]byte
	plain := append(append(name[:0], "job."...), j.Status.String()...)
	subject := append(append(plain, '.'), j.Type...)
	subject = jobs.AppendID(append(subject, '.'), j.ID)
	err := wire.Publish(n.conn, subject, reply, n.head, n.body)
	if err == nil && n.plain[j.Status] {
		err = wire.Publish(n.conn, plain, "", n.head, n.body)
	}
	if err != nil {
		return fmt.Errorf("cannot notify: %w", err)
	}
	if cap(n.body) > 4*maxPacked {
		n.body = nil
	}
	return nil
}

// appendNoticeHeader writes CloudEvents' attributes in the binary mode of its
// NATS binding. ce-id is the same for every repetition; ce-subject is the job's id,
// which the subject of a stored notification does not have.
func appendNoticeHeader(b []byte, j *jobs.Job, node, omitted string, trace jobs.Trace) []byte {
	b = append(b, "NATS/1.0\r\nce-specversion: 1.0\r\nce-type: jobstream.job."...)
	b = append(b, j.Status.String()...)
	b = append(b, "\r\nce-source: jobstream/"...)
	b = append(b, node...)
	b = append(b, "\r\nce-id: "...)
	b = jobs.AppendID(b, j.ID)
	b = append(append(append(b, '.'), j.Status.String()...), '.')
	b = strconv.AppendInt(b, int64(j.Run), 10)
	b = append(b, "\r\nce-subject: "...)
	b = jobs.AppendID(b, j.ID)
	b = append(b, "\r\nce-time: "...)
	b = j.EndedAt.Std().AppendFormat(b, time.RFC3339Nano)
	b = append(b, "\r\ncontent-type: application/json"...)
	if trace != (jobs.Trace{}) {
		b = jobs.AppendTrace(append(b, "\r\n"+jobs.TraceHeader+": "...), trace)
	}
	if omitted != "" {
		b = append(b, "\r\n"+HeaderOmitted+": "...)
		b = append(b, omitted...)
	}
	return append(b, "\r\n\r\n"...)
}

// expect begins a batch of n notifications, whose answers go to reply. Answers to an earlier
// batch do not count any more.
func (a *noticeAnswers) expect(n int) (done <-chan struct{}, reply string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.batch++
	a.open, a.refusal, a.done = n, nil, make(chan struct{})
	return a.done, a.reply + strconv.FormatUint(a.batch, 10)
}

func (a *noticeAnswers) await(ctx context.Context, done <-chan struct{}) error {
	late := time.NewTimer(ackTimeout)
	defer late.Stop()
	select {
	case <-done:
	case <-late.C:
		return fmt.Errorf("stream %s did not answer within %v", NotificationsStream, ackTimeout)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.refusal
}

// answered runs on the connection's goroutine.
func (a *noticeAnswers) answered(f *wire.Msg) {
	if !fromStream(f, NotificationsStream) {
		return
	}
	batch := lastNumber(f.Subject)
	refusal := pubAckError(f)
	a.mu.Lock()
	defer a.mu.Unlock()
	if batch != a.batch || a.open == 0 {
		return
	}
	if refusal != nil && a.refusal == nil {
		a.refusal = fmt.Errorf("a notification was not stored: %w", refusal)
	}
	if a.open--; a.open == 0 {
		close(a.done)
	}
}

// fanOut estimates the bytes of a notification for all clients together, 0 if they are so
// few that it does not matter. most is the bound for one copy. It is low where many get the
// notification, since a single large one would go beyond any bound.
func (n *Notifier) fanOut(j *jobs.Job) (fan, most int) {
	most = n.server.o.MaxPayload
	if !n.crowded {
		return 0, most
	}
	acc := n.server.srv.GlobalAccount()
	plain := "job." + j.Status.String()
	listeners := acc.Interest(plain+"."+j.Type+"."+j.ID.String()) - 1 // the stream is no client
	if n.plain[j.Status] {
		listeners += acc.Interest(plain)
	}
	if listeners <= 0 {
		return 0, most
	}
	most = min(most, max(leastNotice, n.server.o.MaxBehind/2/listeners))
	return listeners * min(j.SizeHint(), most), most
}

// leastNotice is a size in bytes that a notification may always have, however many get it.
const leastNotice = 32 << 10
