package broker

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// StreamState is what a stream holds.
type StreamState struct {
	First, Last uint64 // sequences; Last stays when its message is gone
	Msgs        uint64
}

// JobsState is the state of JOBS.
func (b *Broker) JobsState(ctx context.Context) (StreamState, error) { return b.state(ctx, JobsStream) }

// StatusState is the state of STATUS.
func (b *Broker) StatusState(ctx context.Context) (StreamState, error) {
	return b.state(ctx, StatusStream)
}

func (b *Broker) state(ctx context.Context, name string) (StreamState, error) {
	s, err := b.js.Stream(ctx, name)
	if err != nil {
		return StreamState{}, fmt.Errorf("cannot look up stream %s: %w", name, err)
	}
	info := s.CachedInfo()
	return StreamState{First: info.State.FirstSeq, Last: info.State.LastSeq, Msgs: info.State.Msgs}, nil
}

// JobsGaps lists the sequences between the first and the last message of JOBS
// that it does not have (any more). ok is false if there are more than limit.
func (b *Broker) JobsGaps(ctx context.Context, limit int) (gaps []uint64, ok bool, err error) {
	s, err := b.js.Stream(ctx, JobsStream)
	if err != nil {
		return nil, false, fmt.Errorf("cannot look up stream %s: %w", JobsStream, err)
	}
	n := s.CachedInfo().State.NumDeleted
	if n == 0 || n > limit {
		return nil, n == 0, nil
	}
	info, err := s.Info(ctx, jetstream.WithDeletedDetails(true))
	if err != nil {
		return nil, false, fmt.Errorf("cannot look into stream %s: %w", JobsStream, err)
	}
	return info.State.Deleted, len(info.State.Deleted) >= n, nil
}

// PurgeJobs removes everything up to and with the sequence upTo from JOBS. If
// the stream has gone back behind upTo it is lifted: the next message gets
// upTo+1.
func (b *Broker) PurgeJobs(ctx context.Context, upTo uint64) error {
	s, err := b.js.Stream(ctx, JobsStream)
	if err == nil {
		err = s.Purge(ctx, jetstream.WithPurgeSequence(upTo+1))
	}
	if err != nil {
		return fmt.Errorf("cannot trim stream %s: %w", JobsStream, err)
	}
	return nil
}

// SetSlack lets JOBS hold extra messages beyond twice the queue size: for jobs that are
// published again at a start, and for dead messages that have to stay (see [Tail]).
func (b *Broker) SetSlack(ctx context.Context, extra int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	extra = max(extra, 0)
	if extra == b.slack {
		return nil
	}
	if _, err := b.js.UpdateStream(ctx, b.o.jobsConfig(extra)); err != nil {
		return fmt.Errorf("cannot change the bound of stream %s: %w", JobsStream, err)
	}
	b.slack = extra
	return nil
}
