// Command jobstream is a background-job server in one binary. Jobs come in over REST
// and NATS, wait in an embedded NATS JetStream, and run on a pool of workers. A bbolt
// file tracks them.
//
// Where to start: main calls [run], which reads the command line. serve.go is the life
// of the server as a process. It serves a [node.Node], which options.go configures.
// Each other subcommand has its own file.
package main

import (
	"context"
	"os"

	"jobstream/jobs/handlers/exec/proc"
)

func main() {
	tuneGC()
	proc.AdoptOrphans()
	os.Exit(run(context.Background(), os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}
