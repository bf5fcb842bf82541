package node

import (
	"context"
	"math"
	"os"
	"time"

	"jobstream/broker"
	"jobstream/jobs"
	"jobstream/jobs/api"
	"jobstream/jobs/figures"
)

// beginFigures counts what waits at the start, before anything changes.
func (c *core) beginFigures() error {
	waiting := jobs.Filter{Statuses: []jobs.Status{jobs.Pending, jobs.Retrying}}
	return c.o.figures.Begin(func(yield func(*jobs.Job) error) error {
		return c.Store.Scan(context.Background(), waiting, yield)
	})
}

// Now says how things stand with types and workers; see [figures.Source].
func (c *core) Now(waiting map[string]figures.Waiting) figures.Now {
	w := c.Pool.Workers()
	now := figures.Now{
		Workers:  figures.Workers{Busy: w.Active, Max: w.Size, Utilisation: math.Round(w.Utilisation*1000) / 1000, Paused: w.Paused},
		DiskFree: c.diskFree(),
		Types:    make(map[string]figures.TypeNow),
	}
	reasons := c.reasons(waiting)
	for name, n := range c.Store.Now() {
		if name == jobs.CallbackType {
			continue
		}
		t := figures.TypeNow{Scheduled: n[jobs.Scheduled], Retrying: n[jobs.Retrying], Reasons: reasons[name]}
		if typ := c.o.registry.Lookup(name); typ != nil && typ.Internal {
			t.Internal, t.Running = true, n[jobs.Processing]
		}
		now.Types[name] = t
	}
	for name, of := range w.Types {
		t := now.Types[name]
		t.Running, t.Paused = of.Active, of.Paused
		now.Types[name] = t
	}
	return now
}

// backlogs are what waits by type, and for all types together under [figures.Total].
func (c *core) backlogs(waiting map[string]figures.Waiting) map[string]api.Backlog {
	now, all := jobs.Now(), make(map[string]api.Backlog)
	total := api.Backlog{Reasons: make(map[string]int)}
	for name, w := range waiting {
		b := api.Backlog{OldestSeconds: figures.SecondsSince(w.Oldest, now)}
		total.OldestSeconds = max(total.OldestSeconds, b.OldestSeconds)
		all[name] = b
	}
	for name, reasons := range c.reasons(waiting) {
		b := all[name]
		b.Reasons = reasons
		all[name] = b
		for reason, n := range reasons {
			total.Reasons[reason] += n
		}
	}
	all[figures.Total] = total
	for name, lately := range c.o.figures.Minute() {
		b := all[name]
		b.LastMinute = lately
		all[name] = b
	}
	return all
}

// streamsTime is how long the stats wait for the state of the streams. A stuck broker must
// not keep them.
const streamsTime = time.Second

// nodeStats are how this node does.
func (c *core) nodeStats(ctx context.Context) api.NodeStats {
	n := api.NodeStats{Node: c.o.figures.Board.Node(), Streams: make(map[string]api.StreamStats)}
	n.TrackerBytes, n.JournalBytes = sizeOf(c.o.dirs.Tracker), sizeOf(c.o.dirs.Tracker+"-journal")
	ctx, cancel := context.WithTimeout(ctx, streamsTime)
	defer cancel()
	for name, look := range map[string]func(context.Context) (broker.StreamState, error){
		broker.JobsStream: c.Broker.Streams.Jobs, broker.StatusStream: c.Broker.Streams.Status, broker.NotificationsStream: c.Broker.Streams.Notifications,
	} {
		if s, err := look(ctx); err == nil {
			n.Streams[name] = api.StreamStats{Messages: s.Msgs, Bytes: s.Bytes}
		}
	}
	return n
}

// sizeOf is the size of a file in bytes; 0 = unknown.
func sizeOf(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// diskFree is the space left where the data folder is, in bytes; 0 = unknown.
func (c *core) diskFree() int64 {
	_, free, err := leastFree(c.health.room.dirs)
	if err != nil {
		return 0
	}
	return int64(min(free, math.MaxInt64))
}

// reasons counts what waits by type and reason.
func (c *core) reasons(waiting map[string]figures.Waiting) map[string]map[string]int {
	unfinished, _ := c.Store.Totals()
	places := make(map[string]jobs.Places, len(waiting))
	for name, w := range waiting {
		if w.Pending() > 0 {
			places[name] = w.Places
		}
	}
	all := c.Pool.WaitReasons(places, unfinished >= c.o.releaseRoom())
	for name, n := range c.Store.Now() {
		if name == jobs.CallbackType {
			continue
		}
		for reason, n := range map[string]int{jobs.WaitScheduled: n[jobs.Scheduled], jobs.WaitBackoff: n[jobs.Retrying]} {
			if n > 0 {
				if all[name] == nil {
					all[name] = make(map[string]int)
				}
				all[name][reason] += n
			}
		}
	}
	return all
}
