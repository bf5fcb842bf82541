package handlers_test

import (
	"fmt"

	"jobstream/jobs"
	"jobstream/jobs/handlers"
)

// A kind makes the handlers of the types that run it.
func ExamplePlain() {
	kind := handlers.Plain("nothing", nil, func(*handlers.Server) (jobs.Handler, error) {
		return jobs.HandlerFunc(nil), nil
	})
	fmt.Println(handlers.Names(append(handlers.Kinds(), kind)))
	// Output: [email export cleanup report import exec nats http remote nothing]
}
