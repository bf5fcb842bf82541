package importer

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"testing"
)

// FuzzRows reads any file. An import that was interrupted behind any row goes on with the
// same rows.
func FuzzRows(f *testing.F) {
	for _, file := range []string{
		"a,b\n1,\"x, \"\"y\"\"\nz\"\n\n2,ä\n", "\xef\xbb\xbfa;b\r\n1;2\r\n", "a,b\n\"open\n1,2\n", "a\rb\r", "a,a\n1,2\n", "\xff\xfea\x00", "a,b\n1\n1,2,3\n\x00,\xff\n",
		"{\"a\":1}\n\n[1]\n{\n\"\\ud800\"\n1e999\n", "a\"b,c\n1,2\"\n",
	} {
		f.Add([]byte(file), true)
		f.Add([]byte(file), false)
	}
	f.Fuzz(func(t *testing.T, file []byte, table bool) {
		req := &request{format: jsonlFormat}
		if table {
			req.format = csvFormat
		}
		all, failed := readRows(t, req, file, 0, 0)
		for i := range all {
			line, err := linesBetween(bytes.NewReader(file), 0, all[i].end)
			if err != nil {
				t.Fatal(err)
			}
			rest, again := readRows(t, req, file, all[i].end, line)
			if want := all[i+1:]; len(rest) != len(want) || len(want) > 0 && !reflect.DeepEqual(rest, want) || again != failed {
				t.Fatalf("%q behind row %d at %d:\n%+v %v, but before\n%+v %v", file, i, all[i].end, rest, again, want, failed)
			}
			if i >= 5 {
				break
			}
		}
	})
}

// readRows reads all rows from an offset on.
func readRows(t *testing.T, req *request, file []byte, offset int64, line int) (all []row, failed bool) {
	t.Helper()
	from, err := openRows(req, bytes.NewReader(file), int64(len(file)), offset, line)
	if err != nil {
		return nil, true
	}
	for {
		r, err := from.next()
		if errors.Is(err, io.EOF) {
			return all, false
		}
		if err != nil {
			return all, true
		}
		if r.reason == "" && !json.Valid(r.raw) || r.end > int64(len(file)) || r.line < 1 {
			t.Fatalf("%q has the row %+v", file, r)
		}
		if len(all) > 0 && (r.end <= all[len(all)-1].end || r.line <= all[len(all)-1].line) {
			t.Fatalf("%q: row %+v comes behind %+v", file, r, all[len(all)-1])
		}
		all = append(all, r)
	}
}
