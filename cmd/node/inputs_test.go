package node

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"jobstream/jobs"
)

// reading has two types: one that gives back what is in its inputs, and one that leaves its
// payload as files.
func reading(rules ...jobs.InputRule) []*jobs.Type {
	read := jobs.HandlerFunc(func(_ context.Context, t *jobs.Task) (jobs.Result, error) {
		all := make(map[string]string)
		for _, r := range rules {
			in, err := t.Input(r.Name)
			if err != nil {
				return jobs.Result{}, err
			}
			b, err := os.ReadFile(in.Path)
			if err != nil {
				return jobs.Result{}, err
			}
			all[r.Name] = fmt.Sprintf("%s %s %d %s", in.File.Name, in.File.ContentType, in.File.Size, b)
		}
		return jobs.Result{Value: all}, nil
	})
	leave := jobs.HandlerFunc(func(_ context.Context, t *jobs.Task) (jobs.Result, error) {
		var names []string
		if err := json.Unmarshal(t.Job.Payload, &names); err != nil {
			return jobs.Result{}, jobs.Permanent(err)
		}
		for _, name := range names {
			w, err := t.Artifact()
			if err != nil {
				return jobs.Result{}, err
			}
			defer w.Abort()
			if _, err := io.WriteString(w, "content of "+name); err != nil {
				return jobs.Result{}, err
			}
			if _, err := w.Commit(name, "text/plain"); err != nil {
				return jobs.Result{}, err
			}
		}
		return jobs.Result{}, nil
	})
	all := append(typesOf(read, "read"), typesOf(leave, "leave")...)
	all[0].Inputs = rules
	return all
}

// door is a client of a node's REST door.
type door struct {
	t *testing.T
	n *Node
}

func (d door) do(method, target, body string, header ...string) (int, map[string]any) {
	d.t.Helper()
	r := httptest.NewRequestWithContext(d.t.Context(), method, "http://localhost"+target, strings.NewReader(body))
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	d.n.Handler().ServeHTTP(w, r)
	var answer map[string]any
	if w.Body.Len() > 0 {
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
			d.t.Fatalf("%s %s: %d, %s", method, target, w.Code, w.Body)
		}
	}
	return w.Code, answer
}

// wrong are the pointers of a problem.
func wrong(answer map[string]any) (all []string) {
	list, _ := answer["errors"].([]any)
	for _, e := range list {
		all = append(all, e.(map[string]any)["pointer"].(string))
	}
	return all
}

func (d door) upload(content, contentType, name string) string {
	d.t.Helper()
	code, answer := d.do("POST", "/artifacts", content, "Content-Type", contentType, "Content-Disposition", `attachment; filename="`+name+`"`)
	if code != 201 {
		d.t.Fatalf("upload: %d, %v", code, answer)
	}
	return answer["id"].(string)
}

func (d door) run(body string) *jobs.Job {
	d.t.Helper()
	code, answer := d.do("POST", "/jobs", body)
	if code != 202 {
		d.t.Fatalf("%s: %d, %v", body, code, answer)
	}
	return d.wait(answer["id"].(string))
}

func (d door) wait(text string) *jobs.Job {
	d.t.Helper()
	id, err := jobs.ParseID(text)
	mustDo(d.t, err)
	ctx, cancel := context.WithTimeout(d.t.Context(), patience)
	defer cancel()
	j, err := d.n.Wait(ctx, id)
	mustDo(d.t, err)
	if j == nil || !j.Status.Ended() {
		d.t.Fatalf("job %s is %v", id, j)
	}
	return j
}

