package wire

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math"
)

// op is a kind of operation that a server can send.
type op int

const (
	opOther op = iota
	opInfo
	opMessage
	opPing
	opPong
	opError
)

const readBuffer = 128 << 10

// parser reads the operations of a server. Its fields describe the last one, and are valid
// until the next call.
type parser struct {
	r    *bufio.Reader
	args []byte // of a message: its line
	rest int    // of a message: bytes that are still in the reader

	sid  uint64 // of opMessage: the subscription
	msg  Msg
	text []byte // of opInfo and opError
}

func newParser(r io.Reader) *parser {
	return &parser{r: bufio.NewReaderSize(r, readBuffer)}
}

// next reads one operation.
func (p *parser) next() (op, error) {
	if _, err := p.r.Discard(p.rest); err != nil {
		return opOther, err
	}
	p.rest, p.text = 0, nil
	line, err := p.r.ReadSlice('\n')
	if err != nil {
		return opOther, err
	}
	line = bytes.TrimRight(line, "\r\n")
	name, args, _ := bytes.Cut(line, []byte(" "))
	switch string(name) {
	case "MSG":
		return opMessage, p.message(args, false)
	case "HMSG":
		return opMessage, p.message(args, true)
	case "PING":
		return opPing, nil
	case "PONG":
		return opPong, nil
	case "INFO":
		p.text = args
		return opInfo, nil
	case "-ERR":
		p.text = args
		return opError, nil
	}
	p.text = line
	return opOther, nil
}

// message reads one message. args is its line:
// subject sid [reply] [header length] total length.
func (p *parser) message(args []byte, header bool) error {
	p.args = append(p.args[:0], args...) // reading on overwrites it
	var token [5][]byte
	n := 0
	for rest := p.args; len(rest) > 0; n++ {
		if n == len(token) {
			return fmt.Errorf("bad message line %q from the broker", args)
		}
		token[n], rest, _ = bytes.Cut(rest, []byte(" "))
	}
	lengths := 1
	if header {
		lengths = 2
	}
	if n != 2+lengths && n != 3+lengths {
		return fmt.Errorf("bad message line %q from the broker", args)
	}
	sid, ok := number(token[1])
	total, okTotal := number(token[n-1])
	split, okSplit := uint64(0), true
	if header {
		split, okSplit = number(token[n-2])
	}
	if !ok || !okTotal || !okSplit || split > total || total > math.MaxInt32 {
		return fmt.Errorf("bad message line %q from the broker", args)
	}
	data, err := p.data(int(total) + 2)
	if err != nil {
		return err
	}
	if string(data[total:]) != "\r\n" {
		return fmt.Errorf("the broker's message of %d bytes does not end there", total)
	}
	p.sid = sid
	p.msg = Msg{Subject: token[0], Header: data[:split], Body: data[split:total]}
	if n == 3+lengths {
		p.msg.Reply = token[2]
	}
	return nil
}

// data returns the next n bytes.
func (p *parser) data(n int) ([]byte, error) {
	if n <= readBuffer {
		p.rest = n
		return p.r.Peek(n)
	}
	var large bytes.Buffer // it grows with the bytes that come, so a wrong length does no harm
	_, err := io.CopyN(&large, p.r, int64(n))
	return large.Bytes(), err
}

// number reads decimal digits.
func number(b []byte) (n uint64, ok bool) {
	if len(b) == 0 {
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' || n > (math.MaxUint64-9)/10 {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return n, true
}

// ParseUint reads decimal digits; anything else gives 0.
func ParseUint(b []byte) uint64 {
	n, _ := number(b)
	return n
}
