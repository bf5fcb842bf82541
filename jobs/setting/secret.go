package setting

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// reference is what stands for a secret in a value.
var reference = regexp.MustCompile(`\$\{(env|file):([^}]*)\}`)

// Reveal fills the secrets of a value in: the environment's variable for ${env:NAME}, the
// content of a file without the ends of its last lines for ${file:PATH}. Relative paths
// begin at folder.
func Reveal(text, folder string) (string, error) {
	var failed error
	out := reference.ReplaceAllStringFunc(text, func(found string) string {
		m := reference.FindStringSubmatch(found)
		if m[1] == "env" {
			v, ok := os.LookupEnv(m[2])
			if !ok && failed == nil {
				failed = fmt.Errorf("the environment has no %s", m[2])
			}
			return v
		}
		b, err := os.ReadFile(Path(folder, m[2]))
		if err != nil && failed == nil {
			failed = err
		}
		return strings.TrimRight(string(b), "\r\n")
	})
	if failed == nil && strings.ContainsRune(out, 0) {
		failed = fmt.Errorf("has a NUL byte")
	}
	return out, failed
}

// Path is a path that begins at folder, unless it is absolute.
func Path(folder, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	if abs, err := filepath.Abs(filepath.Join(folder, path)); err == nil {
		return abs
	}
	return filepath.Join(folder, path)
}