// TestUpload: an upload is answered with what it is, on disk, and nothing is left of one
// that is refused.
func TestUpload(t *testing.T) {
	t.Parallel()
	n, _ := open(t, Options{REST: REST{MaxUpload: 1000}}, reading()...)
	d := door{t, n}
	content := strings.Repeat("a", 1000)
	sum := sha256.Sum256([]byte(content))
	before := time.Now()
	code, answer := d.do("POST", "/artifacts?sha256="+strings.ToUpper(hex.EncodeToString(sum[:])), content, "Content-Type", "text/csv; charset=utf-8", "Content-Disposition", `attachment; filename*=UTF-8''..%2Fb%C3%A4r.csv`)
	expires, err := time.Parse(time.RFC3339, fmt.Sprint(answer["expires_at"]))
	if code != 201 || answer["name"] != "bär.csv" || answer["content_type"] != "text/csv; charset=utf-8" || answer["size"] != 1000.0 || answer["sha256"] != hex.EncodeToString(sum[:]) ||
		err != nil || expires.Before(before.Add(24*time.Hour)) || expires.After(time.Now().Add(24*time.Hour)) {
		t.Fatalf("%d, %v", code, answer)
	}
	for _, tt := range []struct {
		target, body string
		header       []string
		code         int
		pointers     string
	}{
		{target: "/artifacts", body: content + "a", code: 413},
		{target: "/artifacts?sha256=" + strings.Repeat("0", 64), body: content, code: 422, pointers: "query/sha256"},
		{target: "/artifacts?sha256=abc", body: "x", code: 422, pointers: "query/sha256"},
		{target: "/artifacts?name=abc&x=1", body: "x", code: 422, pointers: "query/name query/x"},
		{target: "/artifacts", body: "x", header: []string{"Content-Type", "text"}, code: 422, pointers: "header/Content-Type"},
		{target: "/artifacts", body: "x", header: []string{"Content-Type", "multipart/form-data; boundary=x"}, code: 422, pointers: "header/Content-Type"},
		{target: "/artifacts", body: "x", header: []string{"Content-Disposition", "=;="}, code: 422, pointers: "header/Content-Disposition"},
		{target: "/artifacts", body: "x", header: []string{"Content-Encoding", "gzip"}, code: 422, pointers: "header/Content-Encoding"},
	} {
		code, answer := d.do("POST", tt.target, tt.body, tt.header...)
		if got := strings.Join(wrong(answer), " "); code != tt.code || got != tt.pointers {
			t.Errorf("%s %v: %d %s, want %d %s; %v", tt.target, tt.header, code, got, tt.code, tt.pointers, answer)
		}
	}
	if code, _ := d.do("GET", "/artifacts", ""); code != http.StatusMethodNotAllowed {
		t.Errorf("GET /artifacts: %d", code)
	}
	if all := files(t, n.dirs.Artifacts); len(all) != 1 {
		t.Errorf("there are %q", all)
	}
}

