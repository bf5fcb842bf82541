package main

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"

	"jobstream/broker"
	"jobstream/jobs"
)

// endpoints are the requests of the NATS service: the same as REST, by the same
// checks.
func (b backend) endpoints() []broker.Endpoint {
	return []broker.Endpoint{
		{Name: "submit", Handle: func(ctx context.Context, body []byte) ([]byte, error) {
			s, err := jobs.ParseSubmission(body)
			if err != nil {
				return nil, err
			}
			j, err := b.Submit(ctx, s)
			if err != nil {
				return nil, err
			}
			return j.MarshalJSON()
		}},
		{Name: "get", Handle: func(ctx context.Context, body []byte) ([]byte, error) {
			id, seq, err := jobs.ParseRef(body)
			if err != nil {
				return nil, err
			}
			var j *jobs.Job
			if seq != 0 {
				j, err = b.JobBySeq(ctx, seq)
			} else {
				j, err = b.Job(ctx, id)
			}
			if err != nil {
				return nil, err
			}
			if j == nil {
				return nil, jobs.NoSuchJob(ref(id, seq))
			}
			return j.MarshalJSON()
		}},
		{Name: "list", Handle: func(ctx context.Context, body []byte) ([]byte, error) {
			page, err := jobs.ParseListRequest(body)
			if err != nil {
				return nil, err
			}
			found, next, err := b.List(ctx, page)
			if err != nil {
				return nil, inBody(err)
			}
			return jobs.ListJSON(found, next), nil
		}},
		{Name: "stats", Handle: func(ctx context.Context, _ []byte) ([]byte, error) {
			st, err := b.Stats(ctx)
			if err != nil {
				return nil, err
			}
			return st.AppendJSON(nil), nil
		}},
	}
}

// ref is what a request named a job by.
func ref(id jobs.ID, seq uint64) string {
	if seq != 0 {
		return strconv.FormatUint(seq, 10)
	}
	return id.String()
}

// inBody names a list's parameters where a request of the service has them.
func inBody(err error) error {
	var e *jobs.Error
	if !errors.As(err, &e) {
		return err
	}
	moved := *e
	moved.Fields = slices.Clone(e.Fields)
	for i := range moved.Fields {
		moved.Fields[i].Pointer = "/" + strings.TrimPrefix(moved.Fields[i].Pointer, "query/")
	}
	return &moved
}
