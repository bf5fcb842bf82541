// Command jobstream is a background-job server in one binary: jobs come in over
// REST and NATS, wait in an embedded NATS JetStream, run on a pool of workers,
// and are tracked in a bbolt file.
//
// Where to start: main calls [run], which reads the command line; serve.go is
// the life of the server as a process, [node.Start] how its parts are put together,
// types.go which handlers there are.
package main

import (
	"context"
	"os"
)

func main() {
	tuneGC()
	os.Exit(run(context.Background(), os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}
