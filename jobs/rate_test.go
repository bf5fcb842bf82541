package jobs

import (
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestParseRate(t *testing.T) {
	const day = 24 * time.Hour
	tests := []struct {
		text      string
		want      Rate
		shown     string
		perSecond float64
		capacity  int
	}{
		{"", Rate{}, "", 0, 0},
		{"100/s", Rate{Count: 100, Per: time.Second}, "100/s", 100, 100},
		{"5/m", Rate{Count: 5, Per: time.Minute}, "5/m", 5.0 / 60, 1},
		{"6000/m", Rate{Count: 6000, Per: time.Minute}, "6000/m", 100, 100},
		{"1/h", Rate{Count: 1, Per: time.Hour}, "1/h", 1.0 / 3600, 1},
		{"1/d", Rate{Count: 1, Per: day}, "1/d", 1.0 / 86400, 1},
		{"7/w", Rate{Count: 7, Per: 7 * day}, "7/168h", 1.0 / 86400, 1},
		{"0.5/s", Rate{Count: 0.5, Per: time.Second}, "0.5/s", 0.5, 1},
		{"2.5/s", Rate{Count: 2.5, Per: time.Second}, "2.5/s", 2.5, 2},
		{"007.50/s", Rate{Count: 7.5, Per: time.Second}, "7.5/s", 7.5, 7},
		{"10/30s", Rate{Count: 10, Per: 30 * time.Second}, "10/30s", 1.0 / 3, 1},
		{"10/1m30s", Rate{Count: 10, Per: 90 * time.Second}, "10/1m30s", 1.0 / 9, 1},
		{"3/300ms", Rate{Count: 3, Per: 300 * time.Millisecond}, "3/300ms", 10, 10},
		{"1/1.5h", Rate{Count: 1, Per: 90 * time.Minute}, "1/1h30m", 1.0 / 5400, 1},
		{"10/1s", Rate{Count: 10, Per: time.Second}, "10/s", 10, 10},
		{"1/ms", Rate{Count: 1, Per: time.Millisecond}, "1/1ms", 1000, 1000},
		{"1000000/s", Rate{Count: 1e6, Per: time.Second}, "1000000/s", 1e6, 1e6},
		{"1/365d", Rate{Count: 1, Per: 365 * day}, "1/8760h", 1.0 / (365 * 86400), 1},
	}
	for _, tt := range tests {
		got, err := ParseRate(tt.text)
		if err != nil || got != tt.want {
			t.Errorf("%q gives %+v, %v, not %+v", tt.text, got, err, tt.want)
			continue
		}
		if got.String() != tt.shown || got.Capacity() != tt.capacity || math.Abs(got.PerSecond()-tt.perSecond) > 1e-12 {
			t.Errorf("%q is %q, %v per second, %d at once; not %q, %v, %d",
				tt.text, got, got.PerSecond(), got.Capacity(), tt.shown, tt.perSecond, tt.capacity)
		}
		if got.IsZero() != (tt.text == "") {
			t.Errorf("%q: IsZero is %v", tt.text, got.IsZero())
		}
		got.Burst = 3
		if got.String() != tt.shown {
			t.Errorf("%q with a burst is %q", tt.text, got)
		}
		if want := 3; !got.IsZero() && got.Capacity() != want {
			t.Errorf("%q with a burst of 3: %d at once", tt.text, got.Capacity())
		}
	}
}

func TestParseRateRefuses(t *testing.T) {
	tests := []struct{ reason, texts string }{
		{
			"is not a rate: a number and a time, like 100/s, 5/m, 0.5/h or 10/30s",
			"fast 100 100/ /s / 100/x 100/s/s -1/s +1/s 1e3/s 0x10/s 1_000/s inf/s NaN/s .5/s 5./s 1.2.3/s 10/30 10/30.5 10/-30s 10/+30s 10/S 10s ١/s",
		},
		{"both numbers must be above 0", "0/s 0.0/m 1/0s 5/0m0s"},
		{"is more than 1000000/s, the highest rate", "1000001/s 2000/ms 1/1ns " + strings.Repeat("9", 300) + "/s"},
		{"is less than one in 365d, the lowest rate", "1/366d 0.5/365d 500/366d 0.0000000001/s"},
	}
	for _, tt := range tests {
		for _, text := range append(strings.Fields(tt.texts), strings.Fields(tt.texts)[0]+" ") {
			if got, err := ParseRate(text); err == nil || got != (Rate{}) {
				t.Errorf("%q gives %+v, %v", text, got, err)
			} else if text[len(text)-1] != ' ' && !strings.Contains(err.Error(), tt.reason) {
				t.Errorf("%q says %q, not that it %s", text, err, tt.reason)
			}
		}
	}
	if _, err := ParseRate(strings.Repeat("9", 400) + "/s"); err == nil {
		t.Error("a number that is too large for a float is accepted")
	}
}

// A rate's text is read as the same rate, and an accepted rate is within the bounds.
func TestRateRoundTrip(t *testing.T) {
	units := rapid.SampledFrom([]string{"", "s", "m", "h", "d", "w", "ms", "us", "µs", "ns"})
	texts := rapid.OneOf(
		rapid.String(),
		rapid.StringMatching(`[0-9]{1,7}(\.[0-9]{1,6})?/([0-9]{1,6}(\.[0-9]{1,4})?(s|m|h|d|w|ms|us|ns))+`),
		rapid.Custom(func(t *rapid.T) string {
			return rapid.StringMatching(`[0-9]{0,8}(\.[0-9]{0,3})?`).Draw(t, "count") + "/" + units.Draw(t, "unit")
		}),
	)
	rapid.Check(t, func(t *rapid.T) {
		text := texts.Draw(t, "rate")
		r, err := ParseRate(text)
		if err != nil {
			return
		}
		if again, err := ParseRate(r.String()); err != nil || again != r {
			t.Fatalf("%q is printed as %q, which is %+v, %v, not %+v", text, r, again, err, r)
		}
		if r.IsZero() {
			if text != "" {
				t.Fatalf("%q is no limit", text)
			}
			return
		}
		if p := r.PerSecond(); !(p > 0 && p <= MaxRatePerSecond) || r.Capacity() < 1 || r.Capacity() > MaxRatePerSecond {
			t.Fatalf("%q is %v per second and %d at once", text, p, r.Capacity())
		}
	})
}
