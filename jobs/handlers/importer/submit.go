package importer

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"time"

	"jobstream/jobs"
)

// rowID is the id of the n-th row of an import: the time of the import's, and a hash of
// both. An import without a principal may have been begun by an earlier version, which made
// such ids as ordinary ones.
func rowID(j *jobs.Job, n int) jobs.ID {
	of := j.ID
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(append([]byte("import\x00"), of[:]...), uint64(n)))
	id := of
	copy(id[6:], sum[:10])
	id[6] = id[6]&0x0f | jobs.MadeVersion<<4
	if j.CreatedBy == "" {
		id[6] = id[6]&0x0f | 0x70
	}
	id[8] = id[8]&0x3f | 0x80
	return id
}

// flush submits the first pending rows that are to be submitted, as one batch, and settles
// them with the refused ones between.
func (r *run) flush(ctx context.Context) error {
	if r.good == 0 {
		return r.settle(len(r.pending))
	}
	batch := make([]*jobs.Submission, 0, min(r.good, r.most))
	for _, p := range r.pending {
		if p.sub != nil && len(batch) < cap(batch) {
			batch = append(batch, p.sub)
		}
	}
	made, err := r.submit(ctx, batch)
	if err != nil {
		return err
	}
	in := make(map[jobs.ID]bool, len(made))
	for _, j := range made {
		in[j.ID] = true
	}
	n := 0
	for n < len(r.pending) && (r.pending[n].sub == nil || in[r.pending[n].sub.ID]) {
		n++
	}
	if n == 0 {
		return jobs.Permanentf("the import's first row at line %d has other jobs than before: the file, or the payload's meaning, has changed", r.pending[0].line)
	}
	r.most = min(2*r.most, mostRows)
	return r.settle(n)
}

// submit submits a batch, or a first part of it for which there is room. The token of its
// first row stands for what has been submitted together: another attempt that begins with
// that row, after a crash, gets the same jobs.
func (r *run) submit(ctx context.Context, batch []*jobs.Submission) ([]*jobs.Job, error) {
	token := jobs.NewToken("import", batch[0].ID.String(), nil)
	until := time.Now().Add(wait)
	for {
		r.most = min(r.most, len(batch))
		made, _, err := r.queue.SubmitBatch(ctx, batch[:r.most], token)
		var e *jobs.Error
		switch {
		case err == nil:
			return made, nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case !errors.As(err, &e):
			return nil, err
		case e.Kind == jobs.QueueFull && r.most > 1:
			r.most /= 2
			continue
		case e.Kind == jobs.QueueFull && time.Now().Before(until):
		case e.Kind == jobs.QueueFull || e.Kind == jobs.ShuttingDown || e.Kind == jobs.Unavailable:
			return nil, jobs.Snooze(putOff, r.summary()+"; "+e.Detail)
		case e.Kind == jobs.UnknownType:
			return nil, jobs.Permanent(err)
		default: // the type has changed since the rows were checked
			return nil, err
		}
		select {
		case <-time.After(waitAgain):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
