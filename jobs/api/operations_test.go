package api_test

import (
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/access"
	"jobstream/jobs/api"
	"jobstream/jobs/form"
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
		case access.Submit, access.Read, access.Manage, access.Work, access.Admin, api.Anyone:
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
		if reads := strings.HasPrefix(op.Route, "GET "); op.Route != "" && op.Scope != access.Work && op.Scope != access.Admin && op.Scope != api.Anyone && reads != (op.Scope == access.Read) {
			t.Errorf("%s has the scope %s and the route %s", op.Name, op.Scope, op.Route)
		}
	}
}

// TestOperationsAreDescribed compares the description of each operation with what its
// readers accept: they list what they know when they are asked for something else.
func TestOperationsAreDescribed(t *testing.T) {
	const unknown = "no-such-thing"
	for _, op := range api.Operations() {
		if op.Doc.Summary == "" || strings.HasSuffix(op.Doc.Summary, ".") {
			t.Errorf("%s needs a Doc with a summary, without a full stop", op.Name)
		}
		if op.Status != 0 && op.Status != 204 && op.Doc.Answer == nil {
			t.Errorf("%s has no form of its answer", op.Name)
		}
		var path, query []string
		for _, m := range regexp.MustCompile(`\{(\w+)\}`).FindAllStringSubmatch(op.Route, -1) {
			path = append(path, m[1])
			if key := segmentBefore(op.Route, m[0]) + "/" + m[0]; api.PathParams[key].Text == "" {
				t.Errorf("%s has the parameter %s, which PathParams does not describe", op.Name, key)
			}
		}
		for _, p := range op.Doc.Query {
			query = append(query, p.Name)
		}
		body, isObject := fieldsOf(op.Doc.Body)
		if op.REST != nil {
			sameNames(t, op.Name+" in its query", query, known(t, op.REST, asked{param: "7", query: url.Values{unknown: {"1"}}}, unknown))
			if _, content := op.Doc.Body.(form.Content); !content && !strings.HasPrefix(op.Route, "GET ") {
				sameNames(t, op.Name+" in its body", body, known(t, op.REST, asked{param: "7", body: `{"` + unknown + `":1}`}, unknown))
			}
		}
		if op.NATS != nil && (isObject || len(query)+len(path) > 0) {
			all := slices.Concat(path, query, body)
			sameNames(t, op.Name+" over NATS", all, known(t, op.NATS, asked{body: `{"` + unknown + `":1}`}, unknown))
		}
	}
}

// segmentBefore is the segment of a route before a parameter.
func segmentBefore(route, parameter string) string {
	before, _, _ := strings.Cut(route, "/"+parameter)
	return before[strings.LastIndex(before, "/")+1:]
}

// fieldsOf are the names of the fields of a body.
func fieldsOf(body any) (names []string, isObject bool) {
	s, _ := body.(form.Schema)
	properties, isObject := s["properties"].(map[string]any)
	return slices.Collect(maps.Keys(properties)), isObject
}

// known are the names in the error for one that is not known.
func known(t *testing.T, ask api.Handler, r asked, unknown string) (names []string) {
	t.Helper()
	_, err := ask(t.Context(), r)
	problem, _ := jobs.AsError(err)
	for _, f := range problem.Fields {
		if !strings.HasSuffix(f.Pointer, "/"+unknown) {
			continue
		}
		_, list, _ := strings.Cut(f.Detail, "known are ")
		if _, one, only := strings.Cut(f.Detail, "known is "); only {
			list = one
		}
		if list != "" {
			names = strings.Split(list, ", ")
		}
		return names
	}
	t.Errorf("asked for something unknown, it says %v", err)
	return nil
}

func sameNames(t *testing.T, where string, described, known []string) {
	t.Helper()
	slices.Sort(described)
	slices.Sort(known)
	if !slices.Equal(described, known) {
		t.Errorf("%s: described are %q, known are %q", where, described, known)
	}
}

// asked is a request of somebody who may do everything.
type asked struct {
	api.Request
	param string // each one of the path
	query url.Values
	body  string
}

func (a asked) Caller() api.Caller {
	return api.CallerOf(&access.Principal{Name: "x", Scopes: []access.Scope{access.Admin}}, "test")
}
func (a asked) Param(string) string        { return a.param }
func (a asked) Admits() error              { return nil }
func (a asked) Query() (url.Values, error) { return a.query, nil }
func (a asked) Body() ([]byte, error)      { return []byte(a.body), nil }
func (a asked) Header(string) []string     { return nil }
func (a asked) Upload() (io.Reader, error) { return nil, nil }
func (a asked) Patience() time.Duration    { return 0 }

func ExampleOperations() {
	for _, op := range api.Operations() {
		if op.NATS != nil && op.Scope == access.Manage {
			fmt.Printf("jobstream.%s, or %s\n", op.Name, op.Route)
		}
	}
	// Output:
	// jobstream.cancel, or POST /jobs/{id}/cancel
	// jobstream.retry, or POST /jobs/{id}/retry
	// jobstream.run_now, or POST /jobs/{id}/run
	// jobstream.delete, or DELETE /jobs/{id}
	// jobstream.pause, or POST /types/{type}/pause
	// jobstream.resume, or POST /types/{type}/resume
	// jobstream.worker.pause, or POST /workers/pause
	// jobstream.worker.resume, or POST /workers/resume
}
