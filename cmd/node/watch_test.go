package node

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"jobstream/jobs/api"
	"jobstream/jobs/replica"
	"jobstream/status"
)

// TestDiffering checks whose tracker counts as the one that differs.
func TestDiffering(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		marks map[string]status.Mark // a leads
		want  string
	}{
		"equal":                        {map[string]status.Mark{"a": {Sealed: 5, Hash: "x", Leader: "x"}, "b": {Sealed: 5, Hash: "x", Leader: "x"}, "c": {Sealed: 5, Hash: "x", Leader: "x"}}, ""},
		"no marks yet":                 {map[string]status.Mark{"a": {}, "b": {}, "c": {}}, ""},
		"a follower":                   {map[string]status.Mark{"a": {Sealed: 5, Hash: "x", Leader: "x"}, "b": {Sealed: 5, Hash: "x", Leader: "x"}, "c": {Sealed: 5, Hash: "y", Leader: "x"}}, "c"},
		"the leader":                   {map[string]status.Mark{"a": {Sealed: 5, Hash: "y", Leader: "y"}, "b": {Sealed: 5, Hash: "x", Leader: "y"}, "c": {Sealed: 5, Hash: "x", Leader: "y"}}, "a"},
		"of two, the one that follows": {map[string]status.Mark{"a": {Sealed: 5, Hash: "x", Leader: "x"}, "b": {Sealed: 5, Hash: "y", Leader: "x"}}, "b"},
		"not there yet":                {map[string]status.Mark{"a": {Sealed: 9, Hash: "z", Leader: "z"}, "b": {Sealed: 5, Hash: "x", Leader: "x"}, "c": {Sealed: 9, Hash: "z", Leader: "z"}}, ""},
		"alone at an older place":      {map[string]status.Mark{"a": {Sealed: 9, Hash: "z", Leader: "z"}, "b": {Sealed: 5, Hash: "y", Leader: "x"}, "c": {Sealed: 9, Hash: "z", Leader: "z"}}, "b"},
	} {
		var all []replica.Hello
		for _, node := range slices.Sorted(maps.Keys(test.marks)) {
			b, err := json.Marshal(memberInfo{Role: roleFull, Mark: test.marks[node]})
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, replica.Hello{Name: node, Info: b})
		}
		if got := strings.Join(slices.Sorted(maps.Keys(differing(all, "a"))), " "); got != test.want {
			t.Errorf("%s: %q differ, want %q", name, got, test.want)
		}
	}
}

// TestNodeFindings checks that a cluster which is well has no findings, and what each
// trouble is called.
func TestNodeFindings(t *testing.T) {
	t.Parallel()
	well := func() []api.NodeInfo {
		return []api.NodeInfo{
			{Name: "a", Role: roleFull, Leader: true, Ready: true, Position: 9, Hash: "x", HashAt: 5},
			{Name: "b", Role: roleFull, Ready: true, Position: 8, Lag: 1, Hash: "x", HashAt: 5, ClockMS: -400},
			{Name: "c", Role: roleFull, Ready: true, Position: 9, Hash: "x", HashAt: 5, ClockMS: 3},
		}
	}
	for name, test := range map[string]struct {
		change func(all []api.NodeInfo) []api.NodeInfo
		want   string
	}{
		"well":        {func(all []api.NodeInfo) []api.NodeInfo { return all }, ""},
		"never heard": {func(all []api.NodeInfo) []api.NodeInfo { return all[:2] }, "node.missing"},
		"silent": {func(all []api.NodeInfo) []api.NodeInfo {
			all[2].Ready, all[2].Why = false, "it says nothing"
			return all
		}, "node.ready"},
		"far behind":    {func(all []api.NodeInfo) []api.NodeInfo { all[2].Lag = lagMost + 1; return all }, "node.lag"},
		"another clock": {func(all []api.NodeInfo) []api.NodeInfo { all[2].ClockMS = -700; return all }, "node.clock"},
		"differs":       {func(all []api.NodeInfo) []api.NodeInfo { all[2].Differs, all[2].Ready = true, false; return all }, "node.differs"},
		"no leader":     {func(all []api.NodeInfo) []api.NodeInfo { all[0].Leader = false; return all }, "node.leader"},
	} {
		var got []string
		for _, f := range nodeFindings(test.change(well()), 3) {
			got = append(got, f.Check)
			if f.Text == "" || f.Do == "" {
				t.Errorf("%s: %+v says nothing", name, f)
			}
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%s: the findings are %q, want %q", name, got, test.want)
		}
	}
}
