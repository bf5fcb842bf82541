package status

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"jobstream/jobs"
	"jobstream/status/boltfile"
)

// copyOf is what a tracker sends to another one.
func copyOf(t *testing.T, r *Replica) []byte {
	t.Helper()
	var b bytes.Buffer
	must(t, r.Snapshot(func(size int64, whole io.WriterTo) error {
		n, err := whole.WriteTo(&b)
		if n != size {
			t.Errorf("a copy has %d bytes, want %d", n, size)
		}
		return err
	}))
	return b.Bytes()
}

// A follower that gets a copy while it is read answers as the leader does, goes on with
// the next entries, and keeps what is its own. Readers notice nothing.
func TestInstall(t *testing.T) {
	t.Parallel()
	leader, log, next := led(t)
	follower := openTemp(t, Options{Registry: termTypes})
	_, err := follower.Node("b")
	must(t, err)
	r := follower.Replica()
	leader.does(next())
	bodies, at := log.from(0)
	must(t, r.Apply(bodies, at)) // a past that the leader has, too

	ctx, stop := context.WithCancel(context.Background())
	read := make(chan error)
	go func() {
		for ctx.Err() == nil {
			j, err := follower.Find(1) //nolint:contextcheck // it has none
			if err == nil && j == nil {
				err = errors.New("job 1 is not found")
			}
			if _, _, listed := follower.List(ctx, jobs.Page{}); listed != nil && ctx.Err() == nil {
				err = errors.Join(err, listed)
			}
			if err != nil {
				read <- err
				return
			}
		}
		read <- nil
	}()
	for round := range 3 {
		for range 20 {
			leader.does(next())
		}
		m := message(1)
		s := step{in: input{now: epoch.Add(seconds(100 + round)), registry: termTypes}}
		if round == 1 {
			pos := leader.Positions()
			s.batch = &batch{events: []jobs.Event{event(jobs.KindFailed, m, 1)}, jobs: pos.Jobs, status: pos.Status + 1}
		} else {
			s.commands = []jobs.Command{jobs.Pause{Type: "email", Paused: round == 0}}
		}
		leader.does(s)
		_, at := log.from(0)
		must(t, r.Install(bytes.NewReader(copyOf(t, &Replica{leader.Store}))))
		if r.Position() != at {
			t.Fatalf("it is at %+v, want %+v", r.Position(), at)
		}
		follower.mustBe(leader.shared())
		mustAnswer(t, follower, leader)
		ctx, cancel := within(t)
		must(t, follower.WaitPublished(ctx, leader.Positions()))
		cancel()

		n := len(log.bodies)
		leader.does(next())
		bodies, at := log.from(n)
		must(t, r.Apply(bodies, at))
		follower.mustBe(leader.shared())
		mustAnswer(t, follower, leader)
		must(t, follower.Present())
	}
	stop()
	must(t, <-read)
	follower.reopen()
	follower.mustBe(leader.shared())
	if name, err := follower.Node(""); err != nil || name != "b" {
		t.Errorf("it is named %q: %v", name, err)
	}
}

// What is no tracker, or one of a later version, is not installed, and nothing is left of
// it. A tracker that changes by itself is not replaced.
func TestInstallNonsense(t *testing.T) {
	t.Parallel()
	leader, _, next := led(t)
	leader.does(next())
	whole := copyOf(t, &Replica{leader.Store})
	must(t, leader.db.Update(func(tx *boltfile.Tx) error { return tx.Bucket(bucketMeta).Put(keyLayout, key8(layout()+1)) }))
	later := copyOf(t, &Replica{leader.Store})
	must(t, leader.db.Update(func(tx *boltfile.Tx) error { return writeFormat(tx.Bucket(bucketMeta), "", formatOf(&Options{})) }))

	tr := openTemp(t, Options{Registry: termTypes})
	r := tr.Replica()
	must(t, r.Apply(nil, positionOf(3)))
	before := tr.contents()
	for name, from := range map[string]io.Reader{
		"nothing":         strings.NewReader(""),
		"a text":          strings.NewReader(strings.Repeat("nonsense", 4096)),
		"a part":          bytes.NewReader(whole[:len(whole)/2]),
		"a later version": bytes.NewReader(later),
		"a broken line":   io.MultiReader(bytes.NewReader(whole[:8192]), broken{}),
	} {
		if err := r.Install(from); err == nil {
			t.Errorf("%s is installed", name)
		}
		if after := tr.contents(); fmt.Sprint(after) != fmt.Sprint(before) || r.Position() != positionOf(3) {
			t.Fatalf("%s has changed the tracker", name)
		}
		left, err := filepath.Glob(tr.o.Path + ".new*")
		must(t, err)
		if len(left) > 0 {
			t.Errorf("%s has left %q", name, left)
		}
	}
	if err := (&Replica{leader.Store}).Install(bytes.NewReader(whole)); err == nil {
		t.Error("a leader is replaced")
	}
	must(t, os.WriteFile(tr.freshPath(), []byte("left by a crash"), 0o600))
	must(t, tr.Replica().Install(bytes.NewReader(whole)))
	tr.mustBe(leader.shared())
	if at := tr.Replica().Position(); at != positionOf(1) {
		t.Errorf("it is at %+v", at)
	}
}

// broken is a connection that breaks off.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
