package api

import (
	"context"

	"jobstream/jobs/form"
)

var metricsDoc = form.Doc{
	Summary: "Get the metrics",
	Text:    "For Prometheus, as text, OpenMetrics or protocol buffers. Native histograms are in the last only.",
	Headers: []form.Param{{Name: "Accept", Schema: form.Text(), Text: "the format"}},
	Answer:  form.Content{"text/plain", "application/openmetrics-text", "application/vnd.google.protobuf"},
}

func metrics(_ context.Context, c Call, _ nothing) (Answer, error) {
	return Answer{Handler: c.Metrics}, nil
}
