package schedule_test

import (
	"fmt"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/schedule"
)

// A plan has the times of a schedule.
func ExamplePlan_Next() {
	spec, err := schedule.ParseSpec([]byte(`{"name":"nightly","type":"report","cron":"30 2 * * mon-fri","timezone":"Europe/Berlin"}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	plan, err := schedule.NewPlan(spec, 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	at := jobs.TimeOf(time.Date(2024, 3, 29, 12, 0, 0, 0, time.UTC)) // a Friday before the clocks change
	for range 2 {
		at = plan.Next(at)
		fmt.Println(at)
	}
	// Output:
	// 2024-04-01T00:30:00Z
	// 2024-04-02T00:30:00Z
}

// Only the latest of the missed times counts, or none.
func ExampleDecide() {
	spec := schedule.Spec{Name: "hourly", Type: "report", Every: time.Hour, Timezone: "UTC"}
	plan, err := schedule.NewPlan(&spec, 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	hour := func(n float64) jobs.Time { return jobs.Time(n * float64(time.Hour)) }
	names := map[schedule.Deed]string{schedule.Wait: "wait for", schedule.Fire: "fire", schedule.Pass: "pass"}
	for _, catchUp := range []schedule.CatchUp{schedule.One, schedule.None} {
		e := &schedule.Entry{Spec: spec}
		e.CatchUp, e.Done = catchUp, hour(1)
		d := schedule.Decide(plan, e, schedule.Moment{Now: hour(5.5), Since: hour(5.4)})
		fmt.Println(catchUp, names[d.Deed], time.Duration(d.At))
	}
	// Output:
	// one fire 5h0m0s
	// none wait for 6h0m0s
}
