package email

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"jobstream/jobs"
	"jobstream/jobs/strict"
)

func TestCheckRefuses(t *testing.T) {
	many := `"` + strings.Repeat(`a@example.com", "`, maxAddresses) + `a@example.com"`
	tests := []struct {
		name    string
		payload string
		want    []string // "pointer: part of the detail"
	}{
		{"nothing", ``, []string{"/payload: is required"}},
		{"null", `null`, []string{"/payload: is required"}},
		{"not an object", `["a@example.com"]`, []string{"/payload: must be a JSON object"}},
		{"a field twice", `{"to":"a@example.com","to":"b@example.com","body":""}`, []string{"/payload/to: is given twice"}},
		{"empty object", `{}`, []string{"/payload/to: is required", "/payload/body: is required, or html"}},
		{"no content", `{"to":"a@example.com","subject":"x"}`, []string{"/payload/body: is required, or html"}},
		{"null content", `{"to":"a@example.com","body":null}`, []string{"/payload/body: is required, or html"}},
		{"to is empty", `{"to":"","body":""}`, []string{"/payload/to: is empty"}},
		{"to is an empty list", `{"to":[ ],"body":""}`, []string{"/payload/to: must name at least one"}},
		{"to is a number", `{"to":42,"body":""}`, []string{"/payload/to: must be an address or a list of addresses, not 42"}},
		{"to is null", `{"to":null,"body":""}`, []string{"/payload/to: is required"}},
		{"to is an empty group", `{"to":"friends:;","body":""}`, []string{"/payload/to: "}},
		{"too many", `{"to":[` + many + `],"body":""}`, []string{"/payload/to: has 101 addresses"}},
		{"too many in a string", `{"to":"` + strings.Repeat("a@example.com,", maxAddresses) + `a@example.com","body":""}`, []string{"/payload/to: has 101 addresses"}},
		{
			"every wrong field", `{"to":["a@example.com","nobody",7],"cc":"x@","bcc":{},"reply_to":[null],"subject":1,"body":[],"html":true,"from":"a@b.c","a/b~":1}`,
			[]string{
				"/payload/to/1: \"nobody\" is not an email address", "/payload/to/2: must be a string, not 7", "/payload/cc: \"x@\" is not an email address",
				"/payload/bcc: must be an address or a list", "/payload/reply_to/0: must be a string, not null", "/payload/subject: must be a string, not 1",
				"/payload/body: must be a string, not a list", "/payload/html: must be a string, not true", "/payload/from: is not a known field: the sender",
				"/payload/a~1b~0: is not a known field",
			},
		},
		{"two in one entry", `{"to":["a@example.com, b@example.com"],"body":""}`, []string{"/payload/to/0: "}},
		{"line break in the subject", `{"to":"a@example.com","subject":"x\r\nBcc: b@example.com","body":""}`, []string{"/payload/subject: has a line break"}},
		{"lone LF in the subject", `{"to":"a@example.com","subject":"x\nBcc: b@example.com","body":""}`, []string{"/payload/subject: has a line break"}},
		{"C1 control in the subject", `{"to":"a@example.com","subject":"x\u0085y","body":""}`, []string{"/payload/subject: has a line break"}},
		{"long subject", `{"to":"a@example.com","subject":"` + strings.Repeat("x", maxSubject+1) + `","body":""}`, []string{"/payload/subject: is longer"}},
		{"line break in an address", `{"to":"a@example.com\r\nBcc: b@example.com","body":""}`, []string{"/payload/to: "}},
		{"line break between addresses", `{"to":"a@example.com,\n b@example.com","body":""}`, []string{"/payload/to: "}},
		{"line break in a name", `{"to":["\"A\r\nBcc: b@example.com\" <a@example.com>"],"body":""}`, []string{"/payload/to/0: "}},
		{"encoded line break in a name", `{"cc":"=?utf-8?q?A=0D=0ABcc=3A_b?= <a@example.com>","to":"a@example.com","body":""}`, []string{"/payload/cc: the name before"}},
		{"a string without end", `{"to":"` + strings.Repeat("a@example.com,", maxText/14+1) + `","body":""}`, []string{"/payload/to: is longer than 65536 bytes"}},
		{"long name", `{"to":"` + strings.Repeat("x", maxName+1) + ` <a@example.com>","body":""}`, []string{"/payload/to: the name before"}},
		{"NUL", `{"to":"a@example.com","body":"a\u0000"}`, []string{"/payload/body: has a NUL"}},
		{"two spaces in a local part", `{"to":["\"jane  doe\"@example.com"],"body":""}`, []string{"/payload/to/0: "}},
		{"long local part", `{"to":"` + strings.Repeat("x", maxLocal+1) + `@example.com","body":""}`, []string{"/payload/to: "}},
		{"bad domain", `{"to":"a@-example.com","body":""}`, []string{"/payload/to: \"-example.com\" is not a domain"}},
		{"underscore in domain", `{"to":"a@ex_ample.com","body":""}`, []string{"/payload/to: \"ex_ample.com\" is not a domain"}},
		{"bad IDN", `{"to":"a@ex\u2028ample.com","body":""}`, []string{"/payload/to: "}},
		{"bad literal", `{"to":"a@[300.1.1.1]","body":""}`, []string{"/payload/to: "}},
		{"IPv6 literal", `{"to":"a@[2001:db8::1]","body":""}`, []string{"/payload/to: \"[2001:db8::1]\" is not an address literal"}},
		{"long address", `{"to":"a@` + strings.Repeat("example.", 32) + `com","body":""}`, []string{"/payload/to: "}},
	}
	h := newOutbox(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := h.Check(jobs.NewPayload(json.RawMessage(tt.payload)))
			var e *jobs.Error
			if !errors.As(err, &e) || e.Kind != jobs.InvalidRequest {
				t.Fatalf("Check = %v, want an invalid request", err)
			}
			if len(e.Fields) != len(tt.want) {
				t.Fatalf("fields = %+v, want %d", e.Fields, len(tt.want))
			}
			for i, f := range e.Fields {
				if got := f.Pointer + ": " + f.Detail; !strings.HasPrefix(got, tt.want[i]) {
					t.Errorf("field %d = %q, want %q…", i, got, tt.want[i])
				}
			}
			_, err = h.Handle(t.Context(), task(tt.payload))
			if !jobs.IsPermanent(err) {
				t.Errorf("Handle = %v, want a permanent error", err)
			}
		})
	}
}

