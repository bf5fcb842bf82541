package node

import (
	"os"
	"strings"
)

// bootID identifies the present run of the operating system. It is "" if file does not,
// as on all systems but Linux.
func bootID(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
