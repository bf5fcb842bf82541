package broker

import (
	"math"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"jobstream/jobs"
)

// This file has everything that other NATS clients can see: names, subjects, and the
// settings of streams and consumers. Headers stand in headers.go.

// The streams.
const (
	// JobsStream has submissions until their jobs have ended.
	JobsStream = "JOBS"
	// StatusStream has the events of jobs.
	StatusStream = "STATUS"
	// NotificationsStream has the notifications of ended jobs.
	NotificationsStream = "NOTIFICATIONS"
	// TrackerStream has the changes of a cluster's tracker. A server that is alone has none.
	TrackerStream = "TRACKER"
	// FilesStream has the files of a cluster's jobs. A server that is alone has none.
	FilesStream = "FILES"
)

// streamNames are those that every server has.
var streamNames = [...]string{JobsStream, StatusStream, NotificationsStream}

// HeaderOmitted is a header of notifications and of the service's answers. It names fields
// of job resources that were left out because the message would have been too large.
const HeaderOmitted = "Jobstream-Omitted"

// jobsSubjects matches all subjects of JOBS.
const jobsSubjects = "jobs.>"

// NoID stands in place of the id in the stored subjects of STATUS and NOTIFICATIONS.
// nats-server has every subject of a stream in memory, some 210 bytes each. Core
// subscribers see the id, and a filter that ends in > or * matches both forms.
const NoID = "_"

// withoutID is the subject transform that puts NoID in place of the fourth token.
func withoutID(first string) *jetstream.SubjectTransformConfig {
	return &jetstream.SubjectTransformConfig{Source: first + ".*.*.*", Destination: first + ".{{wildcard(1)}}.{{wildcard(2)}}." + NoID}
}

const (
	headerBytes = 64 << 10 // room for subject and headers beside a payload

	eventAge      = 72 * time.Hour // STATUS and NOTIFICATIONS keep messages so long,
	eventBytes    = 4 << 30        // each of them at most so many bytes
	maxKept       = 2_000_000      // and so many messages
	maxPacked     = 256 << 10      // bytes of one message of packed events
	pullExpiry    = 30 * time.Second
	memberExpiry  = 2 * time.Second
	clientPending = 8 << 20     // see maxPending
	leastPrefetch = 5 << 19     // see prefetch
	pullGrace     = time.Second // a request counts as lost so long after its expiry
	ackTimeout    = 5 * time.Second
	heartbeat     = 2 * time.Second // of the readers' consumers
	memberBeat    = heartbeat / 3   // likewise in a cluster
	defaultMax    = 1 << 20         // MaxPayload, bytes
	// An answer to a batch has the submission, and something more per job.
	batchAnswer   = jobs.MaxBatch << 10
	defaultLease  = 30 * time.Second
	defaultQueue  = 100_000
	trackerBytes  = 1 << 30
	unlimitedDisk = 1 << 60 // bytes; a full disk is noticed when a write fails
)

// jobsConfig bounds JOBS at twice the queue size plus extra messages. Submissions are
// bounded earlier, by the number of unfinished jobs. This is the only bound for bare
// publishers.
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
		Replicas:    o.replicas(),
		RePublish:   o.bell(JobsStream),
		// bare publishers may leave the priority out
		SubjectTransform: &jetstream.SubjectTransformConfig{Source: "jobs.*", Destination: "jobs.{{wildcard(1)}}.3"},
	}
}

func (o *Options) statusConfig() jetstream.StreamConfig {
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
		Replicas:    o.replicas(),
		RePublish:   o.bell(StatusStream),

		SubjectTransform: withoutID("status"),
	}
}

func (o *Options) notificationsConfig() jetstream.StreamConfig {
	cfg := jetstream.StreamConfig{
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
		Replicas:    o.replicas(),

		SubjectTransform: withoutID("job"),
	}
	if o.Cluster == nil {
		// There is no write per message. Notifications that a killed process has not
		// written stand in the tracker's outbox and are published again. A stream with
		// copies cannot do that.
		cfg.PersistMode = jetstream.AsyncPersistMode
	}
	return cfg
}

