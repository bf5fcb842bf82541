package archive_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"jobstream/cmd/node/archive"
)

var at = time.Date(2026, 11, 30, 17, 0, 0, 123456789, time.UTC)

// sample is the content of an archive.
var sample = []struct {
	name, content string
	mode          os.FileMode
}{
	{"status.db", strings.Repeat("the tracker ", 100), 0o640},
	{"set-aside.jsonl", "{}\n", 0o640},
	{"artifacts/01a22d79-77fc-729c-a3d4-b2f75bc0ca57.d/0a6646395a8333c17c8bc206ec863268", "file", 0o444},
	{"logs/01a22d79-77fc-729c-a3d4-b2f75bc0ca57", "", 0o640},
	{"outbox/01a22d79-77fc-729c-a3d4-b2f75bc0ca57.eml", "To: a@b.c\r\n", 0o600},
}

func mustDo(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// made is the sample as an archive.
func made(t testing.TB) []byte {
	t.Helper()
	var out bytes.Buffer
	list, err := os.CreateTemp(t.TempDir(), "")
	mustDo(t, err)
	defer list.Close()
	w, err := archive.NewWriter(&out, list, archive.Info{Version: "v1.2.3", At: at, Node: "n", Jobs: 42, Status: 43, Bytes: 44})
	mustDo(t, err)
	for _, f := range sample {
		mustDo(t, w.Add(f.name, f.mode, at, int64(len(f.content)), strings.NewReader(f.content)))
	}
	mustDo(t, w.Close())
	return out.Bytes()
}

// read reads an archive, and returns its files as one text.
func read(r io.Reader) (*archive.Summary, string, error) {
	var all strings.Builder
	got, err := archive.Read(r, nil, func(e *archive.Entry, content io.Reader) error {
		b, err := io.ReadAll(content)
		fmt.Fprintf(&all, "%s %o %d %s\n", e.Name, e.Mode, e.Size, b)
		return err
	})
	return got, all.String(), err
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	whole := made(t)
	got, all, err := read(iotest.OneByteReader(bytes.NewReader(whole)))
	mustDo(t, err)
	if got.Version != "v1.2.3" || got.Node != "n" || !got.At.Equal(at) || got.Jobs != 42 || got.Status != 43 || got.Info.Bytes != 44 ||
		got.Format != archive.Format || got.Files != int64(len(sample)) || got.Bytes != int64(len(whole)) {
		t.Errorf("it is %+v", got)
	}
	want := ""
	for _, f := range sample {
		want += fmt.Sprintf("%s %o %d %s\n", f.name, f.mode, len(f.content), f.content)
	}
	if all != want {
		t.Errorf("got\n%swant\n%s", all, want)
	}
	// What is not read of a file is verified as well.
	_, err = archive.Read(bytes.NewReader(whole), nil, func(*archive.Entry, io.Reader) error { return nil })
	mustDo(t, err)
}

// TestCut has no beginning of an archive pass for a whole one.
func TestCut(t *testing.T) {
	t.Parallel()
	whole := made(t)
	for n := range len(whole) {
		_, _, err := read(bytes.NewReader(whole[:n]))
		switch {
		case err == nil:
			t.Fatalf("the first %d of %d bytes are taken", n, len(whole))
		case !errors.Is(err, archive.ErrBroken):
			t.Fatalf("the first %d bytes: %v", n, err)
		case n > 0 && !strings.Contains(err.Error(), "cut off"):
			t.Errorf("the first %d bytes: %v", n, err)
		case n > 1024 && !strings.Contains(err.Error(), "last entry"):
			t.Errorf("the first %d bytes, without a place: %v", n, err)
		}
	}
}

// TestFlipped has no flipped bit pass.
func TestFlipped(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	whole := made(t)
	for n := range len(whole) {
		bit := byte(1) << rng.IntN(8)
		whole[n] ^= bit
		if _, _, err := read(bytes.NewReader(whole)); err == nil {
			t.Errorf("byte %d with bit %#x flipped is taken", n, bit)
		}
		whole[n] ^= bit
	}
	_, _, err := read(bytes.NewReader(whole))
	mustDo(t, err)
	at := bytes.Index(whole, []byte("the tracker "))
	whole[at] ^= 1
	if _, _, err := read(bytes.NewReader(whole)); err == nil || !strings.Contains(err.Error(), "status.db does not have the checksum") {
		t.Errorf("damage in the tracker: %v", err)
	}
}

// TestReadError passes an error of the medium on, instead of calling the archive damaged.
func TestReadError(t *testing.T) {
	t.Parallel()
	whole, lost := made(t), errors.New("the disk is gone")
	for n := 0; n < len(whole); n += 100 {
		_, _, err := read(io.MultiReader(bytes.NewReader(whole[:n]), iotest.ErrReader(lost)))
		if !errors.Is(err, lost) || errors.Is(err, archive.ErrBroken) {
			t.Fatalf("after %d bytes: %v", n, err)
		}
	}
	if _, err := archive.Read(bytes.NewReader(whole), nil, func(*archive.Entry, io.Reader) error { return lost }); !errors.Is(err, lost) || errors.Is(err, archive.ErrBroken) {
		t.Errorf("an error of the caller: %v", err)
	}
	if _, err := archive.Read(bytes.NewReader(whole), func(*archive.Info) error { return lost }, nil); !errors.Is(err, lost) {
		t.Errorf("an error of the caller: %v", err)
	}
}

// TestHostile gives it what no server makes.
func TestHostile(t *testing.T) {
	t.Parallel()
	const info = `{"format":1,"version":"v1"}`
	entry := func(h tar.Header, content string) func(*tar.Writer) error {
		return func(w *tar.Writer) error {
			if h.Size == 0 {
				h.Size = int64(len(content))
			}
			if h.Typeflag == 0 {
				h.Typeflag = tar.TypeReg
			}
			err := w.WriteHeader(&h)
			if err == nil {
				_, err = io.WriteString(w, content)
			}
			return err
		}
	}
	named := func(name string) []func(*tar.Writer) error {
		return []func(*tar.Writer) error{entry(tar.Header{Name: "backup.json"}, info), entry(tar.Header{Name: name}, "x")}
	}
	of := func(h tar.Header) []func(*tar.Writer) error {
		return []func(*tar.Writer) error{entry(tar.Header{Name: "backup.json"}, info), entry(h, "")}
	}
	for what, c := range map[string]struct {
		entries []func(*tar.Writer) error
		want    string
	}{
		"another tar":      {[]func(*tar.Writer) error{entry(tar.Header{Name: "README"}, "x")}, `begins with "README"`},
		"up":               {named("artifacts/../../evil"), "no plain path"},
		"root":             {named("/etc/passwd"), "no plain path"},
		"backslashes":      {named(`artifacts\..\evil`), "no plain path"},
		"control":          {named("artifacts/a\nb"), "no plain path"},
		"the folder":       {named("artifacts"), "none of a data folder"},
		"elsewhere":        {named("operator-token"), "none of a data folder"},
		"a working folder": {named("work/x"), "none of a data folder"},
		"long":             {named("logs/" + strings.Repeat("x", 600)), "too long"},
		"deep":             {named("logs/" + strings.Repeat("x/", 30) + "x"), "too long"},
		"info again":       {named("backup.json"), "none of a data folder"},
		"a link":           {of(tar.Header{Name: "logs/x", Typeflag: tar.TypeSymlink, Linkname: "/etc"}), "no plain file"},
		"a hard link":      {of(tar.Header{Name: "logs/x", Typeflag: tar.TypeLink, Linkname: "status.db"}), "no plain file"},
		"a device":         {of(tar.Header{Name: "logs/x", Typeflag: tar.TypeChar}), "no plain file"},
		"a pipe":           {of(tar.Header{Name: "logs/x", Typeflag: tar.TypeFifo}), "no plain file"},
		"newer":            {[]func(*tar.Writer) error{entry(tar.Header{Name: "backup.json"}, `{"format":2,"version":"v9.9"}`)}, "jobstream v9.9"},
		"no format":        {[]func(*tar.Writer) error{entry(tar.Header{Name: "backup.json"}, `{}`)}, "does not say its format"},
		"no JSON":          {[]func(*tar.Writer) error{entry(tar.Header{Name: "backup.json"}, `x`)}, "does not say its format"},
		"a huge info":      {[]func(*tar.Writer) error{entry(tar.Header{Name: "backup.json"}, strings.Repeat(" ", 100_000))}, "100000 bytes"},
		"no list":          {named("logs/x"), "SHA256SUMS, is missing"},
		"an empty list":    {named("SHA256SUMS"), "list of checksums"},
	} {
		var out bytes.Buffer
		w := tar.NewWriter(&out)
		for _, write := range c.entries {
			mustDo(t, write(w))
		}
		mustDo(t, w.Close())
		_, _, err := read(&out)
		found := false
		for want := range strings.SplitSeq(c.want, "|") {
			found = found || err != nil && strings.Contains(err.Error(), want)
		}
		if !found {
			t.Errorf("%s: %v, want %q", what, err, c.want)
		}
	}
	for what, text := range map[string]string{"nothing": "", "text": strings.Repeat("no tar ", 200), "zeros": strings.Repeat("\x00", 2048)} {
		if _, _, err := read(strings.NewReader(text)); !errors.Is(err, archive.ErrBroken) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, _, err := read(io.MultiReader(bytes.NewReader(made(t)), strings.NewReader("x"))); err == nil || !strings.Contains(err.Error(), "follows") {
		t.Errorf("something behind the end: %v", err)
	}
}

// TestSparse refuses a file with holes, which would become far more than the archive.
func TestSparse(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	mustDo(t, w.WriteHeader(&tar.Header{Name: "backup.json", Typeflag: tar.TypeReg, Size: 12}))
	_, err := io.WriteString(w, `{"format":1}`)
	mustDo(t, err)
	mustDo(t, w.Flush())
	// A pax header of GNU tar, version 0.1: one byte of data in a terabyte.
	records := ""
	for _, r := range []string{"GNU.sparse.size=1099511627776", "GNU.sparse.numblocks=1", "GNU.sparse.map=0,1", "GNU.sparse.name=logs/x"} {
		n := len(r) + 3
		for len(fmt.Sprintf("%d %s\n", n, r)) != n {
			n++
		}
		records += fmt.Sprintf("%d %s\n", n, r)
	}
	raw := func(h tar.Header, content string) {
		var one bytes.Buffer
		w := tar.NewWriter(&one)
		h.Size = int64(len(content))
		mustDo(t, w.WriteHeader(&tar.Header{Name: h.Name, Typeflag: tar.TypeReg, Size: h.Size, Format: tar.FormatUSTAR}))
		_, err := io.WriteString(w, content)
		mustDo(t, err)
		mustDo(t, w.Flush())
		b := one.Bytes()
		b[156] = h.Typeflag // and the sum of the header anew
		copy(b[148:156], "        ")
		sum := 0
		for _, c := range b[:512] {
			sum += int(c)
		}
		copy(b[148:156], fmt.Sprintf("%06o\x00 ", sum))
		out.Write(b)
	}
	raw(tar.Header{Name: "PaxHeaders.0/x", Typeflag: tar.TypeXHeader}, records)
	raw(tar.Header{Name: "logs/x", Typeflag: tar.TypeReg}, "x")
	if _, _, err := read(&out); err == nil || !strings.Contains(err.Error(), "no plain file") {
		t.Errorf("%v", err)
	}
}

// TestWriterRefuses has a file that changes, or has no place, break the archive.
func TestWriterRefuses(t *testing.T) {
	t.Parallel()
	for what, add := range map[string]func(*archive.Writer) error{
		"shorter": func(w *archive.Writer) error {
			return w.Add("logs/x", 0o640, at, 5, strings.NewReader("four"))
		},
		"longer": func(w *archive.Writer) error {
			return w.Add("logs/x", 0o640, at, 3, strings.NewReader("four"))
		},
	} {
		list, err := os.CreateTemp(t.TempDir(), "")
		mustDo(t, err)
		w, err := archive.NewWriter(io.Discard, list, archive.Info{At: at})
		mustDo(t, err)
		if err := w.Add("work/x", 0o640, at, 1, strings.NewReader("x")); err == nil {
			t.Error("a name that is none of an archive is taken")
		}
		if err := add(w); err == nil || !strings.Contains(err.Error(), "logs/x has changed") {
			t.Errorf("%s: %v", what, err)
		}
		if err := w.Close(); err == nil {
			t.Errorf("%s: the archive is whole", what)
		}
		list.Close()
	}
}

func FuzzRead(f *testing.F) {
	whole := made(f)
	f.Add(whole)
	f.Add(whole[:len(whole)-700])
	f.Fuzz(func(t *testing.T, b []byte) {
		read := int64(0)
		_, err := archive.Read(bytes.NewReader(b), nil, func(e *archive.Entry, content io.Reader) error {
			if err := archive.Valid(e.Name); err != nil {
				t.Errorf("%q: %v", e.Name, err)
			}
			n, err := io.Copy(io.Discard, content)
			read += n
			return err
		})
		if read > int64(len(b)) {
			t.Errorf("%d bytes became %d", len(b), read)
		}
		if err == nil && !bytes.Equal(b, whole) && len(b) < 3*512 {
			t.Error("that was no archive")
		}
	})
}
