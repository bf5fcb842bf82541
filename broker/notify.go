package broker

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"jobstream/broker/internal/wire"
	"jobstream/jobs"
)

// notices are the notifications under way.
type notices struct {
	one  sync.Mutex // one Notify at a time
	head []byte     // buffers for use by the one
	body []byte
	// plain says for which statuses somebody listens to the plain subject
	plain [jobs.NumStatus]bool
	// crowded says that there are many clients, and room how many bytes may be sent to
	// them until it is looked how far they are behind
	crowded bool
	room    int
	most    int   // bytes of the notification that was looked at last
	mosts   []int // the same of a batch

	mu      sync.Mutex
	batch   uint64        // the number of the one whose answers count
	open    int           // of its notifications, those that have no answer yet
	refusal error         // of the first of them that was not stored
	done    chan struct{} // closed when none is open
}

const (
	noticeBatch = 1000    // notifications that wait for their answers together
	noticeBytes = 4 << 20 // likewise, bytes
)

// Notify publishes that these jobs have ended, each to
// job.<status>.<type>.<id>, and returns when the stream holds them all. Whoever
// listens to the plain subject job.<status> gets them there, too.
// A job resource that is larger than the broker's largest message, or than 32 KiB
// where hundreds get it, goes without its payload, then without its result; the
// header [HeaderOmitted] says so.
func (b *Broker) Notify(ctx context.Context, ended []*jobs.Job) error {
	b.notices.one.Lock()
	defer b.notices.one.Unlock()
	b.findListeners()
	for len(ended) > 0 {
		n, err := b.notifySome(ctx, ended)
		if err != nil {
			return err
		}
		ended = ended[n:]
	}
	return nil
}

// findListeners looks who listens to the plain subjects. The stream could
// publish there by itself (RePublish), but it would make and route a message for
// every job, listeners or not, which costs 5 % of the throughput.
func (b *Broker) findListeners() {
	acc := b.srv.GlobalAccount()
	for _, s := range [...]jobs.Status{jobs.Completed, jobs.Failed, jobs.Cancelled} {
		b.notices.plain[s] = acc.SubscriptionInterest("job." + s.String())
	}
}

// notifySome publishes some of the jobs, and returns how many when the stream has said of
// each that it is stored. If it refuses one, all of them are to be published again: a
// repetition has the same ce-id. The sequence of the last one does not tell: others can
// publish into the stream, too.
func (b *Broker) notifySome(ctx context.Context, ended []*jobs.Job) (int, error) {
	s := &b.notices
	s.crowded = b.crowded()
	fan := b.fanOut(ended[0])
	if s.lacksRoom(fan) {
		var err error
		if s.room, err = b.awaitRoom(ctx, fan); err != nil {
			return 0, err
		}
	}
	mosts := append(s.mosts[:0], s.most)
	n, size := 1, ended[0].SizeHint()
	for s.room -= fan; n < len(ended) && n < noticeBatch && size <= noticeBytes; n++ {
		if fan = b.fanOut(ended[n]); s.lacksRoom(fan) {
			break
		}
		s.room -= fan
		size += ended[n].SizeHint()
		mosts = append(mosts, s.most)
	}
	s.mosts = mosts
	done, reply := b.expectNotices(n)
	for i, j := range ended[:n] {
		if err := b.publishNotice(j, reply, mosts[i]); err != nil {
			return 0, err
		}
	}
	return n, b.awaitNotices(ctx, done)
}

// lacksRoom says whether clients have to read first before fan more bytes are sent to
// all of them.
func (s *notices) lacksRoom(fan int) bool { return fan > max(s.room, 0) }

func (b *Broker) publishNotice(j *jobs.Job, reply string, most int) error {
	s := &b.notices
	var omitted string
	s.body, omitted = j.AppendFitting(s.body[:0], nil, most)
	s.head = appendNoticeHeader(s.head[:0], j, b.o.Node, omitted)
	var name [192]byte
	plain := append(append(name[:0], "job."...), j.Status.String()...)
	subject := append(append(plain, '.'), j.Type...)
	subject = appendID(append(subject, '.'), j.ID)
	err := wire.Publish(b.pub, subject, reply, s.head, s.body)
	if err == nil && s.plain[j.Status] {
		err = wire.Publish(b.pub, plain, "", s.head, s.body)
	}
	if err != nil {
		return fmt.Errorf("cannot notify: %w", err)
	}
	if cap(s.body) > 4*maxPacked {
		s.body = nil
	}
	return nil
}

// appendNoticeHeader writes CloudEvents' attributes in the binary mode of its
// NATS binding. ce-id is the same for every repetition; ce-subject is the job's id,
// which the subject of a stored notification does not have.
func appendNoticeHeader(b []byte, j *jobs.Job, node, omitted string) []byte {
	b = append(b, "NATS/1.0\r\nce-specversion: 1.0\r\nce-type: jobstream.job."...)
	b = append(b, j.Status.String()...)
	b = append(b, "\r\nce-source: jobstream/"...)
	b = append(b, node...)
	b = append(b, "\r\nce-id: "...)
	b = appendID(b, j.ID)
	b = append(append(append(b, '.'), j.Status.String()...), '.')
	b = strconv.AppendInt(b, int64(j.Run), 10)
	b = append(b, "\r\nce-subject: "...)
	b = appendID(b, j.ID)
	b = append(b, "\r\nce-time: "...)
	b = j.EndedAt.Std().AppendFormat(b, time.RFC3339Nano)
	b = append(b, "\r\ncontent-type: application/json"...)
	if omitted != "" {
		b = append(b, "\r\n"+HeaderOmitted+": "...)
		b = append(b, omitted...)
	}
	return append(b, "\r\n\r\n"...)
}

// expectNotices begins a batch of n notifications, whose answers go to reply. What comes
// for an earlier batch does not count any more.
func (b *Broker) expectNotices(n int) (done <-chan struct{}, reply string) {
	s := &b.notices
	s.mu.Lock()
	defer s.mu.Unlock()
	s.batch++
	s.open, s.refusal, s.done = n, nil, make(chan struct{})
	return s.done, b.inbox + ".n." + strconv.FormatUint(s.batch, 10)
}

func (b *Broker) awaitNotices(ctx context.Context, done <-chan struct{}) error {
	late := time.NewTimer(ackTimeout)
	defer late.Stop()
	select {
	case <-done:
	case <-late.C:
		return fmt.Errorf("stream %s did not answer within %v", NotificationsStream, ackTimeout)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	b.notices.mu.Lock()
	defer b.notices.mu.Unlock()
	return b.notices.refusal
}

func (b *Broker) noticeAnswered(f *wire.Msg) {
	if !fromStream(f, NotificationsStream) {
		return
	}
	batch := wire.ParseUint(f.Subject[bytes.LastIndexByte(f.Subject, '.')+1:])
	refusal := pubAckError(f)
	s := &b.notices
	s.mu.Lock()
	defer s.mu.Unlock()
	if batch != s.batch || s.open == 0 {
		return
	}
	if refusal != nil && s.refusal == nil {
		s.refusal = fmt.Errorf("a notification was not stored: %w", refusal)
	}
	if s.open--; s.open == 0 {
		close(s.done)
	}
}
