package jobs

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
)

// Execution names one execution of a job, for ever.
type Execution struct {
	Key     uint64 // of the job
	Started Time   // Job.StartedAt
	Run     int
	Attempt int
}

// Of says whether it is the last one that j has begun.
func (x Execution) Of(j *Job) bool {
	return j.Key == x.Key && j.Run == x.Run && j.Attempt == x.Attempt && j.StartedAt == x.Started
}

// LeaseKey signs the tokens of leases. Whoever has it can judge a token without any
// record of its lease.
type LeaseKey []byte

// NewLeaseKey makes a key.
func NewLeaseKey() LeaseKey {
	k := make(LeaseKey, sha256.Size)
	_, _ = rand.Read(k) // it never fails
	return k
}

// Epoch is a short name of the key, and so of the tracker that has it. It does not give
// the key away.
func (k LeaseKey) Epoch() string {
	sum := hmac.New(sha256.New, k)
	sum.Write([]byte("epoch"))
	return hex.EncodeToString(sum.Sum(nil)[:4])
}

// The parts of a token, in bytes: the numbers of the execution, and their signature.
const (
	tokenBody = 8 + 8 + 4 + 4
	tokenSize = tokenBody + 12
)

// Token is the token of an execution's lease: base64url of its numbers, and the first 12
// bytes of their HMAC-SHA256.
func (k LeaseKey) Token(x Execution) string {
	var b [tokenSize]byte
	binary.BigEndian.PutUint64(b[:], x.Key)
	binary.BigEndian.PutUint64(b[8:], uint64(x.Started))  //nolint:gosec // and back
	binary.BigEndian.PutUint32(b[16:], uint32(x.Run))     //nolint:gosec // and back; a job has fewer
	binary.BigEndian.PutUint32(b[20:], uint32(x.Attempt)) //nolint:gosec // and back; a job has fewer
	k.sign(&b)
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// Signed says whether a token is of this key.
func (k LeaseKey) Signed(token string) bool {
	b, ok := decodeToken(token)
	own := b
	k.sign(&own)
	return ok && subtle.ConstantTimeCompare(own[:], b[:]) == 1
}

func decodeToken(token string) (b [tokenSize]byte, ok bool) {
	if len(token) != base64.RawURLEncoding.EncodedLen(tokenSize) {
		return b, false // the decoder would skip line breaks
	}
	n, err := base64.RawURLEncoding.Strict().Decode(b[:], []byte(token))
	return b, err == nil && n == tokenSize
}

// TokenExecution reads a token, which may be of any key. ok is false if it is none.
func TokenExecution(token string) (x Execution, ok bool) {
	b, ok := decodeToken(token)
	if !ok {
		return x, false
	}
	return Execution{
		Key:     binary.BigEndian.Uint64(b[:]),
		Started: Time(binary.BigEndian.Uint64(b[8:])), //nolint:gosec // from a Time
		Run:     int(binary.BigEndian.Uint32(b[16:])),
		Attempt: int(binary.BigEndian.Uint32(b[20:])),
	}, true
}

// sign sets the signature behind the body.
func (k LeaseKey) sign(b *[tokenSize]byte) {
	h := hmac.New(sha256.New, k)
	h.Write(b[:tokenBody])
	copy(b[tokenBody:], h.Sum(nil))
}
