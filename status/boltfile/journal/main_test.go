package journal

import (
	"flag"
	"os"
	"testing"
)

// TestMain makes properties shorter than by default, which takes long with the race
// detector. Use -rapid.checks=300 for a change of the journal.
func TestMain(m *testing.M) {
	flag.Parse()
	const checks = "rapid.checks"
	asked := false
	flag.Visit(func(f *flag.Flag) { asked = asked || f.Name == checks })
	if !asked {
		if err := flag.Set(checks, "40"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}
