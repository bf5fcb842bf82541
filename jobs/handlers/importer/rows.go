package importer

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"jobstream/jobs"
	"jobstream/jobs/strict"
)

// row is one row of a file.
type row struct {
	line   int             // where it begins, from 1
	end    int64           // the offset behind it
	value  any             // what templates see
	raw    json.RawMessage // the same as JSON
	reason string          // why it is none; the rest counts only for the report then
	cells  []string        // of CSV, as they were
	text   string          // of JSON Lines, as it was
}

// rows reads a file.
type rows interface {
	// next is the next row. The error is io.EOF at the end. Any other error means that
	// the file cannot be read any further.
	next() (row, error)
}

// openRows reads a file from an offset on, before which it has so many lines.
func openRows(req *request, f io.ReaderAt, size, offset int64, lines int) (rows, error) {
	if req.format == jsonlFormat {
		return newLines(f, size, offset, lines)
	}
	return newTable(req, f, size, offset, lines)
}

// maxRow bounds a row, in bytes. A quote that is not closed would fill the memory.
const maxRow = 4 << 20

// markOf is the length of a byte order mark at the beginning of a file. A file in UTF-16 is
// an error.
func markOf(f io.ReaderAt) (int64, error) {
	head := make([]byte, 3)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	switch head = head[:n]; {
	case bytes.Equal(head, []byte("\xef\xbb\xbf")):
		return 3, nil
	case bytes.HasPrefix(head, []byte("\xff\xfe")), bytes.HasPrefix(head, []byte("\xfe\xff")):
		return 0, jobs.Permanentf("the file is in UTF-16; convert it to UTF-8, as with iconv -f UTF-16 -t UTF-8")
	}
	return 0, nil
}

// linesBetween is how many lines end between two offsets.
func linesBetween(f io.ReaderAt, from, to int64) (n int, err error) {
	b := make([]byte, 64<<10)
	for from < to {
		piece := b[:min(int64(len(b)), to-from)]
		got, err := f.ReadAt(piece, from)
		n += bytes.Count(piece[:got], []byte{'\n'})
		from += int64(got)
		if err != nil && (got < len(piece) || !errors.Is(err, io.EOF)) {
			return n, err
		}
	}
	return n, nil
}

// lines are the rows of a file in JSON Lines.
type lines struct {
	in     *bufio.Reader
	offset int64
	line   int // lines before the offset
}

func newLines(f io.ReaderAt, size, offset int64, before int) (*lines, error) {
	if offset == 0 {
		var err error
		if offset, err = markOf(f); err != nil {
			return nil, err
		}
	}
	return &lines{in: bufio.NewReaderSize(io.NewSectionReader(f, offset, size-offset), 64<<10), offset: offset, line: before}, nil
}

func (l *lines) next() (row, error) {
	for {
		text, long, err := l.read()
		if err != nil {
			return row{}, err
		}
		l.line++
		r := row{line: l.line, end: l.offset, text: strings.ToValidUTF8(string(text), "\ufffd")}
		switch {
		case long:
			r.reason = fmt.Sprintf("the line is longer than %d bytes", maxRow)
		case len(bytes.TrimSpace(text)) == 0:
			continue
		default:
			r.raw = bytes.TrimSpace(text)
			r.value, r.reason = decode(r.raw)
		}
		return r, nil
	}
}

// read is the next line without its end. Of one that is too long it keeps the beginning.
func (l *lines) read() (text []byte, long bool, err error) {
	for {
		piece, err := l.in.ReadSlice('\n')
		l.offset += int64(len(piece))
		if len(text)+len(piece) > maxRow {
			long = true
			piece = piece[:min(len(piece), max(0, 1000-len(text)))]
		}
		text = append(text, piece...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF) && (len(text) > 0 || long):
			return text, long, nil
		}
		return text, long, err
	}
}

// decode reads a JSON value, with its numbers as they are written.
func decode(raw []byte) (v any, reason string) {
	if err := strict.Check(raw); err != nil {
		return nil, strings.ReplaceAll(err.Error(), "the body", "the line")
	}
	if strict.TooDeep(raw) {
		return nil, fmt.Sprintf("the line is nested deeper than %d", strict.MaxDepth)
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return nil, "the line is not JSON: " + err.Error()
	}
	return v, ""
}

// What the cells of a column are.
const (
	textCell   = "text"
	numberCell = "number"
	boolCell   = "bool"
	jsonCell   = "json"
)

// table are the rows of a file in CSV.
type table struct {
	in      *csv.Reader
	bound   *boundedRow
	offset  int64 // where in begins
	before  int   // lines before that
	header  []string
	columns []string // what the cells of each are
	size    int64
	last    int // the line in which the last row began
}

// boundedRow is a reader that ends with an error when one row needs too many bytes.
type boundedRow struct {
	io.Reader
	left int
}

var errLongRow = fmt.Errorf("it is longer than %d bytes", maxRow)

func (b *boundedRow) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errLongRow
	}
	n, err := b.Reader.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

func newTable(req *request, f io.ReaderAt, size, offset int64, before int) (*table, error) {
	mark, err := markOf(f)
	if err != nil {
		return nil, err
	}
	t := &table{size: size}
	t.open(req, f, mark, 0)
	if t.header = req.header; t.header == nil {
		if err := t.readHeader(req); err != nil {
			return nil, err
		}
	}
	if t.columns, err = kinds(t.header, req.columns); err != nil {
		return nil, err
	}
	if offset > 0 {
		t.open(req, f, offset, before)
	}
	return t, nil
}

