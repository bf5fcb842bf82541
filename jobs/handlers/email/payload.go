package email

import (
	"encoding/json"
	"fmt"
	"net/mail"
	"strings"
	"unicode"
	"unicode/utf8"

	"jobstream/jobs"
	"jobstream/jobs/strict"
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

// parse reads and checks a payload. The error is a *jobs.Error with all wrong
// fields.
func parse(raw json.RawMessage) (*payload, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, jobs.Invalid("/payload", "is required: an object with to, subject and body")
	}
	p := &payload{}
	if err := jobs.Read("/payload", raw, p.read); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *payload) read(v strict.Value) {
	whole := v.Object(
		strict.Need("to", func(v strict.Value) {
			p.to = addresses(v)
			if v.IsEmptyList() {
				v.Fail("must name at least one address")
			}
		}),
		strict.May("cc", func(v strict.Value) { p.cc = addresses(v) }),
		strict.May("bcc", func(v strict.Value) { p.bcc = addresses(v) }),
		strict.May("reply_to", func(v strict.Value) { p.replyTo = addresses(v) }),
		strict.May("subject", func(v strict.Value) { p.subject = subjectLine(v) }),
		strict.May("body", func(v strict.Value) { p.text = content(v) }),
		strict.May("html", func(v strict.Value) { p.html = content(v) }),
		strict.Field{Name: "from", Alien: true, Read: func(v strict.Value) {
			v.Fail("is not a known field: the sender is set in the server's configuration")
		}},
	)
	if whole && p.text == nil && p.html == nil {
		v.At("body").Fail("is required, or html")
	}
}

// addresses reads a string with one or more addresses, or a list of strings with
// one each.
func addresses(v strict.Value) []*mail.Address {
	switch {
	case v.IsText():
		return addressString(v)
	case v.IsList():
		return addressList(v)
	}
	v.Fail("must be an address or a list of addresses, not %s", v)
	return nil
}

func addressString(v strict.Value) []*mail.Address {
	s, _ := v.Text()
	list, err := parseAddresses(s)
	if v.Check(err) && len(list) > maxAddresses {
		tooMany(v, len(list))
	}
	return list
}

func tooMany(v strict.Value, n int) {
	v.Fail("has %d addresses, at most %d are allowed", n, maxAddresses)
}

func addressList(v strict.Value) (list []*mail.Address) {
	n := 0
	for range strict.Elements(v.Raw) {
		n++
	}
	if n > maxAddresses {
		tooMany(v, n)
		return nil
	}
	v.Items(func(item strict.Value) {
		if s, ok := item.Text(); ok {
			a, err := parseAddress(s)
			item.Check(err)
			list = append(list, a)
		}
	})
	return list
}

func subjectLine(v strict.Value) string {
	s, _ := v.Text()
	switch {
	case hasControl(s):
		v.Fail("has a line break or another control character")
	case len(s) > maxSubject:
		v.Fail("is longer than %d bytes", maxSubject)
	}
	return s
}

func content(v strict.Value) *string {
	s, _ := v.Text()
	if strings.IndexByte(s, 0) >= 0 {
		v.Fail("has a NUL character")
	}
	return &s
}

func hasControl(s string) bool { return strings.ContainsFunc(s, unicode.IsControl) }

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
