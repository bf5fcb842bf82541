package main

import (
	"strings"
	"testing"
)

func TestConnsAllowed(t *testing.T) {
	for _, c := range []struct {
		want, workers int
		files         uint64
		allowed       int // 0 = an error
	}{
		{10_000, 10, 1 << 20, 10_000},
		{10_000, 10, 65_536, 10_000},
		{10_000, 10, 4096, 987},
		{10_000, 10, 1024, 219},
		{10_000, 10, 400, 63},
		{50, 10, 400, 50},
		{10_000, 10_000, 1024, 112},
		{10_000, 10_000, leastFiles, leastConns},
		{10_000, 1, leastFiles - 1, 0},
		{1, 1, 0, 0},
	} {
		allowed, err := connsAllowed(c.want, c.workers, c.files)
		if allowed != c.allowed || (err != nil) != (c.allowed == 0) {
			t.Errorf("%d of %d files with %d workers: %d, %v; want %d", c.want, c.files, c.workers, allowed, err, c.allowed)
		}
		// Both doors full, a download on each connection of REST, every worker at work.
		if used := storeFiles + allowed*filesOfClient; err == nil && uint64(used) > c.files {
			t.Errorf("%d of %d files with %d workers: %d would be used", c.want, c.files, c.workers, used)
		}
	}
}

func TestConnsSaysWhatIsLess(t *testing.T) {
	files, known := fileLimit()
	if !known {
		t.Skip("NOT TESTED: nobody says how many files may be open")
	}
	most, err := connsAllowed(1_000_000_000, 10, files)
	mustDo(t, err)
	for _, c := range []struct {
		want, allowed int
		said          bool
	}{
		{0, min(most, usualConns), most < fewConns},
		{most, most, false},
		{most + 1, most, true},
		{1, 1, false},
	} {
		log := newLogged()
		allowed, err := conns(c.want, 10, commandLog(log))
		if said := strings.Contains(log.String(), "server.max_connections"); err != nil || allowed != c.allowed || said != c.said {
			t.Errorf("%d of %d files: %d, %v, and it says %q", c.want, files, allowed, err, log)
		}
	}
}