func TestCheckAccepts(t *testing.T) {
	tests := []struct {
		name    string
		payload string
		want    []string // the recipients
	}{
		{"the simplest", `{"to":"a@example.com","body":""}`, []string{"a@example.com"}},
		{"html alone", `{"to":"a@example.com","html":"<p>x"}`, []string{"a@example.com"}},
		{"several in a string", `{"to":"a@example.com, B <b@example.com>","body":""}`, []string{"a@example.com", "b@example.com"}},
		{"a comma in a name", `{"to":["\"Doe, Jane\" <jane@example.com>"],"body":""}`, []string{"jane@example.com"}},
		{"all groups, each once", `{"to":["a@example.com"],"cc":"b@example.com","bcc":["c@example.com","a@EXAMPLE.com"],"reply_to":"r@example.com","body":""}`, []string{"a@example.com", "b@example.com", "c@example.com"}},
		{"empty cc", `{"to":"a@example.com","cc":[],"bcc":[],"body":""}`, []string{"a@example.com"}},
		{"international domain", `{"to":"a@bücher.example","body":""}`, []string{"a@xn--bcher-kva.example"}},
		{"no dot", `{"to":"root@localhost","body":""}`, []string{"root@localhost"}},
		{"literal", `{"to":"a@[192.0.2.1]","body":""}`, []string{"a@[192.0.2.1]"}},
		{"quoted local part", `{"to":["\"jane@home\"@example.com"],"body":""}`, []string{`"jane@home"@example.com`}},
		{"lone CR", `{"to":"a@example.com","body":"a\rb\nc"}`, []string{"a@example.com"}},
		{"local part beyond ASCII", `{"to":"jürgen@bücher.example","body":""}`, []string{"jürgen@xn--bcher-kva.example"}},
		{"space in a local part", `{"to":["\"jane doe\"@example.com"],"body":""}`, []string{`"jane doe"@example.com`}},
		{"IPv6 literal", `{"to":"a@[IPv6:2001:db8::1], B <b@[ipv6:::1]>","body":""}`, []string{"a@[IPv6:2001:db8::1]", "b@[IPv6:::1]"}},
		{"plus", `{"to":"a+b=c@example.com","body":""}`, []string{"a+b=c@example.com"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := parse(json.RawMessage(tt.payload))
			if err != nil {
				t.Fatal(err)
			}
			if got := p.recipients(); !slices.Equal(got, tt.want) {
				t.Errorf("recipients = %q, want %q", got, tt.want)
			}
		})
	}
}

