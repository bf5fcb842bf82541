package status

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/schedule"
	"jobstream/status/boltfile"
)

var _ schedule.Store = (*Store)(nil)

func entry(t *testing.T, body string) *schedule.Entry {
	t.Helper()
	s, err := schedule.ParseSpec([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return &schedule.Entry{Spec: *s, State: schedule.State{Source: schedule.FromAPI, CreatedAt: epoch, UpdatedAt: epoch, Anchor: epoch, Done: epoch}}
}

// putSchedule stores an entry that is new.
func (tr *tracker) putSchedule(t *testing.T, e *schedule.Entry) {
	t.Helper()
	ctx, cancel := within(t)
	defer cancel()
	if _, err := tr.Do(ctx, put(e)); err != nil {
		t.Fatal(err)
	}
}

func put(e *schedule.Entry) schedule.Put {
	return schedule.Put{Stamp: jobs.Stamp{At: e.CreatedAt}, Source: e.Source, Spec: e.Spec}
}

func (tr *tracker) schedule(t *testing.T, name string) *schedule.Entry {
	t.Helper()
	e, err := tr.Schedule(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestSchedulesAreKept(t *testing.T) {
	t.Parallel()
	tr := startTemp(t, Options{})
	ctx, cancel := within(t)
	defer cancel()
	b, a := entry(t, `{"name":"b","every":"90s","type":"email","payload":{"x":1}}`), entry(t, `{"name":"a","cron":"@daily","type":"email"}`)
	tr.putSchedule(t, b)
	tr.putSchedule(t, a)

	before, _ := tr.rows(bucketSchedules)
	again := put(a)
	again.New = true
	for name, c := range map[string]schedule.Command{
		"a name that is taken": again,
		"none of that name":    schedule.Delete{Name: "c", Source: schedule.FromAPI},
	} {
		e, err := tr.Do(ctx, c)
		if after, _ := tr.rows(bucketSchedules); failsAs(err) == "" || e.Value != nil || !reflect.DeepEqual(after, before) {
			t.Errorf("%s: %+v, %v", name, e, err)
		}
	}

	tr.reopen()
	tr.run(idle{})
	all, err := tr.Schedules(ctx)
	if err != nil || !reflect.DeepEqual(all, []*schedule.Entry{a, b}) {
		t.Errorf("%+v, %v", all, err)
	}
	e, err := tr.Do(ctx, schedule.Delete{Name: "a", Source: schedule.FromAPI})
	if made, _ := e.Value.(schedule.Change); !reflect.DeepEqual(made, schedule.Change{Old: a}) || err != nil || tr.schedule(t, "a") != nil || tr.schedule(t, "b") == nil {
		t.Errorf("%+v, %v", e, err)
	}
	gone, cancelled := context.WithCancel(ctx)
	cancelled()
	if _, err := tr.Do(gone, schedule.Delete{Name: "b", Source: schedule.FromAPI}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// fired is the message of a schedule's time, so many seconds after the epoch.
func fired(e *schedule.Entry, seq uint64, at int) *jobs.Message {
	m := e.Message(epoch.Add(seconds(at)))
	m.Seq, m.At = seq, epoch.Add(seconds(at)+20*time.Millisecond)
	return m
}

func TestAJobMovesItsScheduleOn(t *testing.T) {
	t.Parallel()
	byHand := jobs.NewID() // of the run that this process has made
	tr := startTemp(t, Options{Checked: func(id jobs.ID) bool { return id == byHand }})
	e := entry(t, `{"name":"a","every":"10s","type":"email","payload":{"to":"x"}}`)
	tr.putSchedule(t, e)
	first := fired(e, 1, 10)
	tr.submit(first)
	tr.wait(1, 0)
	want := *e
	want.Done, want.LastRunAt, want.LastJob = epoch.Add(seconds(10)), first.At, first.ID
	if got := tr.schedule(t, "a"); !reflect.DeepEqual(got, &want) {
		t.Errorf("after a fire: %+v", got.State)
	}

	// the same time again makes no job and changes nothing
	again := fired(e, 2, 10)
	tr.submit(again)
	tr.wait(2, 0)
	if got := tr.schedule(t, "a"); !reflect.DeepEqual(got, &want) {
		t.Errorf("after the same again: %+v", got.State)
	}
	if j := tr.find(2); j.Key != 1 {
		t.Errorf("the same time made job %d, too", j.Key)
	}

	// by hand: the times stay
	hand := fired(e, 3, 15)
	hand.ID, hand.Terms = byHand, &jobs.Terms{Schedule: "a"}
	tr.submit(hand)
	tr.wait(3, 0)
	want.LastRunAt, want.LastJob = hand.At, hand.ID
	if got := tr.schedule(t, "a"); !reflect.DeepEqual(got, &want) {
		t.Errorf("after a run by hand: %+v", got.State)
	}

	// one that is no job of a known type fails at once, and was fired all the same
	bad := fired(e, 4, 20)
	bad.Type = "nonsense"
	tr.submit(bad)
	tr.wait(4, 0)
	if j := tr.find(4); j.Status != jobs.Failed {
		t.Errorf("it is %s", j.Status)
	}
	want.Done, want.LastRunAt, want.LastJob = epoch.Add(seconds(20)), bad.At, bad.ID
	if got := tr.schedule(t, "a"); !reflect.DeepEqual(got, &want) {
		t.Errorf("after a failed one: %+v", got.State)
	}

	// of nobody's
	nobody := fired(entry(t, `{"name":"b","every":"10s","type":"email"}`), 5, 30)
	tr.submit(nobody)
	tr.wait(5, 0)
	if got := tr.schedule(t, "a"); !reflect.DeepEqual(got, &want) {
		t.Errorf("after one of nobody's: %+v", got.State)
	}
	if all, err := tr.Schedules(t.Context()); len(all) != 1 || err != nil {
		t.Errorf("%d schedules, %v", len(all), err)
	}

	tr.reopen()
	if got := tr.schedule(t, "a"); !reflect.DeepEqual(got, &want) {
		t.Errorf("after a restart: %+v", got.State)
	}
}

// A schedule that cannot be read does not keep the tracker from its work.
func TestUnreadableSchedule(t *testing.T) {
	t.Parallel()
	tr := openTemp(t, Options{})
	err := tr.db.Update(func(tx *boltfile.Tx) error { return tx.Bucket(bucketSchedules).Put([]byte("a"), []byte(`{"v":99}`)) })
	if err != nil {
		t.Fatal(err)
	}
	tr.run(idle{})
	tr.submit(fired(entry(t, `{"name":"a","every":"10s","type":"email"}`), 1, 10))
	tr.wait(1, 0)
	tr.find(1)
	for what, f := range map[string]func() error{
		"one": func() error { _, err := tr.Schedule(t.Context(), "a"); return err },
		"all": func() error { _, err := tr.Schedules(t.Context()); return err },
		"change": func() error {
			_, err := tr.Do(t.Context(), schedule.Pause{Name: "a", Paused: true})
			return err
		},
	} {
		if err := f(); err == nil {
			t.Errorf("%s: it can be read", what)
		}
	}
}

// TestSchedulesAreBounded stores as many schedules as there may be, and as large
// ones.
func TestSchedulesAreBounded(t *testing.T) {
	t.Parallel()
	tr := openTemp(t, Options{})
	ctx, cancel := within(t)
	defer cancel()
	command := func(name, payload string) jobs.Command {
		return put(entry(t, `{"name":"`+name+`","every":"1h","type":"email","payload":`+payload+`}`))
	}
	const first = 9500 // that are there at the start, from one transaction
	tasks := make([]*task, first)
	for i := range tasks {
		tasks[i] = &task{ctx: ctx, command: command(fmt.Sprintf("small%d", i), `1`)}
	}
	if _, _, err := tr.doAll(tasks, tr.input()); err != nil {
		t.Fatal(err)
	}
	tr.run(idle{})
	store := func(name, payload string) error {
		_, err := tr.Do(ctx, command(name, payload))
		return err
	}
	full := func(err error) bool {
		var e *jobs.Error
		return errors.As(err, &e) && e.Kind == jobs.Conflict
	}
	large := entry(t, `{"name":"large","every":"1h","type":"email","payload":"`+strings.Repeat("x", 4<<20)+`"}`)
	putLarge := func(n int) error { // read once: that takes long with the race detector
		e := *large
		e.Name = fmt.Sprintf("large%d", n)
		_, err := tr.Do(ctx, put(&e))
		return err
	}
	for i := range 7 {
		if err := putLarge(i); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(putLarge(7), putLarge(7)); !full(err) {
		t.Errorf("more than 32 MiB: %v", err)
	}
	for i := range 7 { // they may become smaller
		if err := store(fmt.Sprintf("large%d", i), `1`); err != nil {
			t.Fatal(err)
		}
	}
	rest := make(chan int)
	var refused atomic.Int64
	var group sync.WaitGroup
	for range 256 {
		group.Go(func() {
			for i := range rest {
				if err := store(fmt.Sprintf("small%d", i), `1`); full(err) {
					refused.Add(1)
				} else if err != nil {
					t.Error(err)
				}
			}
		})
	}
	const more = 500 // than there may be, all at once
	for i := first; i < schedule.MaxSchedules+more; i++ {
		rest <- i
	}
	close(rest)
	group.Wait()
	all, err := tr.Schedules(ctx)
	if err != nil || len(all) != schedule.MaxSchedules || refused.Load() != more+7 {
		t.Fatalf("%d schedules, %d refused, %v", len(all), refused.Load(), err)
	}
	if err := store("more", `1`); !full(err) {
		t.Errorf("one more: %v", err)
	}
	if err := store("large0", `2`); err != nil {
		t.Errorf("a change: %v", err)
	}
}
