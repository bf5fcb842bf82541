package status

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"jobstream/jobs"
	"jobstream/jobs/jobstest"
	"jobstream/jobs/replica"
	"jobstream/status/boltfile"
)

// testLog is a log in memory.
type testLog struct {
	mu     sync.Mutex
	bodies [][]byte
	fail   func() error // the answer to the next seals; nil = they succeed
}

var errSeal = errors.New("no answer from the log")

func (l *testLog) seal(body []byte) (replica.Position, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail != nil {
		if err := l.fail(); err != nil {
			return replica.Position{}, err
		}
	}
	l.bodies = append(l.bodies, bytes.Clone(body))
	return positionOf(len(l.bodies)), nil
}

// positionOf is that behind the first n entries.
func positionOf(n int) replica.Position {
	return replica.Position{Seq: uint64(n), Number: uint64(n), Epoch: 1, Hash: replica.HashOf(key8(uint64(n)))}
}

// from are the entries behind the first n, and the position behind them.
func (l *testLog) from(n int) ([][]byte, replica.Position) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.bodies[n:]), positionOf(len(l.bodies))
}

// shared are the contents of a tracker that are equal in all replicas.
func (tr *tracker) shared() map[string]string {
	all := tr.contents()
	for _, key := range ownKeys {
		delete(all, fmt.Sprintf("meta %q", key))
	}
	return all
}

func (tr *tracker) mustBe(want map[string]string) {
	tr.t.Helper()
	have := tr.shared()
	for _, k := range slices.Sorted(maps.Keys(want)) {
		if have[k] != want[k] {
			tr.t.Fatalf("%s is %s, want %s", k, have[k], want[k])
		}
	}
	for k := range have {
		if _, ok := want[k]; !ok {
			tr.t.Fatalf("%s is %s and should not be there", k, have[k])
		}
	}
}

// sameJob compares jobs that may be nil.
func sameJob(a, b *jobs.Job) bool {
	if a == nil || b == nil {
		return a == b
	}
	return jobstest.Same(a, b)
}

// mustTell compares what two trackers have told of one transaction.
func mustTell(t tb, got, want *jobs.Commit) {
	t.Helper()
	if got.Number != want.Number || got.At != want.At || got.Positions != want.Positions || got.Load != want.Load {
		t.Fatalf("it tells of commit %+v\nwant %+v", got, want)
	}
	if len(got.Changes) != len(want.Changes) || len(got.Answers) != len(want.Answers) || len(got.Outcomes) != len(want.Outcomes) {
		t.Fatalf("it tells of %d changes, %d answers and %d outcomes; want %d, %d and %d", len(got.Changes), len(got.Answers), len(got.Outcomes),
			len(want.Changes), len(want.Answers), len(want.Outcomes))
	}
	for i, w := range want.Changes {
		if g := got.Changes[i]; !sameJob(g.Before, w.Before) || !sameJob(g.After, w.After) {
			t.Fatalf("change %d\ngot  %+v\n  to %+v\nwant %+v\n  to %+v", i, g.Before, g.After, w.Before, w.After)
		}
	}
	for i, w := range want.Answers {
		g := got.Answers[i]
		if g.Kind != w.Kind || g.ID != w.ID || !sameJob(g.Job, w.Job) || !reflect.DeepEqual(g.Err, w.Err) || (g.Batch == nil) != (w.Batch == nil) {
			t.Fatalf("answer %d is %+v, want %+v", i, g, w)
		}
		if w.Batch != nil && (g.Batch.ID != w.Batch.ID || len(g.Batch.Messages) != len(w.Batch.Messages)) {
			t.Fatalf("the batch of answer %d is %+v, want %+v", i, g.Batch, w.Batch)
		}
	}
	for i := range want.Outcomes {
		g, w := &got.Outcomes[i], &want.Outcomes[i]
		if g.Kind != w.Kind || g.ID != w.ID || g.Seq != w.Seq || g.Run != w.Run || g.Attempt != w.Attempt || g.StartedAt != w.StartedAt {
			t.Fatalf("outcome %d is %+v, want %+v", i, g, w)
		}
	}
}

