package access

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"math/big"
	"strings"
)

// A token is jst_, 30 random characters, and 6 that are the CRC-32 of those. The prefix
// and the checksum let scanners of source code recognise one that was published by
// mistake. 30 characters of 62 are 178 bits: nobody guesses them, so one round of SHA-256
// is enough to keep only the hash.
const (
	tokenPrefix = "jst_"
	randomPart  = 30
	checkPart   = 6
	alphabet    = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// Hash is the SHA-256 of a token, which is all that a server keeps of it.
type Hash [sha256.Size]byte

// HashOf hashes a token.
func HashOf(token string) Hash { return sha256.Sum256([]byte(token)) }

// ParseHash reads the hash as it stands in a configuration: 64 hexadecimal digits.
func ParseHash(text string) (h Hash, err error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(h) {
		return h, errors.New("must be the SHA-256 of a token, 64 hexadecimal digits; jobstream token new prints one")
	}
	return Hash(b), nil
}

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// NewToken makes a token. Only its holder has it: show it once, and keep its [Hash].
func NewToken() string {
	secret := make([]byte, randomPart)
	of := big.NewInt(int64(len(alphabet)))
	for i := range secret {
		n, err := rand.Int(rand.Reader, of)
		if err != nil {
			panic("access: " + err.Error()) // crypto/rand never fails
		}
		secret[i] = alphabet[n.Int64()]
	}
	return tokenPrefix + string(secret) + checksum(string(secret))
}

// IsToken reports whether a text has the form of a token, with the right checksum.
func IsToken(text string) bool {
	rest, ok := strings.CutPrefix(text, tokenPrefix)
	return ok && len(rest) == randomPart+checkPart && checksum(rest[:randomPart]) == rest[randomPart:]
}

func checksum(secret string) string {
	sum := crc32.ChecksumIEEE([]byte(secret))
	var out [checkPart]byte
	for i := len(out) - 1; i >= 0; i-- {
		out[i] = alphabet[sum%uint32(len(alphabet))]
		sum /= uint32(len(alphabet))
	}
	return string(out[:])
}
