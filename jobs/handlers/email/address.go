package email

import (
	"errors"
	"fmt"
	"net/mail"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// Bounds of an address, in bytes (RFC 5321, 4.5.3.1, and what a line can hold).
const (
	maxLocal   = 64
	maxDomain  = 253
	maxAddress = 254
	maxName    = 256
	maxText    = 64 << 10 // a string with addresses; it is read at the door
)

// parseAddress reads one address, with or without a display name.
func parseAddress(s string) (*mail.Address, error) {
	if err := checkText(s); err != nil {
		return nil, err
	}
	a, err := mail.ParseAddress(s)
	if err != nil {
		return nil, notAnAddress(s, err)
	}
	return normal(a)
}

// parseAddresses reads one or more addresses with commas between them.
func parseAddresses(s string) ([]*mail.Address, error) {
	if err := checkText(s); err != nil {
		return nil, err
	}
	list, err := mail.ParseAddressList(s)
	if err != nil {
		return nil, notAnAddress(s, err)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%s names no address", quote(s))
	}
	for i, a := range list {
		if list[i], err = normal(a); err != nil {
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

// normal checks what net/mail lets pass and brings the domain into ASCII.
func normal(a *mail.Address) (*mail.Address, error) {
	at := strings.LastIndexByte(a.Address, '@')
	if at < 0 {
		return nil, fmt.Errorf("%s has no @", quote(a.Address))
	}
	local := a.Address[:at]
	domain, err := asciiDomain(a.Address[at+1:])
	switch {
	case err != nil:
		return nil, err
	case hasControl(a.Name): // an encoded word can hide one
		return nil, fmt.Errorf("the name before %s has a control character", quote(a.Address))
	case len(a.Name) > maxName:
		return nil, fmt.Errorf("the name before %s is longer than %d bytes", quote(a.Address), maxName)
	case local == "" || len(local) > maxLocal || hasControl(local) || strings.Contains(local, " "):
		return nil, fmt.Errorf("%s has no usable name before the @ (1 to %d characters, no spaces or control characters)", quote(a.Address), maxLocal)
	case !isASCII(local):
		return nil, fmt.Errorf("%s has letters beyond ASCII before the @; such addresses are not supported", quote(a.Address))
	case len(local)+1+len(domain) > maxAddress:
		return nil, fmt.Errorf("%s is longer than %d bytes", quote(a.Address), maxAddress)
	}
	return &mail.Address{Name: oneSpace(a.Name), Address: local + "@" + domain}, nil
}

// oneSpace leaves single spaces between words: more of them would not survive
// the folding of a header.
func oneSpace(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == ' ' }), " ")
}

// asciiDomain returns a domain as it travels: an international one in Punycode.
func asciiDomain(domain string) (string, error) {
	if strings.HasPrefix(domain, "[") {
		return domain, checkLiteral(domain)
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

// checkLiteral checks an address literal like [192.0.2.1]. The IPv6 ones of
// net/mail lack the tag that SMTP wants, and nobody has such an address.
func checkLiteral(domain string) error {
	ip, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(domain, "["), "]"))
	if err != nil || !ip.Is4() {
		return fmt.Errorf("%s is not an IPv4 address like [192.0.2.1]", quote(domain))
	}
	return nil
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
	lower := r | 0x20 // letters only, of ASCII
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

// addrSpec is the address alone, with its local part quoted where that is
// needed, as it stands between < and >.
func addrSpec(a *mail.Address) string {
	s := (&mail.Address{Address: a.Address}).String()
	return s[1 : len(s)-1]
}
