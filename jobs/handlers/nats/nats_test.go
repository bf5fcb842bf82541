package nats

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/handlers/internal/busy"
)

// asked is a requester that answers like f.
type asked func(ctx context.Context) (*Reply, error)

func (f asked) Request(ctx context.Context, _ string, _ map[string][]string, _ []byte) (*Reply, error) {
	return f(ctx)
}

func task(checkpoint []byte) *jobs.Task {
	return jobs.NewTask(&jobs.Job{ID: jobs.NewID(), Type: "thumb", Checkpoint: checkpoint}, 1, nil)
}

// TestNobody counts how long a type is stopped while nobody answers, and how long one job
// is put off.
func TestNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		alone := true
		h := New(&Options{Subject: "svc.thumb"}, asked(func(context.Context) (*Reply, error) {
			if alone {
				return nil, ErrNobody
			}
			return &Reply{Header: map[string][]string{errorHeader: {"no"}}}, nil
		}))
		var pauses []string
		var checkpoint []byte
		begun := time.Now()
		for {
			one := task(checkpoint)
			_, err := h.Handle(t.Context(), one)
			after, why, failed, stopped := jobs.BusyOf(err)
			if !stopped {
				t.Fatalf("the error is %v", err)
			}
			if failed {
				if !strings.Contains(why, "svc.thumb; it has been put off") || time.Since(begun) < busy.Most || time.Since(begun) > busy.Most+mostPause {
					t.Errorf("after %s it failed: %s", time.Since(begun), why)
				}
				break
			}
			if pauses = append(pauses, after.String()); len(pauses) == 1 {
				// one that was sent before the first answer does not make the pause longer
				time.Sleep(400 * time.Millisecond)
				_, err := h.Handle(t.Context(), task(nil))
				if rest, _, _, _ := jobs.BusyOf(err); rest != 600*time.Millisecond {
					t.Errorf("another one is put off for %s", rest)
				}
				after = 600 * time.Millisecond
			}
			checkpoint = one.NextCheckpoint()
			time.Sleep(after)
		}
		if got := fmt.Sprint(pauses[:8]); got != "[1s 2s 4s 8s 16s 30s 30s 30s]" {
			t.Errorf("the pauses are %s", got)
		}
		alone = false
		one := task(checkpoint)
		if _, err := h.Handle(t.Context(), one); err == nil || jobs.IsPermanent(err) {
			t.Errorf("answered with an error it is %v", err)
		}
		alone = true
		_, err := h.Handle(t.Context(), task(nil))
		if after, _, _, _ := jobs.BusyOf(err); after != time.Second {
			t.Errorf("after an answer the pause is %s", after)
		}
	})
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	failed := func(code, text string) *Reply {
		return &Reply{Header: map[string][]string{"nats-service-error-code": {code}, "NATS-Service-Error": {text}}, Body: []byte("{}")}
	}
	for _, tt := range []struct {
		name      string
		reply     *Reply
		value     string
		err       string
		permanent bool
	}{
		{name: "JSON", reply: &Reply{Body: []byte(" {\"a\": 1}\n")}, value: `{"a": 1}`},
		{name: "text", reply: &Reply{Body: []byte("done\r\n")}, value: "done"},
		{name: "no UTF-8", reply: &Reply{Body: []byte("a\xffb")}, value: "a\ufffdb"},
		{name: "nothing", reply: &Reply{}, value: "<nil>"},
		{name: "too much", reply: &Reply{Body: []byte(`"` + strings.Repeat("x", jobs.MaxResult) + `"`)}, err: "has 262146 bytes", permanent: true},
		{name: "its fault", reply: failed("500", "out of paper"), err: "the answer was the error 500 out of paper"},
		{name: "our fault", reply: failed("422", "no such size"), err: "the answer was the error 422 no such size", permanent: true},
		{name: "later", reply: failed("429", "slower"), err: "429 slower"},
		{name: "a word as its code", reply: failed("EAGAIN", ""), err: "error EAGAIN"},
		{name: "no code", reply: failed("", "sorry"), err: "sorry"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := New(NewOptions(), asked(func(context.Context) (*Reply, error) { return tt.reply, nil }))
			r, err := h.Handle(t.Context(), task(nil))
			if tt.err == "" {
				got := fmt.Sprint(r.Value)
				if raw, ok := r.Value.([]byte); ok {
					got = string(raw)
				} else if r.Value != nil {
					got = fmt.Sprintf("%s", r.Value)
				}
				if err != nil || got != tt.value {
					t.Errorf("the result is %s, the error %v", got, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.err) || jobs.IsPermanent(err) != tt.permanent {
				t.Errorf("the error is %v, for good %v", err, jobs.IsPermanent(err))
			}
		})
	}
}

// TestEnd ends an attempt while somebody works on it.
func TestEnd(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	h := New(NewOptions(), asked(func(ctx context.Context) (*Reply, error) {
		cancel(jobs.ErrCancelled)
		<-ctx.Done()
		return nil, ctx.Err()
	}))
	if _, err := h.Handle(ctx, task(nil)); !errors.Is(err, jobs.ErrCancelled) {
		t.Errorf("the error is %v", err)
	}
}

func TestSubjects(t *testing.T) {
	t.Parallel()
	for subject, want := range map[string]string{
		"svc.thumb": "", "jobsx": "", "my.jobs.a": "", "svc._a": "",
		"": "is required", "a b": "no spaces", "a\tb": "no spaces", "a..b": "dot", ".a": "dot", "a.": "dot",
		"a.*": "wildcards", "a.>": "wildcards", ">": "wildcards",
		"jobs.email": "begin with jobs.", "jobs": "begin with jobs.", "job.completed": "begin with job.", "jobstream.submit": "begin with jobstream.",
		"status.x": "begin with status.", "$SYS.REQ": "begin with $", "_INBOX.x": "begin with _", strings.Repeat("a", 257): "longer than",
	} {
		got := ""
		o := &Options{Subject: subject}
		o.Check("", func(path, text string) { got = path + " " + text })
		if want == "" && got != "" || want != "" && (!strings.HasPrefix(got, "subject ") || !strings.Contains(got, want)) {
			t.Errorf("%q: %q, want %q", subject, got, want)
		}
	}
}
