package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// operations describes the operations that a parser found, in words.
func operations(r io.Reader) (found []string, err error) {
	p := newParser(r)
	for {
		what, err := p.next()
		if err != nil {
			return found, err
		}
		switch what {
		case opMessage:
			m := &p.msg
			found = append(found, fmt.Sprintf("%d %q %q %q %q", p.sid, m.Subject, m.Reply, m.Header, m.Body))
		default:
			found = append(found, fmt.Sprintf("op %d %q", what, p.text))
		}
	}
}

func TestParser(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 3*readBuffer)
	tests := []struct {
		name, sent string
		want       []string
		broken     string // what the error says; else all is read up to the end
	}{
		{"messages", "MSG a.b 7 5\r\nhello\r\nMSG a.b 8 to.me 0\r\n\r\n", []string{`7 "a.b" "" "" "hello"`, `8 "a.b" "to.me" "" ""`}, ""},
		{"headers", "HMSG a 1 12 17\r\nNATS/1.0\r\n\r\nhello\r\nHMSG a 1 b 4 4\r\nNATS\r\n", []string{`1 "a" "" "NATS/1.0\r\n\r\n" "hello"`, `1 "a" "b" "NATS" ""`}, ""},
		{"lines in a body", "MSG a 1 12\r\nPING\r\nMSG a\n\r\nPONG\r\n", []string{`1 "a" "" "" "PING\r\nMSG a\n"`, `op 4 ""`}, ""},
		{"a large one", "MSG a 1 " + fmt.Sprint(len(long)) + "\r\n" + long + "\r\nPING\r\n", []string{`1 "a" "" "" "` + long + `"`, `op 3 ""`}, ""},
		{"the rest", "INFO {}\r\n+OK\r\n-ERR 'no'\r\n", []string{`op 1 "{}"`, `op 0 "+OK"`, `op 5 "'no'"`}, ""},
		{"too few words", "MSG a 5\r\nhello\r\n", nil, "bad message line"},
		{"too many words", "MSG a 1 b c 5\r\nhello\r\n", nil, "bad message line"},
		{"no number", "MSG a 1 5x\r\nhello\r\n", nil, "bad message line"},
		{"negative", "MSG a 1 -5\r\nhello\r\n", nil, "bad message line"},
		{"more than there can be", "MSG a 1 99999999999\r\nhello\r\n", nil, "bad message line"},
		{"beyond all numbers", "MSG a 1 18446744073709551621\r\nhello\r\n", nil, "bad message line"},
		{"header beyond the end", "HMSG a 1 6 5\r\nhello\r\n", nil, "bad message line"},
		{"wrong length", "MSG a 1 4\r\nhello\r\n", nil, "does not end there"},
		{"cut off", "MSG a 1 5\r\nhel", nil, "EOF"},
		{"a large one cut off", "MSG a 1 2000000000\r\nhel", nil, "EOF"},
		{"an endless line", strings.Repeat("x", 2*readBuffer), nil, "buffer full"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := operations(strings.NewReader(tt.sent))
			if strings.Join(got, "\n") != strings.Join(tt.want, "\n") {
				t.Errorf("heard %.300q", got)
			}
			if tt.broken == "" && !errors.Is(err, io.EOF) || !strings.Contains(err.Error(), tt.broken) {
				t.Errorf("it ended with %v", err)
			}
		})
	}
}

// FuzzParser reads any bytes. The result must not depend on how they come in, and must have
// nothing larger than the input.
func FuzzParser(f *testing.F) {
	for _, s := range []string{
		"INFO {}\r\nMSG a.b 7 5\r\nhello\r\nPING\r\n", "HMSG a 1 b 12 17\r\nNATS/1.0\r\n\r\nhello\r\n", "MSG a 1 2147483647\r\n", "-ERR x\r\n+OK\r\nPONG\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		whole, errWhole := operations(bytes.NewReader(sent))
		parts, errParts := operations(iotest.OneByteReader(bytes.NewReader(sent)))
		if strings.Join(whole, "\n") != strings.Join(parts, "\n") || errWhole.Error() != errParts.Error() {
			t.Errorf("%q, %v\nbyte by byte %q, %v", whole, errWhole, parts, errParts)
		}
		p, size := newParser(bytes.NewReader(sent)), 0
		for what, err := p.next(); err == nil; what, err = p.next() {
			if what == opMessage {
				size += p.msg.Size()
			}
		}
		if size > len(sent) {
			t.Errorf("%d bytes of messages in %d", size, len(sent))
		}
	})
}

