package status

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"jobstream/jobs"
	"jobstream/status/boltfile"
	"jobstream/status/index"
	"jobstream/status/record"
)

// An inspection makes all that follows from the records once more, in a file of its own,
// by the code that makes it when jobs change. Then it compares. So it knows nothing by
// itself, and what it repairs is what a new tracker would have.

// inspection looks at one state of the tracker.
type inspection struct {
	tx    *boltfile.Tx   // what is inspected
	want  *boltfile.File // what follows from the records
	found []jobs.Finding
	fixes []fix
	turns map[string][]uint64 // jobs with a turn, by concurrency key
	each  func(*jobs.Job)

	unread int // records
}

// fix is an entry as it should be.
type fix struct{ bucket, key, value []byte } // value nil: there should be none

// inspectPiece is how many records one transaction of the other file takes.
const inspectPiece = 20_000

// Inspect compares the records with everything that follows from them. It reads all in
// one transaction, which takes some seconds per million jobs. What commits change
// meanwhile makes the file grow.
// each is called with every job; it must not keep it.
func (q *Queries) Inspect(ctx context.Context, each func(*jobs.Job)) (found []jobs.Finding, err error) {
	err = q.db.View(func(tx *boltfile.Tx) error {
		i, err := inspect(ctx, tx, each)
		found = i.found
		return err
	})
	return found, err
}

