package figures

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"jobstream/jobs"
)

const epoch = jobs.Time(1_700_000_000) * jobs.Time(time.Second)

// after is the moment some seconds after the epoch of these tests.
func after(s int) jobs.Time { return epoch.Add(time.Duration(s) * time.Second) }

// done is the commit of n jobs of a type that were submitted and completed.
func done(typ string, n int, run time.Duration) *jobs.Commit {
	c := &jobs.Commit{Number: 1, Took: time.Millisecond}
	for range n {
		j := &jobs.Job{
			Type: typ, Priority: 3, Status: jobs.Completed, Run: 1, Attempt: 1, CreatedAt: epoch, StartedAt: epoch.Add(run), EndedAt: epoch.Add(2 * run),
			History: []jobs.HistoryEntry{{Kind: jobs.KindSubmitted, At: epoch}, {Kind: jobs.KindStarted, At: epoch.Add(run)}},
		}
		c.Changes = append(c.Changes, jobs.Change{After: j})
	}
	return c
}

// opened is a collector whose file is at path, without its goroutine.
func opened(t *testing.T, path string) (c *Collector, log *bytes.Buffer) {
	t.Helper()
	log = &bytes.Buffer{}
	c = New()
	c.Start(&stand{Now{Types: map[string]TypeNow{"email": {Running: 2}}}})
	c.load(path, slog.New(slog.NewTextHandler(log, nil)))
	t.Cleanup(c.store.close)
	return c, log
}

// series is the answer of GET /stats/history.
type series struct {
	Range   string
	Step    int `json:"step_seconds"`
	From    time.Time
	Periods int
	Total   map[string][]*float64
	Types   map[string]map[string][]*float64
}

func historyOf(t *testing.T, c *Collector, span string, now jobs.Time, types ...string) (s series) {
	t.Helper()
	b := c.History(span, types, now.Std()).AppendJSON(nil)
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	for name, columns := range s.Types {
		for column, values := range columns {
			if len(values) != s.Periods {
				t.Fatalf("%s of %s has %d of %d periods", column, name, len(values), s.Periods)
			}
		}
	}
	return s
}

// at is the value of a moment as text; "" = it is outside.
func (s *series) at(column []*float64, at jobs.Time) string {
	i := int(at.Std().Sub(s.From) / time.Second / time.Duration(s.Step))
	switch {
	case i < 0 || i >= len(column):
		return ""
	case column[i] == nil:
		return "null"
	}
	return fmt.Sprint(*column[i])
}

func TestHistory(t *testing.T) {
	t.Parallel()
	c, _ := opened(t, "")
	for s := range 25 {
		if s < 10 || s >= 15 { // between these nothing was counted
			c.Committed(done("email", s, 100*time.Millisecond))
			if s == 15 {
				c.last = 0 // as after a restart
			}
			c.tick(after(s + 1))
		}
	}
	seconds := historyOf(t, c, "5m", after(25))
	if seconds.Range != "5m" || seconds.Step != 1 || seconds.Periods != 300 || !seconds.From.Equal(after(25-300).Std()) {
		t.Errorf("it is %s in steps of %d s, with %d periods from %v", seconds.Range, seconds.Step, seconds.Periods, seconds.From)
	}
	tens := historyOf(t, c, "1h", after(25))
	if last := tens.From.Add(time.Duration(tens.Periods*tens.Step) * time.Second); !last.Equal(after(20).Std()) {
		t.Errorf("the periods of ten seconds end at %v", last)
	}
	email := seconds.Types["email"]
	for _, want := range []struct {
		what      string
		got, want string
	}{
		{"done in the first second", seconds.at(email["done"], after(0)), "0"},
		{"done in a second", seconds.at(email["done"], after(9)), "9"},
		{"done before", seconds.at(email["done"], after(-1)), "null"},
		{"done in the gap", seconds.at(email["done"], after(12)), "null"},
		{"p50 of runs in the gap", seconds.at(email["run_p50"], after(12)), "null"},
		{"done in the last second", seconds.at(email["done"], after(24)), "24"},
		{"done in the present second", seconds.at(email["done"], after(25)), ""},
		{"of all", seconds.at(seconds.Total["in"], after(24)), "24"},
		{"p50 of waits", seconds.at(email["wait_p50"], after(9)), "0.0993"},
		{"p99 of runs", seconds.at(email["run_p99"], after(9)), "0.0993"},
		{"p99 of runs in a second without any", seconds.at(email["run_p99"], after(0)), "null"},
		{"running", seconds.at(email["running"], after(9)), "2"},
		{"cancelled", seconds.at(email["cancelled"], after(9)), "0"},
		{"done in ten seconds", tens.at(tens.Types["email"]["done"], after(0)), "45"},
		{"running in ten seconds", tens.at(tens.Types["email"]["running"], after(0)), "2"},
		{"done in ten seconds with a gap", tens.at(tens.Types["email"]["done"], after(10)), "85"},
	} {
		if want.got != want.want {
			t.Errorf("%s: %s, want %s", want.what, want.got, want.want)
		}
	}
	minute := c.Minute()
	if got := minute["email"].Done; got != 45+85+110 {
		t.Errorf("%d are done in the last minute", got)
	}
	if p := minute[Total].Run; p == nil || p.P95 != 0.0993 {
		t.Errorf("runs of the last minute: %+v", p)
	}
	only := historyOf(t, c, "5m", after(25), "export")
	if len(only.Types) != 1 || only.at(only.Types["export"]["done"], after(24)) != "0" {
		t.Errorf("a type that has nothing: %v", only.Types)
	}
}

