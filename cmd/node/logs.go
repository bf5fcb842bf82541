package node

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/joblog"
)

// memberLogs are the logs of jobs in a cluster. Lines go to the node that leads at that
// moment, so the log of a job has a part in the folder of each node that has led meanwhile.
type memberLogs struct {
	*joblog.Dir
	m *member
}

// logsTime is how long a node may take to send its part. Without it the log lacks that.
const logsTime = 2 * time.Second

// innerLogs begins the paths of parts at the inner doors.
const innerLogs = "/inner/logs/"

// Read reads the parts of all nodes that are there; see [joblog.Dir.Read].
func (l memberLogs) Read(ctx context.Context, id jobs.ID, q joblog.Query) ([]joblog.Entry, error) {
	own, err := l.Dir.Read(ctx, id, joblog.Query{})
	if err != nil {
		return nil, err
	}
	return q.Pick(append(l.elsewhere(ctx, id), own).Merge()), nil
}

// Follow goes on with what comes to this node; see [joblog.Dir.Follow].
func (l memberLogs) Follow(ctx context.Context, id jobs.ID, q joblog.Query, ended <-chan struct{}, f func(*joblog.Entry) error) error {
	parts := l.elsewhere(ctx, id)
	if len(parts) == 0 {
		return l.Dir.Follow(ctx, id, q, ended, f)
	}
	own, err := l.Dir.Read(ctx, id, joblog.Query{})
	if err != nil {
		return err
	}
	all := append(parts, own).Merge()
	last, before := 0, all[len(all)-1].N // a part has entries
	if len(own) > 0 {
		last = own[len(own)-1].N
		before -= last
	}
	shown := q.Pick(all)
	for i := range shown {
		if err := f(&shown[i]); err != nil {
			return err
		}
	}
	return l.Dir.Follow(ctx, id, joblog.Query{Attempt: q.Attempt}, ended, func(e *joblog.Entry) error {
		if e.N <= last {
			return nil
		}
		next := *e
		next.N += before
		return f(&next)
	})
}

// elsewhere are the parts of other nodes that have one.
func (l memberLogs) elsewhere(ctx context.Context, id jobs.ID) (parts joblog.Parts) {
	ctx, cancel := context.WithTimeout(ctx, logsTime)
	defer cancel()
	var mu sync.Mutex
	var asking sync.WaitGroup
	for _, h := range l.m.machine.Known() {
		if time.Since(h.Heard) > silentFor {
			continue
		}
		asking.Go(func() {
			part, err := l.m.fetchLog(ctx, h.Name, id)
			if err != nil {
				l.m.n.log.Warn("a node does not send its part of a job's log", "node", h.Name, "id", id, "error", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if len(part) > 0 {
				parts = append(parts, part)
			}
		})
	}
	asking.Wait()
	return parts
}

// fetchLog asks another member for its part.
func (m *member) fetchLog(ctx context.Context, name string, id jobs.ID) (part []joblog.Entry, err error) {
	answer, err := m.askInner(ctx, http.MethodGet, name, innerLogs+id.String())
	if err != nil {
		return nil, err
	}
	defer answer.Close()
	err = json.NewDecoder(answer).Decode(&part)
	return part, err
}

// serveLog sends this node's part to another member.
func (m *member) serveLog(w http.ResponseWriter, r *http.Request) {
	id, err := jobs.ParseID(r.PathValue("id"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	part, err := m.logs.Read(r.Context(), id, joblog.Query{})
	if err != nil {
		m.n.log.Error("the log of a job cannot be read", "id", id, "error", err)
		http.Error(w, "the log cannot be read", http.StatusInternalServerError)
		return
	}
	_ = json.NewEncoder(w).Encode(part) // the other node notices
}
