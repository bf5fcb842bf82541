package broker

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"jobstream/jobs/fsync"
)

// Whoever may submit bare messages chooses their headers. So a header that only this server
// may write counts only under a seal: the last header of a message, an HMAC over all that
// stand before it. Job-Id is among these, so a seal is worth nothing for another job.

// HeaderSeal has the seal of a message: base64url of the first 12 bytes of the HMAC-SHA256.
const HeaderSeal = "Job-Seal"

const (
	sealStart = "\r\n" + HeaderSeal + ": "
	sealEnd   = "\r\n\r\n"
	sealBytes = 12
	sealText  = sealBytes * 4 / 3
)

// sealFile is in the folder of the streams, because the key belongs to their messages. It is
// none of nats-server's.
const sealFile = "seal.json"

// seal makes and checks seals.
type seal struct {
	sealKey
	hashes sync.Pool // of *sealHash
}

// sealHash is a hash with the key in it, and a place for its sum.
type sealHash struct {
	hash.Hash
	sum [sha256.Size]byte
}

// sealKey is the content of the file.
type sealKey struct {
	Key []byte `json:"key"`
	// Since is the last sequence of JOBS without seals: an earlier version wrote what is up
	// to there, and its headers count as they are.
	Since uint64 `json:"since"`
}

// openSeal reads the key of a folder, or makes it. JOBS ends at last.
func openSeal(dir string, last uint64) (*seal, error) {
	path := filepath.Join(dir, sealFile)
	text, err := os.ReadFile(path)
	var k sealKey
	switch {
	case errors.Is(err, fs.ErrNotExist):
		k = sealKey{Key: make([]byte, sha256.Size), Since: last}
		_, _ = rand.Read(k.Key) // it never fails
		err = k.write(path)
	case err == nil:
		if err = json.Unmarshal(text, &k); err == nil && len(k.Key) != sha256.Size {
			err = fmt.Errorf("its key has %d bytes, not %d", len(k.Key), sha256.Size)
		}
		if err != nil {
			return nil, fmt.Errorf("the key in %s cannot be read; put the file of a backup in its place, or delete it, after which all messages in JOBS count as sealed: %w", path, err)
		}
		if k.Since > last { // JOBS was made anew
			k.Since = last
			err = k.write(path)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("the key that seals messages: %w", err)
	}
	return newSeal(k), nil
}

func newSeal(k sealKey) *seal {
	s := &seal{sealKey: k}
	s.hashes.New = func() any { return &sealHash{Hash: hmac.New(sha256.New, s.Key)} }
	return s
}

// write replaces the file. It is on disk before any message with a seal.
func (k *sealKey) write(path string) error {
	text, err := json.Marshal(k)
	if err != nil {
		return err
	}
	return fsync.Write(path, append(text, '\n'))
}

// openSeal reads the key of this folder.
func (s *Server) openSeal(ctx context.Context) error {
	stream, err := s.js.Stream(ctx, JobsStream)
	if err != nil {
		return fmt.Errorf("cannot look up stream %s: %w", JobsStream, err)
	}
	s.seal, err = openSeal(s.o.Dir, stream.CachedInfo().State.LastSeq)
	return err
}

// close seals and ends a header block.
func (s *seal) close(block []byte) []byte {
	var text [sealText]byte
	s.of(block, &text)
	return append(append(append(block, sealStart...), text[:]...), sealEnd...)
}

// genuine says whether a message may have headers that only this server writes.
func (s *seal) genuine(seq uint64, block []byte) bool {
	const size = len(sealStart) + sealText + len(sealEnd)
	n := len(block) - size
	if n < 0 || string(block[n:n+len(sealStart)]) != sealStart {
		return seq <= s.Since
	}
	var text [sealText]byte
	s.of(block[:n], &text)
	return hmac.Equal(text[:], block[n+len(sealStart):len(block)-len(sealEnd)]) || seq <= s.Since
}

// of is the seal of the beginning of a header block.
func (s *seal) of(block []byte, text *[sealText]byte) {
	h := s.hashes.Get().(*sealHash)
	defer s.hashes.Put(h)
	h.Reset()
	h.Write(block)
	base64.RawURLEncoding.Encode(text[:], h.Sum(h.sum[:0])[:sealBytes])
}