// open begins to read at an offset.
func (t *table) open(req *request, f io.ReaderAt, offset int64, before int) {
	t.offset, t.before, t.last = offset, before, before
	t.bound = &boundedRow{Reader: io.NewSectionReader(f, offset, t.size-offset)}
	t.in = csv.NewReader(t.bound)
	t.in.FieldsPerRecord = -1
	if req.delimiter != 0 {
		t.in.Comma = req.delimiter
	}
}

// record is the next record, within the bound of a row.
func (t *table) record() ([]string, error) {
	t.bound.left = maxRow
	return t.in.Read()
}

func (t *table) readHeader(req *request) error {
	names, err := t.record()
	switch {
	case errors.Is(err, io.EOF):
		return jobs.Permanentf("the file has no line with the names of its columns: it is empty")
	case err != nil:
		return jobs.Permanentf("the line with the names of the columns cannot be read: %w", err)
	}
	for i := range names {
		names[i] = strings.TrimSpace(names[i])
		if !utf8.ValidString(names[i]) {
			return jobs.Permanentf("the names of the columns are not UTF-8; convert the file, as with iconv -f WINDOWS-1252 -t UTF-8")
		}
		if strings.ContainsRune(names[i], '\r') {
			return jobs.Permanentf("the lines of the file end with a carriage return alone; convert it, as with tr '\\r' '\\n'")
		}
	}
	if err := checkHeader(names); err != nil {
		return jobs.Permanentf("the line with the names of the columns %w", err)
	}
	if len(names) == 1 && req.delimiter == 0 {
		for _, d := range []string{";", "\t", "|"} {
			if strings.Contains(names[0], d) {
				return jobs.Permanentf(`the file seems to have %s between its cells; add "delimiter": %s to the payload`, strconv.Quote(d), strconv.Quote(d))
			}
		}
	}
	t.header = names
	return nil
}

// kinds are what the cells of each column are.
func kinds(header []string, wanted map[string]string) ([]string, error) {
	all := make([]string, len(header))
	known := 0
	for i, name := range header {
		all[i] = textCell
		if kind, ok := wanted[name]; ok && name != "" {
			all[i] = kind
			known++
		}
	}
	if known < len(wanted) {
		for name := range wanted {
			if _, wrong := indexOf(header, name); wrong {
				return nil, jobs.Permanentf("/payload/columns%s: there is no such column; known are %s", strict.Pointer(name), strings.Join(header, ", "))
			}
		}
	}
	return all, nil
}

func indexOf(list []string, s string) (i int, missing bool) {
	for i, has := range list {
		if has == s && s != "" {
			return i, false
		}
	}
	return -1, true
}

func (t *table) next() (row, error) {
	cells, err := t.record()
	r := row{end: t.offset + t.in.InputOffset(), cells: cells}
	var wrong *csv.ParseError
	switch {
	case err == nil:
		line, _ := t.in.FieldPos(0)
		r.line = t.before + line
		t.last = r.line
		t.read(&r)
		return r, nil
	case errors.Is(err, errLongRow):
		return r, jobs.Permanentf("the row behind line %d cannot be read: %w; perhaps a quote in it is not closed", t.last, err)
	case errors.As(err, &wrong):
		r.line = t.before + wrong.StartLine
		r.reason = wrong.Err.Error()
		if wrong.Line > wrong.StartLine {
			r.reason = fmt.Sprintf("%s, in line %d", r.reason, t.before+wrong.Line)
			if r.end >= t.size {
				r.reason += ": the quote is open to the end of the file, and nothing behind it was read"
			}
		}
		return r, nil
	}
	return r, err
}

// read makes a row of its cells.
func (t *table) read(r *row) {
	if len(r.cells) != len(t.header) {
		r.reason = fmt.Sprintf("has %d cells, the header has %d", len(r.cells), len(t.header))
		return
	}
	value := make(map[string]any, len(r.cells))
	b := []byte{'{'}
	for i, cell := range r.cells {
		if t.header[i] == "" {
			continue
		}
		v, err := cellOf(cell, t.columns[i])
		if err != nil {
			r.reason = fmt.Sprintf("column %s %v", jobs.Quote(t.header[i]), err)
			return
		}
		value[t.header[i]] = v
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(jobs.AppendString(b, t.header[i]), ':')
		if b, err = appendValue(b, v); err != nil {
			r.reason = fmt.Sprintf("column %s %v", jobs.Quote(t.header[i]), err)
			return
		}
	}
	r.value, r.raw = value, append(b, '}')
}

// cellOf is the value of a cell.
func cellOf(cell, kind string) (any, error) {
	if !utf8.ValidString(cell) {
		return nil, fmt.Errorf("is not UTF-8: %s", jobs.Quote(cell))
	}
	if strings.ContainsRune(cell, 0) {
		return nil, errors.New("has a NUL character")
	}
	if kind == textCell {
		return cell, nil
	}
	text := strings.TrimSpace(cell)
	if text == "" {
		return nil, nil
	}
	switch kind {
	case boolCell:
		switch strings.ToLower(text) {
		case "true", "yes", "1":
			return true, nil
		case "false", "no", "0":
			return false, nil
		}
		return nil, fmt.Errorf("is not true or false: %s", jobs.Quote(cell))
	case numberCell:
		if raw := []byte(text); strict.IsNumber(raw) && json.Valid(raw) {
			return json.Number(text), nil
		}
		return nil, fmt.Errorf("is not a number: %s", jobs.Quote(cell))
	}
	v, reason := decode([]byte(text))
	if reason != "" {
		return nil, fmt.Errorf("is not JSON: %s", jobs.Quote(cell))
	}
	return v, nil
}