// parsed is a message as a mail program reads it.
type parsed struct {
	mail.Header
	subject    string
	text, html *string
}

// readMessage reads a message with the standard library only.
func readMessage(message []byte) (*parsed, error) {
	for line := range bytes.SplitSeq(message, []byte("\r\n")) {
		if bytes.ContainsAny(line, "\r\n") {
			return nil, fmt.Errorf("bare CR or LF in %q", line)
		}
		if len(line) > 998 {
			return nil, fmt.Errorf("a line has %d bytes", len(line))
		}
		if !isASCII(string(line)) {
			return nil, fmt.Errorf("a line is not ASCII: %q", line)
		}
	}
	m, err := mail.ReadMessage(bytes.NewReader(message))
	if err != nil {
		return nil, err
	}
	p := &parsed{Header: m.Header}
	if p.subject, err = new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject")); err != nil {
		return nil, err
	}
	kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil {
		return nil, err
	}
	if kind != "multipart/alternative" {
		return p, p.part(kind, params, m.Header.Get("Content-Transfer-Encoding"), m.Body)
	}
	for r := multipart.NewReader(m.Body, params["boundary"]); ; {
		part, err := r.NextRawPart()
		if errors.Is(err, io.EOF) {
			return p, nil
		}
		if err != nil {
			return nil, err
		}
		kind, params, err := mime.ParseMediaType(part.Header.Get("Content-Type"))
		if err != nil {
			return nil, err
		}
		if err := p.part(kind, params, part.Header.Get("Content-Transfer-Encoding"), part); err != nil {
			return nil, err
		}
	}
}

func (p *parsed) part(kind string, params map[string]string, encoding string, body io.Reader) error {
	if encoding != "quoted-printable" || !strings.EqualFold(params["charset"], "utf-8") {
		return fmt.Errorf("part %s is %q in %q", kind, encoding, params["charset"])
	}
	b, err := io.ReadAll(quotedprintable.NewReader(body))
	text := string(b)
	switch kind {
	case "text/plain":
		p.text = &text
	case "text/html":
		p.html = &text
	default:
		return fmt.Errorf("unexpected part %s", kind)
	}
	return err
}

// sameText compares, except for the line end that a transport may add.
func sameText(got *string, want string) bool {
	return got != nil && (*got == crlf(want) || *got == crlf(want)+"\r\n")
}

// TestAnyAcceptedPayload makes a message of every payload that Check accepts. A reader
// must get back the contents of the payload.
func TestAnyAcceptedPayload(t *testing.T) {
	from, err := parseAddress("jobstream <jobs@example.org>")
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		in := drawPayload(t)
		raw, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		p, err := parse(raw)
		if err != nil {
			t.Skip(err)
		}
		l := letter{id: jobs.NewID(), from: from, payload: p, date: time.Now()}
		message, err := l.bytes(rapid.Bool().Draw(t, "envelope"))
		if err != nil {
			t.Fatal(err)
		}
		out, err := readMessage(message)
		if err != nil {
			t.Fatalf("%v in\n%s", err, message)
		}
		compare(t, in, p, out)
		if t.Failed() {
			t.Logf("message:\n%s", message)
		}
	})
}

