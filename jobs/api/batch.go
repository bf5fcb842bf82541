package api

import (
	"encoding/json"
	"fmt"

	"jobstream/jobs"
	"jobstream/jobs/strict"
)

// ParseBatch reads {"jobs":[…]}, each as [ParseSubmission] reads one. Pointers in
// errors begin with the job's: /jobs/3/type.
func ParseBatch(body []byte) (subs []*jobs.Submission, err error) {
	var bad fieldErrors
	fields := []string{"jobs"}
	err = jobs.EachKnown(body, fields, fields, func(_ string, raw json.RawMessage) error {
		subs = parseBatch(raw, &bad)
		return nil
	})
	if err == nil && len(bad) > 0 {
		err = jobs.InvalidFields(bad...)
	}
	if err != nil {
		return nil, err
	}
	return subs, nil
}

func parseBatch(raw json.RawMessage, bad *fieldErrors) (subs []*jobs.Submission) {
	if raw[0] != '[' {
		bad.add("/jobs", fmt.Errorf("must be a list of jobs, not %s", strict.Describe(raw)))
		return nil
	}
	n := 0
	strict.EachElement(raw, func(entry json.RawMessage) {
		if n++; n > jobs.MaxBatch {
			return
		}
		at := fmt.Sprintf("/jobs/%d", n-1)
		if entry[0] != '{' {
			bad.add(at, fmt.Errorf("must be an object, not %s", strict.Describe(entry)))
			return
		}
		s, err := ParseSubmission(entry)
		bad.within(at, err)
		subs = append(subs, s)
	})
	if n == 0 || n > jobs.MaxBatch {
		bad.add("/jobs", fmt.Errorf("must have 1 to %d jobs, not %d", jobs.MaxBatch, n))
	}
	return subs
}

// AppendJobsJSON appends the answer of POST /jobs/batch: {"jobs":[…]}.
func AppendJobsJSON(b []byte, list []*jobs.Job) []byte {
	b = append(b, `{"jobs":[`...)
	for i, j := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = j.AppendJSON(b)
	}
	return append(b, ']', '}')
}
