package intake_test

import (
	"flag"
	"testing"

	"go.uber.org/goleak"
)

// Nothing of the domain may leave a goroutine behind.
func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("rapid.checks"); f.Value.String() == f.DefValue { // each check writes files
		if err := f.Value.Set("30"); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(m)
}
