package status

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"jobstream/jobs"
	"jobstream/status/boltfile"
	"jobstream/status/index"
)

// furnished is a tracker of a stopped server with jobs of each kind: waiting, delayed,
// held, with keys, inputs and large payloads, ended and retried.
func furnished(t *testing.T) (path string) {
	t.Helper()
	tr := openTemp(t, Options{Registry: jobs.NewRegistry(
		&jobs.Type{Name: "email", RetryCount: 3, Handler: noHandler{}},
		&jobs.Type{Name: "file", RetryCount: 3, Handler: noHandler{}, Inputs: []jobs.InputRule{{Name: "file"}}},
	)})
	path = tr.o.Path
	tr.run(idle{})
	later := jobs.Now().Add(time.Hour)
	held := func(m *jobs.Message) *jobs.Message { m.Terms = &jobs.Terms{ConcurrencyKey: "tenant"}; return m }
	unique := message(4)
	unique.Terms = &jobs.Terms{UniqueKey: "one", RunAt: later, Deadline: later.Add(time.Hour)}
	large := message(5)
	large.Payload = []byte(`"` + strings.Repeat("x", 5000) + `"`)
	token := message(6)
	token.Token = jobs.NewToken("t", "key", []byte(`{}`))
	_, err := tr.Do(context.Background(), jobs.KeepInput{Stamp: jobs.By("test"), ID: inputID(1), File: inputFile(1)})
	must(t, err)
	with := message(7)
	with.Type = "file"
	with.Terms = &jobs.Terms{Inputs: []jobs.Input{{Name: "file", ID: inputID(1), File: inputFile(1)}}}
	tagged := message(8)
	tagged.Tags = []string{"blue"}
	tr.submit(message(1), held(message(2)), held(message(3)), unique, large, token, with, tagged)
	tr.wait(8, 0)
	tr.Happened(1, []jobs.Event{event(jobs.KindCompleted, message(1), 1)})
	tr.wait(8, 1)
	_, err = tr.Do(context.Background(), jobs.EndRebuild{Stamp: jobs.By("test")})
	must(t, err)
	tr.stop()
	return path
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestInspect damages the tracker of a stopped server in each way that an inspection
// knows. It finds exactly that, and a repair leaves nothing to find, and what was there.
func TestInspect(t *testing.T) {
	t.Parallel()
	first := func(b boltfile.Bucket) (k, v []byte) { return b.Cursor().First() }
	remove := func(name []byte) func(tx *boltfile.Tx) error {
		return func(tx *boltfile.Tx) error {
			k, _ := first(tx.Bucket(name))
			if k == nil {
				t.Errorf("%s is empty", name)
			}
			return tx.Bucket(name).Delete(k)
		}
	}
	put := func(name, key, value []byte) func(tx *boltfile.Tx) error {
		return func(tx *boltfile.Tx) error { return tx.Bucket(name).Put(key, value) }
	}
	nobody := jobs.NewID()
	for _, d := range []struct {
		name   string
		damage func(tx *boltfile.Tx) error
		want   []string
		lost   bool // no repair
	}{
		{"nothing", func(*boltfile.Tx) error { return nil }, nil, false},
		{"an id is missing", remove(bucketIDs), []string{"index.ids"}, false},
		{"an id leads nowhere", put(bucketIDs, nobody[:], key8(99)), []string{"index.ids"}, false},
		{"a bitmap is missing", remove(bucketBits), []string{"index.attributes"}, false},
		{"a bitmap is wrong", func(tx *boltfile.Tx) error {
			k, _ := first(tx.Bucket(bucketBits))
			return tx.Bucket(bucketBits).Put(k, []byte{2, 99, 0})
		}, []string{"index.attributes"}, false},
		{"a delayed job is not listed", remove(bucketDue), []string{"index.due"}, false},
		{"a job is due that is not", put(bucketDue, append([]byte("u"), momentKey(1, 1)...), nil), []string{"index.due"}, false},
		{"a deadline is missing", remove(bucketLimits), []string{"index.limits"}, false},
		{"a held job is not listed", remove(bucketHeld), []string{"key.held"}, false},
		{"a turn is free that is not", remove(bucketSlots), []string{"key.turns"}, false},
		{"an ended job has a turn", func(tx *boltfile.Tx) error {
			k, v := first(tx.Bucket(bucketSlots))
			return tx.Bucket(bucketSlots).Put(k, append(slices.Clone(v), key8(1)...))
		}, []string{"key.turns"}, false},
		{"a key has a turn of nobody", put(bucketSlots, []byte("email\x00other\x00"), key8(1)), []string{"key.turns"}, false},
		{"a unique key is free that is not", remove(bucketUnique), []string{"key.unique"}, false},
		{"a unique key is nobody's", put(bucketUnique, []byte("two"), nobody[:]), []string{"key.unique.stale"}, false},
		{"an idempotency key is never forgotten", remove(bucketTokenAge), []string{"key.idempotency"}, false},
		{"an idempotency key is missing", remove(bucketTokens), []string{"key.idempotency"}, false},
		{"a payload is nobody's", put(bucketPayloads, key8(99), []byte(`{}`)), []string{"payload.orphan"}, false},
		{"a payload is missing", remove(bucketPayloads), []string{"payload"}, true},
		{"an input is its job's no more", remove(bucketInputJobs), []string{"input.jobs"}, false},
		{"an input in use is listed as old", func(tx *boltfile.Tx) error {
			k, v := first(tx.Bucket(bucketInputs))
			return tx.Bucket(bucketInputAge).Put(slices.Concat(v[:8], k), nil)
		}, []string{"input.age"}, false},
		{"the counts are wrong", func(tx *boltfile.Tx) error {
			return eachCounter(tx, func(name string, c *index.Counters) {
				c.Now[jobs.Pending] += 3
				must(t, tx.Bucket(bucketMeta).Put([]byte(prefixType+name), c.Encode()))
			})
		}, []string{"counts"}, false},
		{"a record is missing", func(tx *boltfile.Tx) error { return tx.Bucket(bucketJobs).Delete(key8(8)) }, []string{"counts", "index.attributes", "index.ids"}, false},
		{"a record is damaged", put(bucketJobs, key8(1), []byte("nonsense")), []string{"record"}, true},
	} {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			path := furnished(t)
			s, err := OpenStopped(path, slog.New(slog.DiscardHandler))
			must(t, err)
			defer func() { must(t, s.Close()) }()
			before := len(allRows(t, s))
			must(t, s.db.Update(d.damage))
			checks := func(repair bool) (all []string) {
				found, err := s.Inspect(context.Background(), repair, nil)
				must(t, err)
				for _, f := range found {
					if f.Text == "" || f.Do == "" {
						t.Errorf("it says too little: %+v", f)
					}
					all = append(all, f.Check)
				}
				slices.Sort(all)
				return slices.Compact(all)
			}
			for range 2 { // looking changes nothing
				if got := checks(false); !slices.Equal(got, d.want) {
					t.Fatalf("found %q, want %q", got, d.want)
				}
			}
			checks(true)
			if got := checks(false); !d.lost && len(got) > 0 || d.lost && !slices.Equal(got, d.want[len(d.want)-1:]) {
				t.Errorf("after the repair there is still %q", got)
			}
			if after := len(allRows(t, s)); d.name == "nothing" && after != before {
				t.Errorf("%d rows, were %d", after, before)
			}
		})
	}
}

// allRows is everything in the file.
func allRows(t *testing.T, s *Stopped) (all []string) {
	t.Helper()
	must(t, s.db.View(func(tx *boltfile.Tx) error {
		return tx.ForEach(func(name []byte, b boltfile.Bucket) error {
			return b.ForEach(func(k, v []byte) error {
				all = append(all, string(name)+string(k)+string(v))
				return nil
			})
		})
	}))
	return all
}
