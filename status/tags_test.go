package status

import (
	"context"
	"slices"
	"testing"

	"jobstream/jobs"
)

func TestTags(t *testing.T) {
	t.Parallel()
	tr := byHand(t)
	var ms []*jobs.Message
	for i, tags := range [][]string{{"red", "blue"}, {"red", "redder"}, {"tenant-1"}, {"größe"}} {
		m := message(uint64(i + 1))
		m.Tags = tags
		ms = append(ms, m)
	}
	tr.folds(ms)
	all := func(prefix string, limit int) (tags []string) {
		t.Helper()
		for after := ""; ; {
			some, last, err := tr.Tags(context.Background(), prefix, after, limit)
			tr.must(err)
			tags = append(tags, some...)
			if after = last; after == "" {
				return tags
			}
		}
	}
	tr.everywhere(func() {
		for _, limit := range []int{1, 2, 100} {
			if got := all("", limit); !slices.Equal(got, []string{"blue", "größe", "red", "redder", "tenant-1"}) {
				t.Errorf("all tags, %d a page: %q", limit, got)
			}
			if got := all("red", limit); !slices.Equal(got, []string{"red", "redder"}) {
				t.Errorf("with a prefix, %d a page: %q", limit, got)
			}
			if got := all("x", limit); len(got) != 0 {
				t.Errorf("with an unknown prefix: %q", got)
			}
		}
	})
	tr.cancels(2)
	tr.deletes(2)
	if got := all("red", 10); !slices.Equal(got, []string{"red"}) {
		t.Errorf("a tag without jobs stays: %q", got)
	}
}
