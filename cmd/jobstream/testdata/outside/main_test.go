package main

import (
	"context"
	"testing"

	"jobstream/cmd/node/nodetest"
	"jobstream/jobs"
)

func TestCount(t *testing.T) {
	out, err := jobs.Run(context.Background(), types(), here, Text{"abc"})
	if err != nil || out.Letters != 3 {
		t.Errorf("%+v, %v", out, err)
	}
}

func TestSubmitted(t *testing.T) {
	n := nodetest.Start(t, types())
	j, err := here.Submit(t.Context(), n, Text{"abcd"})
	if err != nil {
		t.Fatal(err)
	}
	nodetest.WaitFor(t, n, j.ID, jobs.Completed)
	if s := nodetest.RequireSubmitted(t, n, here); s.In.Text != "abcd" {
		t.Errorf("submitted was %+v", s)
	}
}
