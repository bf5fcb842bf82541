// Package payload reads the payloads of the built-in jobs. Start at [Read]: it walks an
// object field by field, and names every mistake by its JSON pointer.
package payload

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/strict"
)

// Read reads a whole payload, and then has check look at the rules about several fields
// at once; check may be nil. A payload that is missing or null has no fields. The error is
// an [*jobs.Error] that names every wrong field.
func Read(raw json.RawMessage, fields []strict.Field, check func(whole strict.Value)) error {
	if len(raw) == 0 {
		raw = json.RawMessage("null")
	}
	return jobs.Read("/payload", raw, func(v strict.Value) {
		if !v.Null() {
			v.Object(fields...)
		}
		if check != nil {
			check(v)
		}
	})
}

// Zone reads the IANA name of a time zone.
func Zone(v strict.Value) *time.Location {
	s, ok := v.Text()
	if !ok {
		return nil
	}
	loc, err := jobs.ParseZone(s)
	v.Check(err)
	return loc
}

// Statuses reads a status or a list of statuses, without repeats. It accepts only
// those for which allowed is true.
func Statuses(v strict.Value, allowed func(jobs.Status) bool) []jobs.Status {
	var found []jobs.Status
	v.Texts(func(item strict.Value, s string) {
		status, ok := jobs.ParseStatus(s)
		if !ok || !allowed(status) {
			item.Fail("%q is not one of %s", s, strings.Join(statusNames(allowed), ", "))
			return
		}
		if !slices.Contains(found, status) {
			found = append(found, status)
		}
	})
	return found
}

func statusNames(allowed func(jobs.Status) bool) []string {
	return slices.DeleteFunc(slices.Clone(jobs.StatusNames()), func(name string) bool {
		status, _ := jobs.ParseStatus(name)
		return !allowed(status)
	})
}
