package status

import (
	"sync"

	"jobstream/jobs"
	"jobstream/status/boltfile"
)

// inbox is the queue between the readers of both streams and the projector, which
// empties it at once. It is bounded. A full inbox blocks the readers, and through them
// the streams.
type inbox struct {
	mu     sync.Mutex
	room   sync.Cond
	filled batch
	bytes  int
	ready  chan struct{} // has a token while there is something
	closed bool
}

// batch is the input of one transaction.
type batch struct {
	messages []jobs.Message
	events   []jobs.Event
	jobs     uint64 // the last sequence of JOBS in it, 0 = none
	status   uint64 // the same of STATUS
	tasks    []*task
	outcomes []jobs.Event // that the commit has, and that change nothing
}

// empty says whether there is nothing to fold.
func (b *batch) empty() bool {
	return len(b.messages) == 0 && len(b.events) == 0 && b.jobs == 0 && b.status == 0
}

func (b *batch) reset() {
	clear(b.messages)
	clear(b.events)
	*b = batch{messages: b.messages[:0], events: b.events[:0]}
}

// Bounds of a batch.
const (
	maxBatch      = 8192    // messages and events
	maxBatchBytes = 8 << 20 // of payloads and results
)

func newInbox() *inbox {
	i := &inbox{ready: make(chan struct{}, 1)}
	i.room.L = &i.mu
	return i
}

// waitRoom blocks while the inbox is full. The caller has locked i.mu.
func (i *inbox) waitRoom() bool {
	for !i.closed && (len(i.filled.messages)+len(i.filled.events) >= maxBatch || i.bytes >= maxBatchBytes) {
		i.room.Wait()
	}
	return !i.closed
}

func (i *inbox) signal() {
	select {
	case i.ready <- struct{}{}:
	default:
	}
}

func (i *inbox) submitted(m *jobs.Message) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.waitRoom() {
		return
	}
	i.filled.messages = append(i.filled.messages, *m)
	i.filled.jobs = m.Seq
	i.bytes += len(m.Payload)
	i.signal()
}

func (i *inbox) happened(seq uint64, events []jobs.Event) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.waitRoom() {
		return
	}
	i.filled.events = append(i.filled.events, events...)
	i.filled.status = seq
	for k := range events {
		i.bytes += len(events[k].Result)
	}
	i.signal()
}

// push queues a task; false if the inbox is closed.
func (i *inbox) push(t *task) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return false
	}
	i.filled.tasks = append(i.filled.tasks, t)
	i.signal()
	return true
}

// drain exchanges the filled batch for the empty batch b.
func (i *inbox) drain(b *batch) {
	i.mu.Lock()
	i.filled, *b = *b, i.filled
	i.bytes = 0
	select {
	case <-i.ready: // what it stands for came while the projector was awake already
	default:
	}
	i.room.Broadcast()
	i.mu.Unlock()
}

// open lets a closed inbox be filled again.
func (i *inbox) open() {
	i.mu.Lock()
	if i.closed {
		i.closed, i.filled, i.bytes = false, batch{}, 0
	}
	i.mu.Unlock()
}

// close releases blocked readers. Their messages are read again after the next start.
func (i *inbox) close() {
	i.mu.Lock()
	i.closed = true
	for _, t := range i.filled.tasks {
		t.done <- answer{err: boltfile.ErrClosed}
	}
	i.filled.tasks = nil
	i.room.Broadcast()
	i.mu.Unlock()
}
