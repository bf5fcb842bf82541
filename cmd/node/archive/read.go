package archive

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"strings"
	"time"
)

// Entry describes a file in an archive.
type Entry struct {
	Name     string
	Mode     int64 // permissions only
	Modified time.Time
	Size     int64
}

// Summary says what an archive has.
type Summary struct {
	Info
	Files int64 // without the two of the archive itself
	Bytes int64 // of the whole archive
}

// Read reads an archive to its end and verifies it. begin gets the Info as soon as it is
// known, and each gets every file; what each does not read is read after it. None of it is
// verified before Read returns nil. An error says what is wrong, and where. It is one of
// begin, of each or of r, or it wraps [ErrBroken].
func Read(r io.Reader, begin func(*Info) error, each func(e *Entry, content io.Reader) error) (*Summary, error) {
	from := &source{r: r}
	a := &reader{from: from, tar: tar.NewReader(from), begin: begin, each: each}
	if err := a.read(); err != nil {
		return nil, err
	}
	return &a.got, nil
}

// ErrBroken says that an archive is damaged or cut off, or that it is no backup.
var ErrBroken = errors.New("the backup cannot be used")

// source counts and sums what is read. It keeps the error of what it reads from: the tar
// reader replaces some.
type source struct {
	r   io.Reader
	n   int64
	crc uint32
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.n += int64(n)
	s.crc = crc32.Update(s.crc, castagnoli, p[:n])
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// reader reads one archive.
type reader struct {
	from  *source
	tar   *tar.Reader
	begin func(*Info) error
	each  func(*Entry, io.Reader) error
	got   Summary
	last  string // the name of the last entry that was begun
	// lines has a hash of each line that the list must have. With a million files that is
	// 16 MB, where names and sums would be 130.
	lines [][16]byte
}

// broken is an error with the place at which it shows.
func (a *reader) broken(format string, args ...any) error {
	where := fmt.Sprintf(" (at byte %d)", a.from.n)
	if a.last != "" {
		where = fmt.Sprintf(" (at byte %d, last entry %s)", a.from.n, a.last)
	}
	return fmt.Errorf("%w: %s%s", ErrBroken, fmt.Sprintf(format, args...), where)
}

func (a *reader) read() error {
	for {
		h, err := a.next()
		if err != nil {
			return err
		}
		switch {
		case a.last == "" && h.Name != InfoName:
			return a.broken("this is no backup of jobstream: it begins with %q, not with %s", clip(h.Name), InfoName)
		case a.last == "":
			a.last = h.Name
			err = a.info(h)
		case h.Name == ListName:
			a.last = h.Name
			return a.list(h)
		default:
			err = a.file(h)
		}
		if err != nil {
			return err
		}
	}
}

// next is the next header.
func (a *reader) next() (*tar.Header, error) {
	h, err := a.tar.Next()
	switch {
	case err == nil:
	case a.from.err != nil:
		return nil, a.from.err
	case errors.Is(err, io.EOF) && a.from.n == 0:
		return nil, a.broken("it is empty")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, a.broken("it is cut off: the list of checksums at its end, %s, is missing", ListName)
	case a.last == "":
		return nil, a.broken("this is no backup of jobstream, which would be a tar")
	default:
		return nil, a.broken("it is damaged: no entry of a tar begins here")
	}
	if err != nil {
		return nil, err
	}
	if h.Typeflag != tar.TypeReg || h.Linkname != "" || sparse(h) {
		return nil, a.broken("%q is no plain file; a backup has neither folders, links, devices nor files with holes", clip(h.Name))
	}
	return h, nil
}

// sparse says that a file has holes, which would become more bytes than the archive has.
func sparse(h *tar.Header) bool {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse") {
			return true
		}
	}
	return false
}

func clip(name string) string {
	if len(name) > 100 {
		return name[:100] + "…"
	}
	return name
}

// info reads the first entry.
func (a *reader) info(h *tar.Header) error {
	if h.Size > maxInfo {
		return a.broken("%s has %d bytes", InfoName, h.Size)
	}
	var text bytes.Buffer
	if err := a.content(h, func(content io.Reader) error { _, err := text.ReadFrom(content); return err }); err != nil {
		return err
	}
	if err := json.Unmarshal(text.Bytes(), &a.got.Info); err != nil || a.got.Format < 1 {
		return a.broken("this is no backup of jobstream: %s does not say its format", InfoName)
	}
	if a.got.Format > Format {
		return fmt.Errorf("the backup has the format %d of jobstream %s, and this version knows only up to %d; restore it with that version or a later one", a.got.Format, a.got.Version, Format)
	}
	if a.begin == nil {
		return nil
	}
	return a.begin(&a.got.Info)
}

