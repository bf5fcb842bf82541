package status

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"slices"

	"jobstream/status/boltfile"
)

// hashPiece is after how many entries a walk looks whether it is still wanted.
const hashPiece = 10_000

// Hashes are the SHA-256 of each bucket by its name, in hexadecimal digits. Trackers with
// the same hashes have the same contents, but for what each node has for itself. It reads
// the whole file, which takes about a second for a gigabyte.
func (q *Queries) Hashes(ctx context.Context) (hashes map[string]string, err error) {
	hashes = make(map[string]string, len(allBuckets))
	err = q.db.View(func(tx *boltfile.Tx) error {
		for _, name := range allBuckets {
			h := sha256.New()
			b := tx.Bucket(name)
			if b.Missing() {
				continue
			}
			if err := hashBucket(ctx, h, b, bytes.Equal(name, bucketMeta)); err != nil {
				return err
			}
			hashes[string(name)] = hex.EncodeToString(h.Sum(nil))
		}
		return nil
	})
	return hashes, err
}

func hashBucket(ctx context.Context, h hash.Hash, b boltfile.Bucket, meta bool) error {
	head := binary.BigEndian.AppendUint64(nil, b.Sequence())
	h.Write(head)
	n := 0
	for c, k, v := cursorOf(b); k != nil; k, v = c.Next() {
		if meta && isOwn(k) {
			continue
		}
		head = binary.AppendUvarint(binary.AppendUvarint(head[:0], uint64(len(k))), uint64(len(v)))
		h.Write(head)
		h.Write(k)
		h.Write(v)
		if n++; n%hashPiece == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}

// isOwn says whether a key of meta is one that each of several trackers has for itself.
func isOwn(key []byte) bool {
	return slices.ContainsFunc(ownKeys, func(own []byte) bool { return bytes.Equal(own, key) })
}