// trackerConfig is the log of a cluster's tracker; see [TrackerLog].
func (o *Options) trackerConfig() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:        TrackerStream,
		Description: "what changes in the tracker, for its copies on the other members",
		Subjects:    []string{trackerSubject(o.Cluster.Name)},
		Retention:   jetstream.LimitsPolicy,
		Storage:     jetstream.FileStorage,
		Discard:     jetstream.DiscardOld,
		MaxBytes:    trackerBytes,
		AllowDirect: true,
		DenyDelete:  true,
		Replicas:    o.replicas(),
		RePublish:   &jetstream.RePublish{Source: trackerSubject(o.Cluster.Name), Destination: bellSubject, HeadersOnly: true},
	}
}

// filesConfig is the place of a cluster's files; see [Files]. Only the stream's leader reads
// it, so that what was put in is found at once.
func (o *Options) filesConfig() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:              FilesStream,
		Description:       "files that jobs have left and get, in parts",
		Subjects:          []string{filesSubjects + "*.*.*.*"},
		Retention:         jetstream.LimitsPolicy,
		Storage:           jetstream.FileStorage,
		Discard:           jetstream.DiscardOld,
		MaxMsgsPerSubject: 1,
		Replicas:          o.replicas(),
	}
}

// laneConfig is the durable consumer behind a lane. Its pending deliveries are not bounded:
// a delivery that is nak'ed with a delay stays pending while it sleeps, and the server's
// default of 1000 would stop the lane.
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
		Replicas:      1,
	}
}

// readerConfig is the consumer with which this process follows a stream from the sequence
// start. It lives in memory and goes with its reader.
func readerConfig(name string, start uint64) jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Name:              name,
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:       start,
		AckPolicy:         jetstream.AckNonePolicy,
		MaxDeliver:        1,
		MemoryStorage:     true,
		Replicas:          1,
		InactiveThreshold: 10 * time.Second,
	}
}

// largest is the number of bytes that a message of this server may have, in any stream.
func (o *Options) largest() int { return min(o.MaxPayload+headerBytes+batchAnswer, math.MaxInt32) }

// prefetch is the number of bytes that a reader's pull request asks for. It is enough for
// one message with its subjects, which the server counts, too.
func (o *Options) prefetch() int { return max(leastPrefetch, o.largest()+2<<10) }

// maxPending is the number of bytes that a client may be behind before it is dropped. A
// write counts until its last byte is written, and a reader may send its next request
// before that. So it is twice a reader's request, and something for the protocol.
func (o *Options) maxPending() int { return max(clientPending, 3*o.largest()) }

// pullExpiry is after how long a request of a lane ends by itself. In a cluster a request is
// lost with the member that has the lane's consumer, and nothing else tells.
func (o *Options) pullExpiry() time.Duration {
	if o.Cluster != nil {
		return memberExpiry
	}
	return pullExpiry
}

// heartbeat is how often the consumers of readers show that they live. In a cluster they may
// go with their member.
func (o *Options) heartbeat() time.Duration {
	if o.Cluster != nil {
		return memberBeat
	}
	return heartbeat
}

// pullSubject is the subject of a consumer's pull requests.
func pullSubject(stream, consumer string) string {
	return "$JS.API.CONSUMER.MSG.NEXT." + stream + "." + consumer
}

// laneSubject is the subject of the jobs of a lane: jobs.<type>.<priority>.
func laneSubject(lane jobs.Lane) string {
	return string(appendLaneSubject(make([]byte, 0, 32), lane.Type, lane.Priority))
}

func appendLaneSubject(b []byte, typ string, p jobs.Priority) []byte {
	b = append(b, "jobs."...)
	b = append(b, typ...)
	return append(b, '.', '0'+byte(p))
}
