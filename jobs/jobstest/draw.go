// Package jobstest draws attributes of jobs for the tests of codecs. It walks over the
// tables of [jobs.Field], so all codecs are tested with every attribute in them.
// Start reading at [Draw]; [TestQueue] is the conformance suite of a queue.
package jobstest

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"pgregory.net/rapid"

	"jobstream/jobs"
)

// Draw sets about half of the fields of v to values that every codec has to keep.
func Draw[T any](t *rapid.T, fields []jobs.Field[T], v *T) {
	for i := range fields {
		if f := &fields[i]; rapid.Bool().Draw(t, "has "+f.Name) {
			Set(t, f.Name, f.Of(v))
		}
	}
}

var (
	text   = rapid.StringMatching(`[a-zß]([ -+\--~äö€😀]{0,20}[0-9Z])?`) // without commas
	host   = rapid.StringMatching(`[a-z0-9.-]{1,20}(:[0-9]{2})?([/?][!$-\[\]-~]{0,20})?`)
	number = rapid.IntRange(1, 1000)
)

func moment() *rapid.Generator[jobs.Time] {
	first, last := time.Date(1971, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2261, 1, 1, 0, 0, 0, 0, time.UTC)
	return rapid.Map(rapid.Int64Range(first.UnixNano(), last.UnixNano()), func(n int64) jobs.Time { return jobs.Time(n) })
}

// Set sets a value of a field.
func Set(t *rapid.T, name string, v any) {
	switch v := v.(type) {
	case *string:
		if *v = text.Draw(t, name); strings.HasSuffix(name, "_url") {
			*v = "https://" + host.Draw(t, name)
		}
	case *int:
		*v = number.Draw(t, name)
	case *int64:
		*v = rapid.Int64Min(1).Draw(t, name)
	case *uint64:
		*v = rapid.Uint64Min(1).Draw(t, name)
	case *bool:
		*v = true
	case *jobs.Time:
		*v = moment().Draw(t, name)
	case *time.Duration:
		*v = time.Duration(number.Draw(t, name)) * time.Millisecond
	case *json.RawMessage:
		*v, _ = json.Marshal(map[string]any{"text": text.Draw(t, name), "list": []any{nil, 1.5}})
	case *[]string:
		*v = rapid.SliceOfN(text, 1, 4).Draw(t, name)
	case *jobs.ID:
		copy(v[:], rapid.SliceOfN(rapid.ByteMin(1), len(v), len(v)).Draw(t, name))
	case *jobs.Trace:
		copy(v[:], rapid.SliceOfN(rapid.ByteMin(1), len(v)-1, len(v)-1).Draw(t, name))
		v[len(v)-1] = byte(rapid.IntRange(0, 3).Draw(t, name))
	case *uint8: // also a priority or a place
		*v = uint8(rapid.IntRange(1, 2).Draw(t, name))
	case *jobs.Status:
		*v = jobs.Status(rapid.IntRange(1, jobs.NumStatus-1).Draw(t, name))
	case *jobs.Kind:
		*v = jobs.Kind(rapid.IntRange(int(jobs.KindStarted), int(jobs.KindSnoozed)).Draw(t, name))
	case **jobs.Artifact:
		*v = &jobs.Artifact{}
		Draw(t, jobs.ArtifactFields, *v)
	case **jobs.Terms:
		*v = &jobs.Terms{}
		Draw(t, jobs.TermsFields, *v)
	case *[]jobs.Artifact:
		*v = list(t, jobs.ArtifactFields)
	case *[]jobs.Input:
		*v = inputs(t)
	case *[]jobs.AttemptError:
		*v = list(t, jobs.ErrorFields)
	case *[]jobs.HistoryEntry:
		*v = list(t, jobs.HistoryFields)
	default:
		panic(fmt.Sprintf("no test makes up attributes of type %T", v))
	}
}

// inputs have names of their own, and describe files as a header has to.
func inputs(t *rapid.T) []jobs.Input {
	all := make([]jobs.Input, rapid.IntRange(1, 3).Draw(t, "entries"))
	for i := range all {
		all[i] = jobs.Input{
			Name: fmt.Sprintf("input-%d", i),
			File: jobs.Artifact{Size: rapid.Int64Min(0).Draw(t, "size"), SHA256: rapid.StringMatching(`[0-9a-f]{64}`).Draw(t, "sum")},
		}
		Set(t, "id", &all[i].ID)
		Set(t, "file", &all[i].File.Name)
		Set(t, "content type", &all[i].File.ContentType)
		if rapid.Bool().Draw(t, "of a job") {
			Set(t, "job", &all[i].Job)
		}
	}
	return all
}

func list[T any](t *rapid.T, fields []jobs.Field[T]) []T {
	all := make([]T, rapid.IntRange(1, 6).Draw(t, "entries"))
	for i := range all {
		Draw(t, fields, &all[i])
	}
	return all
}
