package export

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"jobstream/jobs"
)

// encoder turns records into the bytes of a file. Each result is valid until the next
// call.
type encoder interface {
	head() []byte
	row(j *jobs.Job) []byte
	foot() []byte
}

// csvEncoder writes RFC 4180: a header, lines that end in CR LF, and quotes where they
// are needed.
//
// Foreign text that a spreadsheet would take for a formula gets an apostrophe in front.
// Many spreadsheets split at semicolons or tabs, and then a quote in the middle of a
// cell quotes nothing. So the text behind one of these, or behind the end of a line, is
// treated like the beginning of a cell. In JSON an apostrophe would change the meaning,
// so the sign is written as an escape.
type csvEncoder struct {
	columns []column
	zone    *time.Location // nil: times are RFC 3339 in UTC; else local times without an offset
	bom     bool
	b       []byte
	cell    []byte // for cells with several parts
}

func newCSV(o options) encoder { return &csvEncoder{columns: o.columns, zone: o.zone, bom: o.bom} }

// byteOrderMark tells Excel that a file is UTF-8.
const byteOrderMark = "\uFEFF"

func (e *csvEncoder) head() []byte {
	e.b = e.b[:0]
	if e.bom {
		e.b = append(e.b, byteOrderMark...)
	}
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

// endLine replaces the comma behind the last cell. Most readers skip an empty line, so
// a lone empty cell is quoted.
func (e *csvEncoder) endLine() []byte {
	e.b = e.b[:len(e.b)-1]
	if len(e.b) == 0 {
		e.b = append(e.b, '"', '"')
	}
	e.b = append(e.b, '\r', '\n')
	return e.b
}

func (e *csvEncoder) text(s string) {
	if strings.ContainsAny(s, formulaSigns) {
		s = defused(s)
	}
	e.name(s)
}

func defused(s string) string {
	s = formula.ReplaceAllString(s, "$1'$2")
	if s != "" && strings.IndexByte("\t\r\n", s[0]) >= 0 {
		s = "'" + s
	}
	return s
}

// formulaSigns begin a possible formula. East Asian versions accept the full-width
// signs, too.
const formulaSigns = "=+-@＝＋－＠\t\r\n"

var (
	// formula finds a sign where a cell may begin, behind spaces and quotes.
	formula = regexp.MustCompile(`((?:^|[;\t\r\n])[ "]*)([=+\-@＝＋－＠])`)
	// formulaInJSON finds the same in compact JSON, where such a place lies within a
	// string.
	formulaInJSON = regexp.MustCompile(`(;(?: |\\?")*)([=+\-@＝＋－＠])`)
)

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
	switch {
	case t == 0:
	case e.zone != nil:
		e.b = t.Std().In(e.zone).AppendFormat(e.b, time.DateTime) // spreadsheets read that as a date
	default:
		e.b = t.Std().AppendFormat(e.b, time.RFC3339Nano)
	}
	e.endCell()
}

func (e *csvEncoder) raw(json []byte) {
	s := string(json)
	if strings.Contains(s, ";") {
		s = formulaInJSON.ReplaceAllStringFunc(s, func(match string) string {
			sign, size := utf8.DecodeLastRuneInString(match)
			return match[:len(match)-size] + fmt.Sprintf("\\u%04x", sign)
		})
	}
	e.name(s)
}

// list joins with commas. Tags cannot contain any.
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

// jsonEncoder writes one object per line: as an array, or as JSON Lines.
type jsonEncoder struct {
	columns []column
	zone    *time.Location
	keys    [][]byte // "id": and so on
	array   bool
	rows    int
	b       []byte
}

func newJSON(o options) encoder {
	e := newJSONL(o).(*jsonEncoder) //nolint:forcetypeassert // newJSONL makes nothing else
	e.array = true
	return e
}

func newJSONL(o options) encoder {
	zone := o.zone
	if zone == nil {
		zone = time.UTC
	}
	return &jsonEncoder{columns: o.columns, keys: keys(o.columns), zone: zone}
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

// row begins a line with the comma that ends the one before. Only then is it known that
// one is due.
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
	e.b = t.Std().In(e.zone).AppendFormat(e.b, time.RFC3339Nano)
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
