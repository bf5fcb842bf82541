package changes

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"jobstream/jobs"
)

// Past knows the commits that a feed has not seen, or no longer has.
type Past interface {
	// Number is that of the last commit.
	Number() uint64
	// EndedSince reads the log of ends from a place on, up to most jobs of about size
	// bytes.
	EndedSince(from jobs.EndedPlace, most, size int) (jobs.Ends, error)
}

// Bounds of a feed.
const (
	keepBytes  = 32 << 20         // of changes for all followers together
	keepAlone  = 30 * time.Second // how long changes are kept when nobody follows any more
	catchUps   = 16               // followers that read the log of ends at a time
	pieceJobs  = 100              // of the log that are read at once
	pieceBytes = 128 << 10
	batchBytes = 64 << 10 // about what a follower gets at once, or one event
	lookAt     = 4096     // changes that a follower looks at before others may add more
)

// The feed wakes its followers at most this often, so that changes that come together are
// sent together. Each follower makes it longer: to wake a thousand takes time.
const (
	pause            = 10 * time.Millisecond
	pauseForFollower = 100 * time.Microsecond
)

// Feed has the latest changes for those who follow them. Its methods may be called from
// any goroutine.
type Feed struct {
	past    Past
	epoch   func() string
	keep    int           // bytes of changes
	places  chan struct{} // has a token for each follower that reads the log of ends
	closed  chan struct{}
	closing sync.Once

	active  atomic.Bool  // somebody follows, or did a moment ago
	digests atomic.Int64 // those who follow digests

	mu        sync.RWMutex
	kept      []*commit // in their order
	weight    int       // of kept
	from      uint64    // all commits with changes from this one on are in kept, or to come
	followers int
	resting   *time.Timer   // ends the feed's work when nobody has followed for a while
	wake      chan struct{} // closed when there is more
	woken     time.Time     // when wake was closed last
	waking    bool          // it will be closed soon
}

// New makes a feed. The epoch tells the commits of this tracker from those of others in
// the ids of events. It is asked for when there are commits, and then is always the same.
func New(past Past, epoch func() string) *Feed {
	return &Feed{
		past: past, epoch: epoch, keep: keepBytes, places: make(chan struct{}, catchUps),
		closed: make(chan struct{}), wake: make(chan struct{}),
	}
}

// Close ends all followers, present and future, as the server stops.
func (f *Feed) Close() { f.closing.Do(func() { close(f.closed) }) }

// Committed is a listener of commits.
func (f *Feed) Committed(c *jobs.Commit) {
	if !f.active.Load() || len(c.Changes) == 0 {
		return
	}
	made := newCommit(c)
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.active.Load() {
		return
	}
	f.kept = append(f.kept, made)
	f.weight += made.weight
	drop := 0
	for ; f.weight > f.keep && drop < len(f.kept)-1; drop++ {
		f.weight -= f.kept[drop].weight
		f.from = f.kept[drop].number + 1
		f.kept[drop] = nil
	}
	f.kept = f.kept[drop:]
	f.signal()
}

// Skip notes that commits are missing, as the tracker was replaced by a later one. The
// followers go on from the log of ends.
func (f *Feed) Skip() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kept, f.weight, f.from = nil, 0, f.past.Number()+1
	f.wakeAll()
}

// signal wakes the followers, at once or soon. f.mu is locked.
func (f *Feed) signal() {
	if f.waking {
		return
	}
	rest := pause + time.Duration(f.followers)*pauseForFollower - time.Since(f.woken)
	if rest <= 0 {
		f.wakeAll()
		return
	}
	f.waking = true
	time.AfterFunc(rest, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.waking = false
		f.wakeAll()
	})
}

// wakeAll wakes the followers. f.mu is locked.
func (f *Feed) wakeAll() {
	f.woken = time.Now()
	close(f.wake)
	f.wake = make(chan struct{})
}

// Follow begins to follow the changes that a filter chooses. id is that of the last event
// that the follower has seen; "" = it begins with what comes next. The caller calls
// [Follower.Close] in the end.
func (f *Feed) Follow(filter Filter, id string) *Follower {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.followers++
	if f.resting != nil {
		f.resting.Stop()
		f.resting = nil
	}
	if !f.active.Swap(true) {
		f.from = f.past.Number() + 1 // whatever has a higher number is published after the swap
	}
	now := Place{Number: f.past.Number() + 1}
	x := &Follower{feed: f, filter: filter, at: now}
	if id == "" {
		return x
	}
	at, ok := parseID(id, f.epoch())
	if !ok || now.before(at) {
		x.first = skipped(skipUnknown, "the id of the last event is not one of this server's, so everything before now is skipped", 0)
		return x
	}
	x.at, x.past, x.behind = at, jobs.EndedPlace{Number: at.Number}, true
	return x
}

// Followers is the number of those who follow, digests included.
func (f *Feed) Followers() int {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.followers + int(f.digests.Load())
}

// leave is called by a follower that ends.
func (f *Feed) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.followers--; f.followers == 0 {
		f.resting = time.AfterFunc(keepAlone, f.rest)
	}
}

// rest ends the feed's work while nobody follows.
func (f *Feed) rest() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.followers == 0 {
		f.active.Store(false)
		f.kept, f.weight = nil, 0
	}
}

// covers says whether the feed has all changes from a place on.
func (f *Feed) covers(at Place) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return at.Number >= f.from
}

// next are the changes behind at that a filter chooses, about as many as fit into
// batchBytes, and the place behind all that it has looked at. wake is nil if there may be
// more. ok is false if the feed does not have them all.
func (f *Feed) next(filter *Filter, at Place) (found []*change, now Place, wake chan struct{}, ok bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if at.Number < f.from {
		return nil, at, nil, false
	}
	first, _ := slices.BinarySearchFunc(f.kept, at.Number, func(c *commit, n uint64) int {
		switch {
		case c.number < n:
			return -1
		case c.number > n:
			return 1
		}
		return 0
	})
	looked, size := 0, 0
	for _, c := range f.kept[first:] {
		i := 0
		if c.number == at.Number {
			i = min(at.Index, len(c.changes))
		}
		for ; i < len(c.changes); i++ {
			if looked == lookAt || size >= batchBytes {
				return found, at, nil, true
			}
			looked++
			one := &c.changes[i]
			at = one.at
			if filter.match(one.job, one.deleted) {
				found = append(found, one)
				size += min(one.job.SizeHint(), MaxEvent)
			}
		}
	}
	return found, at, f.wake, true
}
