package email

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/mail"
	"strings"
	"time"
	"unicode/utf8"

	gomail "github.com/wneessen/go-mail"

	"jobstream/jobs"
)

// letter is a mail in its parts.
type letter struct {
	id      jobs.ID
	from    *mail.Address
	payload *payload
	date    time.Time
}

// messageID is the same for every attempt of a job.
func (l *letter) messageID() string { return "<" + l.messageIDValue() + ">" }

func (l *letter) messageIDValue() string {
	return l.id.String() + l.from.Address[strings.LastIndexByte(l.from.Address, '@'):]
}

// bytes is the message with CRLF line ends. With envelope, two more header lines name
// the sender and all recipients, Bcc included, because a file has no SMTP dialogue that
// would.
func (l *letter) bytes(envelope bool) ([]byte, error) {
	m := gomail.NewMsg(gomail.WithNoDefaultUserAgent())
	m.SetMessageIDWithValue(l.messageIDValue())
	m.SetDateWithValue(l.date)
	m.FromMailAddress(l.from)
	p := l.payload
	m.ToMailAddress(p.to...)
	if len(p.cc) > 0 {
		m.CcMailAddress(p.cc...)
	}
	m.ReplyToMailAddress(p.replyTo...)
	if p.subject != "" {
		m.Subject(headerText(p.subject))
	}
	if envelope {
		m.SetGenHeader("X-Envelope-From", addrSpec(l.from))
		m.SetGenHeader("X-Envelope-To", p.recipients()...)
	}
	if p.text != nil {
		m.SetBodyString(gomail.TypeTextPlain, crlf(*p.text))
	}
	switch {
	case p.html == nil:
	case p.text == nil:
		m.SetBodyString(gomail.TypeTextHTML, crlf(*p.html))
	default:
		m.AddAlternativeString(gomail.TypeTextHTML, crlf(*p.html))
	}
	var b bytes.Buffer
	if _, err := m.WriteTo(&b); err != nil {
		return nil, fmt.Errorf("building the message: %w", err)
	}
	return b.Bytes(), nil
}

// crlf converts line ends to those of mail. The quoted-printable writer would do it
// too, but it loses an LF some way after a lone CR.
func crlf(s string) string {
	s = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(s)
	return strings.ReplaceAll(s, "\n", "\r\n")
}

// headerText encodes s as encoded words (RFC 2047) unless it can stand as it is.
// Besides text beyond ASCII it encodes text that looks like encoded words, and spaces
// and long words that folding would change.
func headerText(s string) string {
	if plainHeader(s) {
		return s
	}
	const chunk = 36 // bytes; encoded, such a word fits into the first line
	var words []string
	for len(s) > 0 {
		n := min(chunk, len(s))
		for n < len(s) && !utf8.RuneStart(s[n]) {
			n--
		}
		words = append(words, "=?UTF-8?B?"+base64.StdEncoding.EncodeToString([]byte(s[:n]))+"?=")
		s = s[n:]
	}
	return strings.Join(words, " ")
}

func plainHeader(s string) bool {
	const longestWord = 60
	if !isASCII(s) || strings.Contains(s, "=?") {
		return false
	}
	for word := range strings.SplitSeq(s, " ") {
		if word == "" || len(word) > longestWord {
			return false
		}
	}
	return true
}
