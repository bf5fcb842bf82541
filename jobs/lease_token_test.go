package jobs_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"jobstream/jobs"
)

// TestLeaseTokens: a token says which execution it is for, to nobody but the owner of its
// key, and no other text is one.
func TestLeaseTokens(t *testing.T) {
	key, other := jobs.NewLeaseKey(), jobs.NewLeaseKey()
	rapid.Check(t, func(t *rapid.T) {
		x := jobs.Execution{
			Key: rapid.Uint64().Draw(t, "key"), Started: jobs.Time(rapid.Int64Min(1).Draw(t, "started")),
			Run: rapid.IntRange(1, 1<<31).Draw(t, "run"), Attempt: rapid.IntRange(1, 1<<31).Draw(t, "attempt"),
		}
		token := key.Token(x)
		if got, ok := jobs.TokenExecution(token); !ok || got != x || !key.Signed(token) {
			t.Fatalf("%s is read as %+v, %v; want %+v", token, got, ok, x)
		}
		if other.Signed(token) {
			t.Fatal("another key accepts it")
		}
		at := rapid.IntRange(0, len(token)-1).Draw(t, "at")
		c := rapid.SampledFrom([]byte("ABab01-_=+/ \x00")).Draw(t, "byte")
		if forged := token[:at] + string(c) + token[at+1:]; forged != token {
			if key.Signed(forged) {
				t.Fatalf("%q is accepted for %q", forged, token)
			}
		}
	})
	for _, none := range []string{"", "x", strings.Repeat("A", 48), strings.Repeat("A", 47), strings.Repeat("A", 49), strings.Repeat("é", 24)} {
		if key.Signed(none) {
			t.Errorf("%q is accepted", none)
		}
	}
}

func BenchmarkLeaseToken(b *testing.B) {
	key := jobs.NewLeaseKey()
	token := key.Token(jobs.Execution{Key: 7, Started: born, Run: 1, Attempt: 1})
	for b.Loop() {
		if !key.Signed(token) {
			b.Fatal("it is refused")
		}
	}
}
