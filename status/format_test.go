package status

import (
	"bytes"
	"context"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"jobstream/jobs"
	"jobstream/jobs/replica"
	"jobstream/status/boltfile"
)

// TestLaterFormat opens the file of a later version. It is refused by name, and nothing in
// it changes. That of an earlier one is opened.
func TestLaterFormat(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "status.db")
	o := Options{Path: path, Registry: testTypes, Version: "v2.3.4"}
	made := open(t, o)
	must(t, made.Close())
	change := func(f func(meta boltfile.Bucket) error) (rows []string) {
		t.Helper()
		s, err := OpenStopped(path, slog.New(slog.DiscardHandler))
		must(t, err)
		must(t, s.db.Update(func(tx *boltfile.Tx) error { return f(tx.Bucket(bucketMeta)) }))
		rows = allRows(t, s)
		must(t, s.Close())
		return rows
	}
	same := func(boltfile.Bucket) error { return nil }
	for _, later := range []struct {
		name string
		f    func(meta boltfile.Bucket) error
	}{
		{"one more attribute", func(meta boltfile.Bucket) error { return meta.Put(keyLayout, key8(layout()+1)) }},
		{"another format", func(meta boltfile.Bucket) error { return meta.Put(keyFormat, []byte{formatVersion + 1}) }},
	} {
		before := change(later.f)
		older := o
		older.Version = "v2.3.3"
		_, err := Open(older)
		if err == nil {
			t.Fatalf("%s: it was opened", later.name)
		}
		for _, word := range []string{path, "written by jobstream v2.3.4", "this is jobstream v2.3.3", "use v2.3.4 or newer"} {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%s: %q is missing in: %v", later.name, word, err)
			}
		}
		s, err := OpenStopped(path, slog.New(slog.DiscardHandler))
		must(t, err)
		if _, err := s.Inspect(context.Background(), true, nil); err == nil || !strings.Contains(err.Error(), "v2.3.4") {
			t.Errorf("%s: an inspection says %v", later.name, err)
		}
		must(t, s.Close())
		if after := change(same); len(after) != len(before) || strings.Join(after, "") != strings.Join(before, "") {
			t.Errorf("%s: the refused file has changed", later.name)
		}
		change(func(meta boltfile.Bucket) error { return writeFormat(meta, "v2.3.4", formatOf(&o)) })
	}
	change(func(meta boltfile.Bucket) error { // as the first versions had it
		must(t, meta.Delete(keyLayout))
		must(t, meta.Delete(keyWriter))
		return meta.Put(keyFormat, []byte{1})
	})
	made = open(t, o)
	must(t, made.Close())
	change(func(meta boltfile.Bucket) error {
		if v := string(meta.Get(keyWriter)); v != "v2.3.4" {
			t.Errorf("it was last written by %q", v)
		}
		return nil
	})
	s, err := OpenStopped(path, slog.New(slog.DiscardHandler))
	must(t, err)
	must(t, s.db.View(func(tx *boltfile.Tx) error { return checkFormat(tx, "", formatOf(&o)) }))
	must(t, s.Close())
}

// formatOfFile is the format that is stored in the tracker's file.
func (tr *tracker) formatOfFile() (f replica.Format) {
	tr.t.Helper()
	tr.must(tr.db.View(func(tx *boltfile.Tx) (err error) {
		f, err = readFormat(tx.Bucket(bucketMeta))
		return err
	}))
	return f
}

// TestMixedFormats has a tracker of a later version lead an older one and one of its own.
// Until it may write the later format all of them follow, and copies go in all directions.
// Then the older one refuses entries, copies and the file, says why, and changes nothing.
func TestMixedFormats(t *testing.T) {
	t.Parallel()
	const newest = 1 << 40
	latest := replica.NewFormat(3, 0)
	o := Options{Registry: termTypes, Member: true, Version: "v2"}
	older := openTemp(t, o)
	o.Format, o.Version = latest, "v3"
	leader := openTemp(t, o)
	o.Path = filepath.Join(t.TempDir(), "status.db")
	later := open(t, o)
	var log testLog
	lead, n := leader.Replica(), uint64(0)
	next := func() {
		t.Helper()
		n++
		leader.does(step{in: input{now: epoch.Add(seconds(int(n))), registry: termTypes}, batch: &batch{messages: []jobs.Message{*message(n)}, jobs: n}})
	}
	lead.Lead(log.seal)
	old, fresh := older.Replica(), later.Replica()
	next()
	lead.Raise(older.Replica().Format())
	next()
	bodies, at := log.from(0)
	must(t, old.Apply(bodies, at))
	must(t, fresh.Apply(bodies, at))
	next()
	must(t, old.Install(bytes.NewReader(copyOf(t, lead))))
	must(t, fresh.Install(bytes.NewReader(copyOf(t, old))))
	for _, tr := range []*tracker{leader, later, older} {
		if f := tr.formatOfFile(); f > old.Format() {
			t.Fatalf("a file has format %v, and not all read more than %v", f, old.Format())
		}
		tr.mustBe(leader.shared())
		tr.reopen()
	}

	lead, old, fresh = leader.Replica(), older.Replica(), later.Replica()
	lead.Lead(log.seal)
	lead.Raise(newest) // which it does not write itself
	lead.Raise(latest)
	n++
	lead.Lead(func([]byte) (replica.Position, error) { return replica.Position{}, errSeal })
	if _, _, err := leader.makes(step{in: input{now: epoch.Add(seconds(int(n))), registry: termTypes}, batch: &batch{messages: []jobs.Message{*message(n)}, jobs: n}}); err == nil {
		t.Fatal("a transaction without its seal was made")
	}
	if f := leader.formatOfFile(); f == latest {
		t.Error("a transaction that was rolled back has left its format")
	}
	n--
	lead.Lead(log.seal)
	from := len(log.bodies)
	next()
	before := older.contents()
	bodies, at = log.from(from)
	says := func(what string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), "format 3.0") || !strings.Contains(err.Error(), "jobstream v2, which reads up to format") {
			t.Errorf("%s: %v", what, err)
		}
		if after := older.contents(); strings.Join(allOf(after), "") != strings.Join(allOf(before), "") {
			t.Errorf("%s has changed something", what)
		}
	}
	says("an entry", old.Apply(bodies, at))
	says("a copy", old.Install(bytes.NewReader(copyOf(t, lead))))
	must(t, fresh.Apply(bodies, at))
	for _, tr := range []*tracker{leader, later} {
		if f := tr.formatOfFile(); f != latest {
			t.Errorf("a file that may have the latest format says %v", f)
		}
	}
	later.mustBe(leader.shared())
	must(t, later.Close())
	o.Path, o.Format, o.Version = later.o.Path, older.o.Format, "v2"
	_, err := Open(o)
	says("the file", err)
	o.Format, o.Version = latest, "v3"
	again := open(t, o)
	again.mustBe(leader.shared())
	must(t, again.Close())
}

// allOf are the contents of a tracker in order.
func allOf(contents map[string]string) (all []string) {
	for _, key := range slices.Sorted(maps.Keys(contents)) {
		all = append(all, key+"="+contents[key])
	}
	return all
}
