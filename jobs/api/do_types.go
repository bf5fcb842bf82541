package api

import (
	"context"

	"jobstream/jobs"
	"jobstream/jobs/form"
)

func readTypePath(r Request) (string, error) { return r.Param("type"), noQuery(r) }

func readTypePathOnly(r Request) (string, error) { return r.Param("type"), pathOnly(r) }

func readTypeBody(r Request) (string, error) {
	body, err := r.Body()
	if err != nil {
		return "", err
	}
	return ParseTypeRequest(body)
}

// types is the answer with all job types.
type types []TypeInfo

func (all types) AppendJSON(b []byte) []byte { return AppendTypesJSON(b, all) }

var typeListDoc = form.Doc{
	Summary: "List the job types",
	Text:    "With their settings and depth, but without their schemas.",
	Answer:  form.Object(form.Need("types", form.List(typeResource{}, 0, 0), "")),
}

func listTypes(ctx context.Context, c Call, _ nothing) (Answer, error) {
	all, err := c.Types.Types(ctx)
	return Answer{JSON: types(all)}, err
}

var typeGetDoc = form.Doc{Summary: "Look at a job type", Answer: typeResource{}}

func getType(ctx context.Context, c Call, name string) (Answer, error) {
	t, err := c.Types.Type(ctx, name)
	return Answer{JSON: t}, err
}

var (
	pauseDoc = form.Doc{
		Summary: "Pause a job type",
		Text:    "Its jobs wait, also after a restart. Running ones go on.",
		Answer:  typeResource{},
	}
	resumeDoc = form.Doc{Summary: "Resume a job type", Answer: typeResource{}}
)

func pauseType(ctx context.Context, c Call, name string) (Answer, error) {
	jobs.About(ctx, name)
	t, err := c.Types.SetPaused(ctx, c.Caller.Name, name, true)
	return Answer{JSON: t}, err
}

func resumeType(ctx context.Context, c Call, name string) (Answer, error) {
	jobs.About(ctx, name)
	t, err := c.Types.SetPaused(ctx, c.Caller.Name, name, false)
	return Answer{JSON: t}, err
}

var statsDoc = form.Doc{
	Summary: "Look at the workers and the queue",
	Text:    "Completed, failed and cancelled jobs are counted up; all else is of the present moment.",
	Answer:  Stats{},
}

func stats(ctx context.Context, c Call, _ nothing) (Answer, error) {
	st, err := c.Workers.Stats(ctx)
	return Answer{JSON: &st}, err
}

var resizeDoc = form.Doc{
	Summary: "Set the number of workers, and the limits of types",
	Text: "It works at once, up and down, until the next start. With `min_workers` above 0 the pool's size follows the load. " +
		"In a cluster the numbers are those of each node, and only the leader's follow the load.",
	Body: form.Object(
		form.May("node", form.Text(), "the node whose workers are meant; without it those of all. Not with `types`, which hold over the cluster"),
		form.May("max_workers", form.Whole(1, jobs.MaxPoolSize), ""),
		form.May("min_workers", form.Whole(0, jobs.MaxPoolSize), "0: their number does not follow the load"),
		form.May("types", form.Map(form.Object(
			form.May("max_workers", form.Whole(0, jobs.MaxPoolSize), "0: the pool's bound"),
			form.May("rate", form.Text(), "like 10/s; empty: no limit"),
			form.May("burst", form.Whole(0, jobs.MaxBurst), "how many may start at once after a pause; 0: as many as in a second"),
			form.May("concurrency_per_key", form.Whole(1, jobs.MaxPoolSize), ""),
		).With("minProperties", 1)), "limits of types, by their names"),
	).With("minProperties", 1).Named("Resize"),
	Example: `{"max_workers":20,"types":{"email":{"max_workers":2}}}`,
	Answer:  Stats{},
	Codes:   []jobs.ErrorKind{jobs.UnknownType},
}

// resizing is the input of a change of the pool.
type resizing struct {
	*jobs.Resize
	request []byte // that it was read from
}

func readResize(r Request) (in resizing, err error) {
	if in.request, err = bodyOnly(r); err == nil {
		in.Resize, err = ParseResize(in.request)
	}
	return in, err
}

func resize(ctx context.Context, c Call, in resizing) (Answer, error) {
	jobs.InDetail(ctx, in.request)
	st, err := c.Workers.Resize(ctx, *in.Resize)
	return Answer{JSON: &st}, err
}

var (
	workerPauseDoc = form.Doc{
		Summary: "Pause the workers of this server",
		Text:    "It starts no job until they are resumed, or the server starts again. Everything else goes on.",
		Answer:  Stats{},
	}
	workerResumeDoc = form.Doc{Summary: "Resume the workers of this server", Answer: Stats{}}
)

func pauseWorkers(ctx context.Context, c Call, _ nothing) (Answer, error) {
	st, err := c.Workers.PauseAll(ctx, true)
	return Answer{JSON: &st}, err
}

func resumeWorkers(ctx context.Context, c Call, _ nothing) (Answer, error) {
	st, err := c.Workers.PauseAll(ctx, false)
	return Answer{JSON: &st}, err
}