// files are all files below a folder.
func files(t *testing.T, folder string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(folder, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			all = append(all, path)
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return all
}

// TestUploadBeyondRoom: uploads count against the bound of all files.
func TestUploadBeyondRoom(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n, _ := open(t, Options{Dir: dir, Handlers: Handlers{Artifacts: jobs.NewArtifactDir(FoldersIn(dir).Artifacts, 100)}}, reading()...)
	d := door{t, n}
	d.upload(strings.Repeat("a", 60), "text/plain", "a")
	code, answer := d.do("POST", "/artifacts", strings.Repeat("b", 41))
	if code != http.StatusInsufficientStorage || answer["code"] != "storage_full" {
		t.Errorf("%d, %v", code, answer)
	}
	d.upload(strings.Repeat("c", 40), "text/plain", "c")
}

// TestInputs: a job gets the files that its submission names, and the door refuses what its
// type cannot use.
func TestInputs(t *testing.T) {
	t.Parallel()
	n, _ := open(t, Options{NATS: ":0"}, reading(jobs.InputRule{Name: "csv", Types: []string{"text/csv"}, Max: 10}, jobs.InputRule{Name: "image", Types: []string{"text/plain", "image/*"}})...)
	d := door{t, n}
	csv, image, large := d.upload("1,2", "text/csv; charset=utf-8", "a.csv"), d.upload("png", "image/png", "b.png"), d.upload("12345678901", "text/csv", "c.csv")
	both := fmt.Sprintf(`{"type":"read","inputs":{"csv":"%s","image":"%s"}}`, csv, image)
	j := d.run(both)
	if string(j.Result) != `{"csv":"a.csv text/csv; charset=utf-8 3 1,2","image":"b.png image/png 3 png"}` {
		t.Errorf("the job is %s", j.AppendJSON(nil))
	}
	code, shown := d.do("GET", "/jobs/"+j.ID.String(), "")
	in, _ := shown["inputs"].(map[string]any)
	if c, _ := in["csv"].(map[string]any); code != 200 || len(in) != 2 || c["artifact"] != csv || c["name"] != "a.csv" || c["size"] != 3.0 || len(fmt.Sprint(c["sha256"])) != 64 || c["job"] != nil {
		t.Errorf("%d, %v", code, shown)
	}

	made := d.run(`{"type":"leave","payload":["x.txt","y.txt","x.txt"]}`)
	failed := d.run(`{"type":"leave","payload":1}`)
	empty := d.run(`{"type":"leave","payload":[]}`)
	j = d.run(fmt.Sprintf(`{"type":"read","inputs":{"csv":"%s","image":{"job":"%s","artifact":"y.txt"}}}`, csv, made.ID))
	if !strings.Contains(string(j.Result), `"image":"y.txt text/plain 16 content of y.txt"`) {
		t.Errorf("the job is %s", j.AppendJSON(nil))
	}
	if in := j.Inputs(); in[1].Job != made.ID || in[1].ID == (jobs.ID{}) {
		t.Errorf("the inputs are %+v", in)
	}

	const nobody = "0193a5b1-7c3e-7d2f-8a4b-5c6d7e8f9012"
	for _, tt := range []struct{ inputs, pointers string }{
		{`{"csv":"` + csv + `"}`, "/inputs/image"},
		{`{}`, "/inputs/csv /inputs/image"},
		{`null`, "/inputs/csv /inputs/image"},
		{`{"csv":"` + csv + `","image":null}`, "/inputs/image"},
		{`{"csv":"` + csv + `","image":"` + image + `","more":"` + csv + `"}`, "/inputs/more"},
		{`{"csv":"` + image + `","image":"` + csv + `"}`, "/inputs/csv /inputs/image"},
		{`{"csv":"` + large + `","image":"` + image + `"}`, "/inputs/csv"},
		{`{"csv":"` + nobody + `","image":{"job":"` + nobody + `"}}`, "/inputs/csv /inputs/image"},
		{`{"csv":"x","image":5}`, "/inputs/csv /inputs/image"},
		{`{"csv":"` + csv + `","image":{"job":"x"}}`, "/inputs/image/job"},
		{`{"csv":"` + csv + `","image":{"artifact":"x"}}`, "/inputs/image/job"},
		{`{"csv":"` + csv + `","image":{"job":"` + made.ID.String() + `","artifact":"z"}}`, "/inputs/image"},
		{`{"csv":"` + csv + `","image":{"job":"` + failed.ID.String() + `"}}`, "/inputs/image"},
		{`{"csv":"` + csv + `","image":{"job":"` + empty.ID.String() + `"}}`, "/inputs/image"},
		{`["` + csv + `"]`, "/inputs"},
	} {
		for _, form := range []struct{ target, body, at string }{
			{"/jobs", `{"type":"read","inputs":` + tt.inputs + `}`, ""},
			{"/jobs/batch", `{"jobs":[` + both + `,{"type":"read","inputs":` + tt.inputs + `}]}`, "/jobs/1"},
		} {
			code, answer := d.do("POST", form.target, form.body)
			want := form.at + strings.ReplaceAll(tt.pointers, " ", " "+form.at)
			got := wrong(answer)
			slices.Sort(got)
			if code != 422 || strings.Join(got, " ") != want {
				t.Errorf("%s %s: %d %q, want %q; %v", form.target, tt.inputs, code, got, want, answer)
			}
		}
	}
	if code, answer := d.do("POST", "/jobs", `{"type":"leave","payload":[],"inputs":{"csv":"`+csv+`"}}`); code != 422 || wrong(answer)[0] != "/inputs/csv" {
		t.Errorf("a type without inputs: %d, %v", code, answer)
	}
	if code, answer := d.do("POST", "/schedules", `{"name":"s","every":"1h","type":"read"}`); code != 422 || wrong(answer)[0] != "/inputs/csv" {
		t.Errorf("a schedule: %d, %v", code, answer)
	}

	nc, err := nats.Connect(n.NATSURL())
	mustDo(t, err)
	defer nc.Close()
	reply, err := nc.Request("jobstream.run", []byte(both), patience)
	mustDo(t, err)
	if !strings.Contains(string(reply.Data), `"status":"completed"`) {
		t.Errorf("over NATS: %s", reply.Data)
	}
	reply, err = nc.Request("jobs.read", []byte(`{}`), patience)
	mustDo(t, err)
	var ack struct{ Seq uint64 }
	mustDo(t, json.Unmarshal(reply.Data, &ack))
	if _, shown := d.do("GET", fmt.Sprint("/jobs/", ack.Seq, "?wait=60s"), ""); shown["status"] != "failed" || !strings.Contains(fmt.Sprint(shown["error"]), "/inputs/csv: is required") {
		t.Errorf("a bare message: %v", shown)
	}

	code, answer := d.do("POST", "/jobs/batch", `{"jobs":[`+both+`,`+both+`]}`)
	list, _ := answer["jobs"].([]any)
	if code != 202 || len(list) != 2 {
		t.Fatalf("%d, %v", code, answer)
	}
	for _, of := range list {
		if j := d.wait(of.(map[string]any)["id"].(string)); j.Status != jobs.Completed {
			t.Errorf("job %s of the batch is %v", j.ID, j.Status)
		}
	}
}

// TestInputOutlivesJob: a file that another job has left stays when that job is deleted,
// and so do the inputs of a job that may run again.
func TestInputOutlivesJob(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	types := reading(jobs.InputRule{Name: "file"})
	n, err := Open(t.Context(), Options{Dir: dir}, jobs.NewRegistry(types...))
	mustDo(t, err)
	d := door{t, n}
	made := d.run(`{"type":"leave","payload":["x.txt"]}`)
	_, answer := d.do("POST", "/jobs", fmt.Sprintf(`{"type":"read","delay":"1h","inputs":{"file":{"job":"%s"}}}`, made.ID))
	id := answer["id"].(string)
	if code, _ := d.do("DELETE", "/jobs/"+made.ID.String(), ""); code != 204 {
		t.Fatalf("DELETE: %d", code)
	}
	if code, _ := d.do("POST", "/jobs/"+id+"/cancel", ""); code != 202 {
		t.Fatalf("cancel: %d", code)
	}
	mustDo(t, n.Shutdown(t.Context()))
	n, _ = open(t, Options{Dir: dir}, types...)
	d = door{t, n}
	if code, _ := d.do("POST", "/jobs/"+id+"/retry", ""); code != 202 {
		t.Fatalf("retry: %d", code)
	}
	if j := d.wait(id); string(j.Result) != `{"file":"x.txt text/plain 16 content of x.txt"}` {
		t.Errorf("the job is %s", j.AppendJSON(nil))
	}
}

// TestOldInputsGo: the node drops what no job has had for a day, and nothing else.
func TestOldInputsGo(t *testing.T) {
	t.Parallel()
	n, c := open(t, Options{}, reading(jobs.InputRule{Name: "file"})...)
	d := door{t, n}
	fresh := d.upload("fresh", "text/plain", "a.txt")
	dir := n.o.Handlers.Artifacts.Inputs()
	for _, age := range []time.Duration{25 * time.Hour, 23 * time.Hour} {
		id := jobs.NewID()
		w, err := dir.Create(id)
		mustDo(t, err)
		_, err = io.WriteString(w, "old")
		mustDo(t, err)
		file, err := w.Commit("old.txt", "text/plain")
		mustDo(t, err)
		_, err = c.Store.Do(t.Context(), jobs.KeepInput{Stamp: jobs.Stamp{At: jobs.Now().Add(-age)}, ID: id, File: *file})
		mustDo(t, err)
	}
	c.dropInputs(t.Context())
	if left := files(t, filepath.Join(n.dirs.Artifacts, "in")); len(left) != 2 {
		t.Errorf("left are %q", left)
	}
	if j := d.run(`{"type":"read","inputs":{"file":"` + fresh + `"}}`); j.Status != jobs.Completed {
		t.Errorf("the job is %s", j.AppendJSON(nil))
	}
}