// mustAnswer compares what can be asked of two trackers.
func mustAnswer(t tb, got, want *tracker) {
	t.Helper()
	for _, q := range []struct {
		name string
		ask  func(*tracker) (any, error)
	}{
		{"positions", func(tr *tracker) (any, error) { return tr.Positions(), nil }},
		{"number", func(tr *tracker) (any, error) { return tr.Number(), nil }},
		{"new", func(tr *tracker) (any, error) { return tr.New(), nil }},
		{"floor", func(tr *tracker) (any, error) { floor, n := tr.Floor(); return [2]any{floor, n}, nil }},
		{"callbacks", func(tr *tracker) (any, error) { return tr.QueuedCallbacks(), nil }},
		{"totals", func(tr *tracker) (any, error) { a, b := tr.Totals(); return [2]int{a, b}, nil }},
		{"figures", func(tr *tracker) (any, error) { return tr.Figures(), nil }},
		{"counts in memory", func(tr *tracker) (any, error) { return tr.Now(), nil }},
		{"hashes", func(tr *tracker) (any, error) { return tr.Hashes(context.Background()) }},
		{"deleted lately", func(tr *tracker) (any, error) { return slices.Sorted(maps.Values(tr.gone.at)), nil }},
		{"tags", func(tr *tracker) (any, error) {
			tags, _, err := tr.Tags(context.Background(), "", "", 10)
			return tags, err
		}},
		{"failures", func(tr *tracker) (any, error) { return tr.Failures(context.Background(), jobs.FailurePage{}) }},
		{"counts", func(tr *tracker) (any, error) { return tr.Counts(context.Background(), jobs.Filter{}) }},
		{"some counts", func(tr *tracker) (any, error) {
			return tr.Counts(context.Background(), jobs.Filter{Tags: []string{"red"}})
		}},
		{"schedules", func(tr *tracker) (any, error) { return tr.Schedules(context.Background()) }},
		{"pauses", func(tr *tracker) (any, error) { return tr.Pauses() }},
		{"disabled", func(tr *tracker) (any, error) { return tr.Disabled() }},
		{"search", func(tr *tracker) (any, error) {
			var found []uint64
			_, err := tr.Search(context.Background(), jobs.Page{Filter: jobs.Filter{Types: []string{"email"}, Tags: []string{"red"}}, Limit: 100}, func(j *jobs.Job) bool {
				found = append(found, j.Key)
				return true
			})
			return found, err
		}},
	} {
		g, err := q.ask(got)
		w, errW := q.ask(want)
		if err != nil || errW != nil || !reflect.DeepEqual(g, w) {
			t.Fatalf("%s: %+v (%v), want %+v (%v)", q.name, g, err, w, errW)
		}
	}
	all := want.all(jobs.Filter{Callbacks: true})
	if list := got.all(jobs.Filter{Callbacks: true}); !slices.EqualFunc(list, all, jobstest.Same) {
		t.Fatalf("it lists %v, want %v", keysOf(list), keysOf(all))
	}
	for _, j := range all { // most of them from memory
		g, err := got.Find(j.Seq)
		w, errW := want.Find(j.Seq)
		if err != nil || errW != nil || !jobstest.Same(g, w) {
			t.Fatalf("message %d is of %+v (%v), want %+v (%v)", j.Seq, g, err, w, errW)
		}
	}
}

