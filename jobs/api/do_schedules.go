package api

import (
	"context"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/schedule"
)

func readNamePath(r Request) (string, error) { return r.Param("name"), noQuery(r) }

func readNamePathOnly(r Request) (string, error) { return r.Param("name"), pathOnly(r) }

// scheduleOf is the answer with a schedule.
func scheduleOf(e *schedule.Entry, err error) (Answer, error) { return Answer{JSON: entry{e}}, err }

// entry is a schedule as JSON.
type entry struct{ *schedule.Entry }

func (e entry) AppendJSON(b []byte) []byte { return e.Entry.AppendJSON(b, jobs.Now()) }

// entries are all schedules as JSON.
type entries []*schedule.Entry

func (all entries) AppendJSON(b []byte) []byte {
	return append(b, schedule.ListJSON(all, jobs.Now())...)
}

func listSchedules(ctx context.Context, c Call, _ nothing) (Answer, error) {
	all, err := c.Schedules.List(ctx)
	return Answer{JSON: entries(all)}, err
}

func getSchedule(ctx context.Context, c Call, name string) (Answer, error) {
	return scheduleOf(c.Schedules.Get(ctx, name))
}

func readSpec(r Request) (*schedule.Spec, error) {
	body, err := bodyOnly(r)
	if err != nil {
		return nil, err
	}
	return schedule.ParseSpec(body)
}

func readNamedSpec(r Request) (*schedule.Spec, error) {
	body, err := bodyOnly(r)
	if err != nil {
		return nil, err
	}
	return schedule.ParseNamedSpec(r.Param("name"), body)
}

func createSchedule(ctx context.Context, c Call, s *schedule.Spec) (Answer, error) {
	if err := c.mayMake(s.Type, s.Payload); err != nil {
		return Answer{}, err
	}
	e, err := c.Schedules.Create(ctx, c.Caller.Name, s)
	return Answer{JSON: entry{e}, Address: scheduleAddress(s.Name)}, err
}

func putSchedule(ctx context.Context, c Call, s *schedule.Spec) (Answer, error) {
	if err := c.mayMake(s.Type, s.Payload); err != nil {
		return Answer{}, err
	}
	e, created, err := c.Schedules.Put(ctx, c.Caller.Name, s)
	a := Answer{JSON: entry{e}}
	if created {
		a.Status, a.Address = 201, scheduleAddress(s.Name)
	}
	return a, err
}

func scheduleAddress(name string) string { return "/schedules/" + name }

func deleteSchedule(ctx context.Context, c Call, name string) (Answer, error) {
	return Answer{}, c.Schedules.Delete(ctx, c.Caller.Name, name)
}

func pauseSchedule(ctx context.Context, c Call, name string) (Answer, error) {
	return scheduleOf(c.Schedules.Pause(ctx, c.Caller.Name, name))
}

func resumeSchedule(ctx context.Context, c Call, name string) (Answer, error) {
	return scheduleOf(c.Schedules.Resume(ctx, c.Caller.Name, name))
}

// scheduleRun is the input of a run of a schedule.
type scheduleRun struct {
	name  string
	token *jobs.Token
	wait  time.Duration // for its end; 0 = not at all
}

func readScheduleRun(r Request) (scheduleRun, error) {
	if err := r.Admits(); err != nil {
		return scheduleRun{}, err
	}
	name, err := readNamePathOnly(r)
	if err != nil {
		return scheduleRun{}, err
	}
	t, err := token(r, []byte("schedule "+name))
	return scheduleRun{name, t, r.Patience()}, err
}

func runSchedule(ctx context.Context, c Call, in scheduleRun) (Answer, error) {
	s, err := c.Schedules.Get(ctx, in.name)
	if err == nil {
		err = c.mayMake(s.Type, s.Payload)
	}
	if err != nil {
		return Answer{}, err
	}
	j, replayed, err := c.Schedules.Run(ctx, in.name, in.token)
	if err != nil {
		return Answer{}, err
	}
	return c.made(ctx, j, replayed, in.wait), nil
}
