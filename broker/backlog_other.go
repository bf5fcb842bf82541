//go:build !linux

package broker

// shortenBacklog does something on Linux only.
func shortenBacklog(port, most int) {}
