package jobs_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"jobstream/jobs"
)

// printer is a host that prints.
type printer struct{}

func (printer) Report(percent int, message string)          { fmt.Println(percent, message) }
func (printer) Log(level jobs.Level, _ string, text string) { fmt.Println(level, text) }
func (printer) Create() (jobs.ArtifactWriter, error)        { return nil, errors.ErrUnsupported }
func (printer) InputPath(*jobs.Input) (string, error)       { return "", errors.ErrUnsupported }

// A definition is a job type for both ends: the compiler checks what is submitted, done and
// returned. Run tries the function without a server.
func ExampleDefine() {
	type order struct {
		Customer string `json:"customer"`
		Items    int    `json:"items"`
	}
	type invoice struct {
		Total float64 `json:"total"`
	}
	bill := jobs.Define[order, invoice]("bill", jobs.Retries(5), jobs.Timeout(time.Minute))
	registry := jobs.NewRegistry()
	bill.Handle(registry, func(_ context.Context, t *jobs.Task, in order) (invoice, error) {
		t.Progress(50, "adding it up")
		return invoice{Total: 9.5 * float64(in.Items)}, nil
	})

	out, err := jobs.Run(context.Background(), registry, bill, order{Customer: "ACME", Items: 4})
	fmt.Println(out.Total, err)

	// What does not fit is refused before it becomes a job, by all doors of a server.
	err = registry.Check(&jobs.Submission{Type: "bill", Payload: []byte(`{"customer":"ACME","itmes":4}`)})
	fmt.Println(err)
	// Output:
	// 38 <nil>
	// /payload/itmes: is not a known field
}

// clientOf is a client without a server: it keeps one job, which ends as it says.
type clientOf struct{ job *jobs.Job }

func (c *clientOf) Submit(_ context.Context, s *jobs.Submission) (*jobs.Job, error) {
	c.job.Type = s.Type
	fmt.Println(string(s.AppendJSON(nil)))
	return c.job, nil
}

func (c *clientOf) Wait(context.Context, jobs.ID) (*jobs.Job, error) { return c.job, nil }

// What a job is to be like is said by options. A client is a node, or a connection to one.
func ExampleDefinition_Submit() {
	resize := jobs.Define[string, struct{}]("resize")
	var client jobs.Client = &clientOf{&jobs.Job{}}
	_, err := resize.Submit(context.Background(), client, "a.png",
		jobs.Priority(1), jobs.Retries(0), jobs.Timeout(time.Minute), jobs.Delay(time.Hour), jobs.TTL(10*time.Minute), jobs.DeadlineIn(2*time.Hour),
		jobs.Tags("pictures"), jobs.Unique("a.png"), jobs.ConcurrencyKey("ann"), jobs.CallbackURL("https://example.com/done"))
	fmt.Println(err)
	// Output:
	// {"type":"resize","payload":"a.png","priority":1,"retry_count":0,"tags":["pictures"],"timeout":60,"delay":3600,"ttl":600,"deadline":7200,"unique_key":"a.png","concurrency_key":"ann","callback_url":"https://example.com/done"}
	// <nil>
}

// A job that ends without a result gives a JobError.
func ExampleDefinition_Wait() {
	resize := jobs.Define[string, struct{}]("resize")
	client := &clientOf{&jobs.Job{Type: "resize", Status: jobs.Failed, Permanent: true, Attempt: 2, Error: "a.png is no picture"}}
	_, err := resize.Wait(context.Background(), client, client.job.ID)
	var e *jobs.JobError
	if errors.As(err, &e) {
		fmt.Println(e.Kind, e.Attempts, e.Message)
	}
	// Output: permanent 2 a.png is no picture
}

// A server whose jobs of a type are done elsewhere knows the type, and checks payloads.
// Lenient types ignore fields that they do not know.
func ExampleDefinition_Remote() {
	type picture struct {
		URL string `json:"url"`
	}
	registry := jobs.NewRegistry()
	jobs.Define[picture, string]("strict", jobs.LeaseTime(time.Minute)).Remote(registry)
	jobs.Define[picture, string]("lenient", jobs.Lenient(), jobs.MaxWorkers(4), jobs.Backoff{Kind: jobs.Constant, Base: time.Minute}).Remote(registry)
	for _, name := range registry.Names() {
		fmt.Println(name, registry.Check(&jobs.Submission{Type: name, Payload: []byte(`{"url":"x","alt":"y"}`)}))
	}
	// Output:
	// lenient <nil>
	// strict /payload/alt: is not a known field
}

// Run does one attempt. The function has its task, as on a server.
func ExampleRun() {
	divide := jobs.Define[[2]int, int]("divide", jobs.Timeout(time.Second))
	registry := jobs.NewRegistry()
	divide.Handle(registry, func(_ context.Context, t *jobs.Task, in [2]int) (int, error) {
		if in[1] == 0 {
			return 0, jobs.Permanentf("attempt %d of %s cannot divide by 0", t.Attempt, t.Job.Type)
		}
		return in[0] / in[1], nil
	})
	fmt.Println(jobs.Run(context.Background(), registry, divide, [2]int{12, 4}))
	_, err := jobs.Run(context.Background(), registry, divide, [2]int{12, 0})
	fmt.Println(err, jobs.IsPermanent(err))
	// Output:
	// 3 <nil>
	// attempt 1 of divide cannot divide by 0 true
}

