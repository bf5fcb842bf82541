package jobs

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"jobstream/jobs/strict"
)

// RunFields are the fields that say what a job gets and how it runs: those that a
// submission and a schedule have in common. They are read to these places.
func RunFields(payload *json.RawMessage, priority *Priority, tags *[]string, retryCount *int, timeout *time.Duration) [5]strict.Field {
	return [...]strict.Field{
		strict.May("payload", func(v strict.Value) { *payload = v.Raw }),
		strict.May("priority", func(v strict.Value) { *priority = Priority(v.Int(int(HighestPriority), int(LowestPriority))) }),
		strict.May("tags", func(v strict.Value) { *tags = strict.As(v, ReadTags) }),
		strict.May("retry_count", func(v strict.Value) { *retryCount = v.Int(0, MaxRetryCount) }),
		strict.May("timeout", func(v strict.Value) { *timeout = strict.As(v, ReadTimeout) }),
	}
}

// ReadTimeout reads a timeout: seconds, or a duration's text; above 0, at most
// [MaxTimeout].
func ReadTimeout(raw json.RawMessage) (time.Duration, error) {
	d, err := ReadSpan(raw, MaxTimeout)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("must be seconds above 0 or a duration like \"5m\", at most 7d, not %s", strict.Describe(raw))
	}
	return d, nil
}

// ReadDelay reads seconds or a duration, 0 to [MaxDelay].
func ReadDelay(raw json.RawMessage) (time.Duration, error) {
	d, err := ReadSpan(raw, MaxDelay)
	if err != nil {
		return 0, fmt.Errorf("must be seconds or a duration like \"5m\", at most ten years, not %s", strict.Describe(raw))
	}
	return d, nil
}

// ReadSpan reads seconds in any spelling of a number (300, 300.0, 3e2, 0.5), or the
// text of a duration, from 0 to longest.
func ReadSpan(raw json.RawMessage, longest time.Duration) (d time.Duration, err error) {
	if raw[0] == '"' {
		var text string
		if text, err = strict.Text(raw); err == nil {
			d, err = ParseDuration(text)
		}
	} else {
		var f float64
		f, err = strconv.ParseFloat(string(raw), 64)
		if d = -1; err == nil && f >= 0 && f <= longest.Seconds() {
			d = Seconds(f)
		}
	}
	if err == nil && (d < 0 || d > longest) {
		err = errors.New("out of range")
	}
	return d, err
}

// Seconds is f seconds to the nearest nanosecond, so that 16560.404 stays exact.
func Seconds(f float64) time.Duration { return time.Duration(math.Round(f * float64(time.Second))) }

// ReadMoment reads an RFC 3339 time.
func ReadMoment(raw json.RawMessage) (Time, error) {
	text, err := strict.Text(raw)
	if err != nil {
		return 0, err
	}
	return ParseMoment(text)
}

// ReadTags reads a list of tags within the bounds of a submission.
func ReadTags(raw json.RawMessage) ([]string, error) {
	tags, err := strict.Texts(raw)
	if err != nil {
		return nil, err
	}
	return tags, CheckTags(tags)
}
