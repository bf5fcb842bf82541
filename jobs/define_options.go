package jobs

import (
	"fmt"
	"slices"
	"time"

	"jobstream/jobs/access"
)

// TypeOption is a setting of a job type, for [Define]: [Retries], [Timeout],
// [MaxWorkers], [ConcurrencyPerKey], [Grace], [LeaseTime], [Description], [Needs],
// [Takes], [Lenient], a [Backoff] or a [Rate].
type TypeOption interface{ define(*definition) }

// SubmitOption is a wish of one submission, for [Definition.Submit]: [Delay], [RunAt],
// [TTL], [ExpiresAt], [DeadlineIn], [DeadlineAt], [Unique], [ConcurrencyKey], [Tags],
// [Idempotency], [CallbackURL], [WithInput], [Retries], [Timeout] or a [Priority].
type SubmitOption interface{ submit(*Submission) }

// Option is a setting of a type which one submission may wish otherwise.
type Option interface {
	TypeOption
	SubmitOption
}

type (
	typeOption   func(*definition)
	submitOption func(*Submission)
	option       struct {
		typeOption
		submitOption
	}
)

func (o typeOption) define(d *definition)   { o(d) }
func (o submitOption) submit(s *Submission) { o(s) }
func (b Backoff) define(d *definition)      { d.Backoff = b }
func (r Rate) define(d *definition)         { d.Rate = r }
func (p Priority) submit(s *Submission)     { s.Priority = p }

// Retries is the number of attempts after the first one, 0 to [MaxRetryCount].
func Retries(n int) Option {
	return option{func(d *definition) { d.RetryCount = n }, func(s *Submission) { s.RetryCount = n }}
}

// Timeout bounds one attempt: above 0, at most [MaxTimeout].
func Timeout(d time.Duration) Option {
	return option{func(t *definition) { t.Timeout = d }, func(s *Submission) {
		if s.Timeout = d; d == 0 {
			s.Timeout = -1 // it is no timeout, and 0 would be the type's
		}
	}}
}

// MaxWorkers bounds the jobs of the type that run at a time; 0 = the bound of the pool.
func MaxWorkers(n int) TypeOption { return typeOption(func(d *definition) { d.MaxWorkers = n }) }

// ConcurrencyPerKey bounds the jobs of the type with the same [ConcurrencyKey] that run
// at a time. It is 1 by default.
func ConcurrencyPerKey(n int) TypeOption {
	return typeOption(func(d *definition) { d.ConcurrencyPerKey = n })
}

// Grace is how long the function may take to return after its context has ended; see
// [Type.Grace].
func Grace(d time.Duration) TypeOption { return typeOption(func(t *definition) { t.Grace = d }) }

// LeaseTime is how long a worker elsewhere may be silent; see [Type.Lease].
func LeaseTime(d time.Duration) TypeOption { return typeOption(func(t *definition) { t.Lease = d }) }

// Description says what the type is for, for people.
func Description(text string) TypeOption {
	return typeOption(func(d *definition) { d.Description = text })
}

// Needs is the scope that clients need to submit jobs of the type, besides submit.
func Needs(scope access.Scope) TypeOption {
	return typeOption(func(d *definition) { d.Needs = scope })
}

// Takes are the files that each job of the type gets; see [Task.Input] and [WithInput].
func Takes(inputs ...InputRule) TypeOption {
	return typeOption(func(d *definition) { d.Inputs = inputs })
}

// Lenient has the type ignore fields of a payload that In does not have. They are
// refused otherwise, because a name with a typing error would be ignored as well.
func Lenient() TypeOption { return typeOption(func(d *definition) { d.lenient = true }) }

// check returns the first problem with a type.
func (d *definition) check() error {
	wrongInput := func(r InputRule) bool {
		return !ValidInputName(r.Name) || slices.ContainsFunc(r.Types, func(t string) bool { return !ValidContentType(t) })
	}
	switch {
	case !ValidTypeName(d.Name):
		return fmt.Errorf("has a bad name: 1 to %d letters, digits, _ and - are allowed", MaxTypeName)
	case d.RetryCount < 0 || d.RetryCount > MaxRetryCount:
		return fmt.Errorf("has %d retries; 0 to %d are allowed", d.RetryCount, MaxRetryCount)
	case d.Timeout <= 0 || d.Timeout > MaxTimeout:
		return fmt.Errorf("has the timeout %s; it must be above 0 and at most %s", d.Timeout, MaxTimeout)
	case d.MaxWorkers < 0 || d.ConcurrencyPerKey < 0 || d.Grace < 0:
		return fmt.Errorf("has a bound below 0")
	case d.Lease != 0 && d.Lease < MinLease:
		return fmt.Errorf("has the lease time %s; it must be at least %s", d.Lease, MinLease)
	case slices.ContainsFunc(d.Inputs, wrongInput):
		return fmt.Errorf("takes an input whose name or content type is not possible")
	}
	return nil
}

// Delay is the time from the submission to the earliest start; at most [MaxDelay].
func Delay(d time.Duration) SubmitOption {
	return submitOption(func(s *Submission) { s.Spans.Delay = d })
}

// RunAt is the earliest start.
func RunAt(t time.Time) SubmitOption {
	return submitOption(func(s *Submission) { s.terms().RunAt = TimeOf(t) })
}

// TTL is how long after its earliest start the job may begin. It is cancelled then.
func TTL(d time.Duration) SubmitOption {
	return submitOption(func(s *Submission) { s.Spans.TTL = d })
}

// ExpiresAt is the latest start. A job that has not begun by then is cancelled.
func ExpiresAt(t time.Time) SubmitOption {
	return submitOption(func(s *Submission) { s.terms().ExpiresAt = TimeOf(t) })
}

// DeadlineIn is the time from the submission to the latest end, over all attempts. A job
// that has not ended by then fails.
func DeadlineIn(d time.Duration) SubmitOption {
	return submitOption(func(s *Submission) { s.Spans.Deadline = d })
}

// DeadlineAt is the latest end, over all attempts. A job that has not ended by then
// fails.
func DeadlineAt(t time.Time) SubmitOption {
	return submitOption(func(s *Submission) { s.terms().Deadline = TimeOf(t) })
}

// Unique is a key that one unfinished job can have at a time. A second submission with
// it is refused with an [*Error] of kind [Duplicate], which has the id of the first job.
func Unique(key string) SubmitOption {
	return submitOption(func(s *Submission) { s.terms().UniqueKey = key })
}

// ConcurrencyKey is a key of which few jobs run at a time; see [ConcurrencyPerKey]. The
// keys take turns.
func ConcurrencyKey(key string) SubmitOption {
	return submitOption(func(s *Submission) { s.terms().ConcurrencyKey = key })
}

// Tags are words to find the job by, at most [MaxTags].
func Tags(tags ...string) SubmitOption {
	return submitOption(func(s *Submission) { s.Tags = append(s.Tags, tags...) })
}

// Idempotency is a key of the request: for [TokenTime] an equal submission with it makes
// no other job, and returns that of the first time.
func Idempotency(key string) SubmitOption {
	return submitOption(func(s *Submission) { s.IdempotencyKey = key })
}

// CallbackURL is notified of the job's end.
func CallbackURL(url string) SubmitOption {
	return submitOption(func(s *Submission) { s.terms().CallbackURL = url })
}

// WithInput gives the job a file that was uploaded, or that another job has left. Its
// name is one of [Takes].
func WithInput(in Input) SubmitOption {
	return submitOption(func(s *Submission) { s.terms().Inputs = append(s.terms().Inputs, in) })
}
