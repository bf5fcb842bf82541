package httpapi

import (
	"strconv"
	"strings"
	"time"

	"jobstream/jobs/api"
)

// preferredWait is for how long a client prefers to wait for an answer, by the
// fields of its Prefer header (RFC 7240), at most [api.MaxWait]; 0 if it says
// nothing of that, or nothing that makes sense: such preferences are ignored.
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

// waitSeconds reads a number of seconds, which may stand in quotes.
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

// splitUnquoted yields what stands between separators, but for those within
// quoted strings.
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

func first(parts func(yield func(string) bool)) (part string) {
	for part = range parts {
		break
	}
	return part
}
