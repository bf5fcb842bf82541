package payload

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"

	"jobstream/jobs"
	"jobstream/jobs/strict"
)

func TestParseDate(t *testing.T) {
	for _, c := range []struct{ in, from, to string }{
		{"2024", "2024-01-01T00:00:00Z", "2025-01-01T00:00:00Z"},
		{"2024-12", "2024-12-01T00:00:00Z", "2025-01-01T00:00:00Z"},
		{"2024-02", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"},
		{"2024-02-29", "2024-02-29T00:00:00Z", "2024-03-01T00:00:00Z"},
		{"2261", "2261-01-01T00:00:00Z", "2262-01-01T00:00:00Z"},
	} {
		var p Period
		err := p.ParseDate(c.in)
		if err != nil || p.From.String() != c.from || p.To.String() != c.to {
			t.Errorf("%s: %v – %v, %v", c.in, p.From, p.To, err)
		}
	}
	for _, in := range []string{"", "24", "2024-1", "2024-00", "2023-02-29", "2024-01-15T00:00:00Z", "2262", "1970", "0000", " 2024", "20240115"} {
		var p Period
		if err := p.ParseDate(in); err == nil {
			t.Errorf("%q was taken for %v", in, p)
		}
	}
}

// TestDatesContainTheirMoments has each moment within its year, month and day.
func TestDatesContainTheirMoments(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at := time.Unix(rapid.Int64Range(40e6, 9e9).Draw(t, "second"), 0).UTC()
		for _, layout := range []string{"2006", "2006-01", time.DateOnly} {
			var p Period
			err := p.ParseDate(at.Format(layout))
			if err != nil || p.From > jobs.TimeOf(at) || p.To <= jobs.TimeOf(at) {
				t.Fatalf("%v by %s: %v – %v, %v", at, layout, p.From, p.To, err)
			}
		}
	})
}

func TestReadGathersAllThatIsWrong(t *testing.T) {
	var e *jobs.Error
	err := Read(json.RawMessage(`{"a":1,"b":{"c":[1,"x"],"d~":0},"e":null}`), []strict.Field{
		strict.May("a", func(v strict.Value) { v.Text() }),
		strict.May("b", func(v strict.Value) {
			v.Object(strict.May("c", func(v strict.Value) { v.Texts(func(strict.Value, string) {}) }))
		}),
		strict.May("e", func(strict.Value) { t.Error("null was read") }),
	}, func(whole strict.Value) { whole.At("f").Fail("is missed") })
	if !errors.As(err, &e) {
		t.Fatalf("got %v", err)
	}
	want := []jobs.FieldError{
		{Pointer: "/payload/a", Detail: "must be a string, not 1"},
		{Pointer: "/payload/b/c/0", Detail: "must be a string, not 1"},
		{Pointer: "/payload/b/d~0", Detail: "is not a known field; known is c"},
		{Pointer: "/payload/f", Detail: "is missed"},
	}
	for i, f := range want {
		if i >= len(e.Fields) || e.Fields[i] != f {
			t.Errorf("got %v, want %v", e.Fields, want)
			break
		}
	}
}

func FuzzRead(f *testing.F) {
	for _, s := range []string{``, `null`, `{}`, `{"a":["x"],"b":{"from":"2024"}}`, `{"a":`, "{\"a\":\"\xff\"}", `{"a":1,"a":2}`, `[`, "\x00"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var p Period
		err := Read(raw, []strict.Field{
			strict.May("a", func(v strict.Value) { v.Texts(func(strict.Value, string) {}) }),
			strict.May("b", func(v strict.Value) {
				v.Object(strict.May("from", p.ReadFrom), strict.May("to", p.ReadTo), strict.May("date", p.ReadDate))
			}),
			strict.May("c", func(v strict.Value) { v.Bool() }),
		}, nil)
		var e *jobs.Error
		if err != nil && (!errors.As(err, &e) || len(e.Fields) == 0 && e.Kind != jobs.MalformedJSON) {
			t.Errorf("got %v", err)
		}
	})
}
