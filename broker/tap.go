package broker

import (
	"sync"

	"github.com/nats-io/nats-server/v2/server"
)

// A tap stands before the store of JOBS and tells one reader of each message when it
// is stored, on the goroutine that stores it. A consumer would bring the same
// message by the same order, after the server has woken it, found the message,
// written it to a connection and parsed itself out of it again: a tenth of all CPU
// of a job, and of its way to the tracker. A reader that cannot keep up lets go and
// reads by a consumer, until it is up to date; see feed.
type tap struct {
	server.StreamStore

	mu     sync.Mutex
	reader func(item) bool // nil: nobody follows
}

// StoreMsg implements server.StreamStore.
func (t *tap) StoreMsg(subject string, hdr, msg []byte, ttl int64) (uint64, int64, error) {
	seq, ts, err := t.StreamStore.StoreMsg(subject, hdr, msg, ttl)
	if err == nil {
		// The server has made a copy of header and body for this message, and changes
		// neither after it is stored.
		t.stored(item{seq: seq, at: ts, subject: subject, header: hdr, body: msg})
	}
	return seq, ts, err
}

func (t *tap) stored(it item) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.reader != nil && !t.reader(it) {
		t.reader = nil
	}
}

// follow has read called with every message after the stream's last one, until it
// returns false, if join agrees to that one's sequence. read may be called with that
// one, too. Neither may block: the stream waits.
func (t *tap) follow(join func(last uint64) bool, read func(item) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if join(t.last()) {
		t.reader = read
	}
}

// last is the sequence of the last message stored.
func (t *tap) last() uint64 {
	var state server.StreamState
	t.FastState(&state)
	return state.LastSeq
}

// leave ends follow: read is not called any more when it returns.
func (t *tap) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reader = nil
}
