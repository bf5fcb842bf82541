package broker

import (
	"sync"

	"github.com/nats-io/nats-server/v2/server"
)

// A stream's messages lie in the order in which they came, those of all lanes
// mixed. To find the next one of its lane, a consumer walks over those of the
// others, and the server copies each of them to look at its subject: with 100
// busy lanes some 90 copies per job. A laneIndex knows where the next one is. It
// stands before the store of JOBS and does no more than raise the sequence at
// which a search begins, past messages that it has seen stored under other
// subjects: the search itself, and what it returns, is the store's own. What the
// index does not know (messages older than the process, subjects that are no
// lanes, a reader that goes back) is searched for as ever.
type laneIndex struct {
	server.StreamStore

	mu    sync.Mutex
	last  uint64               // sequence of the last message that was seen
	lanes map[string]*laneSeqs // by subject
	most  int                  // sequences of a lane
}

// laneSeqs are the sequences of a lane's messages, all from the sequence from up
// to the index's last one. Those before head have been found.
type laneSeqs struct {
	from uint64
	seqs []uint64
	head int
}

// maxLaneSeqs bounds the memory of a lane that nobody reads, a paused one for
// instance: 8 bytes each, and room to grow. A lane that has more forgets them all,
// and is known again from the next one on.
const maxLaneSeqs = 1 << 20

func newLaneIndex(store server.StreamStore) *laneIndex {
	var state server.StreamState
	store.FastState(&state)
	return &laneIndex{StreamStore: store, last: state.LastSeq, lanes: make(map[string]*laneSeqs), most: maxLaneSeqs}
}

// track makes the index keep the sequences of a subject's messages from now on.
func (x *laneIndex) track(subject string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.lanes[subject] == nil {
		x.lanes[subject] = &laneSeqs{from: x.last + 1}
	}
}

// StoreMsg implements server.StreamStore.
func (x *laneIndex) StoreMsg(subject string, hdr, msg []byte, ttl int64) (uint64, int64, error) {
	seq, ts, err := x.StreamStore.StoreMsg(subject, hdr, msg, ttl)
	if err == nil {
		x.stored(subject, seq)
	}
	return seq, ts, err
}

// LoadNextMsg implements server.StreamStore.
func (x *laneIndex) LoadNextMsg(filter string, wc bool, start uint64, sm *server.StoreMsg) (*server.StoreMsg, uint64, error) {
	if !wc {
		start = x.next(filter, start)
	}
	return x.StreamStore.LoadNextMsg(filter, wc, start, sm)
}

// Truncate implements server.StreamStore. The server cuts back only streams of a
// cluster, and none is indexed; a stream that had lost its end unnoticed would lose
// jobs.
func (x *laneIndex) Truncate(seq uint64) error {
	err := x.StreamStore.Truncate(seq)
	var state server.StreamState
	x.FastState(&state)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.restart(state.LastSeq)
	return err
}

// stored takes note of a message. If it does not follow the last one, others came
// between that the index has not seen, and it begins anew.
func (x *laneIndex) stored(subject string, seq uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if seq != x.last+1 {
		x.restart(seq - 1)
	}
	x.last = seq
	if l := x.lanes[subject]; l != nil {
		if len(l.seqs)-l.head >= x.most {
			l.restart(seq)
		}
		l.add(seq)
	}
}

// restart forgets all that is known up to the sequence last.
func (x *laneIndex) restart(last uint64) {
	x.last = last
	for _, l := range x.lanes {
		l.restart(last + 1)
	}
}

// next is the sequence of the first message of a subject at or after start, as
// far as that is known; the first unknown one if there is none among the known;
// and start where the index knows nothing.
func (x *laneIndex) next(subject string, start uint64) uint64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	l := x.lanes[subject]
	if l == nil || start < l.from || start > x.last+1 {
		return start
	}
	l.found(start)
	if l.head < len(l.seqs) {
		return l.seqs[l.head]
	}
	return max(start, x.last+1)
}

func (l *laneSeqs) restart(from uint64) { l.from, l.seqs, l.head = from, nil, 0 }

func (l *laneSeqs) add(seq uint64) {
	if len(l.seqs) == cap(l.seqs) && l.head > len(l.seqs)/2 { // rather than growing
		l.seqs, l.head = l.seqs[:copy(l.seqs, l.seqs[l.head:])], 0
	}
	l.seqs = append(l.seqs, seq)
}

// found drops what lies before start: the lane's reader has been there. Should it
// have been another client's reader, which was ahead, then the lane's own one walks
// until it is there, too.
func (l *laneSeqs) found(start uint64) {
	l.from = start
	for l.head < len(l.seqs) && l.seqs[l.head] < start {
		l.head++
	}
	if l.head == len(l.seqs) {
		l.seqs, l.head = l.seqs[:0], 0
	}
}
