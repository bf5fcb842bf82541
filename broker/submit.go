package broker

import (
	"fmt"
	"strconv"
	"sync"
	"time"

	"jobstream/broker/internal/wire"
	"jobstream/jobs"
)

// Inbox publishes submissions to JOBS and reports those that the stream refuses. It has two
// locks: that of unanswered guards the submissions under way, that of health their outcome.
type Inbox struct {
	server     *Server
	conn       *wire.Conn
	answers    string // subjects for answers begin with it and end with a submission's number
	unanswered unanswered
	health     health
}

func openInbox(s *Server, conn *wire.Conn) (*Inbox, error) {
	i := &Inbox{server: s, conn: conn, answers: newReply() + "."}
	i.unanswered.room.L = &i.unanswered.mu
	_, err := conn.Subscribe(i.answers+"*", i.answered)
	return i, err
}

// Submit publishes m to JOBS and returns when it is on its way. It waits while tens of
// thousands are unanswered. refused may be nil. It is called at most once, on another
// goroutine, where it must neither block nor submit. Its error is a [*jobs.Error]:
// QueueFull if the stream is full, Unavailable if it cannot store the message or does not
// answer within five seconds. In the last case it may have stored it even so.
func (i *Inbox) Submit(m *jobs.Message, refused func(error)) error {
	if !jobs.ValidTypeName(m.Type) || !m.Priority.Valid() {
		return fmt.Errorf("cannot submit a job of type %q with priority %d", m.Type, m.Priority)
	}
	if len(m.Payload) > i.server.o.MaxPayload {
		return &jobs.Error{
			Kind:   jobs.PayloadTooLarge,
			Detail: fmt.Sprintf("the payload has %d bytes; at most %d are allowed", len(m.Payload), i.server.o.MaxPayload),
		}
	}
	var space [320]byte
	header := i.server.seal.close(appendJobHeader(space[:0], m))
	var name [96]byte
	subject := appendLaneSubject(name[:0], m.Type, m.Priority)

	n := i.unanswered.begin(refused, time.Now())
	var to [64]byte
	reply := append(to[:0], i.answers...)
	reply = strconv.AppendUint(reply, n, 10)
	if err := wire.Publish(i.conn, subject, reply, header, m.Payload); err != nil {
		if _, ok := i.unanswered.end(n); !ok {
			return nil // refused has been called already
		}
		return &jobs.Error{Kind: jobs.Unavailable, Detail: "the queue cannot be reached: " + err.Error(), RetryAfter: time.Second}
	}
	return nil
}

// answered receives the stream's answer to a submission, on the connection's goroutine.
func (i *Inbox) answered(f *wire.Msg) {
	if !fromStream(f, JobsStream) {
		return
	}
	refused, ok := i.unanswered.end(lastNumber(f.Subject))
	if !ok {
		return
	}
	err := pubAckError(f)
	if err == nil {
		i.health.succeeded()
		return
	}
	if err.Kind != jobs.QueueFull {
		i.health.failed(err)
	}
	if refused != nil {
		refused(err)
	}
}

func (i *Inbox) failUnanswered(now time.Time) {
	late := i.unanswered.expire(now.Add(-ackTimeout))
	if len(late) == 0 {
		return
	}
	err := &jobs.Error{
		Kind: jobs.Unavailable, RetryAfter: time.Second,
		Detail: fmt.Sprintf("the queue did not answer within %v; the job may have been taken even so", ackTimeout),
	}
	i.health.failed(err)
	for _, refused := range late {
		if refused != nil {
			refused(err)
		}
	}
}

// unanswered are the submissions that the stream has not answered. They are in a ring,
// since answers come in about the order of submissions. mu guards all fields.
type unanswered struct {
	mu    sync.Mutex
	room  sync.Cond    // there are fewer than maxUnanswered
	ring  []submission // length a power of two
	first uint64       // number of the oldest entry
	next  uint64       // number of the next one
}

// maxUnanswered submissions may be under way. The server begins to refuse messages when
// 100,000 wait.
const maxUnanswered = 32 << 10

type submission struct {
	refused func(error)
	since   time.Time
	waiting bool
}

// begin counts a submission and returns its number. It waits while too many are unanswered.
func (u *unanswered) begin(refused func(error), now time.Time) uint64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	for u.next-u.first >= maxUnanswered {
		u.room.Wait()
	}
	if u.next-u.first == uint64(len(u.ring)) {
		u.grow()
	}
	n := u.next
	u.next++
	u.ring[n&uint64(len(u.ring)-1)] = submission{refused: refused, since: now, waiting: true}
	return n
}

func (u *unanswered) grow() {
	bigger := make([]submission, max(1024, 2*len(u.ring)))
	for n := u.first; n < u.next; n++ {
		bigger[n&uint64(len(bigger)-1)] = u.ring[n&uint64(len(u.ring)-1)]
	}
	u.ring = bigger
}

// end removes submission n; ok is false if it is not waiting any more.
func (u *unanswered) end(n uint64) (refused func(error), ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if n < u.first || n >= u.next {
		return nil, false
	}
	e := &u.ring[n&uint64(len(u.ring)-1)]
	refused, ok = e.refused, e.waiting
	*e = submission{}
	u.skip()
	return refused, ok
}

func (u *unanswered) skip() {
	full := u.next-u.first >= maxUnanswered
	for u.first < u.next && !u.ring[u.first&uint64(len(u.ring)-1)].waiting {
		u.first++
	}
	if full && u.next-u.first < maxUnanswered {
		u.room.Broadcast()
	}
}

// expire removes and returns the submissions from before limit.
func (u *unanswered) expire(limit time.Time) []func(error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	var late []func(error)
	for n := u.first; n < u.next; n++ {
		e := &u.ring[n&uint64(len(u.ring)-1)]
		if !e.waiting {
			continue
		}
		if !e.since.Before(limit) {
			break
		}
		late = append(late, e.refused)
		*e = submission{}
	}
	u.skip()
	return late
}
