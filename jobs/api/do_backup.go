package api

import (
	"context"
	"io"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/form"
)

var backupDoc = form.Doc{
	Summary: "Make a backup",
	Text: "A tar of everything that the server keeps, except the streams, which a start makes anew. It has everything that was acknowledged before the request. " +
		"Its last entry, `SHA256SUMS`, has the checksums: an answer without it is not whole. `jobstream restore` reads it.",
	Answer: form.Content{"application/x-tar"},
	Codes:  []jobs.ErrorKind{jobs.Conflict, jobs.StorageFull},
}

// maxBackup is how long one request may take a backup.
const maxBackup = 24 * time.Hour

// backup is the answer with a backup. It counts among the requests that wait: its client
// sets the pace.
func backup(ctx context.Context, c Call, _ nothing) (Answer, error) {
	copying, done, err := c.door.Wait(ctx, maxBackup)
	if err != nil {
		return Answer{}, err
	}
	s, err := c.Backups.Backup(copying)
	if err != nil {
		done()
		return Answer{}, err
	}
	return Answer{Stream: &Stream{
		Name: s.Name, ContentType: s.ContentType,
		Write: func(_ context.Context, w io.Writer) error { return s.Write(copying, w) },
		Close: func() { s.Close(); done() },
	}}, nil
}
