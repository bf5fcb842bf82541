package jobs_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"jobstream/jobs"
)

// TestReferences compares the references of REST and NATS with the tables. They have
// one line for each attribute of a submission, with the table's words, and no others.
func TestReferences(t *testing.T) {
	for _, ref := range []struct {
		file, head string
		core       []string // names that stand in no table
		names      func(f *jobs.Field[jobs.Terms]) (span, name string)
	}{
		{
			"../httpapi/README.md", "### A submission",
			[]string{"type", "payload", "priority", "tags", "retry_count", "timeout", "inputs"},
			func(f *jobs.Field[jobs.Terms]) (string, string) { return f.Span, f.Name },
		},
		{
			"../broker/README.md", "| header, all optional",
			[]string{"Job-Id", "Nats-Msg-Id", "Job-Tags", "Job-Retry-Count", "Job-Timeout"},
			func(f *jobs.Field[jobs.Terms]) (string, string) { return f.SpanHeader, f.Header },
		},
	} {
		text, err := os.ReadFile(ref.file)
		if err != nil {
			t.Fatal(err)
		}
		_, table, found := strings.Cut(string(text), ref.head)
		_, table, ok := strings.Cut(table, "|---|---|\n")
		if table, _, _ = strings.Cut(table, "\n\n"); !found || !ok {
			t.Fatalf("%s has no table below %q", ref.file, ref.head)
		}
		known := ref.core
		for i := range jobs.TermsFields {
			f := &jobs.TermsFields[i]
			if f.Server {
				continue
			}
			span, name := ref.names(f)
			row := "| `" + name + "` | " + f.Doc + " |"
			if span != "" {
				row = "| `" + span + "` or `" + name + "` | " + f.Doc + " |"
			}
			if !slices.Contains(strings.Split(table, "\n"), row) {
				t.Errorf("%s lacks the line\n%s", ref.file, row)
			}
			known = append(known, span, name)
		}
		for line := range strings.Lines(table) {
			head, _, _ := strings.Cut(strings.TrimPrefix(line, "| "), " |")
			for _, name := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(head, -1) {
				if !slices.Contains(known, name[1]) {
					t.Errorf("%s has a line for %s, which is no attribute", ref.file, name[1])
				}
			}
		}
	}
}

// TestTables: every attribute has what the codecs need, and names are not given twice.
func TestTables(t *testing.T) {
	names := map[string]string{}
	headers := map[string]bool{}
	for i := range jobs.TermsFields {
		f := &jobs.TermsFields[i]
		if f.Header == "" || f.Doc == "" != f.Server {
			t.Errorf("%s has no header, or no line in the references", f.Name)
		}
		for _, h := range []string{f.Header, f.SpanHeader} {
			if h != "" && headers[strings.ToLower(h)] {
				t.Errorf("%s is the header of two", h)
			}
			headers[strings.ToLower(h)] = true
		}
		if f.JSON != jobs.Hidden {
			names[f.Name] = "terms"
		}
	}
	for i := range jobs.JobFields {
		f := &jobs.JobFields[i]
		if f.JSON != jobs.Hidden && names[f.Name] != "" {
			t.Errorf("the resource has two members %s", f.Name)
		}
		names[f.Name] = "job"
	}
}
