package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/schedule"
	"jobstream/status"
)

// The doctor looks at a server, or at the folder of one that does not run. The tracker
// looks at itself (see package status). The rest is here: files, schedules, streams, clock and
// disk.

// DoctorOptions say what is looked at.
type DoctorOptions struct {
	Dir     string
	MinFree int64    // as in [Options]
	Types   []string // names of the job types; nil: unknown
	Repair  bool     // mend what can be mended
	Logger  *slog.Logger
}

// Doctor inspects the folder of a server that does not run. While it lasts none can start
// there; if one runs, the error is [boltfile.ErrLocked].
func Doctor(ctx context.Context, o DoctorOptions) (found []jobs.Finding, err error) {
	dirs := FoldersIn(o.Dir)
	if _, err := os.Stat(dirs.Tracker); err != nil {
		return nil, err
	}
	if err := dirs.Whole(); err != nil {
		return []jobs.Finding{{Check: "restore", Severity: jobs.Broken, Text: err.Error(), Do: "empty the folder and restore again"}}, nil
	}
	tracker, err := status.OpenStopped(dirs.Tracker, o.Logger)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, tracker.Close()) }()
	d := &doctor{tracker: tracker, dirs: dirs, o: o}
	found, err = tracker.Inspect(ctx, o.Repair, d.see)
	if err != nil {
		return found, err
	}
	d.found = found
	clean := false
	if err := tracker.Snapshot(func(s *status.Snapshot) error { clean = s.Clean; return nil }); err != nil {
		return d.found, err
	}
	if slices.ContainsFunc(found, func(f jobs.Finding) bool { return f.Check == "tracker.old" }) {
		return d.found, nil // it lacks what else is looked at
	}
	if !clean {
		d.add("stop", jobs.Notice, "the last stop was not clean, so the next start makes the streams anew from the tracker", "nothing; it loses no accepted job")
	}
	return d.found, d.outside(ctx)
}

// inspector inspects the running server; see [api.Inspector].
type inspector struct {
	o       *coreOptions
	store   *status.Store
	c       *core         // nil on a member of a cluster that does not lead
	looking chan struct{} // has a token while somebody does
}

// Inspect looks at the tracker, at the streams, and at everything around them.
func (in inspector) Inspect(ctx context.Context) ([]jobs.Finding, error) {
	select {
	case in.looking <- struct{}{}:
		defer func() { <-in.looking }()
	default:
		return nil, &jobs.Error{Kind: jobs.Conflict, Detail: "the server is being inspected already; wait for its end"}
	}
	types := make([]string, 0)
	for _, t := range in.o.registry.Types() {
		types = append(types, t.Name)
	}
	d := &doctor{tracker: in.store, dirs: in.o.dirs, running: true, member: in.o.member != nil, o: DoctorOptions{MinFree: in.o.Bounds.MinFree, Types: types}}
	var err error
	if d.found, err = in.store.Inspect(ctx, d.see); err != nil {
		return nil, err
	}
	if in.c != nil {
		if err := in.c.compareStreams(ctx, d); err != nil {
			return nil, err
		}
	}
	for name, err := range in.checks(ctx) {
		if err != nil && name != "disk" && name != "cluster" { // the disk and the nodes have findings of their own
			d.add("health."+name, jobs.Broken, err.Error(), "see the server's log")
		}
	}
	if m := in.o.member; m != nil {
		d.found = append(d.found, m.lasting(ctx)...)
	}
	if !in.o.Broker.SyncAlways {
		d.add("sync", jobs.Notice, fmt.Sprintf("a power cut may take what bare NATS publishers were acknowledged in the last %v; jobs answered by REST or the service are safe", in.o.Broker.Sync),
			"nothing, or broker.sync: always")
	}
	return d.found, d.outside(ctx)
}

// checks are the parts of the server, with what is wrong with each.
func (in inspector) checks(ctx context.Context) map[string]error {
	if in.o.member != nil {
		return in.o.member.Check(ctx)
	}
	return in.c.health.Check(ctx)
}

// compareStreams compares JOBS with what the tracker needs of it.
func (c *core) compareStreams(ctx context.Context, d *doctor) error {
	gaps, all, err := c.Broker.Streams.JobsGaps(ctx, maxGaps)
	if err != nil {
		return err
	}
	if missing, _ := c.Store.Live(gaps); all && missing {
		d.add("streams.jobs", jobs.Broken, "JOBS lacks messages of unfinished jobs, so these do not run", "wait some seconds, as the server publishes them again; else start it again")
	}
	at := c.Store.Positions().Jobs // before the look at the stream, which only grows
	state, err := c.Broker.Streams.Jobs(ctx)
	if err != nil {
		return err
	}
	if state.Last < at {
		d.add("streams.jobs", jobs.Broken, fmt.Sprintf("JOBS ends at %d, and the tracker has read up to %d", state.Last, at), "start the server again; it makes JOBS anew from the tracker")
	}
	return nil
}

