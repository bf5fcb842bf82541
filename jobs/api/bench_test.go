package api_test

import (
	"testing"

	"jobstream/jobs/api"
)

// BenchmarkParseSubmission is on the path of every job.
func BenchmarkParseSubmission(b *testing.B) {
	for name, body := range map[string]string{
		"email": `{"type":"email","payload":{"to":"user@example.com","subject":"Hello","body":"Test email"}}`,
		"full":  `{"type":"email","payload":{"to":"user@example.com","subject":"Hello","body":"Test email"},"priority":1,"tags":["a","b"],"retry_count":3,"timeout":"5m","delay":60,"unique_key":"k"}`,
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := api.ParseSubmission([]byte(body)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
