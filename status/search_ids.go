package status

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"jobstream/jobs"
	"jobstream/status/boltfile"
)

// maxNamed is how many jobs the ids of a filter may name.
const maxNamed = 10_000

// named are the keys of the jobs that a filter names by their ids, or by a query that is
// the seq or the beginning of the id of a job. only says that it chooses no others. The
// keys are ascending.
func named(tx *boltfile.Tx, f *jobs.Filter) (keys []uint64, only bool, err error) {
	if len(f.IDs) > 0 {
		only = true
		for _, prefix := range f.IDs {
			if keys, err = appendNamed(tx, keys, prefix); err != nil {
				return nil, true, err
			}
			if len(keys) > maxNamed {
				return nil, true, jobs.Invalid("query/id", fmt.Sprintf("chooses more than %d jobs; give more characters of them", maxNamed))
			}
		}
	}
	if f.Query != "" {
		hits, err := hits(tx, f.Query)
		if err != nil {
			return nil, true, err
		}
		switch {
		case len(hits) == 0:
		case only:
			keys = slices.DeleteFunc(keys, func(k uint64) bool { return !slices.Contains(hits, k) })
		default:
			keys, only = hits, true
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys), only, nil
}

// hits are the jobs that a query names: few, or it is too short.
func hits(tx *boltfile.Tx, query string) (keys []uint64, err error) {
	if seq, err := strconv.ParseUint(query, 10, 64); err == nil && query[0] != '0' && query[0] != '+' {
		k := key8(seq)
		if tx.Bucket(bucketJobs).Get(k) != nil {
			keys = append(keys, seq)
		} else if v := tx.Bucket(bucketMoved).Get(k); v != nil {
			keys = append(keys, binary.BigEndian.Uint64(v))
		}
	}
	if len(query) >= jobs.MinIDPrefix && jobs.IsIDPrefix(query) {
		keys, err = appendNamed(tx, keys, query)
	}
	return keys[:min(len(keys), maxNamed)], err
}

// appendNamed appends the keys of the jobs whose ids begin with a text.
func appendNamed(tx *boltfile.Tx, keys []uint64, prefix string) ([]uint64, error) {
	digits := strings.ToLower(strings.ReplaceAll(prefix, "-", ""))
	from, err := hex.DecodeString(digits + strings.Repeat("0", len(digits)%2))
	if err != nil {
		return keys, nil //nolint:nilerr // no id begins so
	}
	c := tx.Bucket(bucketIDs).Cursor()
	for k, v := c.Seek(from); k != nil && strings.HasPrefix(hex.EncodeToString(k), digits); k, v = c.Next() {
		if keys = append(keys, binary.BigEndian.Uint64(v)); len(keys) > maxNamed {
			break
		}
	}
	return keys, nil
}

// among reads the part of a list whose jobs the filter names; see [Queries.piece].
func among(r *reading, match *matcher, keys []uint64, from uint64, asc bool, limit int) (found []*jobs.Job, next uint64, err error) {
	rest := *match.filter
	rest.Query = "" // the keys are what it has found, some by an earlier seq
	match = newMatcher(&rest)
	if !asc {
		keys = slices.Clone(keys)
		slices.Reverse(keys)
	}
	for _, key := range keys {
		if from != 0 && (asc && key <= from || !asc && key >= from) {
			continue
		}
		if len(found) == limit || r.left.spent() {
			return found, next, nil
		}
		j, err := r.job(key, match, true)
		if err != nil {
			return nil, 0, err
		}
		if j != nil {
			found = append(found, j)
		}
		next = key
	}
	return found, 0, nil
}
