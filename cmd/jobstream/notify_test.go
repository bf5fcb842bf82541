package main

import (
	"testing"

	"jobstream/jobs"
)

// TestNoticeRoom has notices wait for room, but for one that is too large by itself.
func TestNoticeRoom(t *testing.T) {
	r := noticeRoom{freed: make(chan struct{}, 1)}
	end := make(chan struct{})
	large := notice{ended: []*jobs.Job{{Payload: make([]byte, 2*maxNoticeBytes)}}}
	r.take(large.bytes(), end)
	entered := make(chan struct{})
	go func() {
		for range 100 {
			r.take(1, end)
		}
		close(entered)
	}()
	select {
	case <-entered:
		t.Fatal("there was room beside a notice that is too large")
	default:
	}
	r.give(large.bytes())
	<-entered
	r.take(maxNoticeBytes-100, end)
	close(end)
	r.take(1, end) // does not wait for ever
}
