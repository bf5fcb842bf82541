package jobs

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"strconv"
	"time"
)

// Token stands for an idempotency key and what was asked for with it: the same
// key again gives the job of the first time, even if that has been deleted since.
type Token struct {
	Key  [16]byte // a hash of where the key came from and the key
	Body [16]byte // a hash of the request; all 0 where only the key counts
	// Bytes is a hash of the request as it was written. Trackers have it in the
	// place of Body for keys that were used before requests were compared as what
	// they say. It does not travel.
	Bytes [16]byte
}

// TokenTime is how long a token is remembered.
const TokenTime = 24 * time.Hour

// NewToken makes a token of a key. Keys of different realms (an HTTP header, a
// NATS header) have nothing to do with each other. Two requests in JSON are the
// same if they say the same: the order of fields, space, the spelling of strings
// and numbers, and fields that are null make no difference. A nil request stands
// for any.
func NewToken(realm, key string, request []byte) *Token {
	t := &Token{Key: shortHash([]byte(realm + "\x00" + key))}
	if request != nil {
		t.Body, t.Bytes = shortHash(canonical(request)), shortHash(request)
	}
	return t
}

// Same says whether a stored hash of a request is that of t's.
func (t *Token) Same(body [16]byte) bool {
	return body == t.Body || body == t.Bytes && t.Bytes != [16]byte{}
}

func shortHash(b []byte) (short [16]byte) {
	sum := sha256.Sum256(b)
	copy(short[:], sum[:])
	return short
}

// canonical is a JSON object written in one way of many; anything else as it is.
func canonical(request []byte) []byte {
	d := json.NewDecoder(bytes.NewReader(request))
	d.UseNumber()
	var fields map[string]any
	if err := d.Decode(&fields); err != nil || fields == nil {
		return request
	}
	for name, v := range fields {
		if v == nil {
			delete(fields, name) // as if it were not there
		}
	}
	out, err := json.Marshal(plainNumbers(fields)) // in the order of the names
	if err != nil {
		return request
	}
	return out
}

// plainNumbers writes the numbers in v in one way of many (1, 1.0, 1e0), those
// that a float64 has room for.
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

// Forgotten is what is still known of a job that m would have made: it was made
// at a moment, by a submission that said the same, and has been deleted since it
// ended. It is the first answer that the submission got, but for the sequence.
func (m *Message) Forgotten(id ID, at Time, t *Type) *Job {
	first := *m
	first.ID, first.At, first.Seq = id, at, 0
	j := NewJob(&first, t, true)
	j.Message = "the job has ended, and its record was deleted since"
	return j
}
