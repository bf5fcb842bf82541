package record

import (
	"errors"

	"github.com/tinylib/msgp/msgp"

	"jobstream/jobs"
	"jobstream/jobs/packed"
)

const batchVersion = 1

// ErrBatch is the error of a batch that cannot be read.
var ErrBatch = errors.New("damaged batch in the tracker")

// AppendBatch appends the encoding of a batch.
func AppendBatch(b []byte, batch *jobs.Batch) []byte {
	b = append(b, batchVersion)
	b = msgp.AppendArrayHeader(b, uint32(len(batch.Messages)))
	for _, m := range batch.Messages {
		b = packed.AppendArray(b, jobs.MessageFields, m, len(jobs.MessageFields))
	}
	return b
}

// DecodeBatch reads the batch with this id.
func DecodeBatch(id jobs.ID, b []byte) (*jobs.Batch, error) {
	if len(b) == 0 || b[0] != batchVersion {
		return nil, ErrBatch
	}
	r := packed.Reader{B: b[1:]}
	batch := &jobs.Batch{ID: id}
	for n := r.Array(); n > 0 && r.Err == nil; n-- {
		m := &jobs.Message{}
		packed.ReadArray(&r, jobs.MessageFields, m)
		batch.Messages = append(batch.Messages, m)
	}
	if r.Err != nil || len(batch.Messages) == 0 {
		return nil, errors.Join(ErrBatch, r.Err)
	}
	batch.Messages[len(batch.Messages)-1].BatchEnd = id
	return batch, nil
}
