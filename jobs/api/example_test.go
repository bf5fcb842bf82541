package api_test

import (
	"fmt"

	"jobstream/jobs"
	"jobstream/jobs/api"
)

func ExampleParseSubmission() {
	s, err := api.ParseSubmission([]byte(`{"type":"email","payload":{"to":"a@example.com"},"timeout":"1m30s"}`))
	fmt.Println(s.Type, s.Timeout, string(s.Payload), err)

	_, err = api.ParseSubmission([]byte(`{"type":"email","priority":9,"retries":3}`))
	e, _ := jobs.AsError(err)
	fmt.Println(api.HTTPStatus(e), e.Kind)
	for _, f := range e.Fields {
		fmt.Println(f.Pointer)
	}
	fmt.Println(e.Detail)
	// Output:
	// email 1m30s {"to":"a@example.com"} <nil>
	// 422 invalid_request
	// /priority
	// /retries
	// /priority: must be a whole number from 1 to 5, not 9 (and 1 more)
}