// Inspect is that of [Queries]. With repair, it also mends what it can; those findings
// are found no more by another inspection.
func (s *Stopped) Inspect(ctx context.Context, repair bool, each func(*jobs.Job)) (found []jobs.Finding, err error) {
	var fixes []fix
	err = s.db.View(func(tx *boltfile.Tx) error {
		if err := checkFormat(tx, "", formatOf(&Options{})); err != nil {
			return err
		}
		i, err := inspect(ctx, tx, each)
		found, fixes = i.found, i.fixes
		return err
	})
	if err != nil || !repair || len(fixes) == 0 {
		return found, err
	}
	return found, s.db.Update(func(tx *boltfile.Tx) error {
		for _, f := range fixes {
			b := tx.Bucket(f.bucket)
			var err error
			if f.value == nil {
				err = b.Delete(f.key)
			} else {
				err = b.Put(f.key, f.value)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func inspect(ctx context.Context, tx *boltfile.Tx, each func(*jobs.Job)) (i *inspection, err error) {
	i = &inspection{tx: tx, each: each, turns: make(map[string][]uint64)}
	for _, name := range [][]byte{
		bucketMeta, bucketJobs, bucketPayloads, bucketIDs, bucketMoved, bucketBits, bucketDue, bucketLimits, bucketUnique, bucketSlots,
		bucketHeld, bucketTokens, bucketTokenAge, bucketBatches, bucketInputs, bucketInputJobs, bucketInputAge,
	} {
		if tx.Bucket(name).Missing() {
			i.note("tracker.old", "the tracker was written by an earlier version and is inspected after the next start", "start the server once")
			return i, nil
		}
	}
	meta := tx.Bucket(bucketMeta)
	if v := meta.Get(keyIndexes); len(v) != 1 {
		i.note("tracker.old", "the jobs of an earlier version are not all indexed yet", "start the server once")
		return i, nil
	}
	if meta.Get(keyRebuild) != nil {
		i.note("tracker.rebuild", "the tracker is being rebuilt from the streams", "wait until that has ended")
	}
	dir, err := os.MkdirTemp("", "jobstream-doctor-*")
	if err != nil {
		return i, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	i.want, err = boltfile.Open(boltfile.Options{Path: filepath.Join(dir, "want.db"), Unsynced: true, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return i, err
	}
	defer func() { err = errors.Join(err, i.want.Close()) }()
	if err := i.derive(ctx); err != nil || i.unread > 0 {
		return i, err // the entries of a record that cannot be read would look wrong
	}
	return i, i.want.View(i.compare)
}

func (i *inspection) note(check, text, do string) {
	i.found = append(i.found, jobs.Finding{Check: check, Severity: jobs.Notice, Text: text, Do: do})
}

// broken adds a finding that nobody can repair.
func (i *inspection) broken(check, do, format string, args ...any) {
	i.found = append(i.found, jobs.Finding{Check: check, Severity: jobs.Broken, Text: fmt.Sprintf(format, args...), Do: do})
}

// derive makes what follows from the records.
func (i *inspection) derive(ctx context.Context) error {
	if err := i.want.Update(func(w *boltfile.Tx) error {
		return w.Create(allBuckets...)
	}); err != nil {
		return err
	}
	var cache index.Cache
	cache.Reset()
	counters, spans := make(map[string]*index.Counters), make(map[uint32]index.Span)
	c := i.tx.Bucket(bucketJobs).Cursor()
	k, raw := c.First()
	for k != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		err := i.want.Update(func(w *boltfile.Tx) error {
			x := newIndexes(w, &cache, newLatest())
			x.counters, x.spans = counters, spans
			for n := 0; k != nil && n < inspectPiece; n++ {
				if err := i.deriveOne(w, x, k, raw); err != nil {
					return err
				}
				k, raw = c.Next()
			}
			return x.write()
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// restoreBackup is the advice for what cannot be made again.
const restoreBackup = "restore a backup if the job is needed; see jobstream restore"

func (i *inspection) deriveOne(w *boltfile.Tx, x *indexes, k, raw []byte) error {
	j, apart, err := record.Decode(raw)
	if err != nil || len(k) != 8 || j.Key != binary.BigEndian.Uint64(k) {
		i.unread++
		i.broken("record", restoreBackup, "the record at key %x cannot be read: %v", k, err)
		return nil
	}
	if i.each != nil {
		i.each(j)
	}
	if err := x.update(&work{job: j}); err != nil {
		return err
	}
	err = errors.Join(w.Bucket(bucketIDs).Put(j.ID[:], k), updateAgenda(w, nil, j))
	if apart {
		if i.tx.Bucket(bucketPayloads).Get(k) == nil {
			i.broken("payload", restoreBackup, "the payload of job %s is missing", j.ID)
		}
		err = errors.Join(err, w.Bucket(bucketPayloads).Put(k, nil))
	}
	if j.Seq != j.Key && j.Seq != 0 {
		err = errors.Join(err, w.Bucket(bucketMoved).Put(key8(j.Seq), k))
	}
	if j.Terms != nil && j.Terms.ConcurrencyKey != "" {
		if j.Slot {
			i.turns[string(slotName(j))] = append(i.turns[string(slotName(j))], j.Key)
		}
		if j.Place == jobs.Held && !j.Status.Ended() {
			err = errors.Join(err, w.Bucket(bucketHeld).Put(heldKey(j), nil))
		}
	}
	if key := uniqueKey(j.CreatedBy, j.Terms); key != "" && !j.Status.Ended() {
		err = errors.Join(err, w.Bucket(bucketUnique).Put([]byte(key), j.ID[:]))
	}
	for n := range j.Inputs() {
		id := j.Inputs()[n].ID
		err = errors.Join(err, w.Bucket(bucketInputJobs).Put(append(id[:], k...), nil))
	}
	return err
}

// compared are the buckets that are compared entry by entry.
var compared = []struct {
	bucket []byte
	check  string
	what   string // the entries
	harm   string // of a wrong one
	values bool   // they count, too
	more   bool   // there may be more entries than those that follow from the records
}{
	{bucketIDs, "index.ids", "ids", "jobs are not found by their id", true, false},
	{bucketBits, "index.attributes", "bitmaps of attributes", "lists and counts are wrong", true, false},
	{bucketDue, "index.due", "due jobs", "delayed jobs and retries do not start", false, false},
	{bucketLimits, "index.limits", "expiries and deadlines", "jobs do not expire", false, false},
	{bucketHeld, "key.held", "jobs that wait for their concurrency key", "jobs do not get their turn", false, false},
	{bucketPayloads, "payload.orphan", "payloads", "they take space", false, false},
	{bucketMoved, "index.moved", "later sequences of jobs", "jobs are not found by them", true, true},
	{bucketInputJobs, "input.jobs", "jobs of inputs", "files are kept for ever, or dropped too early", false, false},
}

func (i *inspection) compare(w *boltfile.Tx) error {
	for _, c := range compared {
		d := differences{inspection: i, bucket: c.bucket, more: c.more, values: c.values}
		d.walk(w.Bucket(c.bucket).Cursor())
		d.report(c.check, c.what, c.harm)
	}
	if err := i.compareCounters(w); err != nil {
		return err
	}
	i.compareUnique(w)
	i.compareTurns()
	i.compareTokens()
	i.compareInputs(w)
	return nil
}

// differences are those of one bucket.
type differences struct {
	*inspection
	bucket       []byte
	values, more bool

	missing, extra, wrong int
	example               []byte // the key of the first
}

func (d *differences) walk(want boltfile.Cursor) {
	have := d.tx.Bucket(d.bucket).Cursor()
	hk, hv := have.First()
	wk, wv := want.First()
	for hk != nil || wk != nil {
		order := bytes.Compare(hk, wk)
		switch {
		case hk == nil || wk != nil && order > 0:
			d.differ(&d.missing, wk, wv)
			wk, wv = want.Next()
		case wk == nil || order < 0:
			if !d.more {
				d.differ(&d.extra, hk, nil)
			}
			hk, hv = have.Next()
		default:
			if d.values && !bytes.Equal(hv, wv) {
				d.differ(&d.wrong, wk, wv)
			}
			hk, hv = have.Next()
			wk, wv = want.Next()
		}
	}
}

// differ counts an entry, and notes what would be right. value nil: it should not be there.
func (d *differences) differ(count *int, key, value []byte) {
	if *count++; d.example == nil {
		d.example = bytes.Clone(key)
	}
	f := fix{bucket: d.bucket, key: bytes.Clone(key)}
	if count != &d.extra {
		f.value = append([]byte{}, value...)
	}
	if count == &d.missing && bytes.Equal(d.bucket, bucketPayloads) {
		return // no payload can be made
	}
	d.fixes = append(d.fixes, f)
}

// repairIt is the advice for what can be repaired.
const repairIt = "stop the server and run jobstream doctor --data DIR --repair"

func (d *differences) report(check, what, harm string) {
	if bytes.Equal(d.bucket, bucketPayloads) {
		d.missing = 0 // each has been reported
	}
	if d.missing+d.extra+d.wrong == 0 {
		return
	}
	severity := jobs.Broken
	if d.missing+d.wrong == 0 {
		severity = jobs.Warning
	}
	d.found = append(d.found, jobs.Finding{
		Check: check, Severity: severity, Repairs: true, Do: repairIt,
		Text: fmt.Sprintf("%s: %d are missing, %d are wrong, %d lead nowhere (the first is %x), so %s", what, d.missing, d.wrong, d.extra, d.example, harm),
	})
}

// repairable adds a finding with its repair.
func (i *inspection) repairable(check string, s jobs.Severity, f []fix, format string, args ...any) {
	i.fixes = append(i.fixes, f...)
	i.found = append(i.found, jobs.Finding{Check: check, Severity: s, Text: fmt.Sprintf(format, args...), Do: repairIt, Repairs: true})
}

// compareCounters compares how many jobs of each type there are now. How many there ever
// were is in the counters alone.
func (i *inspection) compareCounters(w *boltfile.Tx) error {
	want := make(map[string]*index.Counters)
	if err := eachCounter(w, func(name string, c *index.Counters) { want[name] = c }); err != nil {
		return err
	}
	return eachCounter(i.tx, func(name string, have *index.Counters) {
		is := want[name]
		if is == nil {
			is = &index.Counters{}
		}
		if have.Now == is.Now {
			return
		}
		right := *have
		right.Now = is.Now
		for s := range right.Ended {
			right.Ended[s] = max(right.Ended[s], is.Ended[s])
		}
		i.repairable("counts", jobs.Broken, []fix{{bucketMeta, []byte(prefixType + name), right.Encode()}},
			"type %s: its jobs by status are counted as %v, but are %v, so the bounds of the queue are wrong", name, have.Now, is.Now)
	})
}

// compareUnique compares who has the unique keys. A batch that is not complete may have
// some for jobs to come.
func (i *inspection) compareUnique(w *boltfile.Tx) {
	have, want := i.tx.Bucket(bucketUnique), w.Bucket(bucketUnique)
	var missing, stale []fix
	for c, k, v := cursorOf(want); k != nil; k, v = c.Next() {
		if h := have.Get(k); len(h) < 16 || !bytes.Equal(h[:16], v) {
			missing = append(missing, fix{bucketUnique, bytes.Clone(k), bytes.Clone(v)})
		}
	}
	for c, k, v := cursorOf(have); k != nil; k, v = c.Next() {
		if want.Get(k) == nil && (len(v) != 32 || i.tx.Bucket(bucketBatches).Get(v[16:]) == nil) {
			stale = append(stale, fix{bucketUnique, bytes.Clone(k), nil})
		}
	}
	if n := len(missing); n > 0 {
		i.repairable("key.unique", jobs.Broken, missing, "%d unfinished jobs do not have their unique key, so others may get it (the first is %q)", n, missing[0].key)
	}
	if n := len(stale); n > 0 {
		i.repairable("key.unique.stale", jobs.Warning, stale, "%d unique keys belong to no unfinished job (the first is %q)", n, stale[0].key)
	}
}

// compareTurns compares which jobs have a turn of their concurrency key.
func (i *inspection) compareTurns() {
	var wrong []fix
	seen := make(map[string]bool)
	for c, k, v := cursorOf(i.tx.Bucket(bucketSlots)); k != nil; k, v = c.Next() {
		seen[string(k)] = true
		var have []uint64
		for ; len(v) >= 8; v = v[8:] {
			have = append(have, binary.BigEndian.Uint64(v))
		}
		slices.Sort(have)
		if want := i.turns[string(k)]; !slices.Equal(have, want) { // those came by key
			wrong = append(wrong, turnFix(bytes.Clone(k), want))
		}
	}
	for name, want := range i.turns {
		if !seen[name] {
			wrong = append(wrong, turnFix([]byte(name), want))
		}
	}
	if n := len(wrong); n > 0 {
		i.repairable("key.turns", jobs.Broken, wrong, "%d concurrency keys have turns of other jobs than their records say, so jobs wait for ever or run beside each other (the first is %q)", n, wrong[0].key)
	}
}

func turnFix(name []byte, keys []uint64) fix {
	var v []byte
	for _, key := range keys {
		v = binary.BigEndian.AppendUint64(v, key)
	}
	return fix{bucketSlots, name, v}
}

// compareTokens compares idempotency keys with the list by age, by which they are
// forgotten.
func (i *inspection) compareTokens() {
	tokens, ages := i.tx.Bucket(bucketTokens), i.tx.Bucket(bucketTokenAge)
	var wrong []fix
	for c, k, v := cursorOf(tokens); k != nil; k, v = c.Next() {
		if len(v) < tokenHead {
			wrong = append(wrong, fix{bucketTokens, bytes.Clone(k), nil})
		} else if age := slices.Concat(v[:8], k); !there(ages, age) {
			wrong = append(wrong, fix{bucketTokenAge, age, []byte{}})
		}
	}
	for c, k, _ := cursorOf(ages); k != nil; k, _ = c.Next() {
		if v := tokens.Get(k[min(8, len(k)):]); len(v) < 8 || !bytes.Equal(v[:8], k[:8]) {
			wrong = append(wrong, fix{bucketTokenAge, bytes.Clone(k), nil})
		}
	}
	if n := len(wrong); n > 0 {
		i.repairable("key.idempotency", jobs.Warning, wrong, "%d idempotency keys and their list by age do not fit together, so they are forgotten too late or never (the first is %x)", n, wrong[0].key)
	}
}

// compareInputs compares the inputs that no job has with the list by age, by which they
// are dropped.
func (i *inspection) compareInputs(w *boltfile.Tx) {
	in := inputs{tx: i.tx}
	var wrong []fix
	for c, k, v := cursorOf(in.entries()); k != nil; k, v = c.Next() {
		if len(k) != 16 || len(v) < 8 {
			continue
		}
		owner, _ := w.Bucket(bucketInputJobs).Cursor().Seek(k)
		age := slices.Concat(v[:8], k)
		switch has := bytes.HasPrefix(owner, k); {
		case has && there(in.ages(), age):
			wrong = append(wrong, fix{bucketInputAge, age, nil})
		case !has && !there(in.ages(), age):
			wrong = append(wrong, fix{bucketInputAge, age, []byte{}})
		}
	}
	for c, k, _ := cursorOf(in.ages()); k != nil; k, _ = c.Next() {
		if in.entries().Get(k[min(8, len(k)):]) == nil {
			wrong = append(wrong, fix{bucketInputAge, bytes.Clone(k), nil})
		}
	}
	if n := len(wrong); n > 0 {
		i.repairable("input.age", jobs.Broken, wrong, "%d inputs are listed wrongly as used or unused, so their files are dropped too early or never (the first is %x)", n, wrong[0].key)
	}
}

func there(b boltfile.Bucket, key []byte) bool {
	k, _ := b.Cursor().Seek(key)
	return bytes.Equal(k, key)
}

// cursorOf is a cursor at the first entry of a bucket.
func cursorOf(b boltfile.Bucket) (c boltfile.Cursor, k, v []byte) {
	c = b.Cursor()
	k, v = c.First()
	return c, k, v
}
