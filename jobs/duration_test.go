package jobs_test

import (
	"testing"
	"time"

	"jobstream/jobs"
)

func TestParseDuration(t *testing.T) {
	const day = 24 * time.Hour
	tests := map[string]time.Duration{ // -1 = refused
		"0": 0, "300": 300 * time.Second, "007": 7 * time.Second, "9223372036": 9223372036 * time.Second,
		"90s": 90 * time.Second, "5m": 5 * time.Minute, "1h30m": 90 * time.Minute, "250ms": 250 * time.Millisecond, "1.5h": 90 * time.Minute,
		"10us": 10 * time.Microsecond, "10µs": 10 * time.Microsecond, "1ns": 1,
		"30d": 30 * day, "2w": 14 * day, "1w2d": 9 * day, "1d12h": 36 * time.Hour, "0.5d": 12 * time.Hour, "1.5w": 252 * time.Hour, "0d": 0,
		"106751d": 106751 * day,

		"": -1, " ": -1, "-1": -1, "-5m": -1, "5 m": -1, "5": 5 * time.Second, "m": -1, "d": -1, "5x": -1, "5D": -1, "1.5": -1, ".": -1, ".d": -1, "1..5d": -1,
		"5m-3s": -1, "1d-1h": -1, "NaNd": -1, "Infd": -1, "1e3d": -1, "0x10": -1,
		"9223372037": -1, "106752d": -1, "99999999999999999999d": -1, "15251w": -1, "106751d24h": -1, "106751.99116730064591d": -1, "9999999h": -1,
		"99999999999999999999": -1,
	}
	for text, want := range tests {
		got, err := jobs.ParseDuration(text)
		if want < 0 != (err != nil) || err == nil && got != want {
			t.Errorf("%q: got %s, %v; want %s", text, got, err, want)
		}
	}
}

func FuzzParseDuration(f *testing.F) {
	for _, s := range []string{"", "300", "1h30m", "30d", "1w2d", "106751.991167300645d", "15250.284452471522w", "-5m", "1e9d", "9223372036854775807ns1ns", "\xff", "5µs"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := jobs.ParseDuration(s); d < 0 || err != nil && d != 0 {
			t.Fatalf("%q: %d, %v", s, d, err)
		} else if want, goErr := time.ParseDuration(s); err == nil && goErr == nil && d != want {
			t.Fatalf("%q: %s, but time.ParseDuration says %s", s, d, want)
		}
	})
}