// What one tracker seals makes another one of an empty file: by its writes alone, and
// with all that is told and can be asked. Seals that fail in between leave no trace, and
// sealing changes nothing in what the tracker does.
func TestReplica(t *testing.T) {
	t.Parallel()
	dir, n := t.TempDir(), 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		of := func(name string) Options {
			return Options{Path: filepath.Join(dir, fmt.Sprint(n, name)), Registry: termTypes}
		}
		leader, alone, follower, file := open(rt, of("leads")), open(rt, of("alone")), open(rt, of("follows")), open(rt, of("writes"))
		var log testLog
		leader.Replica().Lead(log.seal)
		follows := follower.Replica()
		follower.Listen(follower.see)
		defer func() {
			if err := errors.Join(leader.Close(), alone.Close(), follower.Close(), file.Close()); err != nil {
				rt.Error(err)
			}
		}()
		p := &past{tracker: leader, rt: rt, now: epoch}
		var told []jobs.Commit
		applied := 0
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			s := p.draw()
			again := s.replayed(rt)
			if rapid.IntRange(0, 3).Draw(rt, "refused") == 0 {
				before := leader.contents()
				log.fail = func() error { return errSeal }
				if c, _, err := leader.makes(s.replayed(rt)); !errors.Is(err, errSeal) || c != nil {
					rt.Fatalf("a step that cannot be sealed: %v, %v", c, err)
				}
				leader.bits.Reset() // as whoever calls fold does
				log.fail = nil
				if !maps.Equal(before, leader.contents()) {
					rt.Fatal("a transaction that was not sealed has changed the file")
				}
			}
			leader.share.marked = time.Time{} // the next mark is due
			c, _, err := leader.makes(s)
			if err != nil {
				rt.Fatalf("%+v: %v", s, err)
			}
			want, _, err := alone.makes(again)
			if err != nil {
				rt.Fatalf("%+v: %v", s, err)
			}
			mustTell(rt, c, want)
			told = append(told, *c)
			if rapid.IntRange(0, 3).Draw(rt, "later") == 0 {
				continue
			}
			bodies, at := log.from(applied)
			applied += len(bodies)
			if err := follows.Apply(bodies, at); err != nil {
				rt.Fatalf("apply: %v", err)
			}
			file.must(file.db.Update(func(tx *boltfile.Tx) error {
				for _, b := range bodies {
					e, err := decodeBody(b, &formats{most: formatOf(&Options{})})
					if err != nil {
						return err
					}
					for i := range e.writes {
						if err := e.writes[i].do(tx); err != nil {
							return err
						}
					}
				}
				return nil
			}))
			contents := leader.shared()
			alone.mustBe(contents)
			follower.mustBe(contents)
			file.mustBe(contents)
			if len(follower.seen) != len(told) {
				rt.Fatalf("the follower has told of %d transactions, want %d", len(follower.seen), len(told))
			}
			for i := range told {
				mustTell(rt, &follower.seen[i], &told[i])
			}
			told, follower.seen = nil, nil
			if mark := follows.Mark(); mark.Sealed == 0 || mark != leader.share.mark {
				rt.Fatalf("the follower has the mark %+v, and the leader %+v", mark, leader.share.mark)
			}
			mustAnswer(rt, follower, leader)
			if rapid.IntRange(0, 9).Draw(rt, "reopen") == 0 {
				gone := follower.gone
				follower.reopen()
				follower.gone, follows = gone, follower.Replica()
				follower.Listen(follower.see)
				if follows.Position() != at {
					rt.Fatalf("after a restart it is at %+v, want %+v", follows.Position(), at)
				}
			}
		}
	})
}

// led is a tracker that leads, and a step of one new job that it can make.
func led(t *testing.T) (tr *tracker, log *testLog, next func() step) {
	t.Helper()
	tr, log = openTemp(t, Options{Registry: termTypes}), &testLog{}
	tr.Replica().Lead(log.seal)
	n := uint64(0)
	return tr, log, func() step {
		n++
		m := message(n)
		return step{in: input{now: epoch.Add(seconds(int(n))), registry: termTypes}, batch: &batch{messages: []jobs.Message{*m}, jobs: n}}
	}
}

// A transaction of which the leader does not know whether it is in the log is rolled back.
// If the log has it, the tracker applies it as any other one, and can lead again.
func TestSealInDoubt(t *testing.T) {
	t.Parallel()
	tr, log, next := led(t)
	tr.does(next())
	var lost []byte
	tr.Replica().Lead(func(body []byte) (replica.Position, error) {
		lost = bytes.Clone(body)
		return replica.Position{}, errSeal
	})
	before := tr.contents()
	if _, _, err := tr.makes(next()); !errors.Is(err, errSeal) {
		t.Fatalf("without an answer of the log: %v", err)
	}
	if !maps.Equal(tr.contents(), before) || tr.Number() != 1 {
		t.Error("what was not sealed has changed something")
	}
	r := tr.Replica()
	if _, _, err := tr.makes(next()); !errors.Is(err, replica.ErrDeposed) {
		t.Errorf("a change while it follows: %v", err)
	}
	tr.must(r.Apply([][]byte{lost}, positionOf(2)))
	if tr.Number() != 2 || r.Position() != positionOf(2) {
		t.Errorf("it is at commit %d and %+v", tr.Number(), r.Position())
	}
	log.bodies = append(log.bodies, lost)
	r.Lead(log.seal)
	tr.does(next()) // the one that was refused took a message
	other := openTemp(t, Options{Registry: termTypes})
	bodies, at := log.from(0)
	tr.must(other.Replica().Apply(bodies, at))
	other.mustBe(tr.shared())
}