// file reads a file of the data folder.
func (a *reader) file(h *tar.Header) error {
	if err := Valid(h.Name); err != nil {
		return a.broken("the name %q %s", clip(h.Name), err)
	}
	a.last = h.Name
	a.got.Files++
	e := &Entry{Name: h.Name, Mode: h.Mode & 0o777, Modified: h.ModTime, Size: h.Size}
	return a.content(h, func(content io.Reader) error { return a.each(e, content) })
}

// content has f read the content of an entry, and notes its line.
func (a *reader) content(h *tar.Header, f func(io.Reader) error) error {
	in := &summed{from: a.tar, sum: sha256.New()}
	err := f(in)
	if err == nil && in.err == nil {
		_, err = io.Copy(io.Discard, in)
	}
	switch {
	case a.from.err != nil:
		return a.from.err
	case in.err != nil:
		return a.broken("it is cut off: of the %d bytes of %s there are %d", h.Size, h.Name, in.n)
	case err != nil:
		return err
	}
	line := sha256.Sum256(appendLine(nil, in.sum.Sum(nil), h.Name))
	a.lines = append(a.lines, [16]byte(line[:16]))
	return nil
}

// summed is the content of an entry.
type summed struct {
	from io.Reader
	sum  hash.Hash
	n    int64
	err  error // of from, except its end
}

func (s *summed) Read(p []byte) (int, error) {
	n, err := s.from.Read(p)
	s.n += int64(n)
	s.sum.Write(p[:n])
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// list compares the list with what was read, and reads to the end of the archive.
func (a *reader) list(h *tar.Header) error {
	end := lastLine(a.from.crc, a.from.n)
	in := bufio.NewReader(a.tar)
	var wrong error
	for i := range a.lines {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return a.badList(h)
		}
		sum := sha256.Sum256(line)
		if wrong == nil && [16]byte(sum[:16]) != a.lines[i] {
			wrong = a.broken("%s", wrongLine(line, i+1))
		}
	}
	if wrong != nil {
		return wrong
	}
	line, err := in.ReadSlice('\n')
	if err != nil {
		return a.badList(h)
	}
	if string(line) != end {
		return a.broken("it is damaged: the bytes before its list of checksums are not those that were written, although the files are; or the list is damaged")
	}
	if n, _ := in.Read(make([]byte, 1)); n > 0 {
		return a.broken("it is damaged: the list has more lines than there are files")
	}
	return a.end(h)
}

// badList is the error of a list that ends early.
func (a *reader) badList(h *tar.Header) error {
	if a.from.err != nil {
		return a.from.err
	}
	return a.broken("it is cut off or damaged in its list of checksums, which should have %d lines in %d bytes", len(a.lines)+1, h.Size)
}

// wrongLine explains a line of the list that does not fit the entry with this number.
func wrongLine(line []byte, number int) string {
	_, name, ok := strings.Cut(strings.TrimSuffix(string(line), "\n"), "  ")
	if !ok {
		return fmt.Sprintf("it is damaged: line %d of the list of checksums is none", number)
	}
	return fmt.Sprintf("it is damaged: %s does not have the checksum that line %d of the list says", clip(name), number)
}

// end reads the rest after the list, which is zeros up to a certain length.
func (a *reader) end(h *tar.Header) error {
	const block = 512
	want := (block-h.Size%block)%block + 2*block
	rest, err := io.ReadAll(io.LimitReader(a.from, want+1))
	switch {
	case err != nil:
		return err
	case int64(len(rest)) < want:
		return a.broken("it is cut off: the last %d bytes are missing", want-int64(len(rest)))
	case int64(len(rest)) > want:
		return a.broken("something follows behind its end")
	case len(bytes.Trim(rest, "\x00")) > 0:
		return a.broken("it is damaged: its end is not empty")
	}
	a.got.Bytes = a.from.n
	return nil
}
