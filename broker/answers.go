package broker

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nuid"

	"jobstream/broker/internal/wire"
	"jobstream/jobs"
)

// newReply returns a subject for answers that nobody else has.
func newReply() string { return "_INBOX." + nuid.Next() }

// lastNumber returns the number at the end of a subject.
func lastNumber(subject []byte) uint64 {
	return wire.ParseUint(subject[bytes.LastIndexByte(subject, '.')+1:])
}

// fromStream says whether an answer comes from the stream. Any client that subscribes to
// a subject can answer its messages.
func fromStream(f *wire.Msg, stream string) bool {
	return f.Status() == 503 || bytes.Contains(f.Body, []byte(`"stream":"`+stream+`"`))
}

// pubAckError is nil for a PubAck of a stored message. The first bytes show the usual
// answer; only refusals are decoded.
func pubAckError(f *wire.Msg) *jobs.Error {
	if f.Status() == 503 {
		return &jobs.Error{Kind: jobs.Unavailable, Detail: "no stream takes the message", RetryAfter: time.Second}
	}
	if bytes.HasPrefix(f.Body, []byte(`{"stream":`)) {
		return nil
	}
	var answer struct {
		Error *struct {
			Code        int    `json:"code"`
			ErrCode     int    `json:"err_code"`
			Description string `json:"description"`
		} `json:"error"`
	}
	if err := json.Unmarshal(f.Body, &answer); err != nil {
		return &jobs.Error{Kind: jobs.Unavailable, Detail: "the queue gave an answer that makes no sense", RetryAfter: time.Second}
	}
	e := answer.Error
	if e == nil {
		return nil
	}
	const storeFailed, tooManyRequests = 10077, 10167
	full := e.ErrCode == storeFailed && bytes.HasPrefix([]byte(e.Description), []byte("maximum "))
	if full || e.ErrCode == tooManyRequests || e.Code == 429 {
		return &jobs.Error{Kind: jobs.QueueFull, Detail: "the queue is full: " + e.Description, RetryAfter: time.Second}
	}
	return &jobs.Error{
		Kind: jobs.Unavailable, RetryAfter: time.Second,
		Detail: fmt.Sprintf("the queue cannot store the job: %s (%d)", e.Description, e.ErrCode),
	}
}
