package export

import (
	"strconv"
	"strings"
	"time"

	"jobstream/jobs"
)

// encoder turns records into the bytes of a file. What its methods return is
// valid until the next call.
type encoder interface {
	head() []byte
	row(j *jobs.Job) []byte
	foot() []byte
}

// csvEncoder writes RFC 4180: a header, lines that end in CR LF, and quotes
// where they are needed. A cell of foreign text that a spreadsheet would take
// for a formula gets an apostrophe in front. JSON needs none: none of the signs
// that begin a formula can begin it, but for the minus of a plain number.
type csvEncoder struct {
	columns []column
	b       []byte
	cell    []byte // for cells that are put together
}

func newCSV(columns []column) encoder { return &csvEncoder{columns: columns} }

func (e *csvEncoder) head() []byte {
	e.b = e.b[:0]
	for _, c := range e.columns {
		e.name(c.name)
	}
	return e.endLine()
}

func (e *csvEncoder) row(j *jobs.Job) []byte {
	e.b = e.b[:0]
	for _, c := range e.columns {
		c.write(e, j)
	}
	return e.endLine()
}

func (e *csvEncoder) foot() []byte { return nil }

// endLine replaces the comma behind the last cell. An empty line would be no
// record to most readers, so a lone empty cell is quoted.
func (e *csvEncoder) endLine() []byte {
	e.b = e.b[:len(e.b)-1]
	if len(e.b) == 0 {
		e.b = append(e.b, '"', '"')
	}
	e.b = append(e.b, '\r', '\n')
	return e.b
}

func (e *csvEncoder) text(s string) {
	if isFormula(s) {
		s = "'" + s
	}
	e.name(s)
}

// isFormula says whether a spreadsheet might calculate a cell that begins like
// this. East Asian versions know the full-width signs too.
func isFormula(s string) bool {
	if s == "" {
		return false
	}
	switch s[0] {
	case '=', '+', '-', '@', '\t', '\r', '\n':
		return true
	}
	for _, sign := range []string{"＝", "＋", "－", "＠"} {
		if strings.HasPrefix(s, sign) {
			return true
		}
	}
	return false
}

func (e *csvEncoder) name(s string) {
	s = clean(s)
	if s == "" || !strings.ContainsAny(s, "\",\r\n") && s[0] != ' ' && s[len(s)-1] != ' ' {
		e.b = append(e.b, s...)
		e.endCell()
		return
	}
	e.b = append(e.b, '"')
	for i := range len(s) {
		if s[i] == '"' {
			e.b = append(e.b, '"')
		}
		e.b = append(e.b, s[i])
	}
	e.b = append(e.b, '"')
	e.endCell()
}

func (e *csvEncoder) integer(n int64) {
	e.b = strconv.AppendInt(e.b, n, 10)
	e.endCell()
}

func (e *csvEncoder) decimal(f float64) {
	e.b = appendDecimal(e.b, f)
	e.endCell()
}

func (e *csvEncoder) time(t jobs.Time) {
	if t != 0 {
		e.b = t.Std().AppendFormat(e.b, time.RFC3339Nano)
	}
	e.endCell()
}

func (e *csvEncoder) raw(json []byte) { e.name(string(json)) }

// list joins with commas, which tags cannot contain.
func (e *csvEncoder) list(items []string) {
	e.cell = e.cell[:0]
	for i, s := range items {
		if i > 0 {
			e.cell = append(e.cell, ',')
		}
		e.cell = append(e.cell, s...)
	}
	e.text(string(e.cell))
}

func (e *csvEncoder) none()    { e.endCell() }
func (e *csvEncoder) endCell() { e.b = append(e.b, ',') }

// jsonEncoder writes one object to a line: an array, or JSON Lines.
type jsonEncoder struct {
	columns []column
	keys    [][]byte // "id": and so on
	array   bool
	rows    int
	b       []byte
}

func newJSON(columns []column) encoder {
	return &jsonEncoder{columns: columns, keys: keys(columns), array: true}
}

func newJSONL(columns []column) encoder {
	return &jsonEncoder{columns: columns, keys: keys(columns)}
}

func keys(columns []column) [][]byte {
	list := make([][]byte, len(columns))
	for i, c := range columns {
		list[i] = append(jobs.AppendString(nil, c.name), ':')
	}
	return list
}

func (e *jsonEncoder) head() []byte {
	if e.array {
		return []byte("[")
	}
	return nil
}

// row begins a line, if it isn't the first, rather than ending one: only then
// it is known that a comma is due.
func (e *jsonEncoder) row(j *jobs.Job) []byte {
	e.b = e.b[:0]
	if e.array && e.rows > 0 {
		e.b = append(e.b, ',', '\n')
	}
	e.rows++
	for i, c := range e.columns {
		e.b = append(e.b, "{,"[min(i, 1)])
		e.b = append(e.b, e.keys[i]...)
		c.write(e, j)
	}
	e.b = append(e.b, '}')
	if !e.array {
		e.b = append(e.b, '\n')
	}
	return e.b
}

func (e *jsonEncoder) foot() []byte {
	if e.array {
		return []byte("]\n")
	}
	return nil
}

func (e *jsonEncoder) text(s string)     { e.b = jobs.AppendString(e.b, s) }
func (e *jsonEncoder) name(s string)     { e.text(s) }
func (e *jsonEncoder) integer(n int64)   { e.b = strconv.AppendInt(e.b, n, 10) }
func (e *jsonEncoder) decimal(f float64) { e.b = appendDecimal(e.b, f) }
func (e *jsonEncoder) raw(json []byte)   { e.b = append(e.b, json...) }
func (e *jsonEncoder) none()             { e.b = append(e.b, "null"...) }

func (e *jsonEncoder) time(t jobs.Time) {
	if t == 0 {
		e.none()
		return
	}
	e.b = append(e.b, '"')
	e.b = t.Std().AppendFormat(e.b, time.RFC3339Nano)
	e.b = append(e.b, '"')
}

func (e *jsonEncoder) list(items []string) {
	e.b = append(e.b, '[')
	for i, s := range items {
		if i > 0 {
			e.b = append(e.b, ',')
		}
		e.text(s)
	}
	e.b = append(e.b, ']')
}

// appendDecimal writes a plain number without an exponent.
func appendDecimal(b []byte, f float64) []byte {
	return strconv.AppendFloat(b, f, 'f', -1, 64)
}
