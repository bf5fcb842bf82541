package jobs

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"strconv"
	"time"
)

// Token stands for an idempotency key and its request. The same key gives the job of
// the first time, even if that has been deleted.
type Token struct {
	Key  [16]byte // a hash of the key and its origin
	Body [16]byte // a hash of the request; all 0 if only the key counts
	// Bytes is a hash of the request as it was written. Trackers have it in place of
	// Body for keys from before requests were compared by meaning. It is not part of a
	// published message.
	Bytes [16]byte
}

// TokenTime is how long a token is remembered.
const TokenTime = 24 * time.Hour

// NewToken makes a token of a key. Keys of different realms (an HTTP header, a NATS
// header) are independent. JSON requests are compared by meaning: the order of fields,
// space, the spelling of strings and numbers, and null fields make no difference. A nil
// request stands for any.
func NewToken(realm, key string, request []byte) *Token {
	t := &Token{Key: shortHash([]byte(realm + "\x00" + key))}
	if request != nil {
		t.Body, t.Bytes = shortHash(canonical(request)), shortHash(request)
	}
	return t
}

// Same says whether a stored hash is that of t's request.
func (t *Token) Same(body [16]byte) bool {
	return body == t.Body || body == t.Bytes && t.Bytes != [16]byte{}
}

func shortHash(b []byte) (short [16]byte) {
	sum := sha256.Sum256(b)
	copy(short[:], sum[:])
	return short
}

// canonical is a JSON object in a canonical form; anything else stays as it is.
func canonical(request []byte) []byte {
	d := json.NewDecoder(bytes.NewReader(request))
	d.UseNumber()
	var fields map[string]any
	if err := d.Decode(&fields); err != nil || fields == nil {
		return request
	}
	for name, v := range fields {
		if v == nil {
			delete(fields, name) // null means the same as a missing field
		}
	}
	out, err := json.Marshal(plainNumbers(fields)) // in the order of names
	if err != nil {
		return request
	}
	return out
}

// plainNumbers brings the numbers in v that fit into a float64 to one spelling (1, 1.0,
// 1e0).
func plainNumbers(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name, of := range v {
			v[name] = plainNumbers(of)
		}
	case []any:
		for i, of := range v {
			v[i] = plainNumbers(of)
		}
	case json.Number:
		const exact = 1 << 53
		if f, err := v.Float64(); err == nil && -exact < f && f < exact {
			return json.Number(strconv.FormatFloat(f, 'g', -1, 64))
		}
	}
	return v
}

// Forgotten is the job that an equal submission made at a moment, and that was deleted
// since. It is the first answer to that submission, except for the sequence.
func (m *Message) Forgotten(id ID, at Time, t *Type) *Job {
	first := *m
	first.ID, first.At, first.Seq = id, at, 0
	j := NewJob(&first, t, true)
	j.Message = "the job has ended, and its record was deleted since"
	return j
}
