package httpapi

import (
	"cmp"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// maxRanges is how many ranges of a file one request gets. A request for more gets the
// whole file.
const maxRanges = 100

// plainRange rewrites the Range header of a request for size bytes, so that
// http.ServeContent follows section 14 of RFC 9110. By itself ServeContent answers 416
// to unknown units, to malformed ranges, and to numbers beyond 63 bits. It accepts
// "-0" as a range, and answers HEAD with parts.
func plainRange(r *http.Request, size int64) {
	fields := r.Header["Range"]
	if len(fields) == 0 {
		return
	}
	ranges, valid := parseRanges(strings.Join(fields, ", "), size)
	switch {
	case r.Method != http.MethodGet || !valid || len(ranges) > maxRanges:
		r.Header.Del("Range")
	case len(ranges) == 0: // none of it is in the file: ServeContent answers 416
		r.Header.Set("Range", fmt.Sprintf("bytes=%d-", size))
	default:
		r.Header.Set("Range", "bytes="+strings.Join(ranges, ","))
	}
}

// parseRanges reads a Range header and returns the ranges that begin in size bytes. It
// is not valid if its unit is not bytes, or if it cannot be read.
func parseRanges(field string, size int64) (ranges []string, valid bool) {
	unit, set, _ := strings.Cut(field, "=")
	if !strings.EqualFold(unit, "bytes") {
		return nil, false
	}
	for spec := range strings.SplitSeq(set, ",") {
		spec = strings.Trim(spec, " \t")
		if spec == "" {
			continue // lists may have such elements
		}
		first, last, ok := strings.Cut(spec, "-")
		if !ok || !digits(first) || !digits(last) || first == "" && last == "" {
			return nil, false
		}
		if first != "" && last != "" && compareNumbers(last, first) < 0 {
			return nil, false
		}
		valid = true
		if from, to := span(first, last, size); from < size {
			ranges = append(ranges, fmt.Sprintf("%d-%d", from, to))
		}
	}
	return ranges, valid
}

// span is the first and the last byte of a range of size bytes. The first is size if
// there are none.
func span(first, last string, size int64) (from, to int64) {
	if first == "" {
		return size - atMost(last, size), size - 1
	}
	from, to = atMost(first, size), size-1
	if last != "" {
		to = atMost(last, size-1)
	}
	return from, to
}

// digits reports whether s has nothing but digits.
func digits(s string) bool { return strings.Trim(s, "0123456789") == "" }

// atMost is the number in s, or most if that is less.
func atMost(s string, most int64) int64 {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n < most {
		return n
	}
	return most // also for numbers beyond 63 bits
}

// compareNumbers compares decimal numbers of any length.
func compareNumbers(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}
