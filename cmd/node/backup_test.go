package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"jobstream/cmd/node/archive"
	"jobstream/jobs"
	"jobstream/jobs/api"
)

var quiet = slog.New(slog.DiscardHandler)

// saved is the backup that GET /backup gives.
func (d door) saved() []byte {
	d.t.Helper()
	w := httptest.NewRecorder()
	d.n.Handler().ServeHTTP(w, httptest.NewRequestWithContext(d.t.Context(), http.MethodGet, "http://localhost/backup", nil))
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/x-tar" || !strings.Contains(w.Header().Get("Content-Disposition"), ".tar") {
		d.t.Fatalf("GET /backup: %d, %v, %s", w.Code, w.Header(), w.Body)
	}
	return w.Body.Bytes()
}

// restored is a new folder with a backup in it.
func restored(t *testing.T, backup []byte) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "data")
	_, err := Restore(t.Context(), bytes.NewReader(backup), dir, nil, quiet)
	mustDo(t, err)
	return dir
}

// state is what users see of a node, by the paths at which they see it. A job that runs has
// only what a start on its backup leaves as it is.
func (d door) state() map[string]string {
	d.t.Helper()
	all := make(map[string]string)
	raw := func(path string) string {
		w := httptest.NewRecorder()
		d.n.Handler().ServeHTTP(w, httptest.NewRequestWithContext(d.t.Context(), http.MethodGet, "http://localhost"+path, nil))
		return fmt.Sprint(w.Code, " ", w.Header().Get("Content-Type"), " ", w.Body)
	}
	for _, path := range []string{"/schedules", "/jobs/counts", "/deliveries"} {
		all[path] = raw(path)
	}
	_, answer := d.do("GET", "/types", "")
	for _, item := range answer["types"].([]any) {
		typ := item.(map[string]any)
		all["/types/"+typ["name"].(string)] = fmt.Sprint(typ["paused"], typ["depth"]) // other figures are of this moment
	}
	_, answer = d.do("GET", "/jobs?limit=500&order=asc", "")
	for _, item := range answer["jobs"].([]any) {
		j := item.(map[string]any)
		path := "/jobs/" + j["id"].(string)
		delete(j, "waiting")
		if s := j["status"]; s != "completed" && s != "failed" && s != "cancelled" {
			delete(j, "seq") // its message is published again
		}
		if j["status"] == "processing" {
			for _, name := range []string{"status", "attempt", "started_at", "updated_at", "node", "run_at", "message", "progress", "lost"} {
				delete(j, name)
			}
		} else {
			all[path+"/events"] = raw(path + "/events")
		}
		text, err := json.Marshal(j)
		mustDo(d.t, err)
		all[path] = string(text)
		all[path+"/log"], all[path+"/artifacts"], all[path+"/result"] = raw(path+"/log"), raw(path+"/artifacts"), raw(path+"/result")
	}
	return all
}

// differences of two states, for people.
func stateDiff(was, is map[string]string) (all []string) {
	for _, path := range slices.Sorted(maps.Keys(was)) {
		if is[path] != was[path] {
			all = append(all, fmt.Sprintf("%s\n  was %s\n  is  %s", path, was[path], is[path]))
		}
	}
	for path := range is {
		if _, ok := was[path]; !ok {
			all = append(all, path+" is new: "+is[path])
		}
	}
	return all
}

// savedTypes are types of which jobs end, fail, leave files, run for ever, wait for ever
// (paused is paused) or are done elsewhere.
func savedTypes() []*jobs.Type {
	all := append(reading(jobs.InputRule{Name: "a", Max: 1 << 20}), typesOf(jobs.HandlerFunc(func(_ context.Context, t *jobs.Task) (jobs.Result, error) {
		t.Log(jobs.LevelInfo, "hello from "+string(t.Job.Payload))
		return jobs.Result{Value: t.Job.Payload}, nil
	}), "echo", "paused")...)
	all = append(all, typesOf(jobs.HandlerFunc(func(context.Context, *jobs.Task) (jobs.Result, error) {
		return jobs.Result{}, jobs.Permanent(errors.New("no"))
	}), "fails")...)
	all = append(all, typesOf(gated(nil), "runs")...)
	all = append(all, &jobs.Type{Name: "asleep", Timeout: time.Hour, RetryCount: 3, Backoff: jobs.Backoff{Kind: jobs.Constant, Base: time.Hour}, Handler: jobs.HandlerFunc(func(context.Context, *jobs.Task) (jobs.Result, error) {
		return jobs.Result{}, errors.New("later")
	})})
	return append(all, renderType()...)
}

