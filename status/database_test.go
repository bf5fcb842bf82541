package status

import (
	"os"
	"testing"
)

// A tracker knows whether its file is still the one that others would open.
func TestPresent(t *testing.T) {
	tr := startTemp(t, Options{})
	if err := tr.Present(); err != nil {
		t.Errorf("a file that is there: %v", err)
	}
	away := tr.o.Path + ".away"
	if err := os.Rename(tr.o.Path, away); err != nil {
		t.Fatal(err)
	}
	if err := tr.Present(); err == nil {
		t.Error("a file that is gone")
	}
	if err := os.WriteFile(tr.o.Path, []byte("another"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := tr.Present(); err == nil {
		t.Error("a file that is another")
	}
	if err := os.Rename(away, tr.o.Path); err != nil {
		t.Fatal(err)
	}
	if err := tr.Present(); err != nil {
		t.Errorf("a file that is back: %v", err)
	}
}
