package metrics

import (
	"maps"
	"runtime"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"jobstream/jobs/figures"
)

// metric is one metric of a snapshot. Its labels have few values: types are bounded by
// the snapshot, all others by the program.
type metric struct {
	name, help string
	labels     []string
	kind       prometheus.ValueType // 0: a histogram
	values     func(s *Snapshot, emit emit)
}

// emit adds a value, or a histogram, with the values of the labels.
type emit struct {
	value     func(v float64, labels ...string)
	histogram func(h *figures.Histogram, labels ...string)
}

const (
	counter = prometheus.CounterValue
	gauge   = prometheus.GaugeValue
)

// table has all metrics of a snapshot.
var table = []metric{
	{"build_info", "What runs: always 1.", []string{"version", "go_version"}, gauge, func(s *Snapshot, e emit) {
		e.value(1, s.Version, runtime.Version())
	}},
	{"healthy", "Whether a part of the server is well.", []string{"part"}, gauge, func(s *Snapshot, e emit) {
		for part, well := range s.Checks {
			e.value(truth(well), part)
		}
	}},

	{"jobs", "Jobs that have not ended.", []string{"type", "status"}, gauge, each(func(t *Type, e emit, name string) {
		for status, n := range t.Now {
			e.value(float64(n), name, status)
		}
	})},
	{"jobs_ended_total", "Jobs that have ended, since the data folder was made.", []string{"type", "status"}, counter, each(func(t *Type, e emit, name string) {
		for status, n := range t.Ended {
			e.value(float64(n), name, status)
		}
	})},
	{"jobs_submitted_total", "Jobs that were submitted, or retried by hand.", []string{"type"}, counter, each(func(t *Type, e emit, name string) {
		e.value(float64(t.In), name)
	})},
	{"attempts_total", "Attempts that have completed or failed.", []string{"type", "outcome"}, counter, each(func(t *Type, e emit, name string) {
		e.value(float64(t.Done), name, "completed")
		e.value(float64(t.Failed+t.Retried), name, "failed")
	})},
	{"job_wait_seconds", "How long jobs had waited when an attempt began, from the moment at which that was due.", []string{"type"}, 0, each(func(t *Type, e emit, name string) {
		e.histogram(&t.Wait, name)
	})},
	{"attempt_duration_seconds", "How long attempts took that completed or failed.", []string{"type"}, 0, each(func(t *Type, e emit, name string) {
		e.histogram(&t.Run, name)
	})},
	{"oldest_waiting_seconds", "How long the job has waited that is due for longest.", []string{"type"}, gauge, each(func(t *Type, e emit, name string) {
		e.value(t.Oldest, name)
	})},
	{"waiting_jobs", "Jobs that wait, by the reason.", []string{"type", "reason"}, gauge, each(func(t *Type, e emit, name string) {
		for reason, n := range t.Reasons {
			e.value(float64(n), name, reason)
		}
	})},
	{"type_paused", "Whether a type is paused.", []string{"type"}, gauge, known(func(t *Type, e emit, name string) {
		e.value(truth(t.Paused), name)
	})},
	{"type_workers_busy", "Workers that run jobs of a type.", []string{"type"}, gauge, known(func(t *Type, e emit, name string) {
		e.value(float64(t.Workers.Now), name)
	})},
	{"type_workers_limit", "How many jobs of a type may run at once; absent without a bound of its own.", []string{"type"}, gauge, known(func(t *Type, e emit, name string) {
		if t.Workers.Most > 0 {
			e.value(float64(t.Workers.Most), name)
		}
	})},

	{"workers_busy", "Workers that run a job.", nil, gauge, one(func(s *Snapshot) float64 { return float64(s.Workers.Now) })},
	{"workers_limit", "How many workers there may be.", nil, gauge, one(func(s *Snapshot) float64 { return float64(s.Workers.Most) })},
	{"workers_paused", "Whether all workers are paused.", nil, gauge, one(func(s *Snapshot) float64 { return truth(s.Workers.Paused) })},
	{"queue_jobs", "Pending, processing and retrying jobs.", nil, gauge, one(func(s *Snapshot) float64 { return float64(s.Queue.Now) })},
	{"queue_limit_jobs", "How many of them there may be (worker.queue_size).", nil, gauge, one(func(s *Snapshot) float64 { return float64(s.Queue.Most) })},
	{"callbacks_queued", "Callbacks in the queue.", nil, gauge, one(func(s *Snapshot) float64 { return float64(s.Callbacks) })},
	{"followers", "Clients that follow GET /events.", nil, gauge, one(func(s *Snapshot) float64 { return float64(s.Followers) })},

	{"tracker_commit_duration_seconds", "How long commits of the tracker took.", nil, 0, func(s *Snapshot, e emit) { e.histogram(&s.Tracker.Commits) }},
	{"tracker_lag_messages", "Messages of a stream that the tracker has not folded yet.", []string{"stream"}, gauge, func(s *Snapshot, e emit) {
		for stream, n := range s.Tracker.Lag {
			e.value(float64(n), stream)
		}
	}},
	{"tracker_file_bytes", "The size of the tracker's file.", nil, gauge, one(func(s *Snapshot) float64 { return float64(s.Tracker.Bytes) })},
	{"unnotified_ends", "Ends of jobs whose notifications are not stored yet.", nil, gauge, one(func(s *Snapshot) float64 { return float64(s.Tracker.Unnotified) })},
	{"stream_messages", "Messages in a stream.", []string{"stream"}, gauge, func(s *Snapshot, e emit) {
		for name, of := range s.Streams {
			e.value(float64(of.Messages), name)
		}
	}},
	{"stream_bytes", "The size of a stream.", []string{"stream"}, gauge, func(s *Snapshot, e emit) {
		for name, of := range s.Streams {
			e.value(float64(of.Bytes), name)
		}
	}},
	{"cluster_members", "How many members the cluster has; absent without a cluster.", nil, gauge, func(s *Snapshot, e emit) {
		if s.Members > 0 {
			e.value(float64(s.Members))
		}
	}},
	{"node_leader", "Whether a node of the cluster leads.", []string{"node"}, gauge, ofNodes(func(n *Node) float64 { return truth(n.Leader) })},
	{"node_ready", "Whether a node of the cluster leads, or could at any moment.", []string{"node"}, gauge, ofNodes(func(n *Node) float64 { return truth(n.Ready) })},
	{"node_position", "The last entry of the cluster's log that a node's tracker has.", []string{"node"}, gauge, ofNodes(func(n *Node) float64 { return float64(n.Position) })},
	{"node_lag_entries", "How many entries of the log a node's tracker lacks.", []string{"node"}, gauge, ofNodes(func(n *Node) float64 { return float64(n.Lag) })},
	{"node_differs", "Whether a node's tracker is another one than those of most nodes.", []string{"node"}, gauge, ofNodes(func(n *Node) float64 { return truth(n.Differs) })},
	{"node_clock_ahead_seconds", "How far a node's clock is ahead of that of this one, about.", []string{"node"}, gauge, ofNodes(func(n *Node) float64 { return n.Ahead })},

	{"disk_free_bytes", "What is free where the data folder is.", nil, gauge, one(func(s *Snapshot) float64 { return float64(s.DiskFree) })},

	{"connections", "Open connections at a door.", []string{"door"}, gauge, func(s *Snapshot, e emit) {
		for door, n := range s.Doors {
			e.value(float64(n.Now), door)
		}
	}},
	{"connections_limit", "How many of them there may be; absent without a bound.", []string{"door"}, gauge, func(s *Snapshot, e emit) {
		for door, n := range s.Doors {
			if n.Most > 0 {
				e.value(float64(n.Most), door)
			}
		}
	}},
	{"nats_messages_total", "Messages at the NATS door, those of the server itself included.", []string{"direction"}, counter, func(s *Snapshot, e emit) {
		e.value(float64(s.NATS.In), "in")
		e.value(float64(s.NATS.Out), "out")
	}},
	{"nats_bytes_total", "Bytes at the NATS door, those of the server itself included.", []string{"direction"}, counter, func(s *Snapshot, e emit) {
		e.value(float64(s.NATS.InBytes), "in")
		e.value(float64(s.NATS.OutBytes), "out")
	}},
	{"nats_slow_clients_total", "NATS clients that were dropped because they read too slowly.", nil, counter, one(func(s *Snapshot) float64 { return float64(s.NATS.Slow) })},
}

// ofNodes is a metric of each node of the cluster.
func ofNodes(of func(n *Node) float64) func(*Snapshot, emit) {
	return func(s *Snapshot, e emit) {
		for name, n := range s.Nodes {
			e.value(of(&n), name)
		}
	}
}

// one is a metric without labels.
func one(of func(*Snapshot) float64) func(*Snapshot, emit) {
	return func(s *Snapshot, e emit) { e.value(of(s)) }
}

// each is a metric of each type.
func each(of func(t *Type, e emit, name string)) func(*Snapshot, emit) {
	return func(s *Snapshot, e emit) {
		for _, name := range slices.Sorted(maps.Keys(s.Types)) {
			t := s.Types[name]
			of(&t, e, name)
		}
	}
}

// known is a metric of each type that is configured.
func known(of func(t *Type, e emit, name string)) func(*Snapshot, emit) {
	return each(func(t *Type, e emit, name string) {
		if t.Known {
			of(t, e, name)
		}
	})
}

func truth(v bool) float64 {
	if v {
		return 1
	}
	return 0
}
