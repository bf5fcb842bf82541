package status

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"slices"

	"jobstream/jobs"
	"jobstream/status/boltfile"
	"jobstream/status/index"
	"jobstream/status/record"
)

// failures are the groups of failed jobs by fingerprint, as a transaction changes them. A
// group has a record of its own, and an entry by its last moment, so that a list of them
// reads no jobs but its examples.
type failures struct {
	groups, ages boltfile.Bucket
	changed      map[string]*failureGroup
}

// failureGroup is the record of a group.
type failureGroup struct {
	typ, text        string
	count, permanent int64
	first, last      jobs.Time
	stored           jobs.Time // last as it is in ages; 0 = there is no entry
}

func newFailures(tx *boltfile.Tx) failures {
	return failures{tx.Bucket(bucketFailures), tx.Bucket(bucketFailureAges), make(map[string]*failureGroup)}
}

const failureVersion = 1

func (g *failureGroup) encode() []byte {
	b := []byte{failureVersion}
	for _, n := range [...]int64{g.count, g.permanent, int64(g.first), int64(g.last)} {
		b = binary.AppendVarint(b, n)
	}
	b = binary.AppendUvarint(b, uint64(len(g.typ)))
	return append(append(b, g.typ...), g.text...)
}

func (g *failureGroup) decode(b []byte) error {
	if len(b) == 0 || b[0] != failureVersion {
		return fmt.Errorf("damaged group of failures in the tracker (%d bytes)", len(b))
	}
	b = b[1:]
	var at [4]int64
	for i := range at {
		v, n := binary.Varint(b)
		if n <= 0 {
			return fmt.Errorf("damaged group of failures in the tracker")
		}
		at[i], b = v, b[n:]
	}
	size, n := binary.Uvarint(b)
	if n <= 0 || size > uint64(len(b)-n) {
		return fmt.Errorf("damaged group of failures in the tracker")
	}
	b = b[n:]
	g.count, g.permanent, g.first, g.last = at[0], at[1], jobs.Time(at[2]), jobs.Time(at[3])
	g.typ, g.text = string(b[:size]), string(b[size:])
	return nil
}

// group is a group for changing.
func (f failures) group(fingerprint string) (*failureGroup, error) {
	if g := f.changed[fingerprint]; g != nil {
		return g, nil
	}
	g := &failureGroup{}
	if raw := f.groups.Get([]byte(fingerprint)); raw != nil {
		if err := g.decode(raw); err != nil {
			return nil, err
		}
		g.stored = g.last
	}
	f.changed[fingerprint] = g
	return g, nil
}

// count adds a failed job to its group, or takes it out.
func (f failures) count(fingerprint string, j *jobs.Job, on bool) error {
	g, err := f.group(fingerprint)
	if err != nil {
		return err
	}
	n := int64(1)
	if !on {
		n = -1
	}
	if on && g.count == 0 {
		g.typ, g.text, g.first, g.last = j.ListedAs(), jobs.NormalError(j.Error), j.EndedAt, 0
	}
	g.count += n
	if j.Permanent {
		g.permanent += n
	}
	if on {
		g.first, g.last = min(g.first, j.EndedAt), max(g.last, j.EndedAt)
	}
	return nil
}

// write stores the groups that have changed. One without jobs is gone.
func (f failures) write() error {
	for fingerprint, g := range f.changed {
		if g.stored != 0 && (g.count <= 0 || g.stored != g.last) {
			if err := f.ages.Delete(failureAge(g.stored, fingerprint)); err != nil {
				return err
			}
		}
		if g.count <= 0 {
			if err := f.groups.Delete([]byte(fingerprint)); err != nil {
				return err
			}
			continue
		}
		if err := f.groups.Put([]byte(fingerprint), g.encode()); err != nil {
			return err
		}
		if g.stored != g.last {
			if err := f.ages.Put(failureAge(g.last, fingerprint), nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// failureAge sorts by the last moment.
func failureAge(last jobs.Time, fingerprint string) []byte {
	return append(key8(uint64(last)), fingerprint...)
}

// maxFailureGroups is how many groups one list looks at.
const maxFailureGroups = 20_000

// Failures lists groups of failed jobs, the latest first, or the largest. It looks at no
// more than 20,000 groups. A cursor that was not made for this list gives a
// [*jobs.Error].
func (q *Queries) Failures(ctx context.Context, p jobs.FailurePage) (l jobs.FailureList, err error) {
	limit := p.Limit
	if limit == 0 {
		limit = jobs.DefaultLimit
	}
	from, err := failureCursor(p)
	if err != nil {
		return l, err
	}
	err = q.db.View(func(tx *boltfile.Tx) error {
		c := tx.Bucket(bucketFailureAges).Cursor()
		var k []byte
		if from == nil {
			k, _ = c.Last()
		} else if k, _ = c.Seek(from); k == nil {
			k, _ = c.Last()
		} else {
			k, _ = c.Prev()
		}
		var last []byte
		for ; k != nil && l.Scanned < maxFailureGroups && (p.ByCount || len(l.Failures) < limit); k, _ = c.Prev() {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			l.Scanned++
			last = bytes.Clone(k)
			fingerprint := string(k[8:])
			var g failureGroup
			if err := g.decode(tx.Bucket(bucketFailures).Get(k[8:])); err != nil {
				return err
			}
			if len(p.Types) > 0 && !slices.Contains(p.Types, g.typ) {
				continue
			}
			l.Failures = append(l.Failures, jobs.FailureGroup{
				Fingerprint: fingerprint, Type: g.typ, Error: g.text, Count: int(g.count), Permanent: int(g.permanent), First: g.first, Last: g.last,
			})
		}
		switch {
		case p.ByCount:
			slices.SortStableFunc(l.Failures, func(a, b jobs.FailureGroup) int { return b.Count - a.Count })
			l.Failures, l.Cut = l.Failures[:min(limit, len(l.Failures))], k != nil
		case k != nil:
			l.Next = base64.RawURLEncoding.EncodeToString(last)
		}
		for i := range l.Failures {
			if l.Failures[i].Example, err = example(tx, l.Failures[i].Fingerprint); err != nil {
				return err
			}
		}
		return nil
	})
	return l, err
}

// failureCursor is where a page begins; nil = at the latest.
func failureCursor(p jobs.FailurePage) ([]byte, error) {
	if p.Cursor == "" {
		return nil, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(p.Cursor)
	if err != nil || len(b) != 8+16 || p.ByCount {
		return nil, jobs.Invalid("query/cursor", "is not a cursor of this list; take next_cursor of the page before")
	}
	return b, nil
}

// example is the youngest job with a fingerprint.
func example(tx *boltfile.Tx, fingerprint string) (*jobs.Job, error) {
	key, ok, err := index.Last(tx.Bucket(bucketBits), index.OfFailure(fingerprint))
	if err != nil || !ok {
		return nil, err
	}
	j, _, err := record.Decode(tx.Bucket(bucketJobs).Get(key8(key)))
	return j, err
}
