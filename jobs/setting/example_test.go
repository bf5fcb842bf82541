package setting_test

import (
	"fmt"
	"time"

	"jobstream/jobs/setting"
)

// A setting binds a key of the configuration to a field, with its allowed values.
func ExampleSetting() {
	var o struct {
		Workers int
		Timeout time.Duration
	}
	settings := []setting.Setting{
		setting.Whole("pool.workers", &o.Workers, 1, 100),
		setting.Duration("pool.timeout", &o.Timeout, time.Second, time.Hour),
	}
	for i, value := range []any{setting.FromText("8"), setting.FromText("2d")} {
		if s := settings[i]; !s.Set(value) {
			fmt.Println(s.Path, "is not", s.Allowed)
		}
	}
	fmt.Println(o.Workers, o.Timeout)
	// Output:
	// pool.timeout is not seconds or a duration like 90s, 5m, 12h or 30d, from 1s to 1h
	// 8 0s
}
