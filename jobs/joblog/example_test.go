package joblog_test

import (
	"context"
	"fmt"
	"os"

	"jobstream/jobs"
	"jobstream/jobs/joblog"
)

// An attempt writes, and anybody reads.
func ExampleDir() {
	dir, err := os.MkdirTemp("", "logs")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	logs, job := joblog.New(dir, nil), &jobs.Job{ID: jobs.NewID(), Type: "import"}
	w := logs.Open(job, 1)
	w.Log(jobs.LevelInfo, "", "4500 rows")
	w.Log(jobs.LevelWarn, "stderr", "row 17 is empty")
	w.Close()
	entries, err := logs.Read(context.Background(), job.ID, joblog.Query{Tail: 1})
	for _, e := range entries {
		fmt.Println(e.N, e.Attempt, e.Level, e.Stream, e.Text)
	}
	fmt.Println(err)
	// Output:
	// 2 1 warn stderr row 17 is empty
	// <nil>
}