// doctor gathers findings.
type doctor struct {
	tracker interface {
		Job(ctx context.Context, id jobs.ID) (*jobs.Job, error)
		Input(id jobs.ID) (*jobs.Artifact, error)
		Schedules(ctx context.Context) ([]*schedule.Entry, error)
	}
	dirs    Folders
	o       DoctorOptions
	running bool // so things change
	member  bool // of a cluster, so files may be with other nodes
	found   []jobs.Finding

	newest  jobs.Time // of all records
	lost    []lostFile
	unknown map[string]int // unfinished jobs of unknown types
}

// lostFile is a file that a record names and that is not there.
type lostFile struct {
	job   jobs.ID
	ended bool // it had, so the file is one that it has left
	path  string
}

func (d *doctor) add(check string, s jobs.Severity, text, do string) {
	d.found = append(d.found, jobs.Finding{Check: check, Severity: s, Text: text, Do: do})
}

// see looks at one job.
func (d *doctor) see(j *jobs.Job) {
	d.newest = max(d.newest, j.CreatedAt)
	if d.o.Types != nil && !j.Status.Ended() && j.Type != jobs.CallbackType && !slices.Contains(d.o.Types, j.Type) {
		if d.unknown == nil {
			d.unknown = make(map[string]int)
		}
		d.unknown[j.Type]++
	}
	if d.member {
		return
	}
	files := jobs.NewArtifactDir(d.dirs.Artifacts, 0)
	if j.Status.Ended() {
		for _, a := range j.Files() {
			d.needs(j, files, j.ID, &a)
		}
		return
	}
	for _, in := range j.Inputs() {
		d.needs(j, files.Inputs(), in.ID, &in.File)
	}
}

// needs checks that a file of a job is there.
func (d *doctor) needs(j *jobs.Job, dir *jobs.ArtifactDir, id jobs.ID, a *jobs.Artifact) {
	f, err := dir.Open(id, a)
	if err == nil {
		_ = f.Close()
	} else if errors.Is(err, fs.ErrNotExist) {
		d.lost = append(d.lost, lostFile{j.ID, j.Status.Ended(), dir.Path(id, a)})
	}
}

// outside looks at what is not in the tracker.
func (d *doctor) outside(ctx context.Context) error {
	err := errors.Join(d.missing(ctx), d.orphans(ctx), d.schedules(ctx))
	d.disk()
	now := jobs.Now()
	if ahead := d.newest.Sub(now); ahead > time.Minute {
		d.add("clock", jobs.Warning, fmt.Sprintf("the clock shows %s, and the newest job is of %s: the clock has gone back by %v, or was ahead", now, d.newest, ahead.Round(time.Second)),
			"set the clock by NTP; until it is there again, delays and schedules are late")
	}
	for name, n := range d.unknown {
		d.add("type.unknown", jobs.Warning, fmt.Sprintf("%d jobs wait whose type %s the configuration does not have", n, name), "put the type back, or cancel them")
	}
	for _, left := range []struct{ check, path, what, do string }{
		{"aside", filepath.Join(d.dirs.Root, "set-aside.jsonl"), "there are messages that could not be processed", "report the file as a bug of jobstream; then it may be deleted"},
		{"streams.broken", filepath.Join(d.dirs.Broker, "broken"), "a stream was damaged and set aside; a start has made it anew", "look at the disk; the folder may be deleted"},
	} {
		if _, err := os.Stat(left.path); err == nil {
			d.add(left.check, jobs.Warning, left.what+": "+left.path, left.do)
		}
	}
	return err
}

// On a running server a file may be gone a moment before the record of its job. So the
// doctor waits for that this long.
const (
	goneWithin = 10 * time.Second
	goneEvery  = 100 * time.Millisecond
)

