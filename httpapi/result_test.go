package httpapi_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"jobstream/httpapi"
	"jobstream/jobs"
)

// artifact stores a file for a new, completed job.
func artifact(t *testing.T, r *rig, files jobs.Artifacts, name, contentType string, content []byte) *jobs.Job {
	t.Helper()
	id := jobs.NewID()
	w, err := files.Create(id)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	a, err := w.Commit(name, contentType)
	if err != nil {
		t.Fatal(err)
	}
	j := &jobs.Job{ID: id, Type: "export", Priority: 3, Status: jobs.Completed, Artifact: a, CreatedAt: jobs.Now()}
	r.put(j)
	return j
}

func TestResult(t *testing.T) {
	dir := jobs.NewArtifactDir(t.TempDir(), 0)
	r := newRig(t, func(o *httpapi.Options) { o.Backend.Artifacts = dir })
	content := bytes.Repeat([]byte("0123456789"), 100_000) // more than one write
	j := artifact(t, r, dir, "export.csv", "text/csv; charset=utf-8", content)
	path := "/jobs/" + j.ID.String() + "/result"
	etag := `"` + j.Artifact.SHA256 + `"`

	tests := []struct {
		name   string
		header []string
		status int
		body   []byte
	}{
		{"whole", nil, 200, content},
		{"range", []string{"Range", "bytes=10-14"}, 206, []byte("01234")},
		{"suffix", []string{"Range", "bytes=-3"}, 206, []byte("789")},
		{"open range", []string{"Range", "bytes=999995-"}, 206, []byte("56789")},
		{"known", []string{"If-None-Match", etag}, 304, nil},
		{"other", []string{"If-None-Match", `"other"`}, 200, content},
		{"range of this", []string{"Range", "bytes=0-0", "If-Range", etag}, 206, []byte("0")},
		{"range of another", []string{"Range", "bytes=0-0", "If-Range", `"other"`}, 200, content},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := r.do(t, "GET", path, "", tt.header...)
			if a.StatusCode != tt.status || !bytes.Equal(a.body, tt.body) {
				t.Fatalf("got %d and %d bytes, want %d and %d", a.StatusCode, len(a.body), tt.status, len(tt.body))
			}
			if got := a.Header.Get("ETag"); got != etag {
				t.Errorf("ETag is %q", got)
			}
			if tt.status == 304 {
				return
			}
			for name, want := range map[string]string{
				"Content-Type": "text/csv; charset=utf-8", "Content-Disposition": "attachment; filename=export.csv",
				"X-Content-Type-Options": "nosniff", "Accept-Ranges": "bytes", "Cache-Control": "private, no-cache",
			} {
				if got := a.Header.Get(name); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
		})
	}
	t.Run("by seq", func(t *testing.T) {
		if a := r.do(t, "GET", "/jobs/1/result", ""); !bytes.Equal(a.body, content) {
			t.Errorf("got %d and %d bytes", a.StatusCode, len(a.body))
		}
	})
	t.Run("head", func(t *testing.T) {
		a := r.do(t, "HEAD", path, "")
		if a.StatusCode != 200 || a.ContentLength != int64(len(content)) || len(a.body) != 0 {
			t.Errorf("got %d, length %d, %d bytes", a.StatusCode, a.ContentLength, len(a.body))
		}
	})
	t.Run("range outside", func(t *testing.T) {
		a := r.do(t, "GET", path, "", "Range", "bytes=1000000-")
		a.wantProblem(t, 416, "invalid_request")
		if got := a.Header.Get("Content-Range"); got != "bytes */1000000" {
			t.Errorf("Content-Range is %q", got)
		}
		if got := a.Header.Get("Content-Disposition"); got != "" {
			t.Errorf("Content-Disposition is %q", got)
		}
	})
	t.Run("head of a condition that fails", func(t *testing.T) {
		if a := r.do(t, "HEAD", path, "", "If-Match", `"other"`); a.StatusCode != 412 || len(a.body) != 0 {
			t.Errorf("got %d and %d bytes", a.StatusCode, len(a.body))
		}
	})
	t.Run("condition that fails", func(t *testing.T) {
		r.do(t, "GET", path, "", "If-Match", `"other"`).wantProblem(t, 412, "invalid_request")
	})
}

