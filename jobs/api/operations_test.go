package api_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"text/tabwriter"

	"jobstream/jobs/access"
	"jobstream/jobs/api"
)

// TestOperations compares the table with a text in which a reviewer sees each change.
func TestOperations(t *testing.T) {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "operation\tscope\tREST\tstatus\tNATS")
	for _, op := range api.Operations() {
		route, status, endpoint := "-", "-", "-"
		if op.REST != nil {
			route, status = op.Route, fmt.Sprint(op.Status)
		}
		if op.NATS != nil {
			endpoint = "jobstream." + op.Name
		}
		fmt.Fprintln(w, strings.Join([]string{op.Name, string(op.Scope), route, status, endpoint}, "\t"))
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/operations.txt"
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got := b.String(); got != string(want) {
		t.Errorf("the operations are not those of %s; if they are meant to change, write this there:\n%s", golden, got)
	}
}

// TestOperationsAreWhole has each operation say all that is needed of it, once.
func TestOperationsAreWhole(t *testing.T) {
	names, routes := make(map[string]bool), make(map[string]bool)
	for _, op := range api.Operations() {
		if op.Name == "" || names[op.Name] {
			t.Errorf("%q is not a name of its own", op.Name)
		}
		names[op.Name] = true
		switch op.Scope {
		case access.Submit, access.Read, access.Manage, access.Work, access.Admin:
		default:
			t.Errorf("%s has the scope %q", op.Name, op.Scope)
		}
		if op.REST == nil && op.NATS == nil {
			t.Errorf("%s is offered nowhere", op.Name)
		}
		if (op.REST != nil) != (op.Route != "") || (op.REST != nil) != (op.Status != 0) {
			t.Errorf("%s has the route %q and the status %d; it has a form for REST: %v", op.Name, op.Route, op.Status, op.REST != nil)
		}
		if op.Route != "" && routes[op.Route] {
			t.Errorf("%s has the route of another operation: %s", op.Name, op.Route)
		}
		routes[op.Route] = true
		if reads := strings.HasPrefix(op.Route, "GET "); op.Route != "" && op.Scope != access.Work && reads != (op.Scope == access.Read) {
			t.Errorf("%s has the scope %s and the route %s", op.Name, op.Scope, op.Route)
		}
	}
}

func ExampleOperations() {
	for _, op := range api.Operations() {
		if op.NATS != nil && op.Scope == access.Manage {
			fmt.Printf("jobstream.%s, or %s\n", op.Name, op.Route)
		}
	}
	// Output:
	// jobstream.cancel, or POST /jobs/{id}/cancel
	// jobstream.retry, or POST /jobs/{id}/retry
	// jobstream.delete, or DELETE /jobs/{id}
	// jobstream.pause, or POST /types/{type}/pause
	// jobstream.resume, or POST /types/{type}/resume
	// jobstream.worker.pause, or POST /workers/pause
	// jobstream.worker.resume, or POST /workers/resume
}
