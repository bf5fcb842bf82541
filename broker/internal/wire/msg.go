package wire

import "bytes"

// Msg is a message from the server. Header is a whole header block, or empty.
type Msg struct {
	Subject, Reply, Header, Body []byte
}

// Size is the number of bytes that the server counts for the message.
func (m *Msg) Size() int { return len(m.Subject) + len(m.Reply) + len(m.Header) + len(m.Body) }

// Status is the code in the header block's first line, like 408 in "NATS/1.0 408 Request
// Timeout". It is 0 for ordinary messages.
func (m *Msg) Status() int {
	const prefix = "NATS/1.0 "
	if len(m.Header) < len(prefix)+3 || string(m.Header[:len(prefix)]) != prefix {
		return 0
	}
	return int(ParseUint(m.Header[len(prefix) : len(prefix)+3]))
}

// StatusText is the first line of the header block, for logs.
func (m *Msg) StatusText() string {
	line, _, _ := bytes.Cut(m.Header, []byte("\r\n"))
	return string(line)
}

// Get returns a header's value, nil if there is none.
func (m *Msg) Get(name string) []byte {
	var found []byte
	EachHeader(m.Header, func(key, value []byte) {
		if found == nil && EqualFold(key, name) {
			found = value
		}
	})
	return found
}

// EachHeader calls fn for every line of a header block but the first.
func EachHeader(block []byte, fn func(key, value []byte)) {
	_, rest, _ := bytes.Cut(block, []byte("\r\n"))
	for len(rest) > 0 {
		var line []byte
		line, rest, _ = bytes.Cut(rest, []byte("\r\n"))
		if key, value, ok := bytes.Cut(line, []byte(":")); ok {
			fn(bytes.TrimSpace(key), bytes.TrimSpace(value))
		}
	}
}

// EqualFold says whether a header's key is name, in small or capital letters.
func EqualFold(key []byte, name string) bool {
	return len(key) == len(name) && (string(key) == name || bytes.EqualFold(key, []byte(name)))
}

// Ack is the reply subject of a delivery of JetStream, parsed.
type Ack struct {
	Consumer []byte // its name; part of the subject
	Seq      uint64 // in the stream
	Delivery uint64 // the consumer's own count
	At       int64  // when the message was stored, Unix nanoseconds
}

// ParseAck reads $JS.ACK.<stream>.<consumer>.<tries>.<seq>.<delivery>.<at>.<pending>. It
// reads the longer form, too, which has <domain>.<account> before the stream and may have
// one more token at the end.
func ParseAck(reply []byte) (a Ack, ok bool) {
	if !bytes.HasPrefix(reply, []byte("$JS.ACK.")) {
		return a, false
	}
	skip := 3 // tokens in front of the consumer
	switch dots := bytes.Count(reply, []byte(".")); {
	case dots == 8:
	case dots >= 10:
		skip = 5
	default:
		return a, false
	}
	for range skip {
		_, reply, _ = bytes.Cut(reply, []byte("."))
	}
	a.Consumer, reply, _ = bytes.Cut(reply, []byte("."))
	_, reply, _ = bytes.Cut(reply, []byte(".")) // the number of tries
	var v [3]uint64
	for i := range v {
		var token []byte
		token, reply, _ = bytes.Cut(reply, []byte("."))
		v[i] = ParseUint(token)
	}
	a.Seq, a.Delivery, a.At = v[0], v[1], int64(v[2])
	return a, a.Seq > 0
}
