package node

import (
	"os"
	"strings"
)

// bootID identifies the present run of the operating system; "" if file does not say, as
// anywhere but on Linux.
func bootID(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