// missing adds the files that are really missing. Meanwhile a job may have been deleted,
// have ended, or run again.
func (d *doctor) missing(ctx context.Context) error {
	left := d.lost
	for end := time.Now().Add(goneWithin); ; {
		var still []lostFile
		for _, f := range left {
			j, err := d.tracker.Job(ctx, f.job)
			if err != nil {
				return err
			}
			if j != nil && j.Status.Ended() == f.ended {
				still = append(still, f)
			}
		}
		if left = still; len(left) == 0 || !d.running || time.Now().After(end) {
			break
		}
		if !sleep(ctx, goneEvery) {
			return context.Cause(ctx)
		}
	}
	for _, f := range left {
		d.add("file.missing", jobs.Broken, fmt.Sprintf("job %s names a file that is not there: %s", f.job, f.path), "put it back from a backup, or delete the job")
	}
	return nil
}

// settleTime is how long a file may be there before its record, or after.
const settleTime = time.Minute

// orphans finds the files of jobs and inputs that the tracker does not know.
func (d *doctor) orphans(ctx context.Context) error {
	if d.member {
		return nil
	}
	known := func(id jobs.ID) (bool, error) {
		j, err := d.tracker.Job(ctx, id)
		return j != nil, err
	}
	input := func(id jobs.ID) (bool, error) {
		a, err := d.tracker.Input(id)
		return a != nil, err
	}
	return errors.Join(
		d.orphansIn(d.dirs.Artifacts, "file.artifacts", known),
		d.orphansIn(filepath.Join(d.dirs.Artifacts, "in"), "file.inputs", input),
		d.orphansIn(d.dirs.Logs, "file.logs", known))
}

func (d *doctor) orphansIn(dir, check string, known func(jobs.ID) (bool, error)) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var orphans []string
	for _, e := range entries {
		name, _, _ := strings.Cut(strings.TrimPrefix(e.Name(), "."), ".")
		id, bad := jobs.ParseID(name)
		info, gone := e.Info()
		if bad != nil || gone != nil || time.Since(info.ModTime()) < settleTime {
			continue
		}
		is, err := known(id)
		if err != nil {
			return err
		}
		path := filepath.Join(dir, e.Name())
		if _, gone := os.Lstat(path); !is && gone == nil {
			orphans = append(orphans, path)
		}
	}
	if len(orphans) == 0 {
		return err
	}
	d.found = append(d.found, jobs.Finding{
		Check: check, Severity: jobs.Warning, Repairs: true,
		Text: fmt.Sprintf("%d files or folders in %s belong to no job that the tracker knows (the first is %s)", len(orphans), dir, filepath.Base(orphans[0])),
		Do:   "stop the server and run jobstream doctor --data DIR --repair, which deletes them",
	})
	if d.o.Repair {
		for _, path := range orphans {
			err = errors.Join(err, os.RemoveAll(path))
		}
	}
	return err
}

// schedules finds those that cannot fire.
func (d *doctor) schedules(ctx context.Context) error {
	all, err := d.tracker.Schedules(ctx)
	for _, e := range all {
		p, bad := e.Plan()
		switch {
		case bad != nil:
			d.add("schedule", jobs.Broken, fmt.Sprintf("schedule %s cannot fire: %v", e.Name, bad), "replace it")
		case d.o.Types != nil && !slices.Contains(d.o.Types, e.Type):
			d.add("schedule", jobs.Broken, fmt.Sprintf("schedule %s cannot fire: there is no type %s", e.Name, e.Type), "put the type back, or delete the schedule")
		case !e.Paused && p.Next(jobs.Now()) == 0:
			d.add("schedule", jobs.Warning, fmt.Sprintf("schedule %s never fires again", e.Name), "delete it, or give it other times")
		}
	}
	return err
}

// disk looks at the head-room.
func (d *doctor) disk() {
	dir, free, err := leastFree([]string{d.dirs.Root, d.dirs.Broker, d.dirs.Artifacts, d.dirs.Logs, d.dirs.Outbox})
	least := uint64(max(d.o.MinFree, 0))
	const do = "free disk space, delete old jobs, or lower data.min_free"
	switch {
	case err != nil:
		d.add("disk", jobs.Notice, fmt.Sprintf("the free space of the disk cannot be found out: %v", err), "nothing")
	case least > 0 && free < least:
		d.add("disk", jobs.Broken, fmt.Sprintf("the disk of %s has %s free, less than data.min_free (%s), so nothing new is taken", dir, mebibytes(free), mebibytes(least)), do)
	case least > 0 && free < 2*least:
		d.add("disk", jobs.Warning, fmt.Sprintf("the disk of %s has %s free, and below %s (data.min_free) nothing new is taken", dir, mebibytes(free), mebibytes(least)), do)
	}
}
