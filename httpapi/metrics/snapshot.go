package metrics

import "jobstream/jobs/figures"

// Snapshot is how the server stands. Counters begin with the process unless a comment says
// otherwise.
type Snapshot struct {
	Version string
	Checks  map[string]bool // by part: whether it is well
	Types   map[string]Type // see [Bound]

	Workers Workers
	Queue   Level // pending, processing and retrying jobs; most is worker.queue_size
	Tracker Tracker
	Streams map[string]Stream // by name
	Doors   map[string]Level  // connections, by door
	NATS    Traffic

	Members int             // of the cluster; 0 = there is none
	Nodes   map[string]Node // of the cluster, by name, as this node knows them

	DiskFree  int64 // bytes
	Followers int   // of GET /events, digests included
	Callbacks int   // in the queue
}

// Type is how a job type stands.
type Type struct {
	figures.Sums
	Now     map[string]int // jobs that have not ended, by status
	Ended   map[string]int // jobs that have ended, by status, since the data folder was made
	Reasons map[string]int // waiting jobs, by reason
	Oldest  float64        // seconds that the job has waited which is due for longest
	Paused  bool
	Workers Level // most is 0 without a bound of its own
	Known   bool  // it is configured
}

// Node is how a node of the cluster stands.
type Node struct {
	Leader, Ready, Differs bool // see [jobstream/jobs/api.NodeInfo]
	Position, Lag          uint64
	Ahead                  float64 // of its clock, in seconds
}

// Level is how much there is of something, and how much there may be; 0 = no bound.
type Level struct{ Now, Most int }

// Workers are the pool's own.
type Workers struct {
	Level
	Paused bool
}

// Tracker is how the tracker does.
type Tracker struct {
	Commits figures.Histogram // how long they took
	Lag     map[string]uint64 // by stream: its messages that are not folded yet
	Bytes   int64             // of its file
	// Unnotified are the ends whose notifications are not stored yet.
	Unnotified int
}

// Stream is what a stream holds.
type Stream struct {
	Messages, Bytes uint64
}

// Traffic is that of the NATS door.
type Traffic struct {
	In, Out           int64 // messages
	InBytes, OutBytes int64
	Slow              int64 // clients that were dropped because they read too slowly
}
