package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	"jobstream/jobs/access"
	"jobstream/jobs/form"
)

// Operation is one thing that the server does on request. All operations are in one
// table, see [Operations], and the doors are made from it.
type Operation struct {
	// Name identifies the operation, and is its endpoint over NATS: jobstream.NAME.
	Name string
	// Scope is the right that a caller needs for it.
	Scope access.Scope
	// Route is its method and path over REST; "" = it is not offered there. HEAD goes
	// where GET goes.
	Route string
	// Status is its HTTP status on success, unless the [Answer] has another one.
	Status int
	Doors
	// Doc describes it for its users, beside its function.
	Doc form.Doc
}

// Anyone is the scope of operations that every principal may do.
const Anyone access.Scope = "anyone"

// Doors have the handler of an operation for each door; nil = it is not offered there.
type Doors struct {
	REST, NATS Handler
	// Own says that whoever may submit may do it about jobs of its own, without the scope.
	Own bool
	// Place is which node of a cluster does it.
	Place Place
	// Large says that its body may be too large for memory, and is read once.
	Large bool
}

// Place is which node of a cluster does an operation.
type Place int

// The places.
const (
	// AtLeader is where whatever changes something is done, and what only the leader knows.
	AtLeader Place = iota
	// Here is the node that was asked. Its answer may lag behind what others have heard.
	Here
	// Current is the node that was asked, as soon as it knows all that anybody has heard.
	Current
)

// MakesOne says that it makes one job, whose id may be chosen before; see [Caller].
func (op *Operation) MakesOne() bool { return op.Name == "submit" || op.Name == "run" }

// PlaceFor is the place for a request with this query, or this body over NATS. Only the
// leader counts figures, so its digests are everybody's. Whoever lists may want to miss
// nothing.
func (op *Operation) PlaceFor(query string, body []byte) Place {
	switch {
	case op.Name == "events" && strings.Contains(query, "digest="):
		return AtLeader
	case op.Place == Here && (consistentQuery(query) || consistentBody(body)):
		return Current
	}
	return op.Place
}

// The readers refuse what has another form.

func consistentQuery(query string) bool {
	if !strings.Contains(query, consistentName) {
		return false
	}
	values, err := url.ParseQuery(query)
	return err == nil && values.Get(consistentName) == "true"
}

func consistentBody(body []byte) bool {
	if !bytes.Contains(body, []byte(consistentName)) {
		return false
	}
	var b struct{ Consistent any }
	return json.Unmarshal(body, &b) == nil && (b.Consistent == true || b.Consistent == "true")
}

// Needs says which scope a caller needs, for people.
func (op *Operation) Needs() string {
	if op.Scope == Anyone {
		return "Needs no scope."
	}
	if op.Own {
		return fmt.Sprintf("Needs the scope `%s`; a token with `%s` has it for its own jobs.", op.Scope, access.Submit)
	}
	return fmt.Sprintf("Needs the scope `%s`.", op.Scope)
}

// Handler does an operation for one request. An error that the caller may see is a
// [*jobs.Error].
type Handler func(ctx context.Context, r Request) (Answer, error)

// Operations lists all operations: the whole surface on a page. Only the health probes
// of REST are not among them.
func Operations() []*Operation { return operations }

