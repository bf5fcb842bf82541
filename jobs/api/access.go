package api

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"jobstream/jobs"
	"jobstream/jobs/access"
)

// guarded has each operation refuse callers without its scope, before it reads anything of
// the request, and has the audit log know.
func guarded(all []*Operation) []*Operation {
	for _, op := range all {
		op.REST, op.NATS = op.guard(op.REST), op.guard(op.NATS)
	}
	return all
}

func (op *Operation) guard(h Handler) Handler {
	if h == nil {
		return nil
	}
	return op.audit(func(ctx context.Context, r Request) (Answer, error) {
		if err := r.Caller().need(op.Scope); err != nil && !(op.Own && r.Caller().hasOwn()) {
			return Answer{}, err
		}
		return h(ctx, r)
	})
}

// need refuses a caller without a scope.
func (c Caller) need(s access.Scope) error {
	if s == Anyone || c.May(s) {
		return nil
	}
	return c.forbidden("this needs the scope %s", s)
}

// hasOwn says whether the caller has jobs of its own that it may see. Nobody knows which
// jobs are whose among those of all who have no token.
func (c Caller) hasOwn() bool { return c.May(access.Submit) && c.Name != access.Anonymous }

// sees says whether the caller may see a job.
func (c Caller) sees(j *jobs.Job) bool {
	return c.May(access.Read) || c.hasOwn() && j.CreatedBy == c.Name
}

// look is find for a caller who wants to see the job. One that it may not see looks like
// one that does not exist.
func (c Call) look(ctx context.Context, q ofJob) (*jobs.Job, error) {
	j, err := c.find(ctx, q)
	if err == nil && !c.Caller.sees(j) {
		return nil, jobs.NoSuchJob(q.name())
	}
	return j, err
}

// mayTake refuses a submission whose inputs are files of jobs that the caller may not see,
// as if there were no such jobs.
func (c Call) mayTake(ctx context.Context, s *jobs.Submission, at string) error {
	if c.Caller.May(access.Read) {
		return nil
	}
	for _, in := range s.Inputs() {
		if in.Job == (jobs.ID{}) {
			continue
		}
		j, err := c.Reader.Job(ctx, in.Job)
		if err != nil {
			return err
		}
		if j != nil && !c.Caller.sees(j) {
			return jobs.Invalid(at+"/inputs/"+in.Name, jobs.NoJobForInput(in.Job))
		}
	}
	return nil
}

// forbidden is the error for a caller that lacks a right.
func (c Caller) forbidden(format string, args ...any) error {
	scopes := make([]string, len(c.Scopes))
	for i, s := range c.Scopes {
		scopes[i] = string(s)
	}
	has := strings.Join(scopes, ", ")
	if has == "" {
		has = "none"
	}
	return &jobs.Error{Kind: jobs.Forbidden, Detail: fmt.Sprintf(format, args...) + "; " + c.Name + " has " + has}
}

// onlyTypes is the error for a caller that may do something with jobs of other types only.
func (c Caller) onlyTypes(do, typ string) error {
	return &jobs.Error{Kind: jobs.Forbidden, Detail: fmt.Sprintf("%s may %s jobs of %s only, not of %s", c.Name, do, strings.Join(c.Types, ", "), jobs.Quote(typ))}
}

// mayMake refuses a caller that may not make jobs of a type. What a type does may need
// another right than submitting: an export shows all jobs, a cleanup deletes them. An
// unknown type is nobody's; the backend has an error for it.
func (c Call) mayMake(typ string, payload json.RawMessage) error {
	if err := c.Caller.need(access.Submit); err != nil {
		return err
	}
	return c.mayUseAll(typ, payload)
}

// mayUseAll is mayMake for a caller that need not have the scope submit.
func (c Call) mayUseAll(typ string, payload json.RawMessage) error {
	for _, target := range c.Submitter.Targets(typ, payload) {
		if err := c.mayUse(target); err != nil {
			return err
		}
	}
	return nil
}

func (c Call) mayUse(typ string) error {
	if !c.Caller.MayUse(typ) {
		return c.Caller.onlyTypes("make", typ)
	}
	if s := c.Submitter.Needs(typ); s != "" && !c.Caller.May(s) {
		return c.Caller.forbidden("jobs of %s need the scope %s", jobs.Quote(typ), s)
	}
	return nil
}
