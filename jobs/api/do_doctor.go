package api

import (
	"context"
	"encoding/json"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/form"
)

// Inspection is what an inspection has found.
type Inspection struct {
	// Worst is the worst severity of the findings; empty if there are none.
	Worst    jobs.Severity  `json:"worst"`
	Findings []jobs.Finding `json:"findings"`
}

// NewInspection makes an Inspection of findings.
func NewInspection(found []jobs.Finding) *Inspection {
	return &Inspection{jobs.Worst(found), append([]jobs.Finding{}, found...)}
}

// AppendJSON appends the answer to an inspection.
func (i *Inspection) AppendJSON(b []byte) []byte {
	out, err := json.Marshal(i)
	if err != nil {
		panic(err) // texts always marshal
	}
	return append(b, out...)
}

var doctorDoc = form.Doc{
	Summary: "Inspect the server",
	Text: "Compares the tracker with the streams, with its own indexes, counts and keys, and with the files; looks at schedules, clock and disk. " +
		"It reads all records, which takes some seconds per million. Nothing is changed; `jobstream doctor --repair` does that while the server is stopped.",
	Answer: Inspection{},
	Codes:  []jobs.ErrorKind{jobs.Conflict},
}

// maxInspection is how long an inspection may take.
const maxInspection = 10 * time.Minute

// examine is the answer to an inspection. It counts among the requests that wait.
func examine(ctx context.Context, c Call, _ nothing) (Answer, error) {
	looking, done, err := c.door.Wait(ctx, maxInspection)
	if err != nil {
		return Answer{}, err
	}
	defer done()
	found, err := c.Inspector.Inspect(looking)
	return Answer{JSON: NewInspection(found)}, err
}
