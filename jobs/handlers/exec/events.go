package exec

import (
	"bytes"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"jobstream/jobs"
)

const (
	// maxLine bounds a line of output, in bytes; the rest is another line.
	maxLine = 8 << 10
	// maxEvent bounds a line of events, which may be a whole result. The rest is thrown
	// away: read as another line, a part of a result could be any word.
	maxEvent = len("result ") + jobs.MaxResult + 1
)

// lines is a writer that calls each for every line that is written to it.
type lines struct {
	each func(line string)
	most int  // bytes of a line
	cut  bool // the rest of a longer line is thrown away; otherwise it is another line
	rest []byte
	skip bool // up to the end of the line
}

// Write takes a piece of output.
func (l *lines) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		end, skip := len(b), 0
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			end, skip = i, 1
		}
		if l.skip {
			b = b[end+skip:]
			l.skip = skip == 0
			continue
		}
		if room := l.most - len(l.rest); end > room {
			end, skip = room, 0
		}
		l.rest = append(l.rest, b[:end]...)
		b = b[end+skip:]
		if skip > 0 || len(l.rest) == l.most {
			l.skip = l.cut && skip == 0
			l.flush()
		}
	}
	return n, nil
}

// flush ends the last line.
func (l *lines) flush() {
	s := strings.ToValidUTF8(string(l.rest), string(utf8.RuneError))
	l.rest = l.rest[:0]
	l.each(s)
}

// close ends a line that has no end.
func (l *lines) close() {
	if len(l.rest) > 0 {
		l.flush()
	}
}

// said is what a program has said on file descriptor 3. Its methods are called by one
// goroutine, and by another after that one has ended.
type said struct {
	progress func(percent int, message string)
	log      func(level, text string)
	result   []byte // JSON; nil: nothing
	files    []file // in the order in which they were named
	snoozed  time.Duration
	failed   bool // by the word error
	forGood  bool // and no retry cures it
	why      string
}

// file is an artifact that a program has named.
type file struct{ name, contentType string }

// line reads one line:
//
//	progress 45 row 4500 of 10000
//	log warn the input has no colour profile
//	result {"width":100}
//	artifact out.png image/png
//	snooze 60 the file is not there yet
//	error permanent no such customer
func (s *said) line(text string) {
	if text = strings.TrimRight(text, "\r "); text == "" {
		return
	}
	word, rest, _ := strings.Cut(text, " ")
	rest = strings.TrimSpace(rest)
	first, more, _ := strings.Cut(rest, " ")
	more = strings.TrimSpace(more)
	ok := true
	switch word {
	case "progress":
		percent, err := strconv.ParseFloat(strings.TrimSuffix(first, "%"), 64)
		if ok = err == nil && percent >= 0 && percent <= 100; ok {
			s.progress(int(percent), more)
		}
	case "log":
		if ok = first == "debug" || first == "info" || first == "warn" || first == "error"; ok {
			s.log(first, more)
		}
	case "result":
		if ok = valid(rest); ok {
			s.result = []byte(rest)
		}
	case "artifact":
		if ok = first != ""; ok && len(s.files) <= jobs.MaxArtifacts { // one too many makes the attempt fail
			s.files = append(s.files, file{first, more})
		}
	case "snooze":
		after, err := strconv.ParseFloat(first, 64)
		if ok = err == nil && after > 0 && after <= maxSnooze.Seconds(); ok {
			s.snoozed, s.why = time.Duration(after*float64(time.Second)), more
		}
	case "error":
		s.failed, s.why = true, rest
		if first == "permanent" {
			s.forGood, s.why = true, more
		}
	default:
		ok = false
	}
	if !ok {
		s.log("warn", "not understood on file descriptor 3: "+strings.ToValidUTF8(text[:min(len(text), maxLine)], ""))
	}
}

// maxSnooze is the longest time that a program may put its job off for.
const maxSnooze = 365 * 24 * time.Hour

// tail keeps the last bytes that are written to it.
type tail struct {
	b    []byte
	most int
}

func (t *tail) Write(b []byte) (int, error) {
	t.b = append(t.b, b[max(0, len(b)-t.most):]...)
	if len(t.b) > t.most {
		t.b = append(t.b[:0], t.b[len(t.b)-t.most:]...)
	}
	return len(b), nil
}

func (t *tail) text() string {
	return strings.TrimSpace(strings.ToValidUTF8(string(t.b), string(utf8.RuneError)))
}

// head keeps the first bytes that are written to it, and whether there were more.
type head struct {
	b    []byte
	most int
	more bool
}

func (h *head) Write(b []byte) (int, error) {
	n := min(len(b), h.most-len(h.b))
	h.b = append(h.b, b[:n]...)
	h.more = h.more || n < len(b)
	return len(b), nil
}
