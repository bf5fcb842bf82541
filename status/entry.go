package status

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tinylib/msgp/msgp"

	"jobstream/jobs"
	"jobstream/jobs/packed"
	"jobstream/jobs/replica"
	"jobstream/status/boltfile"
	"jobstream/status/record"
)

// A transaction of the node that leads becomes the body of an entry of the log, see
// package replica. A body is a MessagePack array of these values:
//
//	version   of this form
//	base      what the transaction stands on, see base; its last value is the format
//	writes    what it has put, deleted and counted in the buckets, in order
//	news      what is told of it, see news; nil if nothing is
//	hash      of the tracker after it, see Mark; only in some
//
// A write is three values: the number of a bucket, a key, and a value. Nil in place of
// the value deletes the key. Nil in place of the key sets the bucket's sequence.

// entryVersion is that of the form. Later versions may add values behind the last one.
const entryVersion = 1

// base is the tracker that a transaction was made on. Another node applies it to the same
// one only.
type base struct {
	sealed    uint64 // transactions that were sealed, or applied, before
	number    uint64 // of the last commit that changed something
	positions jobs.Positions
}

// String says it in words.
func (b base) String() string {
	return fmt.Sprintf("a tracker with %d transactions of the log, commit %d, JOBS up to %d and STATUS up to %d", b.sealed, b.number, b.positions.Jobs, b.positions.Status)
}

// writes are those of a transaction in their encoded form. They are its [boltfile.Noter].
type writes struct {
	b []byte
	n int
}

// bucketNumbers are the places in allBuckets, which entries have in place of the names.
var bucketNumbers = func() map[string]int {
	m := make(map[string]int, len(allBuckets))
	for i, name := range allBuckets {
		m[string(name)] = i
	}
	return m
}()

func (w *writes) begin(bucket []byte) {
	w.n++
	number, ok := bucketNumbers[string(bucket)]
	if !ok {
		number = len(allBuckets) // no reader accepts it, so it is found before it does harm
	}
	w.b = msgp.AppendInt(w.b, number)
}

// Put notes a put.
func (w *writes) Put(bucket, key, value []byte) {
	w.begin(bucket)
	w.b = msgp.AppendBytes(msgp.AppendBytes(w.b, key), value)
}

// Delete notes a deletion.
func (w *writes) Delete(bucket, key []byte) {
	w.begin(bucket)
	w.b = msgp.AppendNil(msgp.AppendBytes(w.b, key))
}

// SetSequence notes the new sequence of a bucket.
func (w *writes) SetSequence(bucket []byte, n uint64) {
	w.begin(bucket)
	w.b = msgp.AppendUint64(msgp.AppendNil(w.b), n)
}

// write is one of them, decoded.
type write struct {
	bucket     int
	key, value []byte // value nil: the key is deleted; key nil: only the sequence is set
	sequence   uint64
}

// of says whether it is about a key of this bucket.
func (w *write) of(bucket []byte) bool {
	return w.key != nil && bytes.Equal(allBuckets[w.bucket], bucket)
}

// do makes a write once more.
func (w *write) do(tx *boltfile.Tx) error {
	b := tx.Bucket(allBuckets[w.bucket])
	switch {
	case w.key == nil:
		return b.SetSequence(w.sequence)
	case w.value == nil:
		return b.Delete(w.key)
	}
	// As when the leader filled them.
	switch {
	case w.of(bucketJobs):
		b.Fill(recordFill)
	case w.of(bucketEnded):
		b.Fill(endedFill)
	}
	return b.Put(w.key, w.value)
}

// body is a decoded one. Its slices are parts of that.
type body struct {
	base   base
	format replica.Format // that everything in it has; 0 = the first one of clusters
	writes []write
	news   *news  // nil = nobody is told of it
	hash   string // "" = it has none
}

// errEntry says that a body makes no sense.
var errEntry = errors.New("an entry of the log that makes no sense")

// appendBody appends the body of a transaction.
func appendBody(b []byte, on base, f replica.Format, w *writes, c *jobs.Commit, m *Mark) []byte {
	values := uint32(4)
	if m != nil {
		values++
	}
	b = msgp.AppendInt(msgp.AppendArrayHeader(b, values), entryVersion)
	b = msgp.AppendArrayHeader(b, 5)
	for _, n := range [...]uint64{on.sealed, on.number, on.positions.Jobs, on.positions.Status, uint64(f)} {
		b = msgp.AppendUint64(b, n)
	}
	b = append(msgp.AppendArrayHeader(b, uint32(3*w.n)), w.b...)
	if c == nil {
		b = msgp.AppendNil(b)
	} else {
		b = appendNews(b, c)
	}
	if m != nil {
		b = msgp.AppendString(b, m.Hash)
	}
	return b
}

