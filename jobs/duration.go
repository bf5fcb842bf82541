package jobs

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// ParseDuration reads whole seconds ("300") or a Go duration, with the units d (24 h)
// and w (7 d) besides ("1h30m", "30d", "1w2d"). Negative durations and those beyond 290
// years are errors.
func ParseDuration(s string) (time.Duration, error) {
	bad := fmt.Errorf("%q is not a duration: whole seconds, or like 90s, 5m, 1h30m, 30d, 2w", s)
	if s == "" {
		return 0, bad
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		if n < 0 || n > math.MaxInt64/int64(time.Second) {
			return 0, bad
		}
		return time.Duration(n) * time.Second, nil
	}
	var total time.Duration
	rest := s
	for rest != "" {
		i := 0
		for i < len(rest) && (rest[i] >= '0' && rest[i] <= '9' || rest[i] == '.') {
			i++
		}
		k := i
		for k < len(rest) && (rest[k] < '0' || rest[k] > '9') && rest[k] != '.' {
			k++
		}
		number, unit := rest[:i], rest[i:k]
		rest = rest[k:]
		var d time.Duration
		switch unit {
		case "d", "w":
			f, err := strconv.ParseFloat(number, 64)
			if err != nil {
				return 0, bad
			}
			if unit == "w" {
				f *= 7
			}
			ns := f * 24 * float64(time.Hour)
			if ns >= math.MaxInt64 { // this is 2^63 as a float, one too many
				return 0, bad
			}
			d = time.Duration(ns)
		default:
			var err error
			if d, err = time.ParseDuration(number + unit); err != nil || d < 0 {
				return 0, bad
			}
		}
		if total+d < total {
			return 0, bad
		}
		total += d
	}
	return total, nil
}
