package intake_test

import (
	"testing"

	"go.uber.org/goleak"
)

// Nothing of the domain may leave a goroutine behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