func drawPayload(t *rapid.T) map[string]any {
	text := rapid.OneOf(rapid.String(), rapid.StringOf(rapid.SampledFrom([]rune("ab =?_.\t\r\n-ü€😀"))), rapid.StringMatching(`([a-z]{1,90}  ?){0,9}`))
	line := text.Filter(func(s string) bool { return !hasControl(s) })
	address := rapid.Custom(func(t *rapid.T) string {
		a := mail.Address{
			Name:    line.Draw(t, "name"),
			Address: rapid.StringMatching(`[a-z0-9 "\\.+=_@-]{1,20}`).Draw(t, "local") + "@" + rapid.SampledFrom([]string{"example.com", "a.b", "bücher.example", "[192.0.2.1]"}).Draw(t, "domain"),
		}
		return a.String()
	})
	in := map[string]any{"to": rapid.SliceOfN(address, 1, 6).Draw(t, "to")}
	for _, name := range []string{"cc", "bcc", "reply_to"} {
		if rapid.Bool().Draw(t, "with "+name) {
			in[name] = rapid.SliceOfN(address, 0, 4).Draw(t, name)
		}
	}
	if rapid.Bool().Draw(t, "with subject") {
		in["subject"] = line.Draw(t, "subject")
	}
	which := rapid.IntRange(1, 3).Draw(t, "parts")
	if which&1 != 0 {
		in["body"] = text.Draw(t, "body")
	}
	if which&2 != 0 {
		in["html"] = text.Draw(t, "html")
	}
	return in
}

func deref(s *string) string {
	if s == nil {
		return "(none)"
	}
	return *s
}

func compare(t *rapid.T, in map[string]any, p *payload, out *parsed) {
	subject, _ := in["subject"].(string)
	if out.subject != subject {
		t.Errorf("subject = %q, want %q", out.subject, subject)
	}
	for name, got := range map[string]*string{"body": out.text, "html": out.html} {
		want, given := in[name].(string)
		if given != (got != nil) || given && !sameText(got, want) {
			t.Errorf("%s = %q, want %q", name, deref(got), want)
		}
	}
	for name, want := range map[string][]*mail.Address{"To": p.to, "Cc": p.cc, "Reply-To": p.replyTo} {
		if len(want) == 0 {
			if out.Get(name) != "" {
				t.Errorf("%s = %q, want none", name, out.Get(name))
			}
			continue
		}
		got, err := out.AddressList(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !slices.EqualFunc(got, want, func(a, b *mail.Address) bool { return *a == *b }) {
			t.Errorf("%s = %v, want %v", name, got, want)
		}
	}
	if len(out.Header["Bcc"]) > 0 {
		t.Errorf("there is a Bcc header: %q", out.Header["Bcc"])
	}
}

// FuzzCheck feeds raw bytes. Check must not panic, and must return its own kind of
// error. An accepted payload must become a message.
func FuzzCheck(f *testing.F) {
	for _, seed := range []string{
		``, `null`, `{}`, `[]`, `{"to":"a@example.com","body":"x"}`, `{"to":["A <a@example.com>"],"html":"<p>","cc":"b@bücher.example"}`,
		`{"to":"a@example.com\r\nBcc: x@y.z","body":""}`, `{"to":"g: a@b.c;","subject":"\ud800","body":"\r"}`, `{"to":"(c) a@b.c","body":"."}`,
	} {
		f.Add([]byte(seed))
	}
	from, err := parseAddress("jobs@example.org")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if strict.Check(raw) != nil {
			return // the doors refuse it
		}
		p, err := parse(raw)
		if err != nil {
			var e *jobs.Error
			if !errors.As(err, &e) || e.Kind != jobs.InvalidRequest || len(e.Fields) == 0 {
				t.Fatalf("err = %#v", err)
			}
			for _, field := range e.Fields {
				if field.Pointer != "/payload" && !strings.HasPrefix(field.Pointer, "/payload/") {
					t.Errorf("pointer %q", field.Pointer)
				}
			}
			return
		}
		message, err := (&letter{id: jobs.NewID(), from: from, payload: p, date: time.Now()}).bytes(true)
		if err != nil {
			t.Fatal(err)
		}
		out, err := readMessage(message)
		if err != nil {
			t.Fatalf("%v in\n%s", err, message)
		}
		if out.subject != p.subject {
			t.Errorf("subject = %q, want %q", out.subject, p.subject)
		}
		if len(out.Header["Bcc"]) > 0 {
			t.Error("there is a Bcc header")
		}
	})
}
