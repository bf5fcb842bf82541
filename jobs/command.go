package jobs

import (
	"context"
	"encoding/json"
)

// Command is a change of the tracker that comes by no stream: what people ask for,
// what time brings about, what a start finds. It is plain data and says everything
// that decides what becomes of it, so it can be written down and done again: the same
// commands in the same order make of the same file the same file.
//
// Commands of other packages embed a [Stamp], too.
type Command interface {
	// Origin says whose command it is.
	Origin() Stamp
}

// Stamp is the part of a [Command] that all have.
type Stamp struct {
	// Actor is who gives the command, like "rest" or "schedule"; "" if that is not said.
	Actor string `json:"actor,omitempty"`
	// At is when it was given. Whoever does the command looks at no other clock.
	At Time `json:"at"`
}

// Origin is s.
func (s Stamp) Origin() Stamp { return s }

// By is the stamp of a command that actor gives now.
func By(actor string) Stamp { return Stamp{Actor: actor, At: Now()} }

// Doer does commands. Each is one transaction, and durable when Do returns. An
// [*Error] says that it cannot be done as things are, and has changed nothing.
type Doer interface {
	Do(ctx context.Context, c Command) (Effect, error)
}

// Effect is what a command has come to. Each command says what it fills in.
type Effect struct {
	Changed []*Job    // jobs that it has changed, as they are then; shared
	Known   []*Job    // jobs that were there already instead of those that it asks for
	Refused []Refusal // jobs that it could not change, and why
	Removed int       // what it has taken away
	Freed   int64     // the bytes that the records of those took
	Value   any       // what commands of other packages come to
}

// Commands about jobs pass over keys that lead to none.

// Cancel ends those of the jobs that have not ended: they are Changed.
type Cancel struct {
	Stamp
	Keys   []uint64 `json:"keys"`
	Reason string   `json:"reason,omitempty"`
}

// Retry makes those of the jobs run again that have failed or were cancelled: they
// are Changed. Those that cannot, because their type is not known or their unique key
// taken, are Refused.
type Retry struct {
	Stamp
	Keys []uint64 `json:"keys"`
}

// Delete removes the records of those of the jobs that have ended: Removed and Freed.
type Delete struct {
	Stamp
	Keys []uint64 `json:"keys"`
}

// Pause makes the jobs of a type wait, or lets them go on.
type Pause struct {
	Stamp
	Type   string `json:"type"`
	Paused bool   `json:"paused"`
}

// Reserve stores a batch for good, unless one of its unique keys is taken, which gives
// an [*Error] of kind [Duplicate], or its token is known: then the jobs of that are
// Known, as [Ledger.Recall] has them, or the error is [jobstream/jobs/intake.ErrUnderway] while not all of
// them are there.
type Reserve struct {
	Stamp
	Batch *Batch `json:"batch"`
}

// ForgetTokens drops idempotency tokens from before a moment, the oldest ones first:
// so many are Removed.
type ForgetTokens struct {
	Stamp
	Before Time `json:"before"`
	Most   int  `json:"most"` // so many at most
}

// Expire ends those of the jobs whose expiry or deadline has passed, see [Job.Expire].
type Expire struct {
	Stamp
	Keys []uint64 `json:"keys"`
}

// Lose notes for those of the jobs that are processing that their worker died: they are
// Changed. One to whom that has happened MaxLost times has failed.
type Lose struct {
	Stamp
	Keys    []uint64 `json:"keys"`
	MaxLost int      `json:"max_lost"`
}

// Release puts those of the jobs that are processing back, which speaks against none of
// them: they are Changed. Their workers must have been interrupted.
type Release struct {
	Stamp
	Keys []uint64 `json:"keys"`
	Why  string   `json:"why"`
}

// Seed takes ended jobs from their notifications, where the tracker was lost. Nobody is
// notified of their end once more.
type Seed struct {
	Stamp
	Ended []*Job `json:"ended"`
}

// seedJSON is a Seed in JSON, with each job as its notification has it.
type seedJSON struct {
	Stamp
	Ended [][]byte `json:"ended"`
}

// MarshalJSON keeps payloads and results byte for byte.
func (c Seed) MarshalJSON() ([]byte, error) {
	out := seedJSON{Stamp: c.Stamp}
	for _, j := range c.Ended {
		out.Ended = append(out.Ended, j.AppendJSON(nil))
	}
	return json.Marshal(out)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (c *Seed) UnmarshalJSON(b []byte) error {
	var in seedJSON
	if err := json.Unmarshal(b, &in); err != nil {
		return err
	}
	*c = Seed{Stamp: in.Stamp}
	for _, body := range in.Ended {
		j := &Job{}
		if err := j.UnmarshalJSON(body); err != nil {
			return err
		}
		c.Ended = append(c.Ended, j)
	}
	return nil
}

// EndRebuild ends the time in which events alone make jobs, as the tracker was lost.
type EndRebuild struct{ Stamp }

// Rewind sets up to where the streams are folded: they have gone back.
type Rewind struct {
	Stamp
	To Positions `json:"to"`
}
