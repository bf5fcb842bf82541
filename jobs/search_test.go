package jobs_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"jobstream/jobs"
)

// contains is what a needle does, told in the plainest way.
func contains(text, part string) bool {
	n := utf8.RuneCountInString(part)
	for text != "" || n == 0 {
		end := 0
		for range n {
			_, size := utf8.DecodeRuneInString(text[end:])
			end += size
		}
		if strings.EqualFold(text[:end], part) {
			return true
		}
		_, size := utf8.DecodeRuneInString(text)
		text = text[size:]
	}
	return false
}

func TestNeedle(t *testing.T) {
	for _, tt := range []struct {
		text, part string
		want       bool
	}{
		{"anything", "", true},
		{"", "", true},
		{"", "a", false},
		{"Connection Timeout", "timeOUT", true},
		{"time", "timeout", false},
		{"tTtimeout", "Timeout", true},
		{"TIMEOU timeou", "timeout", false},
		{"ababAC", "abac", true},
		{"a@B.c", "@b", true},
		{"[`{", "@[`", false}, // neighbours of the letters are no letters
		{"Straße", "STRAßE", true},
		{"Strasse", "straße", false},
		{"KÖLN", "köln", true},
		{"20 \u212a", "20 k", true}, // the sign for kelvin
		{"20 k", "20 \u212a", true},
		{"Me\u017fsage", "messAGE", true}, // a long s
		{"ΣΑΣ", "σας", true},
		{"\xff\xffabc", "bc", true},
	} {
		n := jobs.NewNeedle(tt.part)
		if got := n.In([]byte(tt.text)); got != tt.want {
			t.Errorf("%q in %q: %v", tt.part, tt.text, got)
		}
	}
}

func TestNeedleModel(t *testing.T) {
	letters := rapid.SampledFrom([]rune("aAbBkKsSßſ\u212aäÄ@ `[{"))
	rapid.Check(t, func(rt *rapid.T) {
		text := string(rapid.SliceOfN(letters, 0, 30).Draw(rt, "text"))
		part := string(rapid.SliceOfN(letters, 0, 4).Draw(rt, "part"))
		n := jobs.NewNeedle(part)
		if got, want := n.In([]byte(text)), contains(text, part); got != want {
			rt.Fatalf("%q in %q: %v, want %v", part, text, got, want)
		}
	})
}

func FuzzNeedle(f *testing.F) {
	f.Add("a text", "TEXT")
	f.Add("20 \u212a", "k")
	f.Fuzz(func(t *testing.T, text, part string) {
		if !utf8.ValidString(text) || !utf8.ValidString(part) {
			t.Skip("texts of jobs are UTF-8")
		}
		n := jobs.NewNeedle(part)
		if got, want := n.In([]byte(text)), contains(text, part); got != want {
			t.Errorf("%q in %q: %v, want %v", part, text, got, want)
		}
	})
}

func BenchmarkNeedle(b *testing.B) {
	text := []byte(`{"to":"user@example.com","subject":"Hello","body":"` + strings.Repeat("Some text. ", 13) + `"}`)
	for _, part := range []string{"nowhere@example.com", "timeout", "Übermaß"} {
		b.Run(part, func(b *testing.B) {
			n := jobs.NewNeedle(part)
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				if n.In(text) {
					b.Fatal("found")
				}
			}
		})
	}
}
