package email

import (
	"errors"
	"fmt"
	"net/mail"
	"net/netip"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// Bounds of an address, in bytes: those of RFC 5321, section 4.5.3.1, and the length of
// a line.
const (
	maxLocal   = 64
	maxDomain  = 253
	maxAddress = 254
	maxName    = 256
	maxText    = 64 << 10 // a string with addresses, which is checked at the door
)

// parseAddress reads one address, with or without a display name.
func parseAddress(s string) (*mail.Address, error) {
	if err := checkText(s); err != nil {
		return nil, err
	}
	a, err := mail.ParseAddress(untagged(s))
	if err != nil {
		return nil, notAnAddress(s, err)
	}
	return normal(a, s)
}

// parseAddresses reads one or more addresses with commas between them.
func parseAddresses(s string) ([]*mail.Address, error) {
	if err := checkText(s); err != nil {
		return nil, err
	}
	list, err := mail.ParseAddressList(untagged(s))
	if err != nil {
		return nil, notAnAddress(s, err)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%s names no address", quote(s))
	}
	for i, a := range list {
		if list[i], err = normal(a, s); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func checkText(s string) error {
	switch {
	case len(s) > maxText:
		return fmt.Errorf("is longer than %d bytes", maxText)
	case strings.TrimSpace(s) == "":
		return errors.New("is empty; an email address is expected")
	case hasControl(s):
		return fmt.Errorf("%s has a line break or another control character", quote(s))
	}
	return nil
}

func notAnAddress(s string, err error) error {
	return fmt.Errorf("%s is not an email address: %s", quote(s), strings.TrimPrefix(err.Error(), "mail: "))
}

// tag begins an IPv6 address between the brackets of a literal (RFC 5321, section
// 4.1.3). net/mail accepts only literals without it.
var tag = regexp.MustCompile(`(?i)@\[IPv6:`)

func untagged(s string) string { return tag.ReplaceAllLiteralString(s, "@[") }

// normal rejects what net/mail accepts wrongly, and converts the domain to ASCII.
func normal(a *mail.Address, text string) (*mail.Address, error) {
	at := strings.LastIndexByte(a.Address, '@')
	if at < 0 {
		return nil, fmt.Errorf("%s has no @", quote(a.Address))
	}
	local := a.Address[:at]
	domain, err := asciiDomain(a.Address[at+1:], text)
	switch {
	case err != nil:
		return nil, err
	case hasControl(a.Name): // an encoded word can hide it
		return nil, fmt.Errorf("the name before %s has a control character", quote(a.Address))
	case len(a.Name) > maxName:
		return nil, fmt.Errorf("the name before %s is longer than %d bytes", quote(a.Address), maxName)
	case local == "" || len(local) > maxLocal || hasControl(local) || oneSpace(local) != local:
		return nil, fmt.Errorf("%s has no usable name before the @ (1 to %d bytes, no control characters, and single spaces between words only)", quote(a.Address), maxLocal)
	case len(local)+1+len(domain) > maxAddress:
		return nil, fmt.Errorf("%s is longer than %d bytes", quote(a.Address), maxAddress)
	}
	return &mail.Address{Name: oneSpace(a.Name), Address: local + "@" + domain}, nil
}

// oneSpace leaves single spaces between words. Folding a header would not keep more.
func oneSpace(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == ' ' }), " ")
}

// asciiDomain returns a domain as it is sent: an international one in Punycode.
func asciiDomain(domain, text string) (string, error) {
	if strings.HasPrefix(domain, "[") {
		return literal(domain, text)
	}
	if !isASCII(domain) {
		ascii, err := idna.Lookup.ToASCII(domain)
		if err != nil {
			return "", fmt.Errorf("%s is not a domain: %w", quote(domain), err)
		}
		domain = ascii
	}
	if !isHostName(domain) {
		return "", fmt.Errorf("%s is not a domain", quote(domain))
	}
	return domain, nil
}

// literal returns an address literal like [192.0.2.1] or [IPv6:2001:db8::1] as it is
// sent. Only text shows whether an IPv6 address had its tag.
func literal(domain, text string) (string, error) {
	inside := strings.TrimSuffix(strings.TrimPrefix(domain, "["), "]")
	ip, err := netip.ParseAddr(inside)
	switch {
	case err == nil && ip.Is4():
		return domain, nil
	case err == nil && ip.Zone() == "" && strings.Contains(strings.ToLower(text), "@[ipv6:"+strings.ToLower(inside)+"]"):
		return "[IPv6:" + inside + "]", nil
	}
	return "", fmt.Errorf("%s is not an address literal like [192.0.2.1] or [IPv6:2001:db8::1]", quote(domain))
}

// isHostName says whether s is made of labels with letters, digits and hyphens.
func isHostName(s string) bool {
	if s == "" || len(s) > maxDomain {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		if strings.ContainsFunc(label, notInHostName) {
			return false
		}
	}
	return true
}

func notInHostName(r rune) bool {
	lower := r | 0x20 // for ASCII letters only
	return (lower < 'a' || lower > 'z' || r > unicode.MaxASCII) && (r < '0' || r > '9') && r != '-'
}

func isASCII(s string) bool {
	for _, c := range []byte(s) {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// addrSpec is the bare address as it stands between < and >, with a quoted local part
// if need be.
func addrSpec(a *mail.Address) string {
	s := (&mail.Address{Address: a.Address}).String()
	return s[1 : len(s)-1]
}
