package jobs

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Rate is how many jobs of a type may start in some time. The zero Rate is no limit.
type Rate struct {
	Count float64       // jobs that may start in Per; above 0, not necessarily whole
	Per   time.Duration // above 0
	Burst int           // how many may start at once after a pause; 0 = see [Rate.Capacity]
}

// Bounds of a rate.
const (
	MaxRatePerSecond = 1_000_000
	MaxRateInterval  = 365 * 24 * time.Hour // of Per, and from one job to the next
	MaxBurst         = 1_000_000
)

// ParseRate reads a rate like 100/s: a number, which may have decimals, and a time.
// That is s, m, h, d or w, or a duration with units as in 10/30s. The empty text is the
// zero Rate. The text has no Burst, so the result has none.
func ParseRate(s string) (Rate, error) {
	if s == "" {
		return Rate{}, nil
	}
	bad := fmt.Errorf("%s is not a rate: a number and a time, like 100/s, 5/m, 0.5/h or 10/30s", Quote(s))
	number, period, ok := strings.Cut(s, "/")
	if !ok || !isDecimal(number) || period == "" {
		return Rate{}, bad
	}
	count, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return Rate{}, bad
	}
	if period[0] >= 'a' && period[0] <= 'z' {
		period = "1" + period
	}
	if isDecimal(period) {
		return Rate{}, bad // 10/30 might mean 30 seconds or 30 minutes
	}
	per, err := ParseDuration(period)
	if err != nil {
		return Rate{}, bad
	}
	r := Rate{Count: count, Per: per}
	switch {
	case count == 0 || per == 0:
		return Rate{}, fmt.Errorf("%s is not a rate: both numbers must be above 0; leave it empty for no limit", Quote(s))
	case r.PerSecond() > MaxRatePerSecond:
		return Rate{}, fmt.Errorf("%s is more than %d/s, the highest rate", Quote(s), MaxRatePerSecond)
	case per > MaxRateInterval || float64(per)/count > float64(MaxRateInterval):
		return Rate{}, fmt.Errorf("%s is less than one in 365d, the lowest rate", Quote(s))
	}
	return r, nil
}

// isDecimal says whether s consists of digits and at most one point: no sign, no
// exponent.
func isDecimal(s string) bool {
	whole, fraction, ok := strings.Cut(s, ".")
	return isDigits(whole) && (!ok || isDigits(fraction))
}

func isDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// String is the inverse of [ParseRate]. It leaves the Burst out, and is "" for the zero
// Rate.
func (r Rate) String() string {
	if r.IsZero() {
		return ""
	}
	return strconv.FormatFloat(r.Count, 'f', -1, 64) + "/" + periodText(r.Per)
}

// periodText is d behind the stroke: a single unit if possible.
func periodText(d time.Duration) string {
	switch d {
	case time.Second:
		return "s"
	case time.Minute:
		return "m"
	case time.Hour:
		return "h"
	case 24 * time.Hour:
		return "d"
	}
	s := d.String() // with zeros for smaller units, as in 1h0m0s
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// IsZero says whether r is no limit.
func (r Rate) IsZero() bool { return r.Count <= 0 || r.Per <= 0 }

// PerSecond is the mean number of jobs that may start in a second; 0 for no limit.
func (r Rate) PerSecond() float64 {
	if r.IsZero() {
		return 0
	}
	return r.Count * float64(time.Second) / float64(r.Per)
}

// Capacity is how many jobs may start at once after a pause: the Burst, or else as many
// as the rate allows in a second, but at least 1. It is 0 for no limit.
func (r Rate) Capacity() int {
	switch {
	case r.IsZero():
		return 0
	case r.Burst > 0:
		return r.Burst
	}
	return max(1, int(min(r.PerSecond(), MaxRatePerSecond)))
}
