package api

import (
	"context"

	"jobstream/jobs"
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

func listTypes(ctx context.Context, c Call, _ nothing) (Answer, error) {
	all, err := c.Types.Types(ctx)
	return Answer{JSON: types(all)}, err
}

func getType(ctx context.Context, c Call, name string) (Answer, error) {
	t, err := c.Types.Type(ctx, name)
	return Answer{JSON: t}, err
}

func pauseType(ctx context.Context, c Call, name string) (Answer, error) {
	t, err := c.Types.SetPaused(ctx, c.Caller.Name, name, true)
	return Answer{JSON: t}, err
}

func resumeType(ctx context.Context, c Call, name string) (Answer, error) {
	t, err := c.Types.SetPaused(ctx, c.Caller.Name, name, false)
	return Answer{JSON: t}, err
}

func stats(ctx context.Context, c Call, _ nothing) (Answer, error) {
	st, err := c.Workers.Stats(ctx)
	return Answer{JSON: &st}, err
}

func readResize(r Request) (*jobs.Resize, error) {
	body, err := bodyOnly(r)
	if err != nil {
		return nil, err
	}
	return ParseResize(body)
}

func resize(ctx context.Context, c Call, wish *jobs.Resize) (Answer, error) {
	st, err := c.Workers.Resize(ctx, *wish)
	return Answer{JSON: &st}, err
}

func pauseWorkers(ctx context.Context, c Call, _ nothing) (Answer, error) {
	st, err := c.Workers.PauseAll(ctx, true)
	return Answer{JSON: &st}, err
}

func resumeWorkers(ctx context.Context, c Call, _ nothing) (Answer, error) {
	st, err := c.Workers.PauseAll(ctx, false)
	return Answer{JSON: &st}, err
}
