package archive

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"time"
)

// castagnoli is the polynomial for which processors have an instruction.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Writer writes an archive. Its methods return the first error again and again.
type Writer struct {
	out  *through
	tar  *tar.Writer
	list io.ReadWriteSeeker
	buf  *bufio.Writer // to list
	size int64         // bytes of the list
	at   time.Time
	err  error
}

// through counts and sums what passes.
type through struct {
	w   io.Writer
	n   int64
	crc uint32
}

func (t *through) Write(p []byte) (int, error) {
	n, err := t.w.Write(p)
	t.n += int64(n)
	t.crc = crc32.Update(t.crc, castagnoli, p[:n])
	return n, err
}

// NewWriter begins an archive. The list of checksums grows in list, an empty file: with a
// million files it is a hundred megabytes.
func NewWriter(w io.Writer, list io.ReadWriteSeeker, info Info) (*Writer, error) {
	out := &through{w: w}
	a := &Writer{out: out, tar: tar.NewWriter(out), list: list, buf: bufio.NewWriter(list), at: info.At}
	info.Format = Format
	text, err := json.MarshalIndent(info, "", "  ")
	if err != nil {
		return nil, err
	}
	text = append(text, '\n')
	return a, a.add(&tar.Header{Name: InfoName, Mode: 0o640, ModTime: info.At, Size: int64(len(text))}, bytes.NewReader(text))
}

// Add writes a file. content must write size bytes.
func (a *Writer) Add(name string, mode fs.FileMode, modified time.Time, size int64, content io.WriterTo) error {
	if err := Valid(name); err != nil {
		return fmt.Errorf("the name %q %w", name, err)
	}
	return a.add(&tar.Header{Name: name, Mode: int64(mode.Perm()), ModTime: modified, Size: size}, content)
}

func (a *Writer) add(h *tar.Header, content io.WriterTo) error {
	if a.err != nil {
		return a.err
	}
	h.Typeflag, h.Format = tar.TypeReg, tar.FormatPAX
	h.ModTime = h.ModTime.Truncate(time.Second) // a fraction would need a header of its own
	sum := sha256.New()
	if a.err = a.tar.WriteHeader(h); a.err != nil {
		return a.err
	}
	n, err := content.WriteTo(io.MultiWriter(a.tar, sum))
	if err == nil && n < h.Size || errors.Is(err, tar.ErrWriteTooLong) {
		err = fmt.Errorf("%s has changed while it was read: it had %d bytes", h.Name, h.Size)
	}
	if err == nil {
		var line []byte
		line = appendLine(line, sum.Sum(nil), h.Name)
		a.size += int64(len(line))
		_, err = a.buf.Write(line)
	}
	a.err = err
	return err
}

// appendLine appends the line of a file in the list.
func appendLine(b, sum []byte, name string) []byte {
	b = hex.AppendEncode(b, sum)
	b = append(b, "  "...)
	b = append(b, name...)
	return append(b, '\n')
}

// lastLine is the end of the list. Its length does not depend on its numbers.
func lastLine(crc uint32, before int64) string {
	return fmt.Sprintf("# the %020d bytes before this list have the CRC-32C %08x\n", before, crc)
}

// Close writes the list and the end of the archive. It does not close what it writes to.
func (a *Writer) Close() error {
	if a.err == nil {
		a.err = a.close()
	}
	return a.err
}

func (a *Writer) close() error {
	if err := a.buf.Flush(); err != nil {
		return err
	}
	if _, err := a.list.Seek(0, io.SeekStart); err != nil {
		return err
	}
	size := a.size + int64(len(lastLine(0, 0)))
	if err := a.tar.WriteHeader(&tar.Header{Name: ListName, Mode: 0o640, ModTime: a.at.Truncate(time.Second), Size: size, Typeflag: tar.TypeReg, Format: tar.FormatPAX}); err != nil {
		return err
	}
	last := lastLine(a.out.crc, a.out.n) // the list's own header included
	if _, err := io.CopyN(a.tar, a.list, a.size); err != nil {
		return err
	}
	if _, err := io.WriteString(a.tar, last); err != nil {
		return err
	}
	return a.tar.Close()
}
