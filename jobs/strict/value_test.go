package strict_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"jobstream/jobs/strict"
)

func ExampleRead() {
	var to string
	var copies int
	mistakes := strict.Read("", []byte(`{"to":7,"copies":12,"options":{"colour":true}}`), func(v strict.Value) {
		v.Object(
			strict.Need("to", func(v strict.Value) { to, _ = v.Text() }),
			strict.Need("subject", func(strict.Value) {}),
			strict.May("copies", func(v strict.Value) { copies = v.Int(1, 20) }),
			strict.May("options", func(v strict.Value) { v.Object(strict.May("duplex", func(strict.Value) {})) }),
		)
	})
	for _, m := range mistakes {
		fmt.Println(m.Pointer, m.Detail)
	}
	fmt.Printf("%q %d\n", to, copies)
	// Output:
	// /to must be a string, not 7
	// /options/colour is not a known field; known is duplex
	// /subject is required
	// "" 12
}

// pointers reads raw by f and lists the places of the mistakes.
func pointers(raw string, f func(strict.Value)) string {
	var at []string
	for _, m := range strict.Read("/at", []byte(raw), f) {
		at = append(at, m.Pointer)
	}
	return strings.Join(at, " ")
}

func TestObject(t *testing.T) {
	var read []string
	note := func(v strict.Value) { read = append(read, v.Name()); v.Int(0, 9) }
	fields := []strict.Field{
		strict.Need("a", note), strict.May("b", note),
		{Name: "c", Alien: true, Read: func(v strict.Value) { v.Fail("is elsewhere") }},
	}
	for _, tt := range []struct{ raw, want, read string }{
		{`{"a":1}`, "", "a"},
		{`{"b":2,"a":1}`, "", "b a"},
		{`{"a":null}`, "/at/a", ""},
		{`{"b":1}`, "/at/a", "b"},
		{`{"a":10,"b":"x"}`, "/at/a /at/b", "a b"},
		{`{"c":null,"a":1}`, "/at/c", "a"},
		{`{"d":null,"e/~":1,"a":1}`, "/at/d /at/e~1~0", "a"},
		{`{"b":"x","a":1,"a":1}`, "/at/a", "b a"}, // the b is not a mistake any more
		{`[1]`, "/at", ""},
		{`5`, "/at", ""},
	} {
		read = nil
		whole := false
		got := pointers(tt.raw, func(v strict.Value) { whole = v.Object(fields...) })
		if stopped := strings.Count(tt.raw, `"a"`) > 1 || tt.raw[0] != '{'; got != tt.want || whole == stopped {
			t.Errorf("%s: mistakes at %q (whole: %v), want %q", tt.raw, got, whole, tt.want)
		}
		if got := strings.Join(read, " "); got != tt.read {
			t.Errorf("%s: %q was read, want %q", tt.raw, got, tt.read)
		}
	}
}

func TestUnknownFieldsListTheKnown(t *testing.T) {
	nothing := func(strict.Value) {}
	for want, fields := range map[string][]strict.Field{
		"is not a known field; there are none here": nil,
		"is not a known field; known is a":          {strict.May("a", nothing), {Name: "c", Alien: true}},
		"is not a known field; known are b, a":      {strict.May("b", nothing), strict.Need("a", nothing)},
	} {
		mistakes := strict.Read("", []byte(`{"x":1}`), func(v strict.Value) { v.Object(fields...) })
		if mistakes[0].Detail != want {
			t.Errorf("%q, want %q", mistakes[0].Detail, want)
		}
	}
}

func TestTextsAndItems(t *testing.T) {
	for _, tt := range []struct{ raw, want, texts string }{
		{`"x"`, "", "x"},
		{`["x","y"]`, "", "x y"},
		{`[ ]`, "", ""},
		{`["x",1,null,"y"]`, "/at/1 /at/2", "x y"},
		{`{}`, "/at", ""},
		{`true`, "/at", ""},
	} {
		var texts []string
		got := pointers(tt.raw, func(v strict.Value) {
			v.Texts(func(item strict.Value, s string) {
				texts = append(texts, s)
				if item.Name() != "" && !slices.Contains([]string{"0", "1", "3"}, item.Name()) {
					t.Errorf("%s: %q is %s", tt.raw, s, item.Name())
				}
			})
		})
		if got != tt.want || strings.Join(texts, " ") != tt.texts {
			t.Errorf("%s: %q, mistakes at %q; want %q, %q", tt.raw, texts, got, tt.texts, tt.want)
		}
	}
}

func TestGetFailedAndRight(t *testing.T) {
	got := pointers(`{"a":{"b":[1,2]},"c":null}`, func(v strict.Value) {
		if !v.Get("c").Null() || !v.Get("d").Null() || v.Get("a").Get("b").String() != "a list" || !v.Get("c").Get("d").Null() {
			t.Error("Get finds other parts")
		}
		b := v.Get("a").Get("b")
		if !v.Right() || b.Failed() {
			t.Error("there are mistakes before any")
		}
		b.At("0").Fail("is %s", "small")
		if v.Right() || b.Failed() || !b.At("0").Failed() {
			t.Error("a mistake in a part is not where it is")
		}
		b.Fail("is short")
		if !b.Failed() {
			t.Error("a mistake is lost")
		}
	})
	if got != "/at/a/b/0 /at/a/b" {
		t.Errorf("mistakes at %s", got)
	}
}
