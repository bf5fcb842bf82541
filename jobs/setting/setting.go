// Package setting has the types of configuration keys: a number within bounds, a
// duration, one of a few words and so on.
//
// A [Setting] binds a key to a field of a struct. A package lists its settings in a
// table. Reading, checking, environment variables and display all follow from it. Start
// reading at [Setting].
package setting

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"jobstream/jobs"
)

// Setting is one setting of the configuration, bound to a field of a struct.
type Setting struct {
	Path    string         // names joined by points
	Allowed string         // the allowed values, to follow "is not"
	Set     func(any) bool // takes a value of the file or a FromText; false if it is not allowed
	Get     func() any     // the value as YAML shows it
	Secret  bool           // never shown
	List    bool           // a list of texts; Set takes a []string
	Numbers bool           // the list has numbers, which Set takes as texts
	Single  bool           // the list may be one text, without brackets
	Map     bool           // names with texts; Set takes a map[string]string
	Tree    bool           // a section of any shape, which Set takes as JSON, or a scalar
}

// FileOnly says whether the setting has no environment variable.
func (s Setting) FileOnly() bool { return s.List || s.Map || s.Tree }

// FromText is a value from the environment or the command line, where everything is
// text. In a file, types count, so a quoted number is an error there.
type FromText string

// Plain is text that YAML reads as text without quotes.
type Plain string

// JSON is a section of the file as JSON.
type JSON string

// Null is a key of the file without a value.
type Null struct{}

// Whole is an integer from lo to hi.
func Whole(path string, p *int, lo, hi int) Setting {
	return Setting{
		Path:    path,
		Allowed: "a whole number " + spanText(lo, hi),
		Get:     func() any { return *p },
		Set: func(v any) bool {
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
	case FromText:
		n, err := strconv.ParseInt(string(v), 10, 64)
		return n, err == nil
	}
	return 0, false
}

// Fraction is a number from 0 to 1.
func Fraction(path string, p *float64) Setting {
	return Setting{
		Path:    path,
		Allowed: "a number from 0 to 1",
		Get:     func() any { return *p },
		Set: func(v any) bool {
			f, ok := asFloat(v)
			if ok = ok && f >= 0 && f <= 1; ok { // false for NaN
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
	case FromText:
		f, err := strconv.ParseFloat(string(v), 64)
		return f, err == nil
	}
	n, ok := asInt(v)
	return float64(n), ok
}

// Bool is true or false.
func Bool(path string, p *bool) Setting {
	return Setting{
		Path:    path,
		Allowed: "true or false",
		Get:     func() any { return *p },
		Set: func(v any) bool {
			switch v {
			case true, FromText("true"):
				*p = true
			case false, FromText("false"):
				*p = false
			default:
				return false
			}
			return true
		},
	}
}

// AsText is the text of a string. If numbers is true it is also that of a whole number,
// for quantities (300 for 300s).
func AsText(v any, numbers bool) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case FromText:
		return string(v), true
	case int64:
		return strconv.FormatInt(v, 10), numbers
	case uint64:
		return strconv.FormatUint(v, 10), numbers
	}
	return "", false
}

// Duration is a time from lo to hi.
func Duration(path string, p *time.Duration, lo, hi time.Duration) Setting {
	return Setting{
		Path:    path,
		Allowed: "seconds or a duration like 90s, 5m, 12h or 30d, " + spanText(FormatDuration(lo), FormatDuration(hi)),
		Get:     func() any { return ShowDuration(*p) },
		Set: func(v any) bool {
			d, ok := asDuration(v)
			if ok = ok && d >= lo && d <= hi; ok {
				*p = d
			}
			return ok
		},
	}
}

// Durations is a list of times from lo to hi.
func Durations(path string, p *[]time.Duration, lo, hi time.Duration) Setting {
	return Setting{
		Path:    path,
		Allowed: "a list of seconds or durations like [5s, 5m, 12h], each " + spanText(FormatDuration(lo), FormatDuration(hi)),
		List:    true,
		Numbers: true,
		Get: func() any {
			all := make([]string, len(*p))
			for i, d := range *p {
				all[i] = FormatDuration(d)
			}
			return all
		},
		Set: func(v any) bool {
			texts, ok := v.([]string)
			var list []time.Duration
			for _, s := range texts {
				d, err := jobs.ParseDuration(s)
				ok = ok && err == nil && d >= lo && d <= hi
				list = append(list, d)
			}
			if ok {
				*p = list
			}
			return ok
		},
	}
}

func asDuration(v any) (time.Duration, bool) {
	s, ok := AsText(v, true)
	if !ok {
		return 0, false
	}
	d, err := jobs.ParseDuration(s)
	return d, err == nil
}

// ShowDuration is d in YAML, where 0 is a number.
func ShowDuration(d time.Duration) any {
	if d == 0 {
		return 0
	}
	return Plain(FormatDuration(d))
}

// FormatDuration is the inverse of jobs.ParseDuration: days, then the format of
// time.Duration without zero parts.
func FormatDuration(d time.Duration) string {
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

// Size is a number of bytes from lo to hi.
func Size(path string, p *int64, lo, hi int64) Setting {
	return Setting{
		Path:    path,
		Allowed: "bytes or a size like 512KiB, 1MiB or 1GiB, " + spanText(FormatSize(lo), FormatSize(hi)),
		Get:     func() any { return showSize(*p) },
		Set: func(v any) bool {
			n, ok := asSize(v)
			if ok = ok && n >= lo && n <= hi; ok {
				*p = n
			}
			return ok
		},
	}
}

func asSize(v any) (int64, bool) {
	s, ok := AsText(v, true)
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
			return Plain(strconv.FormatInt(n/u.bytes, 10) + u.name)
		}
	}
	return n
}

