package config

import (
	"fmt"
	"math"
	"net/mail"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"jobstream/jobs"
)

// fromText is a value out of the environment or the command line, where everything
// is text. A file
// says what is text and what is a number, so there a quoted number is an error.
type fromText string

// null is a key of the file without a value.
type null struct{}

// whole is an integer from lo to hi.
func whole(path string, p *int, lo, hi int) key {
	return key{
		path:    path,
		allowed: "a whole number " + spanText(lo, hi),
		get:     func() any { return *p },
		set: func(v any) bool {
			n, ok := asInt(v)
			if ok = ok && n >= int64(lo) && n <= int64(hi); ok {
				*p = int(n)
			}
			return ok
		},
	}
}

func asInt(v any) (int64, bool) {
	switch v := v.(type) {
	case int64:
		return v, true
	case uint64:
		return int64(min(v, math.MaxInt64)), true
	case fromText:
		n, err := strconv.ParseInt(string(v), 10, 64)
		return n, err == nil
	}
	return 0, false
}

// fraction is a number from 0 to 1.
func fraction(path string, p *float64) key {
	return key{
		path:    path,
		allowed: "a number from 0 to 1",
		get:     func() any { return *p },
		set: func(v any) bool {
			f, ok := asFloat(v)
			if ok = ok && f >= 0 && f <= 1; ok { // not so for NaN
				*p = math.Abs(f) // -0 is 0
			}
			return ok
		},
	}
}

func asFloat(v any) (float64, bool) {
	switch v := v.(type) {
	case float64:
		return v, true
	case fromText:
		f, err := strconv.ParseFloat(string(v), 64)
		return f, err == nil
	}
	n, ok := asInt(v)
	return float64(n), ok
}

// boolean is true or false.
func boolean(path string, p *bool) key {
	return key{
		path:    path,
		allowed: "true or false",
		get:     func() any { return *p },
		set: func(v any) bool {
			switch v {
			case true, fromText("true"):
				*p = true
			case false, fromText("false"):
				*p = false
			default:
				return false
			}
			return true
		},
	}
}

// asText is the text of a string, or of a whole number where one may stand for
// a quantity (300 for 300s).
func asText(v any, numbers bool) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case fromText:
		return string(v), true
	case int64:
		return strconv.FormatInt(v, 10), numbers
	case uint64:
		return strconv.FormatUint(v, 10), numbers
	}
	return "", false
}

// duration is a time from lo to hi.
func duration(path string, p *time.Duration, lo, hi time.Duration) key {
	return key{
		path:    path,
		allowed: "seconds or a duration like 90s, 5m, 12h or 30d, " + spanText(formatDuration(lo), formatDuration(hi)),
		get:     func() any { return showDuration(*p) },
		set: func(v any) bool {
			d, ok := asDuration(v)
			if ok = ok && d >= lo && d <= hi; ok {
				*p = d
			}
			return ok
		},
	}
}

func asDuration(v any) (time.Duration, bool) {
	s, ok := asText(v, true)
	if !ok {
		return 0, false
	}
	d, err := jobs.ParseDuration(s)
	return d, err == nil
}

// syncInterval is a duration, or "always" for [SyncAlways].
func syncInterval(path string, p *time.Duration) key {
	const always = "always"
	k := duration(path, p, minSync, maxSync)
	set, get := k.set, k.get
	k.allowed += ", or always"
	k.set = func(v any) bool {
		if s, _ := asText(v, false); s == always {
			*p = SyncAlways
			return true
		}
		return set(v)
	}
	k.get = func() any {
		if *p == SyncAlways {
			return always
		}
		return get()
	}
	return k
}

// rate is a rate without its burst, which is a key of its own.
func rate(path string, p *jobs.Rate) key {
	return key{
		path:    path,
		allowed: fmt.Sprintf(`a rate like 100/s, 5/m or 10/30s, from 1/365d to %d/s, or "" for none`, jobs.MaxRatePerSecond),
		get: func() any {
			if p.IsZero() {
				return ""
			}
			return plain(p.String())
		},
		set: func(v any) bool {
			s, ok := asText(v, false)
			if !ok {
				return false
			}
			r, err := jobs.ParseRate(s)
			if err == nil {
				p.Count, p.Per = r.Count, r.Per
			}
			return err == nil
		},
	}
}

// showDuration is d as YAML shows it: 0 as the number.
func showDuration(d time.Duration) any {
	if d == 0 {
		return 0
	}
	return plain(formatDuration(d))
}

// formatDuration writes d so that jobs.ParseDuration reads the same: days, then
// as time.Duration does, without its zero parts.
func formatDuration(d time.Duration) string {
	const day = 24 * time.Hour
	days, rest := d/day, d%day
	s := ""
	if days > 0 {
		s = strconv.FormatInt(int64(days), 10) + "d"
	}
	if rest == 0 && days > 0 {
		return s
	}
	r := rest.String()
	if strings.HasSuffix(r, "m0s") {
		r = strings.TrimSuffix(r, "0s")
	}
	if strings.HasSuffix(r, "h0m") {
		r = strings.TrimSuffix(r, "0m")
	}
	return s + r
}

