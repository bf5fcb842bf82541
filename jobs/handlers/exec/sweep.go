//go:build unix

package exec

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"jobstream/jobs/handlers/exec/proc"
)

// markVariable is in the environment of every program, and so in that of all processes
// that it starts.
const markVariable = "JOBSTREAM_MARK"

// Mark is how the entry of the environment begins by which the processes of a server on
// this data folder are known. A copy of the folder has another one.
func Mark(data string) (string, error) {
	var st syscall.Stat_t
	if err := syscall.Stat(data, &st); err != nil {
		return "", fmt.Errorf("the data folder: %w", err)
	}
	return fmt.Sprintf("%s=%x-%x.", markVariable, st.Dev, st.Ino), nil
}

// foreign begins the names of attempts' folders that are not below the data folder.
func foreign(mark string) string {
	return "jobstream-" + strings.TrimSuffix(strings.TrimPrefix(mark, markVariable+"="), ".") + "-"
}

// Sweep ends what programs of a server that was killed have left running, and removes the
// folders of their attempts. Call it when the data folder is locked, before any job runs.
// It returns how many processes there were. The error names the folders that cannot be
// removed; they are in nobody's way.
func Sweep(h Host) (killed int, err error) {
	mark, err := Mark(h.Data)
	if err != nil {
		return 0, err
	}
	killed = proc.Sweep(mark)
	left, _ := filepath.Glob(filepath.Join(os.TempDir(), foreign(mark)+"*")) // the pattern is fine
	// The folder of the attempts itself stays: another file system may be mounted there.
	mine, err := os.ReadDir(h.Work)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	problems := []error{err}
	for _, entry := range mine {
		left = append(left, filepath.Join(h.Work, entry.Name()))
	}
	for _, dir := range left {
		problems = append(problems, remove(dir))
	}
	return killed, errors.Join(problems...)
}