// FormatSize writes n in a form that is read as n.
func FormatSize(n int64) string { return fmt.Sprint(showSize(n)) }

// OneOf is one of a few words.
func OneOf[T ~string](path string, p *T, words ...T) Setting {
	list := make([]string, len(words))
	for i, w := range words {
		list[i] = string(w)
	}
	return Setting{
		Path:    path,
		Allowed: "one of " + strings.Join(list, ", "),
		Get:     func() any { return string(*p) },
		Set: func(v any) bool {
			s, ok := AsText(v, false)
			if ok = ok && slices.Contains(words, T(s)); ok {
				*p = T(s)
			}
			return ok
		},
	}
}

// Text is any string; an empty value is "".
func Text(path string, p *string) Setting {
	k := Checked(path, p, "text (a number needs quotes)", printable)
	set := k.Set
	k.Set = func(v any) bool {
		if v == (Null{}) {
			v = ""
		}
		return set(v)
	}
	return k
}

// Checked is a string that passes a check.
func Checked(path string, p *string, allowed string, check func(string) bool) Setting {
	return Setting{
		Path:    path,
		Allowed: allowed,
		Get:     func() any { return *p },
		Set: func(v any) bool {
			s, ok := AsText(v, false)
			if ok = ok && check(s); ok {
				*p = s
			}
			return ok
		},
	}
}

// Texts is a list of texts.
func Texts(path string, p *[]string) Setting {
	return CheckedTexts(path, p, "a list of texts, like [one, two] (a number needs quotes)", printable)
}

// CheckedTexts is a list of strings that pass a check, each.
func CheckedTexts(path string, p *[]string, allowed string, check func(string) bool) Setting {
	return Setting{
		Path:    path,
		Allowed: allowed,
		List:    true,
		Get:     func() any { return append([]string{}, *p...) },
		Set: func(v any) bool {
			list, ok := v.([]string)
			for _, s := range list {
				ok = ok && check(s)
			}
			if ok {
				*p = list
			}
			return ok
		},
	}
}

// OneOrMore is a list of texts that may be a single text as well.
func OneOrMore(path string, p *[]string) Setting {
	k := CheckedTexts(path, p, "text or a list of texts (a number needs quotes)", printable)
	k.Single = true
	return k
}

// Wholes is a list of integers from lo to hi.
func Wholes(path string, p *[]int, lo, hi int) Setting {
	return Setting{
		Path:    path,
		Allowed: "a list of whole numbers " + spanText(lo, hi) + ", like [1, 2]",
		List:    true,
		Numbers: true,
		Get:     func() any { return append([]int{}, *p...) },
		Set: func(v any) bool {
			texts, ok := v.([]string)
			list := make([]int, len(texts))
			for i, s := range texts {
				n, err := strconv.Atoi(s)
				ok = ok && err == nil && n >= lo && n <= hi
				list[i] = n
			}
			if ok {
				*p = list
			}
			return ok
		},
	}
}

// Map is a section of names that the user chooses, each with a text.
func Map(path string, p *map[string]string) Setting {
	return Setting{
		Path:    path,
		Allowed: "a section of names with texts (a number needs quotes)",
		Map:     true,
		Get: func() any {
			all := make(map[string]string, len(*p))
			maps.Copy(all, *p)
			return all
		},
		Set: func(v any) bool {
			all, ok := v.(map[string]string)
			for name, s := range all {
				ok = ok && printable(name) && printable(s)
			}
			if ok {
				*p = all
			}
			return ok
		},
	}
}

func printable(s string) bool { return !strings.ContainsFunc(s, unicode.IsControl) }

// Secret marks a key whose value is never shown.
func Secret(k Setting) Setting {
	k.Secret = true
	return k
}

// spanText is "from lo to hi".
func spanText(lo, hi any) string { return fmt.Sprintf("from %v to %v", lo, hi) }