// TestClock sets the clock back and forth, and then goes on.
func TestClock(t *testing.T) {
	t.Parallel()
	c, _ := opened(t, filepath.Join(t.TempDir(), "figures.log"))
	now := 0
	run := func(seconds int) {
		for range seconds {
			c.Committed(done("email", 1, time.Millisecond))
			now++
			c.tick(after(now))
		}
	}
	run(1000)
	for _, jump := range []int{-500, -86_400, +1, -1, -1, +3600, -2, +10 * 365 * 86_400, -10 * 365 * 86_400} {
		now += jump
		run(100)
		h := historyOf(t, c, "5m", after(now))
		for s := now - 95; s < now-3; s++ {
			if got := h.at(h.Types["email"]["done"], after(s)); got != "1" {
				t.Fatalf("after the clock was moved by %d s: %s at %d, now being %d", jump, got, s, now)
			}
		}
		again, log := opened(t, c.store.path)
		if log.Len() > 0 {
			t.Fatal(log)
		}
		compare(t, again, c, after(now))
	}
}

// compare compares all that two collectors say of the past.
func compare(t *testing.T, a, b *Collector, now jobs.Time) {
	t.Helper()
	for _, span := range Ranges() {
		x, y := a.History(span, nil, now.Std()).AppendJSON(nil), b.History(span, nil, now.Std()).AppendJSON(nil)
		if !bytes.Equal(x, y) {
			at := 0
			for at < min(len(x), len(y)) && x[at] == y[at] {
				at++
			}
			from := max(at-300, 0)
			t.Fatalf("the histories of %s differ:\n%s\n%s", span, x[from:min(at+50, len(x))], y[from:min(at+50, len(y))])
		}
	}
	x, _ := json.Marshal(a.Minute())
	if y, _ := json.Marshal(b.Minute()); !bytes.Equal(x, y) {
		t.Fatalf("the last minutes differ:\n%s\n%s", x, y)
	}
}

// TestFile stores the past of hours, ends as by kill -9 now and then, and reads
// it back each time. The file stays small.
func TestFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "figures.log")
	c, _ := opened(t, path)
	largest := int64(0)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	const hours = 3 * 3600
	for s := range hours {
		for i := range 3 {
			if r.IntN(30) == 0 {
				c.Committed(done(fmt.Sprintf("type-%d", i), 1+r.IntN(20), time.Duration(r.Int64N(int64(time.Second)))))
			}
		}
		c.store.tried = time.Time{} // time passes
		if s%500 == 0 {
			c.store.grown = leastGrowth + 1
		}
		c.tick(after(s + 1))
		if s%1800 == 1799 {
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			largest = max(largest, info.Size())
			again, log := opened(t, path)
			if log.Len() > 0 {
				t.Fatal(log)
			}
			compare(t, again, c, after(s+1))
			c = again
		}
	}
	if largest > 4<<20 {
		t.Errorf("the file had %d bytes", largest)
	}
	h := historyOf(t, c, "24h", after(hours))
	for i, v := range h.Total["done"] {
		if there := i >= h.Periods-hours/60; there != (v != nil) {
			t.Fatalf("minute %d of the day: %v", i, v)
		}
	}
}

