package api_test

import (
	"maps"
	"testing"

	"jobstream/jobs/api"
	"jobstream/jobs/jobstest"
)

func TestParseResize(t *testing.T) {
	tests := []struct {
		body  string
		pool  int // 0 = not named
		min   int // -1 = 0, 0 = not named
		types map[string]int
		err   string
	}{
		{body: `{"max_workers":20}`, pool: 20},
		{body: `{"max_workers":1}`, pool: 1},
		{body: `{"max_workers":10000}`, pool: 10000},
		{body: `{"min_workers":0}`, min: -1},
		{body: `{"min_workers":5}`, min: 5},
		{body: `{"max_workers":20,"min_workers":20}`, pool: 20, min: 20},
		{body: `{"min_workers":-1}`, err: "invalid_request /min_workers"},
		{body: `{"min_workers":10001}`, err: "invalid_request /min_workers"},
		{body: `{"min_workers":"1"}`, err: "invalid_request /min_workers"},
		{body: `{"types":{"email":{"max_workers":2}}}`, types: map[string]int{"email": 2}},
		{body: `{"max_workers":3,"types":{"email":{"max_workers":0},"x":{"max_workers":10000}}}`, pool: 3, types: map[string]int{"email": 0, "x": 10000}},
		{body: `{}`, err: "invalid_request /max_workers"},
		{body: `{"types":{}}`, err: "invalid_request /max_workers"},
		{body: ``, err: "malformed_json"},
		{body: `{`, err: "malformed_json"},
		{body: `[]`, err: "invalid_request "},
		{body: `{"max_workers":0}`, err: "invalid_request /max_workers"},
		{body: `{"max_workers":10001}`, err: "invalid_request /max_workers"},
		{body: `{"max_workers":-1}`, err: "invalid_request /max_workers"},
		{body: `{"max_workers":1.5}`, err: "invalid_request /max_workers"},
		{body: `{"max_workers":"5"}`, err: "invalid_request /max_workers"},
		{body: `{"max_workers":null}`, err: "invalid_request /max_workers"},
		{body: `{"max_workers":5,"max_workers":6}`, err: "invalid_request /max_workers"},
		{body: `{"workers":5}`, err: "invalid_request /workers"},
		{body: `{"max_workers":0,"a/b":1}`, err: "invalid_request /max_workers /a~1b"},
		{body: `{"types":[]}`, err: "invalid_request /types"},
		{body: `{"types":{"email":2}}`, err: "invalid_request /types/email"},
		{body: `{"types":{"email":{}}}`, err: "invalid_request /types/email/max_workers"},
		{body: `{"types":{"email":{"max_workers":-1}}}`, err: "invalid_request /types/email/max_workers"},
		{body: `{"types":{"email":{"max_workers":1,"x":1}}}`, err: "invalid_request /types/email/x"},
		{body: `{"types":{"email":{"max_workers":1,"max_workers":2}}}`, err: "invalid_request /types/email/max_workers"},
		{body: `{"types":{"a":{"max_workers":1},"a":{"max_workers":2}}}`, err: "invalid_request /types/a"},
	}
	for _, tt := range tests {
		t.Run(tt.body, func(t *testing.T) {
			r, err := api.ParseResize([]byte(tt.body))
			if got := jobstest.Failure(t, err); got != tt.err {
				t.Fatalf("error %q, want %q", got, tt.err)
			}
			if err != nil {
				return
			}
			pool := 0
			if r.MaxWorkers != nil {
				pool = *r.MaxWorkers
			}
			least := 0
			if r.MinWorkers != nil {
				if least = *r.MinWorkers; least == 0 {
					least = -1
				}
			}
			if least != tt.min {
				t.Errorf("got a minimum of %d, want %d", least, tt.min)
			}
			if pool != tt.pool || !maps.Equal(r.Types, tt.types) {
				t.Errorf("got pool %d, types %v; want %d, %v", pool, r.Types, tt.pool, tt.types)
			}
		})
	}
}