// TestArtifacts lists several files of a job and gets them by their names.
func TestArtifacts(t *testing.T) {
	dir := jobs.NewArtifactDir(t.TempDir(), 0)
	r := newRig(t, func(o *httpapi.Options) { o.Backend.Artifacts = dir })
	var e jobs.Event
	var all []jobs.Artifact
	id := jobs.NewID()
	names := []string{"a.csv", "100% für (b) +c&d=#?.txt", "same", "same", "../x;y"}
	for i, name := range names {
		w, err := dir.Create(id)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprintf(w, "content %d of %s", i, name); err != nil {
			t.Fatal(err)
		}
		a, err := w.Commit(jobs.ArtifactName(name), "text/plain")
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, *a)
	}
	e.SetFiles(all)
	r.put(&jobs.Job{ID: id, Type: "export", Priority: 3, Status: jobs.Completed, Artifact: e.Artifact, Artifacts: e.Artifacts, CreatedAt: jobs.Now()})
	path := "/jobs/" + id.String()

	type files struct{ Artifacts []jobs.Artifact }
	var listed, shown files
	for _, c := range []struct {
		path string
		into *files
	}{{path + "/artifacts", &listed}, {path, &shown}} {
		a := r.do(t, "GET", c.path, "")
		if err := json.Unmarshal(a.body, c.into); err != nil || a.StatusCode != 200 || len(c.into.Artifacts) != len(names) {
			t.Errorf("%s gives %d %s", c.path, a.StatusCode, a.body)
		}
	}
	get := func(name, want string) {
		t.Helper()
		a := r.do(t, "GET", path+name, "", "Range", "bytes=0-999")
		if a.StatusCode != 206 || string(a.body) != want || a.Header.Get("ETag") == "" {
			t.Errorf("%s gives %d %q, want %q", name, a.StatusCode, a.body, want)
		}
	}
	get("/result", "content 0 of a.csv")
	get("/artifacts/a.csv", "content 0 of a.csv")
	get("/artifacts/"+url.PathEscape(names[1]), "content 1 of "+names[1])
	get("/artifacts/100%25%20f%c3%bcr%20%28b%29%20%2bc%26d%3d%23%3f%2e%74xt", "content 1 of "+names[1])
	get("/artifacts/same", "content 3 of same")
	get("/artifacts/x;y", "content 4 of ../x;y")
	r.do(t, "GET", path+"/artifacts/other", "").wantProblem(t, 404, "no_artifact")
	r.do(t, "GET", path+"/artifacts/a.csv?x=1", "").wantProblem(t, 422, "invalid_request", "query/x")
	r.do(t, "GET", "/jobs/"+jobs.NewID().String()+"/artifacts", "").wantProblem(t, 404, "not_found")

	single := artifact(t, r, dir, "one", "text/plain", []byte("1"))
	if a := r.do(t, "GET", "/jobs/"+single.ID.String(), ""); strings.Contains(string(a.body), "artifacts") {
		t.Errorf("a single file is shown twice: %s", a.body)
	}
	a := r.do(t, "GET", "/jobs/"+single.ID.String()+"/artifacts", "")
	if want := `{"artifacts":[{"name":"one","content_type":"text/plain","size":1,"sha256":"` + single.Artifact.SHA256 + `"}]}`; strings.TrimSpace(string(a.body)) != want {
		t.Errorf("listed are %s, want %s", a.body, want)
	}
}

// memory is Artifacts that are no files.
type memory struct{ fstest.MapFS }

func (m memory) Create(id jobs.ID) (jobs.ArtifactWriter, error) {
	return &memoryWriter{in: m, id: id.String()}, nil
}

func (m memory) Open(id jobs.ID, _ *jobs.Artifact) (jobs.ArtifactFile, error) {
	f, err := m.MapFS.Open(id.String())
	if err != nil {
		return nil, err
	}
	return f.(jobs.ArtifactFile), nil
}

func (m memory) Size(id jobs.ID) (int64, error) {
	if f := m.MapFS[id.String()]; f != nil {
		return int64(len(f.Data)), nil
	}
	return 0, nil
}

func (m memory) Remove(id jobs.ID) (int64, error) {
	defer delete(m.MapFS, id.String())
	return m.Size(id)
}

func (m memory) Keep(jobs.ID, []jobs.Artifact) error { return nil }

type memoryWriter struct {
	bytes.Buffer
	in memory
	id string
}

func (w *memoryWriter) Commit(name, contentType string) (*jobs.Artifact, error) {
	w.in.MapFS[w.id] = &fstest.MapFile{Data: w.Bytes(), Mode: 0o600}
	return &jobs.Artifact{Name: name, ContentType: contentType, Size: int64(w.Len())}, nil
}

func (w *memoryWriter) Abort() {}