// TestDamage cuts and breaks the file anywhere. What stands before that is read, the log
// says it, and the past goes on.
func TestDamage(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "figures.log")
	c, _ := opened(t, path)
	for s := range 100 {
		c.Committed(done("email", 1+s, time.Millisecond))
		c.tick(after(s + 1))
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for n := range 24 {
		b := bytes.Clone(whole)
		if at := r.IntN(len(b)); n%2 == 0 {
			b = b[:at]
		} else {
			b[at] ^= 1 << r.IntN(8)
		}
		damaged := filepath.Join(t.TempDir(), "figures.log")
		if err := os.WriteFile(damaged, b, 0o600); err != nil {
			t.Fatal(err)
		}
		d, log := opened(t, damaged)
		if n%2 == 1 && log.Len() == 0 {
			t.Fatal("a flipped bit was not noticed")
		}
		d.Committed(done("email", 7, time.Millisecond))
		d.tick(after(102))
		again, log := opened(t, damaged)
		if log.Len() > 0 {
			t.Fatalf("what was written after the damage cannot be read: %s", log)
		}
		compare(t, again, d, after(102))
		if h := historyOf(t, again, "5m", after(102)); h.at(h.Types["email"]["done"], after(101)) != "7" {
			t.Fatal("the second after the damage is missing")
		}
	}
	for name, content := range map[string]string{"empty": "", "another": "another file\n" + string(whole)} {
		other := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(other, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, log := opened(t, other); log.Len() == 0 {
			t.Errorf("%s: nothing was said", name)
		}
	}
}

// TestFileCannotBeWritten goes on counting while its folder is missing, and stores when
// that is back.
func TestFileCannotBeWritten(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	path := filepath.Join(dir, "figures.log")
	c, log := opened(t, path)
	for s := range 30 {
		if s == 20 {
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			c.store.tried = time.Time{} // time passes
		}
		c.Committed(done("email", 1, time.Millisecond))
		c.tick(after(s + 1))
	}
	if n := bytes.Count(log.Bytes(), []byte("\n")); n != 1 {
		t.Errorf("%d lines in the log: %s", n, log)
	}
	again, _ := opened(t, path)
	compare(t, again, c, after(30))
}

// TestManyTypes has more types than have figures of their own, and then others after a
// day.
func TestManyTypes(t *testing.T) {
	t.Parallel()
	c, _ := opened(t, "")
	for i := range 3 * MaxTypes {
		c.Committed(done(fmt.Sprintf("early-%03d", i), 1, time.Millisecond))
	}
	c.tick(after(1))
	h := historyOf(t, c, "5m", after(1))
	if n := len(h.Types); n > MaxTypes+2 {
		t.Errorf("%d types have rows", n)
	}
	if got := h.at(h.Types[OtherTypes]["done"], after(0)); got != fmt.Sprint(2*MaxTypes) {
		t.Errorf("the other types are done with %s", got)
	}
	if got := h.at(h.Total["done"], after(0)); got != fmt.Sprint(3*MaxTypes) {
		t.Errorf("all are done with %s", got)
	}
	c.tick(after(60))
	c.tick(after(25 * 3600))
	c.Committed(done("late", 1, time.Millisecond))
	c.tick(after(25*3600 + 1))
	h = historyOf(t, c, "5m", after(25*3600+1))
	if got := h.at(h.Types["late"]["done"], after(25*3600)); got != "1" || len(h.Types) > 4 {
		t.Errorf("the late type is done with %q, of %d types", got, len(h.Types))
	}
}

func TestDigest(t *testing.T) {
	t.Parallel()
	c, _ := opened(t, "")
	c.source = &stand{Now{
		Workers: Workers{Busy: 3, Max: 10}, DiskFree: 5,
		Types: map[string]TypeNow{
			"email": {Running: 3, Scheduled: 2, Retrying: 1, Reasons: map[string]int{jobs.WaitQueue: 1}},
			"bulk":  {Internal: true, Running: 1}, "idle": {Paused: true},
		},
	}}
	pending := jobs.Change{After: &jobs.Job{Type: "email", Priority: 2, Status: jobs.Pending, CreatedAt: after(-4), Run: 1}}
	commit := done("email", 10, 20*time.Millisecond)
	commit.Changes = append(append(commit.Changes, pending), done("bulk", 1, time.Minute).Changes...)
	commit.Changes = append(commit.Changes, jobs.Change{After: &jobs.Job{Type: jobs.CallbackType, Status: jobs.Pending, Run: 1}})
	c.Committed(commit)
	c.tick(after(1))
	b, _ := c.Board.Latest()
	var d Digest
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	email := d.Types["email"]
	if email.In != 11 || email.Done != 10 || email.Waiting != 1 || email.OldestSeconds < 5 || email.OldestSeconds > 5.01 || email.Running != 3 || email.Wait.P50 != 0.02 {
		t.Errorf("email: %+v", email)
	}
	if d.Total.In != 12 || d.Total.Running != 4 || d.Total.Scheduled != 2 || d.Total.Run.P99 < 50 || d.Node.CommitMS != 1 {
		t.Errorf("total: %+v, node %+v", d.Total, d.Node)
	}
	if len(d.Types) != 2 || !d.Types["idle"].Paused || len(d.Sample) != 12 || d.Skipped != 0 {
		t.Errorf("%d types, %d changes, %d skipped", len(d.Types), len(d.Sample), d.Skipped)
	}
	c.Stop()
	c.tick(after(2))
	if again, _ := c.Board.Latest(); !bytes.Equal(again, b) {
		t.Error("there is a digest although nothing is counted")
	}
	c.Start(&stand{})
	c.tick(after(3))
	if h := historyOf(t, c, "5m", after(3)); h.at(h.Total["in"], after(1)) != "0" {
		t.Error("the second without a core is not bridged") // it was shorter than mostLate
	}
}

// TestOpen has the real clock close a period, and Close the last one.
func TestOpen(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "figures.log")
	c := New()
	c.Start(&stand{})
	c.Open(path, slog.New(slog.DiscardHandler))
	_, next := c.Board.Latest()
	select {
	case <-next:
	case <-time.After(time.Minute):
		t.Fatal("there is no digest")
	}
	c.Committed(done("email", 5, time.Millisecond))
	c.Close()
	again, log := opened(t, path)
	if got := again.Minute()["email"].Done; got != 5 || log.Len() > 0 {
		t.Errorf("%d are done, log: %s", got, log)
	}
}
