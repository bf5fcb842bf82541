package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestClaim uses a folder as before, and otherwise.
func TestClaim(t *testing.T) {
	t.Parallel()
	member, alone := identity{Name: "n1", Cluster: "c"}, identity{}
	for _, tt := range []struct {
		name        string
		first, then identity
		want        string // in the error; "" = none
	}{
		{"a member as before", member, member, ""},
		{"alone as before", alone, alone, ""},
		{"another name", member, identity{Name: "n2", Cluster: "c"}, "node.name: "},
		{"another cluster", member, identity{Name: "n1", Cluster: "d"}, "broker.cluster.name: "},
		{"a member, and then alone", member, alone, "belongs to node n1 of cluster c"},
		{"alone, and then the first member", alone, identity{Name: "n1", Cluster: "c", Bootstrap: true}, ""},
		{"a member, and then the first one", member, identity{Name: "n1", Cluster: "c", Bootstrap: true}, "belongs to a member of cluster c already"},
		{"alone, and then a member", alone, member, "belongs to a server without a cluster"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := FoldersIn(t.TempDir())
			if err := f.claim(tt.first); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(f.Tracker, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			err := f.claim(tt.then)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if err := f.claim(tt.first); err != nil {
				t.Errorf("a refused start has changed the folder: %v", err)
			}
		})
	}
}

// TestClaimOfABrokenFile must not give the folder away.
func TestClaimOfABrokenFile(t *testing.T) {
	t.Parallel()
	f := FoldersIn(t.TempDir())
	if err := os.WriteFile(filepath.Join(f.Root, identityFile), []byte(`{"name":`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, want := range []identity{{}, {Name: "n1", Cluster: "c"}} {
		if err := f.claim(want); err == nil || !strings.Contains(err.Error(), identityFile) {
			t.Errorf("%+v: %v", want, err)
		}
	}
}
