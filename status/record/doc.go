// Package record encodes the jobs and batches that the tracker stores, and reads them
// again. It knows nothing of where they are kept.
//
// Where to start: record.go has the encoding of a job, [Append] and [Decode]. glance.go
// reads only what a search asks, and batch.go has the encoding of a batch.
package record
