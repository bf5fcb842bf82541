package status

import "time"

// A batch of this size makes commits keep their spacing for a while, so that
// the pauses in a heavy load are not filled with commits of single jobs.
const (
	busy    = 64
	busyFor = 50 * time.Millisecond
)

// After a batch of this size the spacing is a multiple: whoever submits so much has
// so much on its way that it does not notice, and a job is cheaper the more share a
// commit.
const (
	large      = 600
	largeSpace = 4
)

// pace keeps commits apart while there is much to do. What comes meanwhile
// shares the next one; and while the disk syncs the tracker's file, it may keep
// the streams from writing theirs (ext4 does), so that commits without a pause
// between them bring next to nothing each.
type pace struct {
	begun, ended time.Time // of the last commit
	large        bool      // so was its batch
	busy         time.Time // when the last large one ended
}

// done records a commit of n messages and events.
func (p *pace) done(begun, ended time.Time, n int) {
	p.begun, p.ended, p.large = begun, ended, n >= large
	if n >= busy {
		p.busy = ended
	}
}

// wait is how long the next commit must wait: until spacing has passed since the
// last one's start, and half of it since its end; more after a large one.
func (p *pace) wait(now time.Time, spacing time.Duration) time.Duration {
	if now.Sub(p.busy) > busyFor {
		return 0
	}
	if p.large {
		spacing *= largeSpace
	}
	return max(spacing-now.Sub(p.begun), spacing/2-now.Sub(p.ended))
}
