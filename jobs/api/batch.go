package api

import (
	"jobstream/jobs"
	"jobstream/jobs/strict"
)

// ParseBatch reads {"jobs":[…]}, each like [ParseSubmission]. Pointers in errors begin
// with the job's: /jobs/3/type.
func ParseBatch(body []byte) (subs []*jobs.Submission, err error) {
	err = jobs.Read("", body, func(v strict.Value) {
		var list strict.Value
		v.Object(strict.Need("jobs", func(v strict.Value) { list = v }))
		if v.Right() {
			subs = batchOf(list)
		}
	})
	if err != nil {
		return nil, err
	}
	return subs, nil
}

func batchOf(v strict.Value) (subs []*jobs.Submission) {
	if !v.IsList() {
		v.Fail("must be a list of jobs, not %s", v)
		return nil
	}
	n := 0
	v.Items(func(item strict.Value) {
		n++
		switch {
		case n > jobs.MaxBatch:
		case !item.IsObject():
			item.Fail("must be an object, not %s", item)
		default:
			subs = append(subs, submissionOf(item))
		}
	})
	if n == 0 || n > jobs.MaxBatch {
		v.Fail("must have 1 to %d jobs, not %d", jobs.MaxBatch, n)
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