// TestBackupIsEqual makes any state, and finds it again after a backup and a restore.
func TestBackupIsEqual(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		steps := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) [2]int {
			return [2]int{rapid.IntRange(0, 14).Draw(rt, "step"), rapid.IntRange(0, 10_000).Draw(rt, "which")}
		}), 1, 25).Draw(rt, "steps")
		if !t.Run("state", func(t *testing.T) { backupIsEqual(t, steps) }) {
			rt.FailNow()
		}
	})
}

func backupIsEqual(t *testing.T, steps [][2]int) {
	n, _ := open(t, Options{Workers: Workers{Max: 100}, Logger: quiet}, savedTypes()...)
	d := door{t, n}
	d.do("POST", "/types/paused/pause", "")
	m := &savedModel{door: d, keys: make(map[string]string)}
	for _, s := range steps {
		m.step(s[0], s[1])
	}
	m.settle()
	was := d.state()
	backup := d.saved()
	if diff := stateDiff(was, d.state()); len(diff) > 0 {
		t.Fatalf("the backup has changed something, or nothing was settled: %s", strings.Join(diff, "\n"))
	}
	n2, _ := open(t, Options{Dir: restored(t, backup), Workers: Workers{Max: 100}, Logger: quiet}, savedTypes()...)
	d2 := door{t, n2}
	m2 := *m
	m2.door = d2
	m2.settle()
	if diff := stateDiff(was, d2.state()); len(diff) > 0 {
		t.Errorf("restored, it is another state: %s", strings.Join(diff, "\n"))
	}
	for key, id := range m.keys {
		_, answer := d2.do("POST", "/jobs", `{"type":"echo","payload":"of a key"}`, "Idempotency-Key", key)
		if answer["id"] != id {
			t.Errorf("the key %s has made %s, and then %v", key, id, answer)
		}
	}
	for _, key := range m.unique {
		if code, answer := d2.do("POST", "/jobs", fmt.Sprintf(`{"type":"paused","unique_key":%q}`, key)); code != http.StatusConflict {
			t.Errorf("the unique key %s is free: %d, %v", key, code, answer)
		}
	}
	for i, token := range m.leases {
		if code, answer := d2.do("POST", "/leases/"+token+"/done", `{"result":1}`); code != http.StatusOK {
			t.Errorf("lease %d: %d, %v", i, code, answer)
		}
	}
}

// savedModel makes states.
type savedModel struct {
	door
	all    []string          // ids of jobs
	keys   map[string]string // idempotency keys with their jobs
	unique []string
	leases []string
	inputs []string
	spec   int // schedules made
}

