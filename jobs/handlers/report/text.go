package report

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// number is n with a comma at every third digit.
func number(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// plural is "1 job" or "2 jobs".
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return number(n) + " " + noun + "s"
}

// percent is a share with one decimal. Only all is 100 %, and only nothing is 0 %.
func percent(share float64) string {
	p := math.Round(share*1000) / 10
	switch {
	case share > 0 && p == 0:
		return "<0.1%"
	case share < 1 && p == 100:
		return ">99.9%"
	case p == 0 || p == 100:
		return fmt.Sprintf("%.0f%%", p)
	}
	return fmt.Sprintf("%.1f%%", p)
}

// duration is a duration for people, with about three digits.
func duration(d time.Duration) string {
	switch {
	case d < time.Microsecond:
		return "0 ms"
	case d < 999500*time.Microsecond:
		return threeDigits(float64(d)/float64(time.Millisecond)) + " ms"
	case d < time.Minute-5*time.Millisecond:
		return threeDigits(d.Seconds()) + " s"
	case d < time.Hour:
		d = d.Round(time.Second)
		return fmt.Sprintf("%d m %02d s", d/time.Minute, d%time.Minute/time.Second)
	case d < day:
		d = d.Round(time.Minute)
		return fmt.Sprintf("%d h %02d m", d/time.Hour, d%time.Hour/time.Minute)
	}
	d = d.Round(time.Hour)
	return fmt.Sprintf("%d d %02d h", d/day, d%day/time.Hour)
}

// threeDigits has three significant digits, or all of those before the point. Below 1
// it has three decimals.
func threeDigits(f float64) string {
	switch {
	case f >= 99.95:
		return number(int(math.Round(f)))
	case f >= 9.995:
		return strconv.FormatFloat(f, 'f', 1, 64)
	case f >= 0.9995:
		return strconv.FormatFloat(f, 'f', 2, 64)
	}
	return strconv.FormatFloat(f, 'f', 3, 64)
}

// round keeps three decimals, which is exact enough for a place on the page in per
// cent.
func round(f float64) float64 { return math.Round(f*1000) / 1000 }

// periodText names a period; to is exclusive. It leaves out the times if the period
// consists of whole days, or ends within its last one.
func periodText(from, to time.Time) string {
	last := to.Add(-1)
	if to.Sub(from) <= 2*day+time.Hour && (!midnight(from).Equal(from) || !midnight(last).Equal(midnight(from))) {
		return from.Format("2 January 2006, 15:04") + " – " + to.Format("2 January 2006, 15:04")
	}
	first, end := from.Format("2 January 2006"), last.Format("2 January 2006")
	switch {
	case first == end:
		return end
	case from.Year() == last.Year() && from.Month() == last.Month():
		return from.Format("2") + " – " + end
	case from.Year() == last.Year():
		return from.Format("2 January") + " – " + end
	}
	return first + " – " + end
}
