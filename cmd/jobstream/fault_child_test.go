package main

import (
	"os"
	"time"

	"jobstream/cmd/jobstream/internal/config"
)

// Environment variables by which the fault tests set up the server under test.
const (
	childLease    = "TEST_CHILD_LEASE"     // its worker.lease
	childBootFile = "TEST_CHILD_BOOT_FILE" // where it reads which run of the operating system this is
)

// faultSettings makes one of them a setting of the server. Its disks may be small, and
// are to be filled.
func faultSettings(cfg *config.Config) {
	cfg.Data.MinFree = 0
	if d, err := time.ParseDuration(os.Getenv(childLease)); err == nil {
		cfg.Worker.Lease = d
	}
}
