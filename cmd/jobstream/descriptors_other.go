//go:build !unix

package main

// fileLimit is how many files the process may have open.
func fileLimit() (files uint64, known bool) { return 0, false }
