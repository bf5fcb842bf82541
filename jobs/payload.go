package jobs

import (
	"bytes"
	"encoding/json"
)

// Payload is what a job is given to work on. Those who look into it share one decoding of
// it, which nobody pays for if nobody looks. It is for one goroutine at a time.
type Payload struct {
	JSON json.RawMessage // as it was sent; nil if none was given

	decoded bool
	value   any
	err     error
}

// NewPayload is the payload that is this JSON; none if it is empty.
func NewPayload(raw json.RawMessage) *Payload { return &Payload{JSON: raw} }

// Value is the payload as encoding/json reads it into an any, with its numbers as
// [json.Number], so that no digit is lost. No payload is nil. Everybody gets the same value
// and must not change it. The error is an [*Error].
func (p *Payload) Value() (any, error) {
	if !p.decoded && len(p.JSON) > 0 {
		dec := json.NewDecoder(bytes.NewReader(p.JSON))
		dec.UseNumber()
		if err := dec.Decode(&p.value); err != nil {
			p.value, p.err = nil, Invalid("/payload", "cannot be read: "+err.Error())
		}
	}
	p.decoded = true
	return p.value, p.err
}
