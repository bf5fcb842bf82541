package jobs

import (
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // so that every machine knows all zones
)

// ParseMoment reads an RFC 3339 time, or a date, which stands for its first moment in
// UTC. It follows the grammar exactly, in which t and z may be small. A leap second
// becomes the second after it.
func ParseMoment(s string) (Time, error) {
	t, ok := parseDate(s)
	if !ok {
		t, ok = parseDateTime(s)
	}
	switch {
	case !ok:
		return 0, fmt.Errorf("%s is not a time; RFC 3339 is expected, like 2024-01-15T08:00:00Z or 2024-01-15", Quote(s))
	case t.Year() < 1971 || t.Year() > 2261:
		return 0, fmt.Errorf("%s is out of range (1971 to 2261)", Quote(s))
	}
	return TimeOf(t), nil
}

// parseDate reads a full-date of RFC 3339. The month decides about its days.
func parseDate(s string) (time.Time, bool) {
	t, err := time.Parse(time.DateOnly, s)
	return t, err == nil && len(s) == len(time.DateOnly)
}

// parseDateTime reads a date-time of RFC 3339. time.Parse accepts both more (hours of
// one digit, commas, any offset) and less.
func parseDateTime(s string) (time.Time, bool) {
	const clock = len("15:04:05")
	if len(s) < len(time.DateOnly)+1+clock+1 || s[10] != 'T' && s[10] != 't' {
		return time.Time{}, false
	}
	day, ok := parseDate(s[:10])
	hour, minute, second, fine := twoDigits(s[11:], 23, ':'), twoDigits(s[14:], 59, ':'), twoDigits(s[17:], 60, 0), true
	s = s[11+clock:]
	nanos := 0
	if s[0] == '.' {
		nanos, s, fine = fraction(s[1:])
	}
	offset, known := parseOffset(s)
	if !ok || !fine || !known || hour < 0 || minute < 0 || second < 0 {
		return time.Time{}, false
	}
	t := time.Date(day.Year(), day.Month(), day.Day(), hour, minute, min(second, 59), nanos, time.UTC).Add(-offset)
	if second == 60 {
		if t.Hour() != 23 || t.Minute() != 59 { // leap seconds end a day in UTC
			return time.Time{}, false
		}
		t = t.Truncate(time.Second).Add(time.Second)
	}
	return t, true
}

// twoDigits reads a number of two digits, 0 to most, followed by end (unless that is
// 0). It is -1 if s does not begin so.
func twoDigits(s string, most int, end byte) int {
	if len(s) < 2 || s[0] < '0' || s[0] > '9' || s[1] < '0' || s[1] > '9' || end != 0 && (len(s) < 3 || s[2] != end) {
		return -1
	}
	if n := int(s[0]-'0')*10 + int(s[1]-'0'); n <= most {
		return n
	}
	return -1
}

// fraction reads the digits of a fraction of a second. Nine of them count.
func fraction(s string) (nanos int, rest string, ok bool) {
	digits := 0
	for unit := 100_000_000; digits < len(s) && s[digits] >= '0' && s[digits] <= '9'; digits++ {
		nanos += int(s[digits]-'0') * unit
		unit /= 10
	}
	return nanos, s[digits:], digits > 0
}

// parseOffset reads a time-offset of RFC 3339.
func parseOffset(s string) (time.Duration, bool) {
	if s == "Z" || s == "z" {
		return 0, true
	}
	if len(s) != len("+00:00") || s[0] != '+' && s[0] != '-' {
		return 0, false
	}
	hours, minutes := twoDigits(s[1:], 23, ':'), twoDigits(s[4:], 59, 0)
	offset := time.Duration(hours)*time.Hour + time.Duration(minutes)*time.Minute
	if s[0] == '-' {
		offset = -offset
	}
	return offset, hours >= 0 && minutes >= 0
}

// ParseZone finds a time zone by its IANA name, the same on every machine.
func ParseZone(name string) (*time.Location, error) {
	switch first, _, _ := strings.Cut(name, "/"); first {
	// These names depend on the machine, and posix and right contain copies of all
	// zones.
	case "", "Local", "localtime", "posixrules", "Factory", "posix", "right":
	default:
		if loc, err := time.LoadLocation(name); err == nil {
			return loc, nil
		}
	}
	return nil, fmt.Errorf("must be the IANA name of a time zone, like Europe/Berlin or UTC, not %s", Quote(name))
}
