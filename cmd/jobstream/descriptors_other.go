//go:build !unix

package main

// fileLimit is how many files the process may have open. It is unknown here.
func fileLimit() (files uint64, known bool) { return 0, false }

// keepInherited does nothing: programs inherit nothing here that is not named.
func keepInherited() {}