// A handler reports progress, leaves a checkpoint and returns a result.
func ExampleHandlerFunc() {
	double := jobs.HandlerFunc(func(_ context.Context, t *jobs.Task) (jobs.Result, error) {
		t.Progress(50, "halfway")
		t.Logf(jobs.LevelInfo, "%d rows", 100)
		if err := t.SetCheckpoint(map[string]int{"rows": 100}); err != nil {
			return jobs.Result{}, err
		}
		return jobs.Result{Value: map[string]int{"attempt": t.Attempt}}, nil
	})
	task := jobs.NewTask(&jobs.Job{Type: "double"}, 1, printer{})
	result, err := double.Handle(context.Background(), task)
	fmt.Println(result.Value, err)
	fmt.Println(string(task.NextCheckpoint()))
	// Output:
	// 50 halfway
	// info 100 rows
	// map[attempt:1] <nil>
	// {"rows":100}
}

// Errors say whether the attempt is made again: an ordinary one is, a permanent one is
// not, and a snooze uses no attempt.
func ExamplePermanent() {
	gone := jobs.Permanentf("customer 42 does not exist")
	fmt.Println(gone, jobs.IsPermanent(gone))
	fmt.Println(jobs.IsPermanent(errors.New("connection refused")))
	fmt.Println(jobs.Snooze(time.Minute, "the file is not there yet"))
	// Output:
	// customer 42 does not exist true
	// false
	// snoozed for 1m0s: the file is not there yet
}

// The registry finds a submission's type and has it check the payload.
func ExampleRegistry_Check() {
	work := jobs.HandlerFunc(func(context.Context, *jobs.Task) (jobs.Result, error) { return jobs.Result{}, nil })
	registry := jobs.NewRegistry(&jobs.Type{Name: "email", Handler: work}, &jobs.Type{Name: "export", Handler: work})
	err := registry.Check(&jobs.Submission{Type: "emial"})
	var e *jobs.Error
	fmt.Println(errors.As(err, &e), e.Kind)
	fmt.Println(e)
	// Output:
	// true unknown_type
	// unknown job type "emial"; known are email, export
}

// Apply is the only way in which a job's status changes.
func ExampleApply() {
	id := jobs.NewID()
	m := &jobs.Message{ID: id, Seq: 7, At: 1_000, Type: "email", Priority: 3, RetryCount: 2}
	j := jobs.NewJob(m, &jobs.Type{Name: "email"}, true)
	fmt.Println(j.Status)
	start := jobs.Event{Kind: jobs.KindStarted, ID: id, Seq: 7, Run: 1, Attempt: 1, At: 2_000, StartedAt: 2_000}
	fmt.Println(jobs.Apply(j, &start), j.Status)
	end := start
	end.Kind, end.At = jobs.KindCompleted, 3_000
	fmt.Println(jobs.Apply(j, &end), j.Status)
	fmt.Println(jobs.Apply(j, &start), j.Status) // it comes once more
	// Output:
	// pending
	// true processing
	// true completed
	// false completed
}

// The delays of retries grow, up to a bound.
func ExampleBackoff() {
	b := jobs.Backoff{Kind: jobs.Exponential, Base: time.Second, Max: 5 * time.Second}
	for failures := 1; failures <= 4; failures++ {
		fmt.Print(b.Delay(failures), " ")
	}
	// Output: 1s 2s 4s 5s
}

// A rate bounds how many jobs of a type start.
func ExampleParseRate() {
	r, err := jobs.ParseRate("90/m")
	fmt.Println(r, r.PerSecond(), r.Capacity(), err)
	// Output: 90/m 1.5 1 <nil>
}

// Durations know days and weeks.
func ExampleParseDuration() {
	d, err := jobs.ParseDuration("1d12h")
	fmt.Println(d, err)
	_, err = jobs.ParseDuration("soon")
	fmt.Println(err)
	// Output:
	// 36h0m0s <nil>
	// "soon" is not a duration: whole seconds, or like 90s, 5m, 1h30m, 30d, 2w
}

// A filter chooses jobs; what it leaves open does not matter.
func ExampleFilter() {
	f := jobs.Filter{Types: []string{"email"}, Statuses: []jobs.Status{jobs.Failed}}
	for _, j := range []*jobs.Job{
		{Type: "email", Status: jobs.Failed},
		{Type: "email", Status: jobs.Completed},
		{Type: "export", Status: jobs.Failed},
	} {
		fmt.Print(f.Match(j), " ")
	}
	// Output: true false false
}

// An artifact is there once it is committed, and not before.
func ExampleArtifactDir() {
	dir, err := os.MkdirTemp("", "artifacts")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	files, id := jobs.NewArtifactDir(dir, 0), jobs.NewID()
	w, err := files.Create(id)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer w.Abort()
	fmt.Fprintln(w, "name,amount")
	a, err := w.Commit("list.csv", "text/csv")
	if err != nil {
		fmt.Println(err)
		return
	}
	size, err := files.Size(id)
	fmt.Println(a.Name, a.ContentType, size, err)
	// Output: list.csv text/csv 12 <nil>
}
