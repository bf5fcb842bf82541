// Package signature signs HTTP requests as Standard Webhooks describes it, so that who
// gets one can tell that it is from here, whole and not old. Start at [Secrets.Sign].
package signature

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"hash"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The headers of a signed request.
const (
	ID        = "webhook-id"
	Timestamp = "webhook-timestamp"
	Value     = "webhook-signature"
)

// Secrets are the keys of one receiver: one, or several while they are replaced. Each
// makes a signature, and the receiver accepts a request if it knows any of the keys. The
// zero value signs nothing.
type Secrets [][]byte

// Bounds of a key, in bytes.
const (
	leastKey = 24
	mostKey  = 64
)

// Parse reads secrets: whsec_ and the key in base64, each.
func Parse(texts ...string) (Secrets, error) {
	var all Secrets
	for _, text := range texts {
		encoded, ok := strings.CutPrefix(text, "whsec_")
		key, err := base64.StdEncoding.DecodeString(encoded)
		if !ok || err != nil || len(key) < leastKey || len(key) > mostKey {
			return nil, errors.New("must be whsec_ and a key of 24 to 64 bytes in base64, as by: printf whsec_; head -c 32 /dev/urandom | base64")
		}
		all = append(all, key)
	}
	return all, nil
}

// Sign sets the three headers of a request. The id is that of the message: repetitions
// have the same one. The error is that of reading body.
func (s Secrets) Sign(h http.Header, id string, at time.Time, body io.Reader) error {
	if len(s) == 0 {
		return nil
	}
	seconds := strconv.FormatInt(at.Unix(), 10)
	macs := make([]hash.Hash, len(s))
	all := make([]io.Writer, len(s))
	for i, key := range s {
		macs[i] = hmac.New(sha256.New, key)
		all[i] = macs[i]
	}
	w := io.MultiWriter(all...)
	if _, err := io.Copy(w, io.MultiReader(strings.NewReader(id+"."+seconds+"."), body)); err != nil {
		return err
	}
	made := make([]string, len(s))
	for i, mac := range macs {
		made[i] = "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	}
	h.Set(ID, id)
	h.Set(Timestamp, seconds)
	h.Set(Value, strings.Join(made, " "))
	return nil
}