// Entries that are here already are passed over. If one is missing, nothing is applied,
// however the others come.
func TestApplyInOrder(t *testing.T) {
	t.Parallel()
	tr, log, next := led(t)
	for range 5 {
		tr.does(next())
	}
	bodies, _ := log.from(0)
	other := openTemp(t, Options{Registry: termTypes})
	other.Listen(other.see)
	r := other.Replica()
	for _, gap := range [][][]byte{bodies[1:], {bodies[0], bodies[2]}, {bodies[1], bodies[0]}} {
		if err := r.Apply(gap, positionOf(3)); !errors.Is(err, replica.ErrApart) {
			t.Errorf("with a gap: %v", err)
		}
		if other.Number() != 0 || r.Position() != (replica.Position{}) || len(other.seen) != 0 {
			t.Fatalf("entries behind a gap were applied up to %+v", r.Position())
		}
	}
	tr.must(r.Apply(bodies[:2], positionOf(2)))
	tr.must(r.Apply(bodies[:2], positionOf(2)))
	tr.must(r.Apply(bodies[:1], positionOf(1)))
	if r.Position() != positionOf(2) || len(other.seen) != 2 {
		t.Errorf("after the same entries again it is at %+v, and has told of %d", r.Position(), len(other.seen))
	}
	tr.must(r.Apply(bodies, positionOf(5))) // the first two once more
	tr.must(r.Apply(nil, positionOf(7)))    // two without changes
	if r.Position() != positionOf(7) || len(other.seen) != 5 {
		t.Errorf("it is at %+v, and has told of %d", r.Position(), len(other.seen))
	}
	other.mustBe(tr.shared())

	// The other one changes by itself: it has left the log.
	other.reopen()
	other.does(step{in: input{now: epoch, registry: termTypes}, commands: []jobs.Command{jobs.Pause{Type: "email", Paused: true}}})
	if at := other.share.position(); at != (replica.Position{}) {
		t.Errorf("a tracker that has changed by itself is in the log at %+v", at)
	}
	if err := other.Replica().Apply([][]byte{bodies[4]}, positionOf(8)); !errors.Is(err, replica.ErrApart) {
		t.Errorf("and applies what comes next there: %v", err)
	}
}

// The projector runs when its tracker leads, ends when that is deposed, and runs again.
func TestRunWhileLeading(t *testing.T) {
	t.Parallel()
	tr := openTemp(t, Options{})
	var log testLog
	r := tr.Replica()
	ctx, cancel := within(t)
	defer cancel()
	var refused *jobs.Error
	if err := tr.SetPaused(ctx, "email", true); !errors.As(err, &refused) || refused.Kind != jobs.Unavailable {
		t.Errorf("a command while it follows: %v", err)
	}
	for round := range uint64(3) {
		log.fail = nil
		r.Lead(log.seal)
		tr.run(idle{})
		tr.submit(message(2*round + 1))
		tr.wait(2*round+1, 0)
		tr.must(tr.SetPaused(ctx, "email", round%2 == 0))
		log.mu.Lock()
		log.fail = func() error { return replica.ErrDeposed }
		log.mu.Unlock()
		tr.submit(message(2*round + 2))
		if err := <-tr.done; !errors.Is(err, replica.ErrDeposed) {
			t.Errorf("Run of a deposed leader: %v", err)
		}
		tr.cancel = nil
		r.Follow()
		if err := tr.SetPaused(ctx, "email", true); !errors.As(err, &refused) || refused.Kind != jobs.Unavailable {
			t.Errorf("a command after it was deposed: %v", err)
		}
		if err := tr.Health(); err != nil {
			t.Errorf("a follower is not healthy: %v", err)
		}
		log.fail = nil
		r.Lead(log.seal)
		tr.run(idle{})
		tr.submit(message(2*round + 2))
		tr.wait(2*round+2, 0)
		tr.must(tr.halt())
		r.Follow()
	}
	other := openTemp(t, Options{})
	bodies, at := log.from(0)
	tr.must(other.Replica().Apply(bodies, at))
	other.mustBe(tr.shared())
}

// unreadable is a source that cannot be read.
type unreadable struct{}

func (unreadable) Read(context.Context, jobs.Positions, jobs.Sink) error {
	return errors.New("no stream")
}

// A leader that could not read the streams at first runs its projector again. It folds what
// comes then.
func TestRunAfterTheStreamsFailed(t *testing.T) {
	t.Parallel()
	tr := openTemp(t, Options{})
	var log testLog
	r := tr.Replica()
	r.Lead(log.seal)
	tr.run(unreadable{})
	if err := <-tr.done; err == nil {
		t.Error("nobody hears that the streams cannot be read")
	}
	tr.cancel = nil
	r.Resume()
	tr.run(idle{})
	tr.submit(message(1))
	tr.wait(1, 0)
	tr.must(tr.halt())
}