var operations = guarded([]*Operation{
	{"submit", access.Submit, "POST /jobs", 202, both(readSubmission, submit), submitDoc},
	{"batch", access.Submit, "POST /jobs/batch", 202, both(readBatch, submitBatch), batchDoc},
	{"run", access.Submit, "", 0, doors(nil, readRun, submit), runDoc},
	{"bulk", access.Manage, "POST /jobs/bulk", 202, doors(readBulk, nil, changeMany), bulkDoc},
	{"artifact.create", access.Submit, "POST /artifacts", 201, large(doors(readUpload, nil, upload)), artifactCreateDoc},

	{"list", access.Read, "GET /jobs", 200, here(own(doors(readListQuery, readListBody, list))), listDoc},
	{"counts", access.Read, "GET /jobs/counts", 200, here(doors(readCountsQuery, readCountsBody, count)), countsDoc},
	{"tags", access.Read, "GET /tags", 200, here(doors(readTags, nil, listTags)), tagsDoc},
	{"failures", access.Read, "GET /failures", 200, here(doors(readFailures, nil, listFailures)), failuresDoc},
	{"get", access.Read, "GET /jobs/{id}", 200, current(own(doors(readGetPath, readGetBody, get))), getDoc},
	{"history", access.Read, "GET /jobs/{id}/events", 200, current(own(doors(readHistoryPage, nil, history))), historyDoc},
	{"events", access.Read, "GET /events", 200, here(doors(readEventsQuery, nil, followChanges)), eventsDoc},
	{"log", access.Read, "GET /jobs/{id}/log", 200, own(doors(readLogPath, nil, readLog)), logDoc},
	{"result", access.Read, "GET /jobs/{id}/result", 200, current(own(doors(readJobPath, nil, result))), resultDoc},
	{"artifact.list", access.Read, "GET /jobs/{id}/artifacts", 200, current(own(doors(readJobPath, nil, listArtifacts))), artifactListDoc},
	{"artifact.get", access.Read, "GET /jobs/{id}/artifacts/{name}", 200, own(doors(readArtifactPath, nil, getArtifact)), artifactGetDoc},
	{"delivery.list", access.Read, "GET /deliveries", 200, here(doors(readDeliveriesQuery, nil, listDeliveries)), deliveryListDoc},
	{"cancel", access.Manage, "POST /jobs/{id}/cancel", 202, doors(readCancelPath, readCancelBody, cancel), cancelDoc},
	{"retry", access.Manage, "POST /jobs/{id}/retry", 202, doors(readJobPathOnly, readJobBody, retry), retryDoc},
	{"run_now", access.Manage, "POST /jobs/{id}/run", 202, doors(readJobPathOnly, readJobBody, runNow), runNowDoc},
	{"revise", access.Manage, "PATCH /jobs/{id}", 200, doors(readRevision, nil, revise), reviseDoc},
	{"delete", access.Manage, "DELETE /jobs/{id}", 204, doors(readJobPathOnly, readJobBody, remove), deleteDoc},

	{"metrics", access.Read, "GET /metrics", 200, here(doors(readNothing, nil, metrics)), metricsDoc},

	{"type.list", access.Read, "GET /types", 200, doors(readNothing, nil, listTypes), typeListDoc},
	{"type.get", access.Read, "GET /types/{type}", 200, doors(readTypePath, nil, getType), typeGetDoc},
	{"pause", access.Manage, "POST /types/{type}/pause", 200, doors(readTypePathOnly, readTypeBody, pauseType), pauseDoc},
	{"resume", access.Manage, "POST /types/{type}/resume", 200, doors(readTypePathOnly, readTypeBody, resumeType), resumeDoc},
	{"stats", access.Read, "GET /workers/stats", 200, doors(readNothing, ignoreBody, stats), statsDoc},
	{"stats.history", access.Read, "GET /stats/history", 200, doors(readHistoryQuery, nil, statsHistory), statsHistoryDoc},
	{"resize", access.Manage, "PUT /workers", 200, doors(readResize, nil, resize), resizeDoc},
	{"worker.pause", access.Manage, "POST /workers/pause", 200, both(readEmpty, pauseWorkers), workerPauseDoc},
	{"worker.resume", access.Manage, "POST /workers/resume", 200, both(readEmpty, resumeWorkers), workerResumeDoc},

	{"worker.list", access.Read, "GET /workers", 200, doors(readNothing, ignoreBody, listWorkers), workerListDoc},
	{"worker.next", access.Work, "POST /leases", 200, both(readAsk, next), workerNextDoc},
	{"worker.beat", access.Work, "POST /leases/beat", 200, both(readBeat, beat), workerBeatDoc},
	{"worker.progress", access.Work, "POST /leases/{lease}/progress", 200, both(reportOf(progressFields), progress), workerProgressDoc},
	{"worker.done", access.Work, "POST /leases/{lease}/done", 200, both(reportOf(doneFields), done), workerDoneDoc},
	{"worker.done_many", access.Work, "POST /leases/done", 200, both(readManyDone, doneMany), workerDoneManyDoc},
	{"worker.fail", access.Work, "POST /leases/{lease}/fail", 200, both(reportOf(failFields), fail), workerFailDoc},
	{"worker.release", access.Work, "POST /leases/{lease}/release", 200, both(reportOf(releaseFields), release), workerReleaseDoc},
	{"worker.input", access.Work, "GET /leases/{lease}/inputs/{name}", 200, doors(readLeaseFile, nil, getInput), workerInputDoc},
	{"worker.artifact", access.Work, "PUT /leases/{lease}/artifacts/{name}", 200, large(doors(readAttachment, nil, attach)), workerArtifactDoc},

	{"info", Anyone, "GET /info", 200, here(doors(readNothing, nil, info)), infoDoc},
	{"nodes", access.Read, "GET /nodes", 200, here(doors(readNothing, ignoreBody, listNodes)), nodesDoc},
	{"node.remove", access.Admin, "DELETE /nodes/{name}", 204, doors(readNamePathOnly, readNodeBody, removeNode), nodeRemoveDoc},
	{"audit", access.Admin, "GET /audit", 200, here(doors(readAudit, nil, listAudit)), auditDoc},
	{"reload", access.Admin, "POST /reload", 200, both(readEmpty, reload), reloadDoc},
	{"log_level", access.Admin, "PUT /log", 200, both(readLogLevel, setLogLevel), logLevelDoc},
	{"backup", access.Admin, "GET /backup", 200, doors(readNothing, nil, backup), backupDoc},
	{"doctor", access.Admin, "GET /doctor", 200, here(doors(readNothing, nil, examine)), doctorDoc},

	{"schedule.list", access.Read, "GET /schedules", 200, doors(readNothing, nil, listSchedules), scheduleListDoc},
	{"schedule.preview", access.Read, "GET /schedules/preview", 200, doors(readPreview, nil, previewSchedule), schedulePreviewDoc},
	{"schedule.runs", access.Read, "GET /schedules/{name}/runs", 200, doors(readNamePath, nil, scheduleRuns), scheduleRunsDoc},
	{"schedule.create", access.Manage, "POST /schedules", 201, doors(readSpec, nil, createSchedule), scheduleCreateDoc},
	{"schedule.get", access.Read, "GET /schedules/{name}", 200, doors(readNamePath, nil, getSchedule), scheduleGetDoc},
	{"schedule.put", access.Manage, "PUT /schedules/{name}", 200, doors(readNamedSpec, nil, putSchedule), schedulePutDoc},
	{"schedule.delete", access.Manage, "DELETE /schedules/{name}", 204, doors(readNamePathOnly, nil, deleteSchedule), scheduleDeleteDoc},
	{"schedule.run", access.Manage, "POST /schedules/{name}/run", 202, doors(readScheduleRun, nil, runSchedule), scheduleRunDoc},
	{"schedule.pause", access.Manage, "POST /schedules/{name}/pause", 200, doors(readNamePathOnly, nil, pauseSchedule), schedulePauseDoc},
	{"schedule.resume", access.Manage, "POST /schedules/{name}/resume", 200, doors(readNamePathOnly, nil, resumeSchedule), scheduleResumeDoc},
})

