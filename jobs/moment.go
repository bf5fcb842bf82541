package jobs

import (
	"fmt"
	"time"
)

// ParseMoment reads an RFC 3339 time or a date, which means its first moment in
// UTC.
func ParseMoment(s string) (Time, error) {
	for _, layout := range []string{time.RFC3339Nano, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			if t.Year() < 1971 || t.Year() > 2261 {
				return 0, fmt.Errorf("%q is out of range (1971 to 2261)", s)
			}
			return TimeOf(t), nil
		}
	}
	return 0, fmt.Errorf("%q is not a time; RFC 3339 is expected, like 2024-01-15T08:00:00Z or 2024-01-15", s)
}
