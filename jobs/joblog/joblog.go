// Package joblog keeps what jobs say while they run: a bounded file for each.
//
// Start reading at [Dir]. A log is for people: it is not synced, so that a power cut may
// cost its last lines, and what is too much is dropped and counted.
//
// A job's log is up to three files in the folder: the head under the job's id, with the
// first lines for good, and two that take turns behind it, id.1 and id.2. An entry is a
// line of JSON with a number, so that a gap between numbers says how much was dropped.
package joblog

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"jobstream/jobs"
)

// Bounds of one job's log.
const (
	MaxHead  = 256 << 10 // bytes that stay from the beginning
	MaxPart  = 384 << 10 // bytes of each of the two files behind that
	MaxText  = 8 << 10   // bytes of one entry's text
	MaxBurst = 1000      // entries in a second; more are dropped
)

// Entry is one line of a log.
type Entry struct {
	N       int        `json:"n"` // counts the entries of a job, from 1
	At      time.Time  `json:"at"`
	Attempt int        `json:"attempt"`
	Level   jobs.Level `json:"level"`
	Stream  string     `json:"stream,omitempty"` // stdout or stderr, of a program
	Text    string     `json:"text"`
}

// Dir keeps the logs of jobs in a folder. Its methods may be called from any goroutine.
type Dir struct {
	path  string
	heard func(j *jobs.Job, e *Entry)

	mu   sync.Mutex
	open map[jobs.ID]*log
}

var _ jobs.Logs = (*Dir)(nil)

// New is the log folder at path, which is made when it is needed. heard gets every entry
// that is kept, and must not block; it may be nil.
func New(path string, heard func(j *jobs.Job, e *Entry)) *Dir {
	return &Dir{path: path, heard: heard, open: make(map[jobs.ID]*log)}
}

// log is that of a job of which an attempt runs, or that somebody follows.
type log struct {
	d    *Dir
	id   jobs.ID
	uses int // by attempts and followers; guarded by Dir.mu

	mu      sync.Mutex
	n       int // of the last entry
	part    int // that is written: 0 is the head
	size    int // of that
	file    *os.File
	second  int64         // of the last entry
	burst   int           // entries in it
	more    chan struct{} // closed by the next entry
	running int           // attempts
	failed  bool          // the folder does not take anything
}

// acquire returns the log of a job, to be released.
func (d *Dir) acquire(id jobs.ID) *log {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.open[id]
	if l == nil {
		l = &log{d: d, id: id, n: -1, more: make(chan struct{})}
		d.open[id] = l
	}
	l.uses++
	return l
}

func (d *Dir) release(l *log) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if l.uses--; l.uses == 0 {
		delete(d.open, l.id)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.close()
	}
}

func (d *Dir) file(id jobs.ID, part int) string {
	name := filepath.Join(d.path, id.String())
	if part > 0 {
		name += fmt.Sprintf(".%d", part)
	}
	return name
}

// writer appends the entries of one attempt.
type writer struct {
	l       *log
	job     *jobs.Job
	attempt int
}

// Open begins the entries of an attempt.
func (d *Dir) Open(j *jobs.Job, attempt int) jobs.LogWriter {
	l := d.acquire(j.ID)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running++
	return &writer{l, j, attempt}
}

// Log appends an entry. Text that is too long is cut, and control characters in it are
// escaped: they could do something to the terminal of whoever reads it.
func (w *writer) Log(level jobs.Level, stream, text string) {
	e := &Entry{At: time.Now().UTC(), Attempt: w.attempt, Level: level, Stream: stream, Text: clean(text)}
	if w.l.append(e) && w.l.d.heard != nil {
		w.l.d.heard(w.job, e)
	}
}

// Close ends the entries of the attempt.
func (w *writer) Close() {
	l := w.l
	l.mu.Lock()
	l.running--
	l.wake()
	l.mu.Unlock()
	l.d.release(l)
}

// clean is text as a log shows it.
func clean(text string) string {
	if len(text) > MaxText {
		text = jobs.Shorten(text, MaxText)
	}
	if utf8.ValidString(text) && !strings.ContainsFunc(text, control) {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if control(r) {
			fmt.Fprintf(&b, `\x%02x`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// control says whether a character could do something to a terminal.
func control(r rune) bool { return r < ' ' && r != '\t' || r >= 0x7f && r < 0xa0 }

// wake wakes all followers. l.mu is locked.
func (l *log) wake() {
	close(l.more)
	l.more = make(chan struct{})
}

// append writes an entry, or counts it as dropped.
func (l *log) append(e *Entry) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.n < 0 {
		l.resume()
	}
	l.n++
	e.N = l.n
	if s := e.At.Unix(); s != l.second {
		l.second, l.burst = s, 0
	}
	if l.burst++; l.burst > MaxBurst || l.failed {
		return false
	}
	b, err := json.Marshal(e)
	if err != nil {
		return false
	}
	if err := l.write(append(b, '\n')); err != nil {
		l.failed = true // until the next attempt; a log is not worth an error of the job
		return false
	}
	l.wake()
	return true
}

// resume finds out where the log of an earlier attempt, or of an earlier process, ends.
// l.mu is locked.
func (l *log) resume() {
	l.n = 0
	if _, err := os.Lstat(l.d.file(l.id, 0)); errors.Is(err, fs.ErrNotExist) {
		return // without a head there is nothing behind it
	}
	for part := range 3 {
		last, size := 0, 0
		_ = l.d.read(l.id, part, func(e *Entry, bytes int) bool {
			last, size = e.N, size+bytes
			return true
		})
		if last > l.n {
			l.n, l.part, l.size = last, part, size
		}
	}
}

// write appends to the file whose turn it is. l.mu is locked.
func (l *log) write(b []byte) error {
	most := MaxPart
	if l.part == 0 {
		most = MaxHead
	}
	turned := false
	if l.size > 0 && l.size+len(b) > most {
		l.close()
		l.part, l.size, turned = l.part%2+1, 0, true
	}
	if l.file == nil {
		if err := os.MkdirAll(l.d.path, 0o750); err != nil {
			return err
		}
		flags := os.O_CREATE | os.O_WRONLY | os.O_APPEND
		if turned {
			flags |= os.O_TRUNC
		}
		f, err := os.OpenFile(l.d.file(l.id, l.part), flags, 0o640)
		if err != nil {
			return err
		}
		l.file = f
	}
	n, err := l.file.Write(b)
	l.size += n
	return err
}

// close closes the file that is written. l.mu is locked.
func (l *log) close() {
	if l.file != nil {
		_ = l.file.Close() // it is not synced, either
		l.file = nil
	}
}

// read calls f for the entries of one file, with their sizes, until it says no. What a
// crash has cut off is passed over.
func (d *Dir) read(id jobs.ID, part int, f func(e *Entry, bytes int) bool) error {
	file, err := os.Open(d.file(id, part))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	s := bufio.NewScanner(file)
	s.Buffer(nil, 16*MaxText)
	for s.Scan() {
		var e Entry
		line := bytes.TrimSpace(s.Bytes())
		if json.Unmarshal(line, &e) == nil && e.N > 0 && !f(&e, len(s.Bytes())+1) {
			return nil
		}
	}
	return s.Err()
}
