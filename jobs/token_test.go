package jobs_test

import (
	"crypto/sha256"
	"testing"

	"jobstream/jobs"
)

// TestTokenComparesWhatIsSaid compares requests with one that was stored.
func TestTokenComparesWhatIsSaid(t *testing.T) {
	const first = `{"type":"email","payload":{"to":["a","b"],"n":1,"deep":{"x":null}},"priority":3}`
	stored := jobs.NewToken("http", "k", []byte(first))
	for again, same := range map[string]bool{
		first: true,
		` { "priority" : 3,"payload":{"n":1.0,"deep":{"x":null},"to":["a","b"]},"type":"email" } `:             true,
		`{"type":"em\u0061il","payload":{"to":["a","b"],"n":1e0,"deep":{"x":null}},"priority":3,"delay":null}`: true,
		`{"type":"email","payload":{"to":["b","a"],"n":1,"deep":{"x":null}},"priority":3}`:                     false,
		`{"type":"email","payload":{"to":["a","b"],"n":2,"deep":{"x":null}},"priority":3}`:                     false,
		`{"type":"email","payload":{"to":["a","b"],"n":"1","deep":{"x":null}},"priority":3}`:                   false,
		`{"type":"email","payload":{"to":["a","b"],"n":1,"deep":{}},"priority":3}`:                             false,
		`{"type":"email","payload":{"to":["a","b"],"n":1,"deep":{"x":null}}}`:                                  false,
		`not JSON`: false,
		``:         false,
	} {
		token := jobs.NewToken("http", "k", []byte(again))
		if token.Key != stored.Key || token.Same(stored.Body) != same {
			t.Errorf("%s is the same: %t", again, !same)
		}
	}
	large := jobs.NewToken("http", "k", []byte(`{"n":9007199254740993}`))
	if jobs.NewToken("http", "k", []byte(`{"n":9007199254740992}`)).Same(large.Body) {
		t.Error("two large numbers are the same")
	}
	// A tracker of earlier days has the hash of the request as it was written.
	sum := sha256.Sum256([]byte(first))
	if old := [16]byte(sum[:16]); !stored.Same(old) || jobs.NewToken("http", "k", []byte(first+" ")).Same(old) {
		t.Error("a token of earlier days")
	}
	if any := jobs.NewToken("nats", "k", nil); !any.Same([16]byte{}) || stored.Same([16]byte{}) {
		t.Error("a token without a request")
	}
}
