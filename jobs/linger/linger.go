// Package linger lets files that are removed linger while their folder is being copied.
// So a copy that lasts has every file that was there when it began.
//
// Whoever removes files that a copy may need calls [Remove]. Whoever copies calls
// [Hold] first, and [Held.Walk] later.
package linger

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// aside is the name of the folder, in one that is held, to which removed files are moved.
const aside = ".lingering"

// held are the folders that are held in this process, by their absolute paths. They are
// nobody's state, but that of the file system.
var held = struct {
	sync.RWMutex
	by map[string]*Held
}{by: make(map[string]*Held)}

// ErrHeld says that somebody holds a folder already.
var ErrHeld = errors.New("the folder is being copied")

// Held is a folder whose removed files linger.
type Held struct {
	path string

	mu  sync.Mutex
	err error // the first removal that could not be held
}

// Remove removes a file, like [os.Remove]. In a folder that is held its name is free as
// well, and its content lingers.
func Remove(path string) error {
	held.RLock()
	defer held.RUnlock()
	if len(held.by) == 0 {
		return os.Remove(path)
	}
	full, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	for _, h := range held.by {
		if below, ok := strings.CutPrefix(full, h.path+string(filepath.Separator)); ok {
			return h.remove(full, below)
		}
	}
	return os.Remove(path)
}

func (h *Held) remove(path, below string) error {
	to := filepath.Join(h.path, aside, below)
	err := os.MkdirAll(filepath.Dir(to), 0o750)
	if err == nil {
		err = os.Rename(path, to)
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err == nil {
		h.err = fmt.Errorf("a file that was removed could not be kept for the copy: %w", err)
	}
	return os.Remove(path)
}

// Hold holds a folder, until [Held.Release]. It waits for removals under way: those that
// come later linger. The folder may be missing. Only one may hold it.
func Hold(folder string) (*Held, error) {
	path, err := filepath.Abs(folder)
	if err != nil {
		return nil, err
	}
	held.Lock()
	defer held.Unlock()
	if held.by[path] != nil {
		return nil, fmt.Errorf("%s: %w", folder, ErrHeld)
	}
	if err := sweep(path); err != nil {
		return nil, err
	}
	h := &Held{path: path}
	held.by[path] = h
	return h, nil
}

// Release removes what lingers. From then on files are removed at once again.
func (h *Held) Release() error {
	held.Lock()
	delete(held.by, h.path)
	held.Unlock()
	return Sweep(h.path)
}

// Sweep removes what a crash has left lingering in a folder.
func Sweep(folder string) error {
	path, err := filepath.Abs(folder)
	if err != nil {
		return err
	}
	held.RLock()
	defer held.RUnlock()
	if held.by[path] != nil {
		return nil // it is needed
	}
	return sweep(path)
}

func sweep(path string) error { return os.RemoveAll(filepath.Join(path, aside)) }

// Walk opens each regular file that is in the folder, or was when Hold returned, and calls
// f with its path below the folder, with slashes. Files that came since then may be among
// them. Names that begin with a dot are left out: they are of files that are being
// written. An error of f ends it.
func (h *Held) Walk(f func(name string, file *os.File, info fs.FileInfo) error) error {
	if err := h.walk("", f); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.err
}

// walk is Walk below a folder. A removed file may be listed at both places. It is listed
// at one at least: it moves from the one that is looked at first to the other one.
func (h *Held) walk(below string, f func(string, *os.File, fs.FileInfo) error) error {
	names, err := list(filepath.Join(h.path, below))
	if err != nil {
		return err
	}
	lingering, err := list(filepath.Join(h.path, aside, below))
	if err != nil {
		return err
	}
	names = append(names, lingering...)
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if strings.HasPrefix(name, ".") {
			continue
		}
		if err := h.visit(filepath.Join(below, name), f); err != nil {
			return err
		}
	}
	return nil
}

// visit calls f with a file, or walks a folder.
func (h *Held) visit(name string, f func(string, *os.File, fs.FileInfo) error) error {
	path := filepath.Join(h.path, name)
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		path = filepath.Join(h.path, aside, name)
		info, err = os.Lstat(path)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil // it was being written under this name, or it is an empty folder that was removed
	case err != nil:
		return err
	case info.IsDir():
		return h.walk(name, f)
	case !info.Mode().IsRegular():
		return nil
	}
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) { // it was removed just now
		file, err = os.Open(filepath.Join(h.path, aside, name))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // opened for reading only
	if info, err = file.Stat(); err != nil {
		return err
	}
	return f(filepath.ToSlash(name), file, info)
}

// list are the names in a folder; none if it is missing.
func list(folder string) ([]string, error) {
	dir, err := os.Open(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close() //nolint:errcheck // opened for reading only
	return dir.Readdirnames(-1)
}