// The key of leases is the same everywhere, though no command makes it. The name of the
// node and the marks of its stops are its own.
func TestOwnKeys(t *testing.T) {
	t.Parallel()
	tr, log, next := led(t)
	key, err := tr.LeaseKey()
	tr.must(err)
	_, err = tr.Node("a")
	tr.must(err)
	tr.does(next())
	other := openTemp(t, Options{Registry: termTypes})
	_, err = other.Node("b")
	tr.must(err)
	bodies, at := log.from(0)
	tr.must(other.Replica().Apply(bodies, at))
	tr.must(other.MarkClean(Clean{Jobs: 1}))
	other.mustBe(tr.shared())
	if same, err := other.LeaseKey(); err != nil || !bytes.Equal(same, key) {
		t.Errorf("the other node has the key %x: %v", same, err)
	}
	if name, err := other.Node(""); err != nil || name != "b" {
		t.Errorf("the other node is named %q: %v", name, err)
	}
}

// Entries have the numbers of buckets, so these are for ever.
func TestBucketNumbers(t *testing.T) {
	t.Parallel()
	want := strings.Fields(`meta jobs payloads ids moved bits times outbox copies copyages aliases due limits unique slots held
		tokens tokenage batches types schedules inputs inputjobs inputage disabled ended failures failureages audit refusals scheduleruns`)
	for i, name := range want {
		if i >= len(allBuckets) || string(allBuckets[i]) != name {
			t.Errorf("bucket %d is not %s any more", i, name)
		}
	}
	if len(bucketNumbers) != len(allBuckets) {
		t.Error("two buckets have one name")
	}
}

// Nothing changes the file but what is sealed, and what each node has for itself. Whoever
// adds a transaction here decides which of the two it is. The buckets themselves cannot be
// passed by: their type is that of boltfile.
func TestOnePlaceChanges(t *testing.T) {
	t.Parallel()
	may := map[string]string{
		"change":      "seals it",
		"apply":       "has it from the log",
		"prepare":     "makes the same in every file",
		"reindex":     "makes the same in every file",
		"RemoveClean": "is of this node's start",
		"MarkClean":   "is of this node's stop",
		"Node":        "is this node's name",
		"adopt":       "has what each node has for itself",
		"Inspect":     "repairs a stopped one",
		"derive":      "writes another file",
		"ForgetNodes": "is of a new cluster, whose log has not begun",
	}
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	found := 0
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(gotoken.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			name := ""
			if f, ok := d.(*ast.FuncDecl); ok {
				name = f.Name.Name
			}
			ast.Inspect(d, func(n ast.Node) bool {
				if s, ok := n.(*ast.SelectorExpr); ok && (s.Sel.Name == "Update" || s.Sel.Name == "UpdateLast") {
					found++
					if may[name] == "" {
						t.Errorf("%s: %s changes the tracker's file; let Projector.change do that, or say here why not", path, name)
					}
				}
				return true
			})
		}
	}
	if found < len(may) {
		t.Errorf("only %d transactions were found", found)
	}
}

// Each entry counts for the hash of its bucket, and so does the sequence; what a node has
// for itself does not.
func TestHashes(t *testing.T) {
	t.Parallel()
	tr, _, next := led(t)
	tr.does(next())
	hashes := func() map[string]string {
		all, err := tr.Hashes(context.Background())
		tr.must(err)
		if len(all) != len(allBuckets) {
			t.Errorf("%d hashes", len(all))
		}
		return all
	}
	before := hashes()
	differ := func(f func(tx *boltfile.Tx) error) (names []string) {
		tr.must(tr.db.Update(f))
		after := hashes()
		for name := range after {
			if after[name] != before[name] {
				names = append(names, name)
			}
		}
		before = after
		return names
	}
	for _, d := range []struct {
		bucket string
		f      func(b boltfile.Bucket) error
	}{
		{"unique", func(b boltfile.Bucket) error { return b.Put([]byte("a"), []byte("bc")) }},
		{"unique", func(b boltfile.Bucket) error {
			return errors.Join(b.Delete([]byte("a")), b.Put([]byte("ab"), []byte("c")))
		}},
		{"unique", func(b boltfile.Bucket) error { return b.Put([]byte("ab"), nil) }},
		{"jobs", func(b boltfile.Bucket) error { return b.Delete(key8(1)) }},
		{"audit", func(b boltfile.Bucket) error { return b.SetSequence(7) }},
		{"meta", func(b boltfile.Bucket) error { return b.Put(keyNumber, key8(9)) }},
	} {
		if got := differ(func(tx *boltfile.Tx) error { return d.f(tx.Bucket([]byte(d.bucket))) }); !slices.Equal(got, []string{d.bucket}) {
			t.Errorf("a change in %s changes the hashes of %q", d.bucket, got)
		}
	}
	_, err := tr.Node("name")
	tr.must(err)
	if got := differ(func(*boltfile.Tx) error { return nil }); len(got) > 0 {
		t.Errorf("the node's name changes the hashes of %q", got)
	}
	tr.damaged = true
}