func (m *savedModel) step(what, which int) {
	m.t.Helper()
	pick := func(of ...string) string { return of[which%len(of)] }
	switch {
	case what <= 3:
		m.submit(fmt.Sprintf(`{"type":%q,"payload":{"n":%d},"tags":["t%d"],"priority":%d}`,
			pick("echo", "paused", "fails", "runs", "asleep", "render"), len(m.all), len(m.all)%3, 1+len(m.all)%5))
	case what == 4:
		m.submit(`{"type":"leave","payload":["x.txt","y.txt"]}`)
	case what == 5:
		m.submit(fmt.Sprintf(`{"type":"echo","payload":%q,"delay":"1h"}`, strings.Repeat("x", which)))
	case what == 6:
		key := fmt.Sprint("key", len(m.keys))
		m.keys[key] = m.submit(`{"type":"echo","payload":"of a key"}`, "Idempotency-Key", key)
	case what == 7:
		key := fmt.Sprint("only", len(m.unique))
		m.submit(fmt.Sprintf(`{"type":"paused","unique_key":%q,"concurrency_key":"c"}`, key))
		m.unique = append(m.unique, key)
	case what == 8:
		m.inputs = append(m.inputs, m.upload(fmt.Sprint("upload ", len(m.inputs)), "text/plain", "up.txt"))
		if which%2 == 0 {
			m.submit(fmt.Sprintf(`{"type":"read","inputs":{"a":%q}}`, m.inputs[len(m.inputs)-1]))
		}
	case what == 9:
		m.spec++
		m.do("POST", "/schedules", fmt.Sprintf(`{"name":"s%d","every":"1h","type":"echo","payload":%d}`, m.spec, m.spec))
	case what == 10 && m.spec > 0:
		m.do("POST", fmt.Sprintf("/schedules/s%d/pause", m.spec), "")
	case what == 11:
		m.submit(`{"type":"render","payload":{}}`)
		_, answer := m.do("POST", "/leases", `{"types":["render"],"max":1,"wait":"1s","worker":"w"}`)
		for _, l := range answer["leases"].([]any) {
			m.leases = append(m.leases, l.(map[string]any)["lease"].(string))
		}
	case what == 12:
		m.do("POST", "/types/asleep/"+pick("pause", "resume"), "")
	case what == 13 && len(m.all) > 0:
		m.do("POST", "/jobs/"+pick(m.all...)+"/retry", "")
	case what == 14 && len(m.all) > 0:
		m.do("DELETE", "/jobs/"+pick(m.all...), "")
	}
}

func (m *savedModel) submit(body string, header ...string) string {
	m.t.Helper()
	code, answer := m.do("POST", "/jobs", body, header...)
	if code != http.StatusAccepted {
		m.t.Fatalf("%s: %d, %v", body, code, answer)
	}
	id := answer["id"].(string)
	m.all = append(m.all, id)
	return id
}

// settle waits until nothing changes by itself any more.
func (m *savedModel) settle() {
	m.t.Helper()
	paused := make(map[string]bool)
	_, answer := m.do("GET", "/types", "")
	for _, item := range answer["types"].([]any) {
		typ := item.(map[string]any)
		paused[typ["name"].(string)] = typ["paused"].(bool)
	}
	var moving []string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		moving = nil
		_, answer := m.do("GET", "/jobs?limit=500", "")
		for _, item := range answer["jobs"].([]any) {
			j := item.(map[string]any)
			typ, status := j["type"].(string), j["status"].(string)
			waits := paused[typ] || typ == "render"
			if status == "pending" && !waits || status == "processing" && typ != "runs" && typ != "render" || status == "retrying" && typ != "asleep" && !waits {
				moving = append(moving, fmt.Sprint(j))
			}
		}
		if len(moving) == 0 && m.still() {
			return
		}
		time.Sleep(time.Millisecond) // between two looks
	}
	m.t.Fatalf("still moving: %v", moving)
}

// still says whether two looks see the same, while no worker is busy but with jobs that run
// for ever: a pause does not stop an attempt that has just begun.
func (m *savedModel) still() bool {
	m.t.Helper()
	was := m.state()
	_, stats := m.do("GET", "/workers/stats", "")
	_, running := m.do("GET", "/jobs?limit=500&status=processing&type=runs", "")
	if int(stats["active_workers"].(float64)) != len(running["jobs"].([]any)) {
		return false
	}
	return len(stateDiff(was, m.state())) == 0
}

