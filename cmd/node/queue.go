package node

import (
	"context"
	"sync/atomic"

	"jobstream/jobs"
	"jobstream/jobs/handlers/importer"
	"jobstream/jobs/intake"
)

// Queue is the way into the queue of a node for its handlers; see [Tools].
type Queue struct {
	submitter atomic.Pointer[intake.Submitter]
}

var _ importer.Queue = (*Queue)(nil)

// Check looks at what is in a submission; see [intake.Submitter.Check].
func (q *Queue) Check(s *jobs.Submission) error { return q.submitter.Load().Check(s) }

// SubmitBatch submits all of subs or none; see [intake.Submitter.SubmitBatch].
func (q *Queue) SubmitBatch(ctx context.Context, subs []*jobs.Submission, token *jobs.Token) (made []*jobs.Job, replayed bool, err error) {
	return q.submitter.Load().SubmitBatch(ctx, subs, token)
}
