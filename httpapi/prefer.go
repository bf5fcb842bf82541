package httpapi

import (
	"strconv"
	"strings"
	"time"

	"jobstream/jobs/api"
)

// preferredWait is how long a client prefers to wait for an answer, by the fields of
// its Prefer header (RFC 7240), at most [api.MaxWait]. It is 0 without such a
// preference, or with one that makes no sense, because those are ignored.
func preferredWait(fields []string) time.Duration {
	for _, field := range fields {
		for preference := range splitUnquoted(field, ',') {
			name, value, _ := strings.Cut(first(splitUnquoted(preference, ';')), "=")
			if strings.EqualFold(strings.TrimSpace(name), "wait") {
				return waitSeconds(strings.TrimSpace(value)) // only the first one counts
			}
		}
	}
	return 0
}

// waitSeconds reads a number of seconds, which may be in quotes.
func waitSeconds(value string) time.Duration {
	if len(value) >= 2 && value[0] == '"' && value[len(value)-1] == '"' {
		value = value[1 : len(value)-1]
	}
	const most = int(api.MaxWait / time.Second)
	if value == "" || strings.Trim(value, "0123456789") != "" {
		return 0
	}
	n, err := strconv.Atoi(value)
	if err != nil || n > most { // more digits than an int has
		n = most
	}
	return time.Duration(n) * time.Second
}

// splitUnquoted yields the parts between separators. Those in quoted strings do not
// separate.
func splitUnquoted(s string, separator byte) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		from, quoted := 0, false
		for i := 0; i < len(s); i++ {
			switch c := s[i]; {
			case c == '"':
				quoted = !quoted
			case c == '\\' && quoted:
				i++
			case c == separator && !quoted:
				if !yield(s[from:i]) {
					return
				}
				from = i + 1
			}
		}
		yield(s[from:])
	}
}

// first is the first part.
func first(parts func(yield func(string) bool)) (part string) {
	for part = range parts {
		break
	}
	return part
}
