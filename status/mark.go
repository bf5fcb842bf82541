package status

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"time"

	"jobstream/status/boltfile"
)

// Mark is a hash over parts of a tracker after one transaction of the log. Trackers that are
// equal there have the same one. The node that leads sends its own with a transaction now
// and then, and the others compare.
type Mark struct {
	Sealed uint64 // transactions of the log up to there; 0 = there is no mark yet
	Hash   string // of this tracker
	Leader string // of the one that has led
}

// Differs says that the tracker was not what the leader's was.
func (m Mark) Differs() bool { return m.Hash != m.Leader }

// markEvery is how often a leader makes a mark, if anything changes.
const markEvery = 10 * time.Second

// markOf hashes what tells trackers apart at little cost: the counters of all types, the
// positions, and the first and the last value in every bucket.
func markOf(tx *boltfile.Tx, sealed uint64) Mark {
	h := sha256.New()
	add := func(name, k, v []byte) {
		for _, b := range [...][]byte{name, k, v} {
			h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(b))))
			h.Write(b)
		}
	}
	for _, name := range allBuckets {
		b := tx.Bucket(name)
		if b.Missing() {
			continue
		}
		c, k, v := cursorOf(b)
		if k == nil {
			continue // an earlier version may not have it
		}
		if !bytes.Equal(name, bucketMeta) {
			add(name, k, v)
			k, v = c.Last()
			add(name, k, v)
			continue
		}
		for ; k != nil; k, v = c.Next() {
			if !isOwn(k) {
				add(name, k, v)
			}
		}
	}
	return Mark{Sealed: sealed, Hash: hex.EncodeToString(h.Sum(nil)[:8])}
}

// due returns a new mark if the node that leads has made none for some time.
func (s *share) due() *Mark {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.marked) < markEvery {
		return nil
	}
	s.marked = time.Now()
	return &Mark{}
}

// setMark keeps a mark, if there is one.
func (s *share) setMark(m *Mark) {
	if m == nil {
		return
	}
	s.mu.Lock()
	s.mark = *m
	s.mu.Unlock()
}

// Mark is the last one since the tracker was opened, or a copy was installed.
func (r *Replica) Mark() Mark {
	s := &r.s.share
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mark
}
