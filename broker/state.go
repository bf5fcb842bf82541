package broker

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go/jetstream"
)

// Streams looks at the three streams, trims JOBS and sets its bound. Its only state is that
// bound.
type Streams struct {
	server *Server

	mu    sync.Mutex // guards slack; changes of the bound come one at a time
	slack int        // messages that JOBS may hold beyond twice the queue size
}

// StreamState is what a stream holds.
type StreamState struct {
	First, Last uint64 // sequences; Last stays when its message is gone
	Msgs, Bytes uint64
}

// Jobs is the state of JOBS.
func (s *Streams) Jobs(ctx context.Context) (StreamState, error) { return s.state(ctx, JobsStream) }

// Status is the state of STATUS.
func (s *Streams) Status(ctx context.Context) (StreamState, error) { return s.state(ctx, StatusStream) }

// Notifications is the state of NOTIFICATIONS.
func (s *Streams) Notifications(ctx context.Context) (StreamState, error) {
	return s.state(ctx, NotificationsStream)
}

func (s *Streams) state(ctx context.Context, name string) (StreamState, error) {
	stream, err := s.find(ctx, name)
	if err != nil {
		return StreamState{}, err
	}
	state := stream.CachedInfo().State
	return StreamState{First: state.FirstSeq, Last: state.LastSeq, Msgs: state.Msgs, Bytes: state.Bytes}, nil
}

func (s *Streams) find(ctx context.Context, name string) (jetstream.Stream, error) {
	var stream jetstream.Stream
	err := s.server.soon(ctx, func(ctx context.Context) (err error) {
		stream, err = s.server.js.Stream(ctx, name)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot look up stream %s: %w", name, err)
	}
	return stream, nil
}

// JobsGaps lists the missing sequences between the first and the last message of JOBS. ok
// is false if there are more than limit.
func (s *Streams) JobsGaps(ctx context.Context, limit int) (gaps []uint64, ok bool, err error) {
	stream, err := s.find(ctx, JobsStream)
	if err != nil {
		return nil, false, err
	}
	n := stream.CachedInfo().State.NumDeleted
	if n == 0 || n > limit {
		return nil, n == 0, nil
	}
	info, err := stream.Info(ctx, jetstream.WithDeletedDetails(true))
	if err != nil {
		return nil, false, fmt.Errorf("cannot look into stream %s: %w", JobsStream, err)
	}
	return info.State.Deleted, len(info.State.Deleted) >= n, nil
}

// lastJob is the sequence of the last message that JOBS holds, 0 if it holds none.
func (s *Streams) lastJob(ctx context.Context) (uint64, error) {
	stream, err := s.find(ctx, JobsStream)
	if err != nil {
		return 0, err
	}
	var m *jetstream.RawStreamMsg
	err = s.server.soon(ctx, func(ctx context.Context) (err error) {
		m, err = stream.GetLastMsgForSubject(ctx, jobsSubjects)
		return err
	})
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("cannot look for the last message of stream %s: %w", JobsStream, err)
	}
	return m.Sequence, nil
}

// PurgeJobs removes everything up to and including the sequence upTo from JOBS. A stream
// that ends before upTo is lifted: its next message gets upTo+1.
func (s *Streams) PurgeJobs(ctx context.Context, upTo uint64) error {
	stream, err := s.find(ctx, JobsStream)
	if err != nil {
		return err
	}
	if err := stream.Purge(ctx, jetstream.WithPurgeSequence(upTo+1)); err != nil {
		return fmt.Errorf("cannot trim stream %s: %w", JobsStream, err)
	}
	return nil
}

// SetSlack gives JOBS room for extra messages beyond twice the queue size. A start needs
// it for jobs that it publishes again, and [Tail] for dead messages that have to stay.
func (s *Streams) SetSlack(ctx context.Context, extra int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	extra = max(extra, 0)
	if extra == s.slack {
		return nil
	}
	if _, err := s.server.js.UpdateStream(ctx, s.server.o.jobsConfig(extra)); err != nil {
		return fmt.Errorf("cannot change the bound of stream %s: %w", JobsStream, err)
	}
	s.slack = extra
	return nil
}
