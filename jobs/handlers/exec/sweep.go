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
// It returns how many processes there were.
func Sweep(h Host, all []*Options) (killed int, err error) {
	mark, err := Mark(h.Data)
	if err != nil {
		return 0, err
	}
	var users []*proc.User
	for _, o := range all {
		if o.user != nil {
			users = append(users, o.user)
		}
	}
	killed = proc.Sweep(mark, users...)
	left, _ := filepath.Glob(filepath.Join(os.TempDir(), foreign(mark)+"*")) // the pattern is fine
	// The folder of the attempts itself stays: another file system may be mounted there.
	mine, err := os.ReadDir(h.Work)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return killed, err
	}
	for _, entry := range mine {
		left = append(left, filepath.Join(h.Work, entry.Name()))
	}
	for _, dir := range left {
		if err := remove(dir); err != nil {
			return killed, fmt.Errorf("the folder of a program that a crash has left: %w", err)
		}
	}
	return killed, nil
}