// decodeBody is the inverse of appendBody. It reads up to a format.
func decodeBody(b []byte, f *formats) (e body, err error) {
	r := packed.Reader{B: b}
	values := r.Array()
	if version := r.Uint(); r.Err == nil && version != entryVersion {
		return e, fmt.Errorf("%w: it has the form %d, and this is jobstream with the form %d: all nodes need the same release", errEntry, version, entryVersion)
	}
	if values < 4 {
		r.Fail(errors.New("it is too short"))
	}
	n := r.Array()
	e.base.sealed, e.base.number = r.Uint(), r.Uint()
	e.base.positions = jobs.Positions{Jobs: r.Uint(), Status: r.Uint()}
	if n > 4 {
		e.format = replica.Format(r.Uint())
		n--
	}
	r.Skip(n - 4)
	if r.Err == nil && e.format > f.most {
		return body{}, fmt.Errorf("the log is written in format %v, and this is jobstream %s, which reads up to format %v: use the version of the other nodes", e.format, cmp.Or(f.version, "of an unknown version"), f.most)
	}
	e.readWrites(&r)
	if r.Err == nil && msgp.IsNil(r.B) {
		r.Skip(1)
	} else {
		e.news = readNews(&r)
	}
	if values > 4 {
		e.hash = r.Text()
		values--
	}
	r.Skip(values - 4)
	if r.Err == nil && len(r.B) > 0 {
		r.Fail(fmt.Errorf("%d bytes follow it", len(r.B)))
	}
	if r.Err != nil {
		return body{}, fmt.Errorf("%w: %w", errEntry, r.Err)
	}
	return e, nil
}

// leastWrite is the least length of an encoded write.
const leastWrite = 3

func (e *body) readWrites(r *packed.Reader) {
	n := r.Array()
	if n%3 != 0 {
		r.Fail(fmt.Errorf("%d values are no writes", n))
	}
	e.writes = make([]write, 0, min(n/3, len(r.B)/leastWrite))
	for n /= 3; n > 0 && r.Err == nil; n-- {
		var w write
		if number := r.Uint(); number < uint64(len(allBuckets)) {
			w.bucket = int(number)
		} else {
			r.Fail(fmt.Errorf("there is no bucket %d", number))
		}
		switch {
		case r.Err != nil:
		case msgp.IsNil(r.B):
			r.Skip(1)
			w.sequence = r.Uint()
		default:
			if w.key = r.RawBytes(); r.Err == nil && len(w.key) == 0 {
				r.Fail(errors.New("a key is empty"))
			}
			if r.Err == nil && msgp.IsNil(r.B) {
				r.Skip(1)
			} else if w.value = r.RawBytes(); w.value == nil {
				w.value = []byte{}
			}
		}
		e.writes = append(e.writes, w)
	}
}

// news are a [jobs.Commit] with keys in the place of jobs. Who has applied the writes has
// the jobs.
type news struct {
	number    uint64
	at        jobs.Time
	positions jobs.Positions
	changed   []uint64
	removed   []uint64
	outcomes  []jobs.Event // with outcomeFields alone
	answers   []answerNews
}

// answerNews is a [jobs.Answer] with the key of its job. A batch is in its bucket.
type answerNews struct {
	kind jobs.AnswerKind
	id   jobs.ID
	err  *jobs.Error
	key  uint64    // of a job that the tracker has
	job  *jobs.Job // one that it has no more
}

// outcomeFields are what those who hear of an outcome need of it.
var outcomeFields = slices.DeleteFunc(slices.Clone(jobs.EventFields), func(f jobs.Field[jobs.Event]) bool {
	return !slices.Contains([]string{"kind", "id", "seq", "run", "attempt", "started_at"}, f.Name)
})