// FuzzMessage reads any message in the form that a server gives it.
func FuzzMessage(f *testing.F) {
	f.Add("jobs.email.3", "_INBOX.1", []byte("NATS/1.0\r\nJob-Id: 1\r\n\r\n"), []byte(`{"a":1}`))
	f.Add("a", "", []byte{}, []byte("\r\nMSG a 1 3\r\n"))
	f.Fuzz(func(t *testing.T, subject, reply string, header, body []byte) {
		if subject == "" || strings.ContainsAny(subject+reply, " \r\n") {
			return
		}
		var sent []byte
		want := fmt.Sprintf("42 %q %q %q %q", subject, reply, header, body)
		if len(header) > 0 {
			sent = append(sent, 'H')
		}
		sent = fmt.Appendf(sent, "MSG %s 42 ", subject)
		if reply != "" {
			sent = fmt.Appendf(sent, "%s ", reply)
		}
		if len(header) > 0 {
			sent = fmt.Appendf(sent, "%d ", len(header))
		}
		sent = fmt.Appendf(sent, "%d\r\n%s%s\r\nPING\r\n", len(header)+len(body), header, body)
		got, err := operations(bytes.NewReader(sent))
		if len(got) != 2 || got[0] != want || !errors.Is(err, io.EOF) {
			t.Errorf("%q became %q, %v", sent, got, err)
		}
	})
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	m := &Msg{Header: []byte("NATS/1.0 409 Exceeded MaxBytes\r\nA: 1\r\nno colon\r\n b :  2 \r\na: 3\r\n\r\n")}
	if m.Status() != 409 || m.StatusText() != "NATS/1.0 409 Exceeded MaxBytes" {
		t.Errorf("status %d %q", m.Status(), m.StatusText())
	}
	if a, b, c := m.Get("A"), m.Get("B"), m.Get("C"); string(a) != "1" || string(b) != "2" || c != nil {
		t.Errorf("%q %q %q", a, b, c)
	}
	for _, header := range []string{"", "NATS/1.0\r\n\r\n", "NATS/1.0 \r\n", "NATS/1.0 4x9 no\r\n"} {
		if m := (&Msg{Header: []byte(header)}); m.Status() != 0 {
			t.Errorf("%q has status %d", header, m.Status())
		}
	}
}

func TestParseAck(t *testing.T) {
	t.Parallel()
	tests := []struct {
		reply    string
		consumer string
		want     [3]uint64
		ok       bool
	}{
		{"$JS.ACK.JOBS.email-3.1.7.8.1700000000000000000.9", "email-3", [3]uint64{7, 8, 1700000000000000000}, true},
		{"$JS.ACK._.hash.JOBS.email-3.1.7.8.17.9", "email-3", [3]uint64{7, 8, 17}, true},
		{"$JS.ACK.hub.hash.JOBS.email-3.1.7.8.17.9.random", "email-3", [3]uint64{7, 8, 17}, true},
		{"$JS.ACK.JOBS.email-3.1.7.8.17", "", [3]uint64{}, false},
		{"$JS.ACK.a.JOBS.email-3.1.7.8.17.9", "", [3]uint64{}, false},
		{"_INBOX.1.2.3.4.5.6.7.8", "", [3]uint64{}, false},
		{"", "", [3]uint64{}, false},
	}
	for _, tt := range tests {
		a, ok := ParseAck([]byte(tt.reply))
		if got := [3]uint64{a.Seq, a.Delivery, uint64(a.At)}; ok != tt.ok || ok && (string(a.Consumer) != tt.consumer || got != tt.want) {
			t.Errorf("%s: %s %v %v", tt.reply, a.Consumer, got, ok)
		}
	}
}