// TestBackupHasRemovedFiles deletes everything between the snapshot and the copy of files.
func TestBackupHasRemovedFiles(t *testing.T) {
	t.Parallel()
	n, c := open(t, Options{}, savedTypes()...)
	d := door{t, n}
	left := d.run(`{"type":"leave","payload":["x.txt"]}`)
	said := d.run(`{"type":"echo","payload":"a word"}`)
	s, err := backups{c}.Backup(t.Context())
	mustDo(t, err)
	for _, j := range []*jobs.Job{left, said} {
		if code, answer := d.do("DELETE", "/jobs/"+j.ID.String(), ""); code != http.StatusNoContent {
			t.Fatalf("delete: %d, %v", code, answer)
		}
	}
	later := d.run(`{"type":"echo","payload":"later"}`)
	var out bytes.Buffer
	mustDo(t, s.Write(t.Context(), &out))
	s.Close()
	if all := files(t, n.dirs.Artifacts); len(all) != 0 {
		t.Errorf("%q is left", all)
	}
	n2, _ := open(t, Options{Dir: restored(t, out.Bytes())}, savedTypes()...)
	d2 := door{t, n2}
	state := d2.state()
	if got := state["/jobs/"+left.ID.String()+"/result"]; got != "200 text/plain content of x.txt" {
		t.Errorf("the file of a job that was deleted meanwhile: %s", got)
	}
	if got := state["/jobs/"+said.ID.String()+"/log"]; !strings.Contains(got, "a word") {
		t.Errorf("the log of a job that was deleted meanwhile: %s", got)
	}
	if _, ok := state["/jobs/"+later.ID.String()]; ok {
		t.Error("a job that came after the snapshot is in it")
	}
}

// TestOneBackup refuses a second one at a time, and cleans up after one that nobody reads.
func TestOneBackup(t *testing.T) {
	t.Parallel()
	n, c := open(t, Options{}, savedTypes()...)
	d := door{t, n}
	d.run(`{"type":"leave","payload":["x.txt"]}`)
	s, err := backups{c}.Backup(t.Context())
	mustDo(t, err)
	if code, answer := d.do("GET", "/backup", ""); code != http.StatusConflict || answer["code"] != "conflict" {
		t.Errorf("a second one: %d, %v", code, answer)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Write(ctx, io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("without a reader: %v", err)
	}
	s.Close()
	if code, _ := d.do("HEAD", "/backup", ""); code != http.StatusOK {
		t.Errorf("HEAD: %d", code)
	}
	if _, err := (backups{c}).Backup(ctx); err == nil {
		t.Error("a backup for nobody has begun")
	}
	d.saved()
	entries, err := os.ReadDir(n.dirs.Root)
	mustDo(t, err)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			t.Errorf("%s is left", e.Name())
		}
	}
}

