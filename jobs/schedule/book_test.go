package schedule_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/schedule"
)

func kind(t *testing.T, err error) jobs.ErrorKind {
	t.Helper()
	var e *jobs.Error
	if !errors.As(err, &e) {
		t.Fatalf("%v is no error for a user", err)
	}
	return e.Kind
}

func spec(t *testing.T, body string) *schedule.Spec {
	t.Helper()
	s, err := schedule.ParseSpec([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestBook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		g := newRig()
		g.create(t, `{"name":"b","cron":"@daily","type":"report"}`)
		g.create(t, `{"name":"a","cron":"@hourly","type":"report"}`)
		all, err := g.book.List(ctx)
		if err != nil || len(all) != 2 || all[0].Name != "a" || all[1].Name != "b" {
			t.Errorf("the list is %v, %v", all, err)
		}
		if _, err := g.book.Create(ctx, "rest", spec(t, `{"name":"a","every":"5s","type":"report"}`)); kind(t, err) != jobs.Conflict {
			t.Error(err)
		}
		if _, err := g.book.Create(ctx, "rest", spec(t, `{"name":"c","every":"5s","type":"nonsense"}`)); kind(t, err) != jobs.UnknownType {
			t.Error(err)
		}
		if _, created, err := g.book.Put(ctx, "rest", spec(t, `{"name":"c","every":"5s","type":"report"}`)); !created || err != nil {
			t.Error(created, err)
		}
		for _, f := range []func() error{
			func() error { _, err := g.book.Get(ctx, "x"); return err },
			func() error { return g.book.Delete(ctx, "rest", "x") },
			func() error { _, err := g.book.Pause(ctx, "rest", "x"); return err },
			func() error { _, _, err := g.book.Run(ctx, "somebody", strings.Repeat("x", 500), nil); return err },
		} {
			if err := f(); kind(t, err) != jobs.NotFound || len(err.Error()) > 200 {
				t.Error(err)
			}
		}

		// a repeat writes nothing; new times begin anew
		pass(90 * time.Minute)
		before := g.get("a")
		for range 2 {
			if _, err := g.book.Resume(ctx, "rest", "a"); err != nil {
				t.Error(err)
			}
			if _, _, err := g.book.Put(ctx, "rest", spec(t, `{"name":"a","cron":"@hourly","type":"report"}`)); err != nil {
				t.Error(err)
			}
		}
		if g.get("a") != before {
			t.Error("the same again is a change")
		}
		e, _, err := g.book.Put(ctx, "rest", spec(t, `{"name":"a","cron":"@hourly","type":"report","priority":1}`))
		if err != nil || e.Done != before.Done || e.CreatedAt != g.begin || e.UpdatedAt != g.now() {
			t.Errorf("%+v, %v", e, err)
		}
		if e, _, err = g.book.Put(ctx, "rest", spec(t, `{"name":"a","cron":"@daily","type":"report"}`)); err != nil || e.Done != g.now() {
			t.Errorf("%+v, %v", e, err)
		}

		// by hand
		if _, err := g.book.Pause(ctx, "rest", "a"); err != nil {
			t.Error(err)
		}
		done := g.get("a").Done
		for range 2 {
			j, _, err := g.book.Run(ctx, "somebody", "a", nil)
			if err != nil || j.Terms.Schedule != "a" || j.Terms.ScheduledFor != 0 {
				t.Errorf("%+v, %v", j, err)
			} else if e := g.get("a"); e.LastJob != j.ID || e.Done != done {
				t.Errorf("after a run by hand: %+v", e.State)
			}
		}
		if len(g.made) != 2 {
			t.Errorf("%d jobs", len(g.made))
		}
		if err := g.book.Delete(ctx, "rest", "a"); err != nil || g.get("a") != nil {
			t.Error(err)
		}
	})
}

func TestAdopt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		g := newRig()
		g.create(t, `{"name":"mine","every":"10s","type":"report"}`)
		g.create(t, `{"name":"both","every":"10s","type":"report"}`)
		adopt := func(bodies ...string) {
			t.Helper()
			var all []*schedule.Spec
			for _, b := range bodies {
				all = append(all, spec(t, b))
			}
			if err := g.book.Adopt(ctx, all); err != nil {
				t.Fatal(err)
			}
		}
		const both, gone, stays = `{"name":"both","every":"20s","type":"report"}`,
			`{"name":"gone","every":"10s","type":"report"}`, `{"name":"stays","every":"1m","type":"report"}`
		adopt(both, gone, stays)
		if e := g.get("both"); e.Source != schedule.FromConfig || e.Every != 20*time.Second || !strings.Contains(g.log.String(), "replaces one that was made by a request") {
			t.Errorf("%+v", e)
		}
		for _, f := range []func() error{
			func() error { _, err := g.book.Create(ctx, "rest", spec(t, stays)); return err },
			func() error { _, _, err := g.book.Put(ctx, "rest", spec(t, stays)); return err },
			func() error { return g.book.Delete(ctx, "rest", "stays") },
			func() error { _, err := g.book.Pause(ctx, "rest", "stays"); return err },
			func() error { _, err := g.book.Resume(ctx, "rest", "stays"); return err },
		} {
			if err := f(); kind(t, err) != jobs.Conflict || !strings.Contains(err.Error(), "configuration") {
				t.Error(err)
			}
		}
		if _, _, err := g.book.Run(ctx, "somebody", "stays", nil); err != nil {
			t.Error(err)
		}
		before := g.get("stays")
		pass(150 * time.Second)
		adopt(stays)
		if g.get("stays") != before || g.get("gone") != nil || g.get("both") != nil || g.get("mine") == nil {
			t.Errorf("%v", g.entries)
		}
		adopt(`{"name":"stays","every":"1m","type":"report","priority":2}`)
		if e := g.get("stays"); e.Done != before.Done || e.LastJob != before.LastJob || e.Priority != 2 {
			t.Errorf("%+v", e)
		}
		if err := g.book.Adopt(ctx, []*schedule.Spec{spec(t, `{"name":"x","every":"1m","type":"nonsense"}`)}); err == nil || g.get("stays") == nil || g.get("x") != nil {
			t.Errorf("an unknown type: %v", err)
		}
	})
}

