package broker

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"time"

	"jobstream/jobs"
)

// notices are the notifications under way.
type notices struct {
	one  sync.Mutex // one Notify at a time, so that sequences can be compared
	last uint64     // sequence of the last message stored
	head []byte     // buffers for use by the one
	body []byte
	// plain says for which statuses somebody listens to the plain subject
	plain [jobs.NumStatus]bool
	// crowded says that there are many clients, and room how many bytes may be sent to
	// them until it is looked how far they are behind
	crowded bool
	room    int
	most    int // bytes of the next notification

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan noticeAck
}

type noticeAck struct {
	seq uint64
	err error
}

const (
	noticeBatch = 1000    // notifications per answer waited for
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

// notifySome publishes some of the jobs and waits for the last one's answer: a
// stream answers in order. If its sequence has not advanced by as many as were
// published, some were refused, and all are published again, each with an answer
// of its own: a repetition has the same ce-id.
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
	n, size := 0, 0
	var answer chan noticeAck
	var number uint64
	for answer == nil {
		j := ended[n]
		n++
		size += j.SizeHint()
		s.room -= fan
		last := n == len(ended) || n == noticeBatch || size > noticeBytes
		most := s.most
		if !last {
			fan = b.fanOut(ended[n])
			last = s.lacksRoom(fan)
		}
		reply := ""
		if last {
			answer, number, reply = b.expectNotice()
		}
		if err := b.publishNotice(j, reply, most); err != nil {
			b.forgetNotice(number, answer)
			return 0, err
		}
	}
	ack, err := b.awaitNotice(ctx, number, answer)
	if err == nil && ack.seq >= b.notices.last+uint64(n) {
		b.notices.last = ack.seq
		return n, nil
	}
	if err == nil {
		b.log.Warn("some notifications were refused; publishing them again one by one")
		err = b.notifyEach(ctx, ended[:n])
	}
	return n, err
}

// lacksRoom says whether clients have to read first before fan more bytes are sent to
// all of them.
func (s *notices) lacksRoom(fan int) bool { return fan > max(s.room, 0) }

func (b *Broker) notifyEach(ctx context.Context, ended []*jobs.Job) error {
	for _, j := range ended {
		answer, number, reply := b.expectNotice()
		b.fanOut(j)
		if err := b.publishNotice(j, reply, b.notices.most); err != nil {
			b.forgetNotice(number, answer)
			return err
		}
		ack, err := b.awaitNotice(ctx, number, answer)
		if err != nil {
			return err
		}
		b.notices.last = ack.seq
	}
	return nil
}

func (b *Broker) publishNotice(j *jobs.Job, reply string, most int) error {
	s := &b.notices
	var omitted string
	s.body, omitted = j.AppendFitting(s.body[:0], nil, most)
	s.head = appendNoticeHeader(s.head[:0], j, b.o.Node, omitted)
	var name [192]byte
	plain := append(append(name[:0], "job."...), j.Status.String()...)
	subject := append(append(plain, '.'), j.Type...)
	subject = appendID(append(subject, '.'), j.ID)
	buf, err := b.pub.begin()
	if err != nil {
		return fmt.Errorf("cannot notify: %w", err)
	}
	buf = appendPub(buf, subject, reply, s.head, s.body)
	if s.plain[j.Status] {
		buf = appendPub(buf, plain, "", s.head, s.body)
	}
	b.pub.endNow(buf)
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

func (b *Broker) expectNotice() (chan noticeAck, uint64, string) {
	s := &b.notices
	answer := make(chan noticeAck, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting == nil {
		s.waiting = make(map[uint64]chan noticeAck)
	}
	number := s.next
	s.next++
	s.waiting[number] = answer
	return answer, number, b.inbox + ".n." + strconv.FormatUint(number, 10)
}

func (b *Broker) forgetNotice(number uint64, answer chan noticeAck) {
	if answer == nil {
		return
	}
	b.notices.mu.Lock()
	delete(b.notices.waiting, number)
	b.notices.mu.Unlock()
}

func (b *Broker) awaitNotice(ctx context.Context, number uint64, answer chan noticeAck) (noticeAck, error) {
	defer b.forgetNotice(number, answer)
	late := time.NewTimer(ackTimeout)
	defer late.Stop()
	select {
	case ack := <-answer:
		if ack.err != nil {
			return ack, fmt.Errorf("the notification was not stored: %w", ack.err)
		}
		return ack, nil
	case <-late.C:
		return noticeAck{}, fmt.Errorf("stream %s did not answer within %v", NotificationsStream, ackTimeout)
	case <-ctx.Done():
		return noticeAck{}, context.Cause(ctx)
	}
}

func (b *Broker) noticeAnswered(f *frame) {
	number := parseUint(f.subject[bytes.LastIndexByte(f.subject, '.')+1:])
	var ack noticeAck
	if err := pubAckError(f); err != nil {
		ack.err = err
	} else {
		var stored struct {
			Seq uint64 `json:"seq"`
		}
		ack.err = json.Unmarshal(f.body, &stored)
		ack.seq = stored.Seq
	}
	b.notices.mu.Lock()
	answer := b.notices.waiting[number]
	delete(b.notices.waiting, number)
	b.notices.mu.Unlock()
	if answer != nil {
		answer <- ack
	}
}
