package jobstest

import (
	"reflect"

	"jobstream/jobs"
)

// Same compares two jobs, for which an empty list and none are the same.
func Same(a, b *jobs.Job) bool {
	return reflect.DeepEqual(normal(a), normal(b))
}

func normal(j *jobs.Job) *jobs.Job {
	if j == nil {
		return nil
	}
	c := *j
	if len(c.Errors) == 0 {
		c.Errors = nil
	}
	if len(c.History) == 0 {
		c.History = nil
	}
	if len(c.Tags) == 0 {
		c.Tags = nil
	}
	if len(c.Payload) == 0 {
		c.Payload = nil
	}
	if len(c.Result) == 0 {
		c.Result = nil
	}
	return &c
}