func TestEntryJSON(t *testing.T) {
	now := at(t, "2026-11-23T10:30:00Z")
	e := &schedule.Entry{
		Spec: *spec(t, `{"name":"a","cron":"@hourly","type":"report","payload":{"x":[1]},"tags":["t"],"retry_count":0,"timeout":1.5}`),
		State: schedule.State{
			Source: schedule.FromAPI, CreatedAt: now.Add(-time.Hour), UpdatedAt: now, Done: now.Add(-30 * time.Minute),
			LastRunAt: now.Add(-time.Minute), LastJob: schedule.FireID("a", now), Skipped: 3,
		},
	}
	const want = `{"name":"a","cron":"@hourly","timezone":"UTC","type":"report","payload":{"x":[1]},"priority":3,"tags":["t"],` +
		`"retry_count":0,"timeout":1.5,"paused":false,"overlap":"skip","catch_up":"one","next_run_at":"2026-11-23T11:00:00Z",` +
		`"last_run_at":"2026-11-23T10:29:00Z","last_job_id":"`
	if got := string(e.AppendJSON(nil, now)); !strings.HasPrefix(got, want) || !json.Valid([]byte(got)) {
		t.Errorf("%s\nnot\n%s", got, want)
	}
	e = &schedule.Entry{Spec: *spec(t, `{"name":"a","every":90,"type":"report","paused":true}`)}
	const paused = `{"name":"a","every":"90s","timezone":"UTC","type":"report","payload":null,"priority":3,"tags":[],"paused":true,` +
		`"overlap":"skip","catch_up":"one","next_run_at":null,"last_run_at":null,"last_job_id":null,"skipped":0,"source":"","created_at":null,"updated_at":null}`
	if got := string(e.AppendJSON(nil, now)); got != paused {
		t.Errorf("%s\nnot\n%s", got, paused)
	}
	if got := string(schedule.ListJSON([]*schedule.Entry{e, e}, now)); got != `{"schedules":[`+paused+`,`+paused+`]}` {
		t.Error(got)
	}
	e.Cron, e.Every, e.EveryText, e.Timezone, e.Paused = "0 0 * * *", 0, "", "Europe/Gone", false // stored when there was such a zone
	if got := string(e.AppendJSON(nil, now)); !strings.Contains(got, `"next_run_at":null`) || !strings.Contains(got, `"problem":"/timezone: must be the IANA name`) || !json.Valid([]byte(got)) {
		t.Error(got)
	}
	if got := string(schedule.ListJSON(nil, now)); got != `{"schedules":[]}` {
		t.Error(got)
	}
}

func TestStoredForm(t *testing.T) {
	// every field, so that none is forgotten
	e := &schedule.Entry{}
	fill(t, reflect.ValueOf(e).Elem(), 1)
	e.Payload = json.RawMessage(`{"x":1}`)
	b, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := schedule.Decode(b)
	if err != nil || !reflect.DeepEqual(got, e) {
		t.Errorf("%s\ngives %+v, %v\nnot %+v", b, got, err, e)
	}
	for _, bad := range []string{"", "{}", "[]", strings.Replace(string(b), `"v":1`, `"v":2`, 1)} {
		if _, err := schedule.Decode([]byte(bad)); err == nil {
			t.Errorf("%q can be read", bad)
		}
	}
}

// fill gives every field below v a value of its own.
func fill(t *testing.T, v reflect.Value, n int) int {
	t.Helper()
	for i := range v.NumField() {
		n++
		switch f := v.Field(i); f.Kind() {
		case reflect.Struct:
			n = fill(t, f, n)
		case reflect.String:
			f.SetString(strings.Repeat("x", n))
		case reflect.Int, reflect.Int64:
			f.SetInt(int64(n))
		case reflect.Uint8, reflect.Uint64:
			f.SetUint(uint64(n))
		case reflect.Bool:
			f.SetBool(true)
		case reflect.Array:
			f.Index(3).SetUint(uint64(n))
		case reflect.Slice:
			if f.Type().Elem().Kind() == reflect.String {
				f.Set(reflect.ValueOf([]string{"x"}))
			}
		default:
			t.Fatalf("no value for %s", f.Kind())
		}
	}
	return n
}

func TestFireID(t *testing.T) {
	x := at(t, "2026-11-23T10:30:00Z")
	id := schedule.FireID("a", x)
	if id != schedule.FireID("a", x) || id == schedule.FireID("b", x) || id == schedule.FireID("a", x+1) {
		t.Error("an id is not made of the name and the time")
	}
	if id.Version() != jobs.MadeVersion || id.Variant().String() != "RFC4122" {
		t.Errorf("%s is of version %d, %s", id, id.Version(), id.Variant())
	}
}
