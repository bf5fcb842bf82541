package status

import (
	"bytes"
	"context"
	"strings"

	"jobstream/jobs"
	"jobstream/status/boltfile"
	"jobstream/status/index"
)

// maxTagEntries is how many entries of the index one list of tags looks at.
const maxTagEntries = 20_000

// Tags lists the tags of jobs that begin with a text, in order, from behind a tag on. more
// says that there may be others behind the last one, which is the tag to go on behind. It
// looks at a bounded number of entries, and leaves out those that only callbacks have.
func (q *Queries) Tags(_ context.Context, prefix, after string, limit int) (tags []string, last string, err error) {
	err = q.db.View(func(tx *boltfile.Tx) error {
		bits := tx.Bucket(bucketBits)
		begin := []byte(index.OfTag(prefix))
		c := bits.Cursor()
		k, _ := c.Seek(begin)
		if after != "" {
			k, _ = c.Seek(append([]byte(index.OfTag(after)), 1))
		}
		for looked := 0; bytes.HasPrefix(k, begin) && len(k) > 5; looked++ {
			if len(tags) == limit || looked >= maxTagEntries {
				return nil
			}
			attr := string(k[:len(k)-5]) // without NUL and chunk
			last = strings.TrimPrefix(attr, index.OfTag(""))
			own, err := beyondCallbacks(bits, attr)
			if err != nil {
				return err
			}
			if own {
				tags = append(tags, last)
			}
			k, _ = c.Seek(append([]byte(attr), 1))
		}
		last = ""
		return nil
	})
	return tags, last, err
}

// beyondCallbacks says whether other jobs than callbacks have an attribute. It looks at
// the youngest ones only: no client can give a callback a tag.
func beyondCallbacks(bits boltfile.Bucket, attr string) (bool, error) {
	key, ok, err := index.Last(bits, attr)
	if err != nil || !ok {
		return false, err
	}
	var callbacks index.Bitmap
	if err := index.Read(bits, index.OfType(jobs.CallbackType), index.Chunk(key), &callbacks); err != nil {
		return false, err
	}
	return !callbacks.Has(key), nil
}
