package node

import (
	"log/slog"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/schedule"
)

// Options are what a node is made of.
type Options struct {
	Dirs       Folders
	Registry   *jobs.Registry
	Tracker    *LateTracker // filled by Start; may be nil
	Host       string       // of the NATS port
	Port       int          // -1 any, 0 none
	MaxConns   int          // there; 0 = no bound of ours
	Sync       time.Duration
	SyncAlways bool
	MaxWorkers int
	MinWorkers int // 0 = always maxWorkers
	QueueSize  int
	Scheduled  int             // bound of jobs whose time is to come
	Schedules  []schedule.Spec // of the configuration
	MaxPayload int
	Lease      time.Duration
	MaxLost    int
	Started    time.Time // when the process began to serve; zero = now
	Again      bool      // this process had a node on the folder before, and has broken it off
	Logger     *slog.Logger
}

// releaseRoom is the number of unfinished jobs from which scheduled ones wait
// though their time has come: they come on top of the jobs that the doors let in.
func (o *Options) releaseRoom() int { return o.QueueSize + o.QueueSize/2 }