var errUndo = errors.New("undo")

// Bytes from outside are refused, or applied as what they say; they break nothing.
func FuzzBody(f *testing.F) {
	dir := f.TempDir()
	tr := open(f, Options{Path: filepath.Join(dir, "leads"), Registry: termTypes})
	var log testLog
	tr.Replica().Lead(log.seal)
	m := message(1)
	m.Terms = &jobs.Terms{UniqueKey: "u", ConcurrencyKey: "c", CallbackURL: hookA}
	m.Token = jobs.NewToken("test", "k", []byte("x"))
	twice := *m
	twice.ID = jobs.NewID()
	for i, s := range []step{
		{batch: &batch{messages: []jobs.Message{*m}, jobs: 1}},
		{batch: &batch{messages: []jobs.Message{twice}, jobs: 2, events: []jobs.Event{event(jobs.KindFailed, m, 1)}, status: 1}},
		{commands: []jobs.Command{jobs.Reserve{Batch: batchOf(nil, message(7))}, jobs.Retry{Keys: []uint64{1}}}},
		{commands: []jobs.Command{jobs.Delete{Keys: []uint64{1}}}},
	} {
		s.in = input{now: epoch.Add(seconds(i)), registry: termTypes}
		tr.does(s)
	}
	for _, b := range log.bodies {
		f.Add(b)
	}
	f.Add([]byte{})
	f.Cleanup(func() { tr.must(tr.Close()) })
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := decodeBody(b, &formats{most: formatOf(&Options{})})
		if err != nil {
			return
		}
		if most := len(b); len(e.writes) > most {
			t.Errorf("%d bytes have %d writes", most, len(e.writes))
		}
		err = tr.db.Update(func(tx *boltfile.Tx) error {
			a := newApplying(tx, tr.Latest)
			a.on = e.base
			if _, err := a.apply(&e); err != nil {
				return err
			}
			return errUndo
		})
		var broke *boltfile.Panic
		if errors.As(err, &broke) || errors.Is(err, boltfile.ErrDamaged) {
			t.Fatalf("%x: %v", b, err)
		}
	})
}

// A tracker that is another one than the leader's has another mark at the same place, and
// the leader makes one only now and then.
func TestMark(t *testing.T) {
	t.Parallel()
	leader, log, next := led(t)
	follower := openTemp(t, Options{Registry: termTypes})
	follows := follower.Replica()
	applied := 0
	step := func() {
		t.Helper()
		_, _, err := leader.makes(next())
		follower.must(err)
		bodies, at := log.from(applied)
		applied += len(bodies)
		follower.must(follows.Apply(bodies, at))
	}
	step()
	first := follows.Mark()
	if first.Sealed == 0 || first.Hash == "" || first.Differs() || first != leader.share.mark {
		t.Fatalf("the first mark is %+v, the leader's %+v", first, leader.share.mark)
	}
	step()
	if follows.Mark() != first {
		t.Errorf("a mark was made after less than %v", markEvery)
	}
	follower.must(follower.db.Update(func(tx *boltfile.Tx) error {
		return tx.Bucket(bucketMeta).Put([]byte(prefixType+"flipped"), []byte{1})
	}))
	leader.share.marked = time.Time{}
	step()
	if m := follows.Mark(); !m.Differs() || m.Sealed <= first.Sealed || m.Leader != leader.share.mark.Hash {
		t.Errorf("after a bit was flipped the mark is %+v", m)
	}
	follower.must(follower.db.Update(func(tx *boltfile.Tx) error { // else its inspection at the end finds that
		return tx.Bucket(bucketMeta).Delete([]byte(prefixType + "flipped"))
	}))
}
