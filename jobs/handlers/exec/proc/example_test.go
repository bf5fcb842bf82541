//go:build linux

package proc_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"time"

	"jobstream/jobs/handlers/exec/proc"
)

// A program runs until it ends, or its context does.
func ExampleRun() {
	var out bytes.Buffer
	end, err := proc.Run(context.Background(), &proc.Command{
		Argv: []string{"/bin/sh", "-c", "sleep 1000 & echo hello; exit 3"}, Dir: os.TempDir(), Mark: "EXAMPLE=1",
		Stdout: &out, KillAfter: time.Second,
	})
	fmt.Print(out.String())
	fmt.Println(end.String(), err)
	fmt.Println(len(proc.Left("EXAMPLE=1")), "processes are left")
	// Output:
	// hello
	// exit status 3 <nil>
	// 0 processes are left
}