// TestResultFromAnotherStore: any Artifacts will do, not only a folder.
func TestResultFromAnotherStore(t *testing.T) {
	files := memory{fstest.MapFS{}}
	r := newRig(t, func(o *httpapi.Options) { o.Backend.Artifacts = files })
	j := artifact(t, r, files, "a.txt", "text/plain", []byte("0123456789"))
	path := "/jobs/" + j.ID.String() + "/result"
	if a := r.do(t, "GET", path, ""); a.StatusCode != 200 || string(a.body) != "0123456789" {
		t.Errorf("got %d and %q", a.StatusCode, a.body)
	}
	if a := r.do(t, "GET", path, "", "Range", "bytes=3-5"); a.StatusCode != 206 || string(a.body) != "345" {
		t.Errorf("a range: got %d and %q", a.StatusCode, a.body)
	}
	if n, err := files.Remove(j.ID); n != 10 || err != nil {
		t.Errorf("removed %d bytes, %v", n, err)
	}
	r.do(t, "GET", path, "").wantProblem(t, 404, "no_artifact")
}

func TestNoResult(t *testing.T) {
	path := t.TempDir()
	dir := jobs.NewArtifactDir(path, 0)
	r := newRig(t, func(o *httpapi.Options) { o.Backend.Artifacts = dir })
	r.submit(t, anEmail)
	p := r.do(t, "GET", "/jobs/1/result", "").wantProblem(t, 404, "no_artifact")
	if !strings.Contains(p.Detail, "pending") {
		t.Errorf("the detail is %q", p.Detail)
	}

	j := artifact(t, r, dir, "a", "text/plain", []byte("content"))
	file := filepath.Join(path, j.ID.String()+".d", j.Artifact.SHA256[:32])
	path = "/jobs/" + j.ID.String() + "/result"
	if err := os.Truncate(file, 3); err != nil {
		t.Fatal(err)
	}
	r.do(t, "GET", path, "").wantProblem(t, 500, "internal")
	if _, err := dir.Remove(j.ID); err != nil {
		t.Fatal(err)
	}
	r.do(t, "GET", path, "").wantProblem(t, 404, "no_artifact")
}

func TestResultHeaders(t *testing.T) {
	dir := jobs.NewArtifactDir(t.TempDir(), 0)
	r := newRig(t, func(o *httpapi.Options) { o.Backend.Artifacts = dir })
	tests := []struct {
		name, contentType string
		wantType, want    string // "ID" stands for the job's id
	}{
		{"report.html", "text/html; charset=utf-8", "text/html; charset=utf-8", "inline; filename=report.html"},
		{"x.svg", "image/svg+xml", "image/svg+xml", "attachment; filename=x.svg"},
		{"two words.csv", "text/csv", "text/csv", `attachment; filename="two words.csv"`},
		{"münchen.csv", "text/csv", "text/csv", "attachment; filename*=utf-8''m%C3%BCnchen.csv"},
		{"../../etc/passwd", "text/csv", "text/csv", "attachment; filename=passwd"},
		{`c:\temp\a.csv`, "text/csv", "text/csv", "attachment; filename=a.csv"},
		{"a\r\nX-Evil: 1\".csv", "text/csv", "text/csv", `attachment; filename="a__X-Evil_ 1_.csv"`},
		{".htaccess", "text/csv", "text/csv", "attachment; filename=htaccess"},
		{"..", "text/csv", "text/csv", "attachment; filename=ID"},
		{"/", "text/csv", "text/csv", "attachment; filename=ID"},
		{"", "", "application/octet-stream", "attachment; filename=ID"},
		{"a\xff.csv", "no type", "no type", "attachment; filename=a_.csv"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			j := artifact(t, r, dir, tt.name, tt.contentType, []byte("<b>x</b>"))
			a := r.do(t, "GET", "/jobs/"+j.ID.String()+"/result", "")
			want := strings.ReplaceAll(tt.want, "ID", j.ID.String())
			if got := a.Header.Get("Content-Disposition"); got != want {
				t.Errorf("Content-Disposition is %q, want %q", got, want)
			}
			if got := a.Header.Get("Content-Type"); got != tt.wantType {
				t.Errorf("Content-Type is %q, want %q", got, tt.wantType)
			}
			if a.Header.Get("X-Evil") != "" {
				t.Error("a header was smuggled in")
			}
			if csp := a.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "sandbox") || !strings.Contains(csp, "default-src 'none'") {
				t.Errorf("Content-Security-Policy is %q", csp)
			}
		})
	}
}
