package nats

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"jobstream/jobs/setting"
)

// Options are what a type of the kind nats can be set to.
type Options struct {
	Subject string // of the requests
}

// NewOptions are the defaults.
func NewOptions() *Options { return &Options{} }

// Settings binds the keys of a type.
func (o *Options) Settings() []setting.Setting {
	return []setting.Setting{setting.Text("subject", &o.Subject)}
}

// Grace is that of a handler that returns at once.
func (o *Options) Grace() time.Duration { return 0 }

// Check checks the subject.
func (o *Options) Check(_ string, fail func(path, text string)) {
	if text := wrong(o.Subject); text != "" {
		fail("subject", text)
	}
}

// maxSubject bounds a subject, in bytes.
const maxSubject = 256

// wrong says what is wrong with a subject, "" for nothing.
func wrong(subject string) string {
	switch {
	case subject == "":
		return "is required: the subject on which somebody answers requests, like svc.thumb"
	case len(subject) > maxSubject:
		return fmt.Sprintf("is longer than %d bytes", maxSubject)
	case strings.ContainsFunc(subject, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }):
		return "must have no spaces"
	}
	tokens := strings.Split(subject, ".")
	for _, token := range tokens {
		switch token {
		case "":
			return "must not begin or end with a dot, or have two in a row"
		case "*", ">":
			return "must be the subject of one request, without wildcards"
		}
	}
	switch first := tokens[0]; {
	case first == "jobs" || first == "job" || first == "jobstream" || first == "status":
		return "must not begin with " + first + ".: this server answers there, and its jobs would make more jobs or write into its streams"
	case strings.HasPrefix(first, "$") || strings.HasPrefix(first, "_"):
		return "must not begin with " + first[:1] + ", as subjects of NATS itself do"
	}
	return ""
}
