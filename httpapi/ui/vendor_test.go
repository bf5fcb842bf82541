package ui_test

import (
	"bufio"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"testing"

	"jobstream/httpapi/ui"
)

// TestVendor compares the files of others with the list of them.
func TestVendor(t *testing.T) {
	list, err := os.Open("vendor/files.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer list.Close() //nolint:errcheck // it is read only
	listed := make(map[string]bool)
	for lines := bufio.NewScanner(list); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 || fields[0] == "#" {
			continue
		}
		if len(fields) != 6 {
			t.Fatalf("%q has %d fields, not 6", lines.Text(), len(fields))
		}
		name, sum := fields[0]+".gz", fields[4]
		listed[name] = true
		f, err := ui.Files.Open("vendor/" + name)
		if err != nil {
			t.Error(err)
			continue
		}
		z, err := gzip.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		h := sha256.New()
		if _, err := io.Copy(h, z); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%x", h.Sum(nil)); got != sum {
			t.Errorf("%s has the checksum %s, not %s; run vendor/update", name, got, sum)
		}
		licence, _, _ := strings.Cut(fields[0], ".")
		if _, err := os.Stat("vendor/" + licence + ".LICENSE"); err != nil {
			t.Errorf("%s needs its licence beside it: %v", name, err)
		}
	}
	if len(listed) == 0 {
		t.Error("no file is listed")
	}
	files, err := fs.Glob(ui.Files, "vendor/*.gz")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if !listed[strings.TrimPrefix(name, "vendor/")] {
			t.Errorf("%s is not in files.txt", name)
		}
	}
}
