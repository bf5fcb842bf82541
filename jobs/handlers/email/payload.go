package email

import (
	"encoding/json"
	"fmt"
	"net/mail"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"jobstream/jobs"
)

// Bounds of a payload.
const (
	maxAddresses = 100 // in one field; servers need not take more at a time
	maxSubject   = 998 // bytes: the longest line that RFC 5322 allows
)

// payload is a checked payload.
type payload struct {
	to, cc, bcc, replyTo []*mail.Address
	subject              string
	text, html           *string // nil if not given
}

// recipients lists who gets the mail, each once.
func (p *payload) recipients() []string {
	var list []string
	seen := map[string]bool{}
	for _, group := range [][]*mail.Address{p.to, p.cc, p.bcc} {
		for _, a := range group {
			spec := addrSpec(a)
			at := strings.LastIndexByte(spec, '@')
			key := spec[:at] + strings.ToLower(spec[at:]) // only the domain ignores case
			if !seen[key] {
				seen[key] = true
				list = append(list, spec)
			}
		}
	}
	return list
}

// parser collects problems while it reads a payload.
type parser struct {
	payload
	bad []jobs.FieldError
}

func (p *parser) fail(pointer, format string, args ...any) {
	p.bad = append(p.bad, jobs.FieldError{Pointer: "/payload" + pointer, Detail: fmt.Sprintf(format, args...)})
}

// parse reads and checks a payload. The error is a *jobs.Error with all wrong
// fields.
func parse(raw json.RawMessage) (*payload, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, jobs.Invalid("/payload", "is required: an object with to, subject and body")
	}
	var p parser
	given := map[string]bool{}
	err := jobs.EachField(raw, func(name string, value json.RawMessage) {
		if string(value) == "null" && slices.Contains(fields, name) {
			return // null counts as absent
		}
		given[name] = true
		p.field(name, value)
	})
	switch {
	case err != nil:
		p.unreadable(err)
	default:
		p.missing(given)
	}
	if len(p.bad) > 0 {
		return nil, jobs.InvalidFields(p.bad...)
	}
	return &p.payload, nil
}

// fields are the fields of a payload.
var fields = []string{"to", "cc", "bcc", "reply_to", "subject", "body", "html"}

// unreadable adds the problems that jobs.EachField found. Its pointers begin at the
// payload.
func (p *parser) unreadable(err error) {
	e, _ := jobs.AsError(err)
	if len(e.Fields) == 0 {
		p.fail("", "%s", strings.Replace(e.Detail, "the body", "the payload", 1))
	}
	for _, f := range e.Fields {
		p.fail(f.Pointer, "%s", f.Detail)
	}
}

func (p *parser) missing(given map[string]bool) {
	if !given["to"] {
		p.fail("/to", "is required")
	}
	if !given["body"] && !given["html"] {
		p.fail("/body", "is required, or html")
	}
}

func (p *parser) field(name string, value json.RawMessage) {
	switch name {
	case "to":
		p.to = p.addresses("/to", value)
		if isEmptyList(value) {
			p.fail("/to", "must name at least one address")
		}
	case "cc":
		p.cc = p.addresses("/cc", value)
	case "bcc":
		p.bcc = p.addresses("/bcc", value)
	case "reply_to":
		p.replyTo = p.addresses("/reply_to", value)
	case "subject":
		p.subject = p.subjectLine(value)
	case "body":
		p.text = p.content("/body", value)
	case "html":
		p.html = p.content("/html", value)
	case "from":
		p.fail("/from", "is not a known field: the sender is set in the server's configuration")
	default:
		p.fail("/"+escapePointer(name), "is not a known field; known are %s", strings.Join(fields, ", "))
	}
}

func isEmptyList(raw json.RawMessage) bool {
	var list []json.RawMessage
	return raw[0] == '[' && json.Unmarshal(raw, &list) == nil && len(list) == 0
}

// addresses reads one string with any number of addresses, or a list of strings with
// one each.
func (p *parser) addresses(pointer string, raw json.RawMessage) []*mail.Address {
	switch raw[0] {
	case '"':
		return p.addressString(pointer, raw)
	case '[':
		return p.addressList(pointer, raw)
	}
	p.fail(pointer, "must be an address or a list of addresses, not %s", describe(raw))
	return nil
}

func (p *parser) addressString(pointer string, raw json.RawMessage) []*mail.Address {
	s, err := stringValue(raw)
	if err != nil {
		p.fail(pointer, "%s", err)
		return nil
	}
	list, err := parseAddresses(s)
	switch {
	case err != nil:
		p.fail(pointer, "%s", err)
	case len(list) > maxAddresses:
		p.fail(pointer, "has %d addresses, at most %d are allowed", len(list), maxAddresses)
	}
	return list
}

func (p *parser) addressList(pointer string, raw json.RawMessage) []*mail.Address {
	var entries []json.RawMessage
	if err := json.Unmarshal(raw, &entries); err != nil {
		p.fail(pointer, "cannot be read: %s", err)
		return nil
	}
	if len(entries) > maxAddresses {
		p.fail(pointer, "has %d addresses, at most %d are allowed", len(entries), maxAddresses)
		return nil
	}
	list := make([]*mail.Address, 0, len(entries))
	for i, entry := range entries {
		s, err := stringValue(entry)
		if err == nil {
			var a *mail.Address
			a, err = parseAddress(s)
			list = append(list, a)
		}
		if err != nil {
			p.fail(fmt.Sprintf("%s/%d", pointer, i), "%s", err)
		}
	}
	return list
}

func (p *parser) subjectLine(raw json.RawMessage) string {
	s, err := stringValue(raw)
	switch {
	case err != nil:
		p.fail("/subject", "%s", err)
	case hasControl(s):
		p.fail("/subject", "has a line break or another control character")
	case len(s) > maxSubject:
		p.fail("/subject", "is longer than %d bytes", maxSubject)
	}
	return s
}

func (p *parser) content(pointer string, raw json.RawMessage) *string {
	s, err := stringValue(raw)
	switch {
	case err != nil:
		p.fail(pointer, "%s", err)
	case strings.IndexByte(s, 0) >= 0:
		p.fail(pointer, "has a NUL character")
	}
	return &s
}

func stringValue(raw json.RawMessage) (string, error) {
	var s string
	if raw[0] != '"' {
		return "", fmt.Errorf("must be a string, not %s", describe(raw))
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		return "", fmt.Errorf("must be a string: %w", err)
	}
	return s, nil
}

func hasControl(s string) bool { return strings.ContainsFunc(s, unicode.IsControl) }

// describe names a JSON value that is not a string.
func describe(raw json.RawMessage) string {
	switch {
	case raw[0] == '{':
		return "an object"
	case raw[0] == '[':
		return "a list"
	case raw[0] == '"':
		return "a string"
	case len(raw) > 40:
		return "a long number"
	}
	return string(raw)
}

// quote shortens a value of the caller for an error.
func quote(s string) string {
	const longest = 80
	if len(s) <= longest {
		return fmt.Sprintf("%q", s)
	}
	cut := longest
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return fmt.Sprintf("%q", s[:cut]+"…")
}

func escapePointer(name string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
}