func appendNews(b []byte, c *jobs.Commit) []byte {
	b = msgp.AppendUint64(msgp.AppendArrayHeader(b, 8), c.Number)
	b = msgp.AppendInt64(b, int64(c.At))
	b = msgp.AppendUint64(msgp.AppendUint64(b, c.Positions.Jobs), c.Positions.Status)
	removed := 0
	for i := range c.Changes {
		if c.Changes[i].After == nil {
			removed++
		}
	}
	b = msgp.AppendArrayHeader(b, uint32(len(c.Changes)-removed))
	for i := range c.Changes {
		if j := c.Changes[i].After; j != nil {
			b = msgp.AppendUint64(b, j.Key)
		}
	}
	b = msgp.AppendArrayHeader(b, uint32(removed))
	for i := range c.Changes {
		if c.Changes[i].After == nil {
			b = msgp.AppendUint64(b, c.Changes[i].Before.Key)
		}
	}
	b = msgp.AppendArrayHeader(b, uint32(len(c.Outcomes)))
	for i := range c.Outcomes {
		b = packed.AppendArray(b, outcomeFields, &c.Outcomes[i], len(outcomeFields))
	}
	b = msgp.AppendArrayHeader(b, uint32(len(c.Answers)))
	for i := range c.Answers {
		b = appendAnswer(b, &c.Answers[i])
	}
	return b
}

func readNews(r *packed.Reader) *news {
	values := r.Array()
	if values < 8 {
		r.Fail(errors.New("its news are too short"))
	}
	n := &news{number: r.Uint(), at: jobs.Time(r.Int())}
	n.positions = jobs.Positions{Jobs: r.Uint(), Status: r.Uint()}
	n.changed, n.removed = readKeys(r), readKeys(r)
	for left := r.Array(); left > 0 && r.Err == nil; left-- {
		var e jobs.Event
		packed.ReadArray(r, outcomeFields, &e)
		n.outcomes = append(n.outcomes, e)
	}
	for left := r.Array(); left > 0 && r.Err == nil; left-- {
		n.answers = append(n.answers, readAnswer(r))
	}
	r.Skip(values - 8)
	return n
}

func readKeys(r *packed.Reader) (keys []uint64) {
	n := r.Array()
	keys = make([]uint64, 0, min(n, len(r.B)))
	for ; n > 0 && r.Err == nil; n-- {
		keys = append(keys, r.Uint())
	}
	return keys
}

func appendAnswer(b []byte, a *jobs.Answer) []byte {
	b = msgp.AppendUint8(msgp.AppendArrayHeader(b, 5), uint8(a.Kind))
	b = msgp.AppendBytes(b, a.ID[:])
	switch {
	case a.Job == nil:
		b = msgp.AppendBytes(msgp.AppendUint64(b, 0), nil)
	case a.Job.Key != 0:
		b = msgp.AppendBytes(msgp.AppendUint64(b, a.Job.Key), nil)
	default:
		b = msgp.AppendBytes(msgp.AppendUint64(b, 0), record.AppendWhole(nil, a.Job))
	}
	if a.Err == nil {
		return msgp.AppendArrayHeader(b, 0)
	}
	b = msgp.AppendArrayHeader(b, uint32(4+2*len(a.Err.Fields)))
	b = msgp.AppendString(msgp.AppendString(b, string(a.Err.Kind)), a.Err.Detail)
	b = msgp.AppendInt64(b, int64(a.Err.RetryAfter))
	b = msgp.AppendBytes(b, a.Err.JobID[:])
	for _, f := range a.Err.Fields {
		b = msgp.AppendString(msgp.AppendString(b, f.Pointer), f.Detail)
	}
	return b
}

func readAnswer(r *packed.Reader) (a answerNews) {
	values := r.Array()
	if values < 5 {
		r.Fail(errors.New("an answer is too short"))
	}
	kind := r.Uint()
	if kind > uint64(jobs.BatchDone) {
		r.Fail(fmt.Errorf("there is no answer of kind %d", kind))
	}
	a.kind, a.id = jobs.AnswerKind(kind), r.ID()
	a.key = r.Uint()
	if whole := r.RawBytes(); len(whole) > 0 {
		var err error
		a.job, err = record.DecodeWhole(whole)
		r.Fail(err)
	}
	if n := r.Array(); n > 0 {
		if n < 4 || n%2 != 0 {
			r.Fail(fmt.Errorf("a refusal with %d values", n))
		}
		a.err = &jobs.Error{Kind: jobs.ErrorKind(r.Text()), Detail: r.Text(), RetryAfter: time.Duration(r.Int()), JobID: r.ID()}
		for n -= 4; n > 0 && r.Err == nil; n -= 2 {
			a.err.Fields = append(a.err.Fields, jobs.FieldError{Pointer: r.Text(), Detail: r.Text()})
		}
	}
	r.Skip(values - 5)
	return a
}
