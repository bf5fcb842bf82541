package status

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"jobstream/jobs"
)

// crashEnv makes the test binary a tracker in the folder that it names, to be
// killed by the test.
const crashEnv = "JOBSTREAM_STATUS_CRASH_DIR"

// endless is a source that goes on for ever: every job comes, and completes some
// messages later. It goes in bursts, each of which waits for its commit.
type endless struct{ s *Store }

// crashLag is how many messages later.
const crashLag = 20

func (e endless) Read(ctx context.Context, from jobs.Positions, sink jobs.Sink) error {
	next, burst := from, 0
	for ctx.Err() == nil {
		if burst--; burst < 0 {
			if err := e.s.WaitFor(ctx, next); err != nil {
				return err
			}
			burst = rand.IntN(600)
		}
		if next.Jobs < next.Status+crashLag {
			next.Jobs++
			sink.Submitted(crashMessage(next.Jobs))
			continue
		}
		next.Status++
		sink.Happened(next.Status, []jobs.Event{event(jobs.KindCompleted, crashMessage(next.Status), 1)})
	}
	return ctx.Err()
}

func crashMessage(seq uint64) *jobs.Message {
	m := message(seq)
	m.Tags = []string{fmt.Sprintf("tag%d", seq%5)}
	if seq%50 == 0 {
		m.Payload = fmt.Appendf(nil, `"%2000d"`, seq)
	}
	return m
}

// crashChild commits until it is killed, and prints what has been published.
func crashChild(dir string) {
	s, err := Open(Options{Path: filepath.Join(dir, "status.db"), Registry: testTypes, OutboxAge: time.Hour})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	printed := jobs.Positions{}
	s.Listen(func(c *jobs.Commit) {
		for j := range c.Ended() {
			printed.Status = max(printed.Status, j.Key)
		}
		printed.Jobs = c.Positions.Jobs
		fmt.Println(printed.Jobs, printed.Status, c.Number)
	})
	err = s.Run(context.Background(), endless{s})
	fmt.Println("error", err)
}

// crash runs the child until it is killed, some printed commits and a moment
// later, and returns the last that it printed. Its commits are numbered on from after.
func crash(t *testing.T, dir string, commits int, later time.Duration, after uint64) (printed jobs.Positions, number uint64) {
	t.Helper()
	ctx, cancel := within(t)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), crashEnv+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }() // it says that it was killed
	defer func() { _ = cmd.Process.Kill() }()
	in := bufio.NewReader(out)
	for n := 0; ; n++ {
		if n == commits {
			// While it goes on: what it prints until the end stands in the pipe.
			time.AfterFunc(later, func() { _ = cmd.Process.Kill() })
		}
		line, err := in.ReadString('\n')
		if err != nil {
			if n < commits || err != io.EOF { //nolint:errorlint // ReadString gives it bare
				t.Fatalf("the child ended after %d commits: %v", n, err)
			}
			return printed, after
		}
		var p jobs.Positions
		if _, err := fmt.Sscanln(line, &p.Jobs, &p.Status, &number); err != nil {
			t.Fatalf("the child says %q", line)
		}
		if number != 0 {
			if after++; number != after {
				t.Fatalf("the commit after %d has the number %d", after-1, number)
			}
		}
		printed.Jobs, printed.Status = max(printed.Jobs, p.Jobs), max(printed.Status, p.Status)
	}
}

// A process that is killed while it commits loses nothing that it has published, and
// everything that is derived fits to the records.
func TestKill(t *testing.T) {
	t.Parallel()
	rounds := 8
	if testing.Short() {
		rounds = 2
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	var last jobs.Positions
	var number uint64
	for round := range rounds {
		printed, printedNumber := crash(t, dir, 1+rng.IntN(20), time.Duration(rng.IntN(10000))*time.Microsecond, number)
		tr := openSynced(t, Options{Path: filepath.Join(dir, "status.db"), OutboxAge: time.Hour})
		pos := tr.Positions()
		if number = tr.Number(); number < printedNumber {
			t.Fatalf("round %d: printed commit %d, but the file has %d", round, printedNumber, number)
		}
		if pos.Jobs < printed.Jobs || pos.Status < printed.Status || pos.Jobs < last.Jobs || pos.Status < last.Status {
			t.Fatalf("round %d: printed %+v, but the file is at %+v", round, printed, pos)
		}
		seq := uint64(0)
		for _, j := range tr.all(jobs.Filter{}) {
			if seq++; j.Key != seq {
				t.Fatalf("round %d: job %d is missing", round, seq)
			}
			want := crashMessage(seq)
			status := jobs.Pending
			if seq <= pos.Status {
				status = jobs.Completed
			}
			if j.ID != want.ID || string(j.Payload) != string(want.Payload) || j.Status != status {
				t.Fatalf("round %d, at %+v: %+v", round, pos, j)
			}
		}
		if seq != pos.Jobs {
			t.Fatalf("round %d: %d jobs, position %d", round, seq, pos.Jobs)
		}
		ended := slices.Sorted(slices.Values(tr.outbox()))
		if n := uint64(len(ended)); n != pos.Status || n > 0 && (ended[0] != 1 || ended[n-1] != n) {
			t.Fatalf("round %d: the outbox has %d jobs, of %d that have ended", round, n, pos.Status)
		}
		if round == rounds-1 {
			tr.verify()
		}
		tr.stop()
		last = pos
	}
	t.Logf("%d kills, at the end %+v", rounds, last)
}