// reader reads the input of an operation from a request.
type reader[In any] func(r Request) (In, error)

// doer does an operation.
type doer[In any] func(ctx context.Context, c Call, in In) (Answer, error)

// own also lets whoever may submit do an operation that reads, about jobs of its own.
func own(d Doors) Doors {
	d.Own = true
	return d
}

// here has the node that was asked do an operation.
func here(d Doors) Doors {
	d.Place = Here
	return d
}

// current has it do an operation when it knows all that anybody has heard.
func current(d Doors) Doors {
	d.Place = Current
	return d
}

// large marks an operation whose body is a file.
func large(d Doors) Doors {
	d.Large = true
	return d
}

// both offers an operation at both doors, which read its requests in the same way.
func both[In any](read reader[In], do doer[In]) Doors { return doors(read, read, do) }

// doors offers an operation at the doors for which it has a reader.
func doors[In any](rest, nats reader[In], do doer[In]) Doors {
	return Doors{REST: handler(rest, do), NATS: handler(nats, do)}
}

// handler reads a request and does the operation.
func handler[In any](read reader[In], do doer[In]) Handler {
	if read == nil {
		return nil
	}
	return func(ctx context.Context, r Request) (Answer, error) {
		in, err := read(r)
		if err != nil {
			return Answer{}, err
		}
		return do(ctx, Call{Backend: r.Backend(), Caller: r.Caller(), door: r}, in)
	}
}
