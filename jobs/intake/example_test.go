package intake_test

import (
	"context"
	"fmt"

	"jobstream/jobs"
	"jobstream/jobs/intake"
)

// Waits let a caller wait until a commit has changed a job.
func ExampleWaits() {
	waits, id := intake.NewWaits(), jobs.NewID()
	commits := []*jobs.Job{{ID: id, Status: jobs.Processing}, {ID: id, Status: jobs.Completed}}
	now := commits[0]
	looks := 0
	j, err := waits.Wait(context.Background(), id, intake.Ended, func() (*jobs.Job, error) {
		if looks++; looks == 1 { // as it is, and meanwhile it ends
			go waits.Committed(&jobs.Commit{Changes: []jobs.Change{{Before: commits[0], After: commits[1]}}})
			return now, nil
		}
		return commits[1], nil
	})
	fmt.Println(j.Status, err)
	// Output: completed <nil>
}
