package status

import "time"

// After a batch of this size, commits keep their spacing for a while. Otherwise the
// pauses in a heavy load would be filled with commits of single jobs.
const (
	busy    = 64
	busyFor = 50 * time.Millisecond
)

// After a batch of this size the spacing is a multiple. A client that submits so much has
// too much on its way to notice. A job is cheaper the more jobs share a commit.
const (
	large      = 600
	largeSpace = 4
)

// pace keeps commits apart under load, so that more jobs share the next one. While the
// disk syncs the tracker's file, it may delay the writes of the streams, as ext4 does.
// Commits without a pause between them would then gain next to nothing.
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

// wait is how long the next commit has to wait. It comes at least spacing after the last
// one's start, and half of that after its end. After a large batch it is more.
func (p *pace) wait(now time.Time, spacing time.Duration) time.Duration {
	if now.Sub(p.busy) > busyFor {
		return 0
	}
	if p.large {
		spacing *= largeSpace
	}
	return max(spacing-now.Sub(p.begun), spacing/2-now.Sub(p.ended))
}
