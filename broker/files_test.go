package broker_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"testing"

	"jobstream/broker/brokertest"
	"jobstream/jobs"
)

// content is some bytes, and how an artifact describes them.
func content(t *testing.T, size int) ([]byte, *jobs.Artifact) {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	sum := sha256.Sum256(b)
	return b, &jobs.Artifact{Name: "x", Size: int64(size), SHA256: hex.EncodeToString(sum[:])}
}

// Both kinds of [jobs.Artifacts] do the same: a folder that is alone, and those of a cluster's
// nodes. What is written in the first one is read in each.
func TestArtifactsEverywhere(t *testing.T) {
	t.Parallel()
	alone := jobs.NewArtifactDir(t.TempDir(), 2<<20)
	t.Run("alone", func(t *testing.T) { conforms(t, alone, alone) })
	m := brokertest.Cluster(t, 3)
	m.Join()
	dirs := make([]jobs.Artifacts, len(m.Brokers))
	for i, b := range m.Brokers {
		d := jobs.NewArtifactDir(t.TempDir(), 2<<20)
		d.Share(b.Files)
		dirs[i] = d
	}
	t.Run("cluster", func(t *testing.T) { conforms(t, dirs...) })

	// A node is gone, and so is its disk.
	id := jobs.NewID()
	want, a := content(t, 700_000)
	leave(t, dirs[0], id, want, nil)
	m.Stop(0)
	for _, d := range dirs[1:] {
		reads(t, d, id, a, want)
	}
	if _, err := dirs[1].Remove(id); err != nil {
		t.Fatal(err)
	}
}

func leave(t *testing.T, d jobs.Artifacts, id jobs.ID, content []byte, fails *jobs.ErrorKind) {
	t.Helper()
	w, err := d.Create(id)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	if _, err = io.Copy(w, bytes.NewReader(content)); err == nil {
		_, err = w.Commit("x", "text/plain")
	}
	e, known := jobs.AsError(err)
	if fails == nil && err != nil || fails != nil && (!known || e.Kind != *fails) {
		t.Fatalf("got %v", err)
	}
}

func reads(t *testing.T, d jobs.Artifacts, id jobs.ID, a *jobs.Artifact, want []byte) {
	t.Helper()
	f, err := d.Open(id, a)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // opened for reading only
	if _, err := f.Seek(int64(len(want)/2), io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, want[len(want)/2:]) {
		t.Fatalf("read %d bytes of %d, or others: %v", len(got), len(want)-len(want)/2, err)
	}
}

func conforms(t *testing.T, dirs ...jobs.Artifacts) {
	first, last := dirs[0], dirs[len(dirs)-1]
	id, other := jobs.NewID(), jobs.NewID()
	big, a := content(t, 600_001)
	empty, e := content(t, 0)
	w, err := first.Create(id)
	if err == nil {
		_, err = w.Write([]byte("half"))
	}
	if err != nil {
		t.Fatal(err)
	}
	w.Abort()
	if n, err := last.Size(id); n != 0 || err != nil {
		t.Fatalf("what was aborted has %d bytes: %v", n, err)
	}
	leave(t, first, id, big, nil)
	leave(t, first, id, big, nil) // the same once more
	leave(t, first, id, empty, nil)
	leave(t, first, other, big, nil)
	for _, d := range dirs {
		reads(t, d, id, a, big)
		reads(t, d, id, e, empty)
		if n, err := d.Size(id); n != int64(len(big)) || err != nil {
			t.Fatalf("the job has %d bytes, want %d: %v", n, len(big), err)
		}
	}
	full := jobs.StorageFull
	tooMuch, _ := content(t, 1<<20)
	leave(t, last, id, tooMuch, &full)
	if err := first.Keep(id, []jobs.Artifact{*e}); err != nil {
		t.Fatal(err)
	}
	if n, err := last.Size(id); n != 0 || err != nil {
		t.Fatalf("%d bytes are left: %v", n, err)
	}
	if n, err := first.Remove(other); n != int64(len(big)) || err != nil {
		t.Fatalf("removed %d bytes: %v", n, err)
	}
	_, never := content(t, 10)
	if _, err := last.Open(other, never); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("got %v", err)
	}
	leave(t, last, id, tooMuch, nil) // there is room again
	if _, err := last.Remove(id); err != nil {
		t.Fatal(err)
	}
}
