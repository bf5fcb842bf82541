// Command jobstream is a background-job server in one binary: jobs come in over
// REST and NATS, wait in an embedded NATS JetStream, run on a pool of workers,
// and are tracked in a bbolt file.
//
// Where to start: main calls [run], which reads the command line. serve.go is the life
// of the server as a process; what it serves is a [node.Node], made from the configuration
// in options.go. Every other subcommand has a file of its own.
package main

import (
	"context"
	"os"
)

func main() {
	tuneGC()
	os.Exit(run(context.Background(), os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}
