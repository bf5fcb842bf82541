package api

import "context"

// Operation is something that can be asked of the server. All of them stand in one
// table, see [Operations]; the doors are made from it.
type Operation struct {
	// Name identifies the operation, and is its endpoint over NATS: jobstream.NAME.
	Name string
	// Scope is the right that it needs. Nothing asks for it yet.
	Scope Scope
	// Route is its method and path over REST; "" if it is not offered there. HEAD goes
	// where GET goes.
	Route string
	// Status is that of its success over REST, unless the [Answer] has its own.
	Status int
	// Doors do it.
	Doors
}

// Doors are an operation as each door calls it; nil = it is not offered there.
type Doors struct{ REST, NATS Handler }

// Handler does an operation for one request. An error for the caller's eyes is a
// [*jobs.Error].
type Handler func(ctx context.Context, r Request) (Answer, error)

// Scope is a right that a caller may have. One does not include another.
type Scope string

// The scopes.
const (
	ScopeSubmit Scope = "submit" // makes jobs
	ScopeRead   Scope = "read"   // looks at anything
	ScopeManage Scope = "manage" // changes jobs, types, workers and schedules
)

// Operations lists all operations. It is the whole surface on a page, but for the
// health probes, which say how the server is without asking it for anything.
func Operations() []*Operation { return operations }

var operations = []*Operation{
	{"submit", ScopeSubmit, "POST /jobs", 202, both(readSubmission, submit)},
	{"batch", ScopeSubmit, "POST /jobs/batch", 202, both(readBatch, submitBatch)},
	{"run", ScopeSubmit, "", 0, doors(nil, readRun, submit)},
	{"bulk", ScopeManage, "POST /jobs/bulk", 202, doors(readBulk, nil, changeMany)},

	{"list", ScopeRead, "GET /jobs", 200, doors(readListQuery, readListBody, list)},
	{"counts", ScopeRead, "GET /jobs/counts", 200, doors(readCountsQuery, readCountsBody, count)},
	{"get", ScopeRead, "GET /jobs/{id}", 200, doors(readGetPath, readGetBody, get)},
	{"history", ScopeRead, "GET /jobs/{id}/events", 200, doors(readJobPath, nil, history)},
	{"result", ScopeRead, "GET /jobs/{id}/result", 200, doors(readJobPath, nil, result)},
	{"cancel", ScopeManage, "POST /jobs/{id}/cancel", 202, doors(readCancelPath, readCancelBody, cancel)},
	{"retry", ScopeManage, "POST /jobs/{id}/retry", 202, doors(readJobPathOnly, readJobBody, retry)},
	{"delete", ScopeManage, "DELETE /jobs/{id}", 204, doors(readJobPathOnly, readJobBody, remove)},

	{"type.list", ScopeRead, "GET /types", 200, doors(readNothing, nil, listTypes)},
	{"type.get", ScopeRead, "GET /types/{type}", 200, doors(readTypePath, nil, getType)},
	{"pause", ScopeManage, "POST /types/{type}/pause", 200, doors(readTypePathOnly, readTypeBody, pauseType)},
	{"resume", ScopeManage, "POST /types/{type}/resume", 200, doors(readTypePathOnly, readTypeBody, resumeType)},
	{"stats", ScopeRead, "GET /workers/stats", 200, doors(readNothing, ignoreBody, stats)},
	{"resize", ScopeManage, "PUT /workers", 200, doors(readResize, nil, resize)},

	{"schedule.list", ScopeRead, "GET /schedules", 200, doors(readNothing, nil, listSchedules)},
	{"schedule.create", ScopeManage, "POST /schedules", 201, doors(readSpec, nil, createSchedule)},
	{"schedule.get", ScopeRead, "GET /schedules/{name}", 200, doors(readNamePath, nil, getSchedule)},
	{"schedule.put", ScopeManage, "PUT /schedules/{name}", 200, doors(readNamedSpec, nil, putSchedule)},
	{"schedule.delete", ScopeManage, "DELETE /schedules/{name}", 204, doors(readNamePathOnly, nil, deleteSchedule)},
	{"schedule.run", ScopeManage, "POST /schedules/{name}/run", 202, doors(readScheduleRun, nil, runSchedule)},
	{"schedule.pause", ScopeManage, "POST /schedules/{name}/pause", 200, doors(readNamePathOnly, nil, pauseSchedule)},
	{"schedule.resume", ScopeManage, "POST /schedules/{name}/resume", 200, doors(readNamePathOnly, nil, resumeSchedule)},
}

// reader reads what a request asks for.
type reader[In any] func(r Request) (In, error)

// doer does it.
type doer[In any] func(ctx context.Context, c Call, in In) (Answer, error)

// both offers an operation at both doors, for requests of the same form.
func both[In any](read reader[In], do doer[In]) Doors { return doors(read, read, do) }

// doors offers an operation at the doors that it can be read from.
func doors[In any](rest, nats reader[In], do doer[In]) Doors {
	return Doors{REST: handler(rest, do), NATS: handler(nats, do)}
}

// handler reads a request, and then does what it asks for. Whether the caller may do
// that, and that it was done, is for both doors to be seen here.
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
