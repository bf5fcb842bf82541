package main

import (
	"context"
	"testing"

	"jobstream/jobs"
)

func TestCount(t *testing.T) {
	out, err := jobs.Run(context.Background(), types(), here, Text{"abc"})
	if err != nil || out.Letters != 3 {
		t.Errorf("%+v, %v", out, err)
	}
}
