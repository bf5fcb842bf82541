package jobs

import (
	"context"
	"encoding/json"
)

// Command is a change of the tracker that comes by no stream: a request, a moment that
// has come, a finding at the start. It is plain data and contains everything that
// decides about its result. So it can be written down and repeated: the same commands
// in the same order turn the same file into the same file.
//
// Commands of other packages embed a [Stamp], too.
type Command interface {
	// Origin is the command's actor and moment.
	Origin() Stamp
}

// Stamp is the common part of all [Command]s.
type Stamp struct {
	// Actor gave the command, like "rest" or "schedule"; "" if unknown.
	Actor string `json:"actor,omitempty"`
	// At is the moment of the command. No other clock counts for its result.
	At Time `json:"at"`
}

// Origin is s.
func (s Stamp) Origin() Stamp { return s }

// By is the stamp of a command that actor gives now.
func By(actor string) Stamp { return Stamp{Actor: actor, At: Now()} }

// Doer does commands. Each is one transaction, and durable when Do returns. An [*Error]
// means that the command is impossible at present, and has changed nothing.
type Doer interface {
	Do(ctx context.Context, c Command) (Effect, error)
}

// Effect is the result of a command. Each command documents the fields that it sets.
type Effect struct {
	Changed []*Job    // changed jobs, in their new state; shared
	Known   []*Job    // existing jobs, instead of those that were requested
	Refused []Refusal // jobs that it could not change, and the reasons
	Removed int       // how many records or tokens it removed
	Freed   int64     // the bytes of those records
	Value   any       // the result of a command of another package
	Noted   bool      // the audit log has the request, see [Audited]
}

// Commands about jobs skip keys without a job.

// Cancel ends those of the jobs that have not ended. They are Changed.
type Cancel struct {
	Stamp
	Keys   []uint64 `json:"keys"`
	Reason string   `json:"reason,omitempty"`
}

// Retry starts a new run of those of the jobs that have failed or were cancelled. They
// are Changed. Jobs whose type is unknown or whose unique key is taken are Refused.
type Retry struct {
	Stamp
	Keys []uint64 `json:"keys"`
}

// Delete removes the records of those of the jobs that have ended. It sets Removed and
// Freed.
type Delete struct {
	Stamp
	Keys []uint64 `json:"keys"`
}

// Pause keeps the jobs of a type from starting, or lets them start again.
type Pause struct {
	Stamp
	Type   string `json:"type"`
	Paused bool   `json:"paused"`
}

// Reserve stores a batch. If one of its unique keys is taken, it is an [*Error] of kind
// [Duplicate]. If its token is known, the jobs of that are Known, as [Ledger.Recall]
// has them. As long as some of those are missing, the error is
// [ErrUnderway].
type Reserve struct {
	Stamp
	Batch *Batch `json:"batch"`
}

// ErrUnderway is the error of [Reserve] for a token whose batch is stored and not
// complete.
var ErrUnderway error = &Error{Kind: Conflict, Detail: "the batch with this token is not complete yet"}

// ForgetTokens drops idempotency tokens from before a moment, the oldest first. It sets
// Removed.
type ForgetTokens struct {
	Stamp
	Before Time `json:"before"`
	Most   int  `json:"most"` // at most this number
}

// Expire ends those of the jobs whose expiry or deadline has passed, see [Job.Expire].
type Expire struct {
	Stamp
	Keys []uint64 `json:"keys"`
}

// Lose records for those of the jobs that are processing that their worker died. They
// are Changed. A job that has lost MaxLost workers has failed.
type Lose struct {
	Stamp
	Keys    []uint64 `json:"keys"`
	MaxLost int      `json:"max_lost"`
}

// Release puts those of the jobs back that are processing. They are Changed, and it
// does not count against them. Their workers must have been interrupted.
type Release struct {
	Stamp
	Keys []uint64 `json:"keys"`
	Why  string   `json:"why"`
}

// Seed adds ended jobs from their notifications after the loss of the tracker. Their
// ends are not notified again.
type Seed struct {
	Stamp
	Ended []*Job `json:"ended"`
}

// seedJSON is a Seed in JSON, with each job in the form of its notification.
type seedJSON struct {
	Stamp
	Ended [][]byte `json:"ended"`
}

// MarshalJSON keeps payloads and results, byte for byte.
func (c Seed) MarshalJSON() ([]byte, error) {
	out := seedJSON{Stamp: c.Stamp}
	for _, j := range c.Ended {
		out.Ended = append(out.Ended, j.AppendJSON(nil))
	}
	return json.Marshal(out)
}

// UnmarshalJSON is the inverse of MarshalJSON.
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

// Disable keeps callbacks from a URL that does not want them any more.
type Disable struct {
	Stamp
	URL string `json:"url"`
	By  ID     `json:"by"` // the callback that it has refused
}

// Enable ends [Disable].
type Enable struct {
	Stamp
	URL string `json:"url"`
}

// EndRebuild ends the rebuild of a lost tracker, during which events alone make jobs.
type EndRebuild struct{ Stamp }

// Rewind sets the positions in the streams, after these have gone back.
type Rewind struct {
	Stamp
	To Positions `json:"to"`
}

// KeepInput stores the description of an input's file. The file must be on disk.
type KeepInput struct {
	Stamp
	ID   ID       `json:"id"`
	File Artifact `json:"file"`
}

// DropInputs forgets inputs that no job has had since a moment, the oldest first. Their
// ids are the Value, a []ID: the files are needed no more.
type DropInputs struct {
	Stamp
	Before Time `json:"before"`
	Most   int  `json:"most"` // at most this number
}
