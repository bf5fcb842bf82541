package packed_test

import (
	"fmt"

	"jobstream/jobs"
	"jobstream/jobs/packed"
)

// What has a table of attributes is written as an array, and read back. A reader skips
// what it does not know.
func Example() {
	a := jobs.Artifact{Name: "list.csv", ContentType: "text/csv", Size: 12}
	b := packed.AppendArray(nil, jobs.ArtifactFields, &a, 0)
	var back jobs.Artifact
	r := &packed.Reader{B: b}
	packed.ReadArray(r, jobs.ArtifactFields, &back)
	fmt.Println(back.Name, back.Size, back == a, r.Err)
	// Output: list.csv 12 true <nil>
}