// TestRestoreRefuses leaves the folder as it was.
func TestRestoreRefuses(t *testing.T) {
	t.Parallel()
	n, _ := open(t, Options{}, savedTypes()...)
	d := door{t, n}
	d.run(`{"type":"leave","payload":["x.txt"]}`)
	good := d.saved()
	damaged := bytes.Clone(good)
	damaged[len(damaged)/2] ^= 4
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for what, c := range map[string]struct {
		ctx    context.Context
		backup []byte
		want   error
	}{
		"damaged":     {t.Context(), damaged, archive.ErrBroken},
		"cut":         {t.Context(), good[:len(good)-2000], archive.ErrBroken},
		"empty":       {t.Context(), nil, archive.ErrBroken},
		"interrupted": {ended, good, context.Canceled},
	} {
		missing, there := filepath.Join(t.TempDir(), "a", "b"), t.TempDir()
		for _, dir := range []string{missing, there} {
			if _, err := Restore(c.ctx, bytes.NewReader(c.backup), dir, nil, quiet); !errors.Is(err, c.want) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if _, err := os.Stat(missing); err == nil {
			t.Errorf("%s: the folder was made", what)
		}
		if all, err := os.ReadDir(there); err != nil || len(all) != 0 {
			t.Errorf("%s: %v is in the folder, %v", what, all, err)
		}
	}
	dir := t.TempDir()
	mustDo(t, os.WriteFile(filepath.Join(dir, "mine"), nil, 0o600))
	if _, err := Restore(t.Context(), bytes.NewReader(good), dir, nil, quiet); !errors.Is(err, ErrNotEmpty) || !strings.Contains(err.Error(), "mine") {
		t.Errorf("into a folder with something in it: %v", err)
	}
	if all := files(t, dir); len(all) != 1 {
		t.Errorf("that has %q now", all)
	}
	mustDo(t, os.Remove(filepath.Join(dir, "mine")))
	mustDo(t, os.Mkdir(filepath.Join(dir, "lost+found"), 0o700)) // the root of a file system has it
	_, err := Restore(t.Context(), bytes.NewReader(good), dir, nil, quiet)
	mustDo(t, err)
}

// TestUnfinishedRestore: no server starts on a folder whose restore was interrupted, and
// no other restore begins in it.
func TestUnfinishedRestore(t *testing.T) {
	t.Parallel()
	n, _ := open(t, Options{}, savedTypes()...)
	backup := door{t, n}.saved()
	dir := filepath.Join(t.TempDir(), "data")
	hanging, release := io.Pipe()
	done := make(chan error, 1)
	go func() {
		_, err := Restore(t.Context(), hanging, dir, nil, quiet)
		done <- err
	}()
	_, err := release.Write(backup[:len(backup)-1000])
	mustDo(t, err)
	if n, err := Open(t.Context(), Options{Dir: dir}, jobs.NewRegistry(savedTypes()...)); err == nil || !strings.Contains(err.Error(), "a restore into "+dir+" has not come to its end") {
		t.Errorf("a node starts on it: %v, %v", n != nil, err)
	}
	if _, err := Restore(t.Context(), bytes.NewReader(backup), dir, nil, quiet); !errors.Is(err, ErrNotEmpty) {
		t.Errorf("another restore: %v", err)
	}
	if all := files(t, dir); len(all) == 0 || slices.ContainsFunc(all, func(name string) bool { return !strings.Contains(name, "/restoring/") }) {
		t.Errorf("there is %q", all)
	}
	_, err = release.Write(backup[len(backup)-1000:])
	mustDo(t, err)
	mustDo(t, release.Close())
	mustDo(t, <-done)
	open(t, Options{Dir: dir}, savedTypes()...)
}

// TestBackupStopped backs up a folder that has no server. Only one can have it.
func TestBackupStopped(t *testing.T) {
	t.Parallel()
	n, err := Open(t.Context(), Options{Dir: t.TempDir(), Logger: quiet}, jobs.NewRegistry(savedTypes()...))
	mustDo(t, err)
	d := door{t, n}
	d.run(`{"type":"leave","payload":["x.txt"]}`)
	d.do("POST", "/jobs", `{"type":"echo","delay":"1h"}`)
	d.do("POST", "/jobs", `{"type":"echo","delay":"1h"}`)
	was := d.state()
	if err := Backup(t.Context(), n.dirs.Root, "v1", io.Discard, quiet); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("of a folder with a server: %v", err)
	}
	atOnce, cancel := context.WithCancel(t.Context())
	cancel()
	mustDo(t, n.Shutdown(atOnce))
	var out bytes.Buffer
	mustDo(t, Backup(t.Context(), n.dirs.Root, "v1", &out, quiet))
	if bytes.Contains(out.Bytes(), []byte("broker/")) {
		t.Error("the streams of a clean stop are in it")
	}
	n2, _ := open(t, Options{Dir: restored(t, out.Bytes())}, savedTypes()...)
	if diff := stateDiff(was, door{t, n2}.state()); len(diff) > 0 {
		t.Errorf("restored, it is another state: %s", strings.Join(diff, "\n"))
	}
	n3, _ := open(t, Options{Dir: n.dirs.Root}, savedTypes()...)
	if diff := stateDiff(was, door{t, n3}.state()); len(diff) > 0 {
		t.Errorf("the backup has changed the folder: %s", strings.Join(diff, "\n"))
	}
	if err := Backup(t.Context(), t.TempDir(), "v1", io.Discard, quiet); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of an empty folder: %v", err)
	}
}

var _ api.Backups = backups{}
