package boltfile

import (
	"fmt"
	"io"

	"go.etcd.io/bbolt"
)

// Tx is a transaction. It gives its buckets in a form that [Tx.Note] can see all writes
// of: nobody has bbolt's own, which would pass it by.
type Tx struct {
	tx    *bbolt.Tx
	noter Noter
}

// Noter is told of everything that a transaction writes, in order. It must not keep the
// slices.
type Noter interface {
	Put(bucket, key, value []byte)
	Delete(bucket, key []byte)
	SetSequence(bucket []byte, n uint64)
}

// Note tells n of all further writes to buckets of this transaction. Those to buckets
// that were asked for before are left out, so it comes first.
func (tx *Tx) Note(n Noter) { tx.noter = n }

// Bucket is the bucket of a name, see [Bucket.Missing].
func (tx *Tx) Bucket(name []byte) Bucket { return tx.bucket(name, tx.tx.Bucket(name)) }

func (tx *Tx) bucket(name []byte, b *bbolt.Bucket) Bucket {
	if tx.noter == nil {
		return Bucket{b: b}
	}
	return Bucket{b, &noted{name, tx.noter}}
}

// Create makes the buckets that are not there. It is not noted: every file has the same.
func (tx *Tx) Create(names ...[]byte) error {
	for _, name := range names {
		if _, err := tx.tx.CreateBucketIfNotExists(name); err != nil {
			return fmt.Errorf("bucket %s: %w", name, err)
		}
	}
	return nil
}

// Drop removes buckets with all that they have; missing ones are passed over. A noted
// transaction has no such thing.
func (tx *Tx) Drop(names ...[]byte) error {
	for _, name := range names {
		if tx.noter != nil {
			return fmt.Errorf("bucket %s cannot be dropped where its writes are noted", name)
		}
		if tx.tx.Bucket(name) == nil {
			continue
		}
		if err := tx.tx.DeleteBucket(name); err != nil {
			return fmt.Errorf("bucket %s: %w", name, err)
		}
	}
	return nil
}

// ForEach calls f with all buckets, by name.
func (tx *Tx) ForEach(f func(name []byte, b Bucket) error) error {
	return tx.tx.ForEach(func(name []byte, b *bbolt.Bucket) error { return f(name, tx.bucket(name, b)) })
}

// Size is that of a copy in bytes, see [Tx.WriteTo].
func (tx *Tx) Size() int64 { return tx.tx.Size() }

// WriteTo writes a copy of the whole file as the transaction sees it.
func (tx *Tx) WriteTo(w io.Writer) (int64, error) { return tx.tx.WriteTo(w) }

// Bucket is a sorted map in the file. Slices that it gives are valid until the end of the
// transaction, and must not be changed.
type Bucket struct {
	b     *bbolt.Bucket
	noted *noted // nil: nobody is told of its writes
}

// noted is who is told of writes to the bucket of a name.
type noted struct {
	name []byte
	to   Noter
}

// Missing says that there is no such bucket. Then nothing else may be called.
func (b Bucket) Missing() bool { return b.b == nil }

// Get is the value of a key, nil if it has none.
func (b Bucket) Get(key []byte) []byte { return b.b.Get(key) }

// Put sets the value of a key. It must stay as it is until the end of the transaction.
func (b Bucket) Put(key, value []byte) error {
	if b.noted != nil {
		b.noted.to.Put(b.noted.name, key, value)
	}
	return b.b.Put(key, value)
}

// Delete removes a key, if it is there.
func (b Bucket) Delete(key []byte) error {
	if b.noted != nil {
		b.noted.to.Delete(b.noted.name, key)
	}
	return b.b.Delete(key)
}

// Sequence is the bucket's number, see [Bucket.SetSequence].
func (b Bucket) Sequence() uint64 { return b.b.Sequence() }

// SetSequence sets the number that each bucket has for any use.
func (b Bucket) SetSequence(n uint64) error {
	if b.noted != nil {
		b.noted.to.SetSequence(b.noted.name, n)
	}
	return b.b.SetSequence(n)
}

// NextSequence counts the bucket's number up, and gives it.
func (b Bucket) NextSequence() (uint64, error) {
	n := b.b.Sequence() + 1
	return n, b.SetSequence(n)
}

// Fill sets how full a page is when this transaction splits it.
func (b Bucket) Fill(share float64) { b.b.FillPercent = share }

// ForEach calls f with all keys, in order. f must not write to the bucket.
func (b Bucket) ForEach(f func(k, v []byte) error) error { return b.b.ForEach(f) }

// Cursor walks over the bucket. After a write to it the cursor has to seek.
func (b Bucket) Cursor() Cursor { return Cursor{b.b.Cursor()} }

// Cursor is a place in a bucket. The key is nil beyond its ends.
type Cursor struct{ c *bbolt.Cursor }

// First goes to the first key.
func (c Cursor) First() (k, v []byte) { return c.c.First() }

// Last goes to the last key. bbolt's own Last never returns if every page of the bucket has
// become empty in this transaction, so there must be a key before it is asked.
func (c Cursor) Last() (k, v []byte) {
	if k, _ := c.c.First(); k == nil {
		return nil, nil
	}
	return c.c.Last()
}

// Next goes to the next key.
func (c Cursor) Next() (k, v []byte) { return c.c.Next() }

// Prev goes to the key before.
func (c Cursor) Prev() (k, v []byte) { return c.c.Prev() }

// Seek goes to a key, or else to the one behind it.
func (c Cursor) Seek(key []byte) (k, v []byte) { return c.c.Seek(key) }