var sizeUnits = []struct {
	name  string
	bytes int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}

// size is a number of bytes from lo to hi.
func size(path string, p *int64, lo, hi int64) key {
	return key{
		path:    path,
		allowed: "bytes or a size like 512KiB, 1MiB or 1GiB, " + spanText(formatSize(lo), formatSize(hi)),
		get:     func() any { return showSize(*p) },
		set: func(v any) bool {
			n, ok := asSize(v)
			if ok = ok && n >= lo && n <= hi; ok {
				*p = n
			}
			return ok
		},
	}
}

func asSize(v any) (int64, bool) {
	s, ok := asText(v, true)
	if !ok {
		return 0, false
	}
	unit := int64(1)
	for _, u := range sizeUnits {
		if number, ok := strings.CutSuffix(s, u.name); ok {
			s, unit = strings.TrimSpace(number), u.bytes
			break
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/unit {
		return 0, false
	}
	return n * unit, true
}

func showSize(n int64) any {
	for _, u := range sizeUnits {
		if n >= u.bytes && n%u.bytes == 0 {
			return plain(strconv.FormatInt(n/u.bytes, 10) + u.name)
		}
	}
	return n
}

func formatSize(n int64) string { return fmt.Sprint(showSize(n)) }

// oneOf is one of a few words.
func oneOf[T ~string](path string, p *T, words ...T) key {
	list := make([]string, len(words))
	for i, w := range words {
		list[i] = string(w)
	}
	return key{
		path:    path,
		allowed: "one of " + strings.Join(list, ", "),
		get:     func() any { return string(*p) },
		set: func(v any) bool {
			s, ok := asText(v, false)
			if ok = ok && slices.Contains(words, T(s)); ok {
				*p = T(s)
			}
			return ok
		},
	}
}

// text is any string; no value is the empty one.
func text(path string, p *string) key {
	k := checkedText(path, p, "text (a number needs quotes)", func(s string) bool {
		return !strings.ContainsFunc(s, unicode.IsControl)
	})
	set := k.set
	k.set = func(v any) bool {
		if v == (null{}) {
			v = ""
		}
		return set(v)
	}
	return k
}

// checkedText is a string that passes a check.
func checkedText(path string, p *string, allowed string, check func(string) bool) key {
	return key{
		path:    path,
		allowed: allowed,
		get:     func() any { return *p },
		set: func(v any) bool {
			s, ok := asText(v, false)
			if ok = ok && check(s); ok {
				*p = s
			}
			return ok
		},
	}
}

// secret marks a key whose value is never shown.
func secret(k key) key {
	k.secret = true
	return k
}

// host is what one can listen on or connect to.
func host(path string, p *string) key {
	return checkedText(path, p, "a host name or an IP address (without port)", validHost)
}

// hosts are names that clients may know this server by.
func hosts(path string, p *[]string) key {
	return key{
		path:    path,
		allowed: "a list of host names or IP addresses (without port), like [jobs.example.com]",
		list:    true,
		get:     func() any { return slices.Concat([]string{}, *p) },
		set: func(v any) bool {
			names, ok := v.([]string)
			for _, name := range names {
				ok = ok && validHost(name)
			}
			if ok {
				*p = names
			}
			return ok
		},
	}
}

func validHost(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return !strings.ContainsFunc(s, unicode.IsControl) // a zone may be anything
	}
	if s == "" || len(s) > 253 || strings.Trim(s, ".0123456789") == "" {
		return false
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(s, "."), ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || strings.ContainsFunc(label, notInLabel) {
			return false
		}
	}
	return true
}

// notInLabel allows the underscore, which names of containers have.
func notInLabel(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
}

// loopback says whether only this machine reaches what listens on host.
func loopback(host string) bool {
	if a, err := netip.ParseAddr(host); err == nil {
		return a.Unmap().IsLoopback()
	}
	return strings.EqualFold(strings.TrimSuffix(host, "."), "localhost")
}

// folder is a path.
func folder(path string, p *string) key {
	return checkedText(path, p, "the path of a folder", func(s string) bool {
		return strings.TrimSpace(s) != "" && !strings.ContainsFunc(s, unicode.IsControl)
	})
}

// address is a mail address.
func address(path string, p *string) key {
	return checkedText(path, p, `a mail address like jobs@example.com or "Jobs <jobs@example.com>"`, func(s string) bool {
		_, err := mail.ParseAddress(s)
		return err == nil && !strings.ContainsFunc(s, unicode.IsControl)
	})
}
