package changes

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"jobstream/jobs"
)

// MaxEvent is about the largest job in an event, in bytes. A larger one goes without its
// payload, and if need be without its result and errors: many may be sent the same event.
const MaxEvent = 64 << 10

// Place is a place among all changes: before the change with this index in a commit, or
// before the next commit if that has none.
type Place struct {
	Number uint64
	Index  int
}

// before says whether p comes before q.
func (p Place) before(q Place) bool {
	return p.Number < q.Number || p.Number == q.Number && p.Index < q.Index
}

// appendID appends the id of an event: the epoch, and the place behind the event.
func (p Place) appendID(b []byte, epoch string) []byte {
	b = append(append(b, epoch...), '-')
	b = strconv.AppendUint(b, p.Number, 10)
	return strconv.AppendInt(append(b, '-'), int64(p.Index), 10)
}

// parseID is the place of an event's id. ok is false if it is of another epoch, or none.
func parseID(id, epoch string) (p Place, ok bool) {
	of, place, _ := strings.Cut(id, "-")
	number, index, _ := strings.Cut(place, "-")
	n, err := strconv.ParseUint(number, 10, 63)
	if err != nil || of != epoch {
		return Place{}, false
	}
	i, err := strconv.ParseUint(index, 10, 31)
	return Place{Number: n, Index: int(i)}, err == nil
}

// event is the change of a job as an event.
func event(epoch string, at Place, j *jobs.Job, deleted bool) []byte {
	b := make([]byte, 0, 128+min(j.SizeHint(), MaxEvent))
	b = at.appendID(append(b, "id: "...), epoch)
	b = append(b, "\nevent: job."...)
	if deleted {
		b = append(b, "deleted"...)
	} else {
		b = append(b, j.Status.String()...)
	}
	b = append(b, "\ndata: "...)
	start := len(b)
	b, omitted := j.AppendFitting(b, nil, MaxEvent)
	oneLine(b[start:])
	if omitted != "" {
		b = append(append(b, "\n: omitted "...), omitted...)
	}
	return append(b, "\n\n"...)
}

// oneLine makes JSON one line. There are line breaks between its tokens only.
func oneLine(b []byte) {
	for i, c := range b {
		if c == '\n' || c == '\r' {
			b[i] = ' '
		}
	}
}

// mark is an event without data, which tells the client the place to come back to.
func mark(epoch string, at Place) []byte {
	return append(at.appendID([]byte("id: "), epoch), "\n\n"...)
}

// The reasons of an event "skipped".
const (
	skipUnknown = "unknown_id" // the id makes no sense here
	skipOld     = "too_old"    // ends may be missing
	skipChanges = "only_ends"  // no end is missing, but other changes may be
)

// skipped is an event that says what a follower misses. before is the moment before which
// ends may be missing; 0 if unknown.
func skipped(reason, detail string, before jobs.Time) []byte {
	said := struct {
		Reason string     `json:"reason"`
		Detail string     `json:"detail"`
		Before *time.Time `json:"before,omitempty"`
	}{Reason: reason, Detail: detail}
	if before != 0 {
		at := before.Std()
		said.Before = &at
	}
	b, _ := json.Marshal(said) // it has no values that cannot be JSON
	return fmt.Appendf(nil, "event: skipped\ndata: %s\n\n", b)
}
