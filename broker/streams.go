package broker

import (
	"math"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"jobstream/jobs"
)

// Everything that other NATS clients can see stands in this file: names,
// subjects and the settings of streams and consumers. Headers stand in headers.go.

// The streams.
const (
	// JobsStream holds submissions until their jobs have ended.
	JobsStream = "JOBS"
	// StatusStream holds what happened to jobs.
	StatusStream = "STATUS"
	// NotificationsStream holds the notifications of ended jobs.
	NotificationsStream = "NOTIFICATIONS"
)

var streamNames = [...]string{JobsStream, StatusStream, NotificationsStream}

// HeaderOmitted is the header of a notification or of the service's answer that
// names the fields of job resources which were left out because the message would
// have been larger than the server takes.
const HeaderOmitted = "Jobstream-Omitted"

// jobsSubjects are those of JOBS.
const jobsSubjects = "jobs.>"

// NoID stands in place of the id in the subjects under which STATUS and NOTIFICATIONS
// keep their messages. nats-server holds every subject of a stream in memory, some 210
// bytes each. Core subscribers see the id, and a filter that ends in > or * matches
// both.
const NoID = "_"

// withoutID is the transform of subjects of three tokens behind the first that does that.
func withoutID(first string) *jetstream.SubjectTransformConfig {
	return &jetstream.SubjectTransformConfig{Source: first + ".*.*.*", Destination: first + ".{{wildcard(1)}}.{{wildcard(2)}}." + NoID}
}

const (
	headerBytes = 64 << 10 // room for subject and headers beside a payload

	eventAge      = 72 * time.Hour // how long STATUS and NOTIFICATIONS keep messages
	eventBytes    = 4 << 30        // and how many bytes of them
	maxKept       = 2_000_000      // and how many of them, in each of the two
	maxPacked     = 256 << 10      // bytes of one message of packed events
	pullExpiry    = 30 * time.Second
	clientPending = 8 << 20     // see maxPending
	leastPrefetch = 5 << 19     // see prefetch
	pullGrace     = time.Second // beyond a request's expiry, until it counts as lost
	ackTimeout    = 5 * time.Second
	heartbeat     = 2 * time.Second // of the readers' consumers
	defaultMax    = 1 << 20         // MaxPayload, bytes
	// The answer to a batch has what was submitted, and something more per job.
	batchAnswer   = jobs.MaxBatch << 10
	defaultLease  = 30 * time.Second
	defaultQueue  = 100_000
	unlimitedDisk = 1 << 60 // bytes; a full disk is noticed when a write fails
)

// jobsConfig bounds JOBS at twice the queue size plus extra messages. Admission
// proper is the tracker's count of unfinished jobs; this bound is the last line,
// and the only one for bare publishers.
func (o *Options) jobsConfig(extra int) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:        JobsStream,
		Description: "submitted jobs; the body is the payload",
		Subjects:    []string{jobsSubjects},
		Retention:   jetstream.LimitsPolicy,
		Storage:     jetstream.FileStorage,
		Discard:     jetstream.DiscardNew,
		MaxMsgs:     2*int64(o.QueueSize) + int64(extra),
		MaxMsgSize:  int32(min(o.MaxPayload+headerBytes, math.MaxInt32)),
		Duplicates:  2 * time.Minute,
		AllowDirect: true,
		// a bare publisher may leave the priority out
		SubjectTransform: &jetstream.SubjectTransformConfig{Source: "jobs.*", Destination: "jobs.{{wildcard(1)}}.3"},
	}
}

func statusConfig() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:        StatusStream,
		Description: "what happened to jobs: JSON on status.<kind>.<type>._, or many events packed on status.packed.<node>",
		Subjects:    []string{"status.>"},
		Retention:   jetstream.LimitsPolicy,
		Storage:     jetstream.FileStorage,
		Discard:     jetstream.DiscardOld,
		MaxAge:      eventAge,
		MaxBytes:    eventBytes,
		MaxMsgs:     maxKept,
		AllowDirect: true,

		SubjectTransform: withoutID("status"),
	}
}

func notificationsConfig() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:        NotificationsStream,
		Description: "ended jobs: the job resource on job.<status>.<type>._; live ones end with the id",
		Subjects:    []string{"job.*.*.*"},
		Retention:   jetstream.LimitsPolicy,
		Storage:     jetstream.FileStorage,
		Discard:     jetstream.DiscardOld,
		MaxAge:      eventAge,
		MaxBytes:    eventBytes,
		MaxMsgs:     maxKept,
		AllowDirect: true,

		SubjectTransform: withoutID("job"),
		// Without a write per message: what a killed process has not written yet
		// stands in the tracker's outbox and is published again.
		PersistMode: jetstream.AsyncPersistMode,
	}
}

// laneConfig is the durable consumer behind a lane. A delivery that is nak'ed
// with a delay stays pending while it sleeps, so the number of pending ones must
// not be bounded: the server's default of 1000 would stop the lane.
func (o *Options) laneConfig(lane jobs.Lane) jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable:       lane.String(),
		FilterSubject: laneSubject(lane),
		DeliverPolicy: jetstream.DeliverAllPolicy,
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       o.Lease,
		MaxDeliver:    -1,
		MaxAckPending: -1,
		HeadersOnly:   true,
		MemoryStorage: true,
	}
}

// readerConfig is the consumer with which this process follows a stream from
// the sequence start. It lives in memory and goes when its reader does.
func readerConfig(name string, start uint64) jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Name:              name,
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:       start,
		AckPolicy:         jetstream.AckNonePolicy,
		MaxDeliver:        1,
		MemoryStorage:     true,
		InactiveThreshold: 10 * time.Second,
	}
}

// largest is the most bytes that a message of this server can have, in any stream.
func (o *Options) largest() int { return min(o.MaxPayload+headerBytes+batchAnswer, math.MaxInt32) }

// prefetch is how many bytes a reader of a stream may have asked for and not taken:
// at least one message, with the subjects that the server counts with it.
func (o *Options) prefetch() int { return max(leastPrefetch, o.largest()+2<<10) }

// maxPending is how many bytes a client may be behind before it is dropped. What the
// server is writing counts until its last byte is written, and a reader may ask for
// the next before: so it is twice what that has asked for, and what the protocol adds.
func (o *Options) maxPending() int { return max(clientPending, 3*o.largest()) }

// pullSubject is where a consumer takes pull requests.
func pullSubject(stream, consumer string) string {
	return "$JS.API.CONSUMER.MSG.NEXT." + stream + "." + consumer
}

// laneSubject is where the jobs of a lane stand: jobs.<type>.<priority>.
func laneSubject(lane jobs.Lane) string {
	return string(appendLaneSubject(make([]byte, 0, 32), lane.Type, lane.Priority))
}

func appendLaneSubject(b []byte, typ string, p jobs.Priority) []byte {
	b = append(b, "jobs."...)
	b = append(b, typ...)
	return append(b, '.', '0'+byte(p))
}
