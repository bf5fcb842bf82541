package main

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"jobstream/cmd/node/archive"
)

// command runs a command of the program, and returns its exit code and outputs.
func command(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = run(t.Context(), args, nil, &stdout, &stderr)
	return code, stdout.String(), stderr.String()
}

// TestContractBackup backs up a server that runs, over and over, and starts another one on
// what was restored.
func TestContractBackup(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	h := openProgram(t, filepath.Join(dir, "data"))
	mail := h.await(h.submit(`{"type":"email","payload":%s}`, letter).ID, "completed")
	export := h.await(h.submit(`{"type":"export","payload":{"format":"csv"}}`).ID, "completed")
	later := h.submit(`{"type":"email","payload":%s,"delay":"1h","unique_key":"one"}`, letter)
	h.do(http.MethodPost, "/types/report/pause", "")
	paused := h.submit(`{"type":"report"}`)
	h.do(http.MethodPost, "/schedules", `{"name":"nightly","cron":"0 3 * * *","type":"report"}`)
	file := filepath.Join(dir, "backup.tar")
	mustDo(t, os.WriteFile(file, []byte("an older one"), 0o644))
	code, out, errs := command(t, "backup", file, "--url", h.rest, "--token", adminToken)
	if code != exitOK || errs != "" || !strings.Contains(out, file+": ") || !strings.Contains(out, "verified; it has everything that was acknowledged before ") {
		t.Fatalf("backup: %d, %q, %q", code, out, errs)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the backup is %v, %v", info.Mode(), err)
	}
	names := make(map[string]bool)
	whole, err := os.ReadFile(file)
	mustDo(t, err)
	_, err = archive.Read(bytes.NewReader(whole), nil, func(e *archive.Entry, _ io.Reader) error { names[e.Name] = true; return nil })
	mustDo(t, err)
	if !names["status.db"] || !names["outbox/"+mail.ID+".eml"] || !names["logs/"+mail.ID] {
		t.Errorf("it has %v", names)
	}
	for name := range names {
		if strings.Contains(name, "operator-token") || strings.HasPrefix(name, "broker") || strings.HasPrefix(name, "work") {
			t.Errorf("it has %s", name)
		}
	}
	restored := filepath.Join(dir, "restored")
	code, out, errs = command(t, "restore", file, "--data", restored)
	if code != exitOK || errs != "" || !strings.Contains(out, restored+": ") {
		t.Fatalf("restore: %d, %q, %q", code, out, errs)
	}
	h2 := openProgram(t, restored)
	h2.await(mail.ID, "completed")
	h2.await(later.ID, "scheduled")
	h2.await(paused.ID, "pending")
	if was, is := h.do(http.MethodGet, "/jobs/"+export.ID+"/result", ""), h2.do(http.MethodGet, "/jobs/"+export.ID+"/result", ""); is.code != http.StatusOK || !bytes.Equal(was.body, is.body) {
		t.Errorf("the export was %q and is %d %q", was.body, is.code, is.body)
	}
	if r := h2.do(http.MethodGet, "/schedules/nightly", ""); r.code != http.StatusOK {
		t.Errorf("the schedule: %d %s", r.code, r.body)
	}
	h2.do(http.MethodPost, "/jobs", `{"type":"email","payload":`+letter+`,"unique_key":"one"}`).wantProblem(t, http.StatusConflict, "duplicate")
	h2.do(http.MethodPost, "/types/report/resume", "")
	h2.await(paused.ID, "completed")

	// The same again through pipes.
	code, out, errs = command(t, "backup", "-", "--url", h.rest, "--token", adminToken)
	if code != exitOK || !strings.Contains(errs, "verified") {
		t.Fatalf("backup to the standard output: %d, %q", code, errs)
	}
	_, err = archive.Read(strings.NewReader(out), nil, pass)
	mustDo(t, err)
}

// TestContractBackupRefuses has no half of a backup pass, and says what is wrong.
func TestContractBackupRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	h := openProgram(t, data)
	h.await(h.submit(`{"type":"email","payload":%s}`, letter).ID, "completed")
	file, older := filepath.Join(dir, "backup.tar"), filepath.Join(dir, "older.tar")
	if code, _, errs := command(t, "backup", file, "--url", h.rest, "--token", adminToken); code != exitOK {
		t.Fatal(errs)
	}
	whole, err := os.ReadFile(file)
	mustDo(t, err)
	cut, damaged := filepath.Join(dir, "cut.tar"), filepath.Join(dir, "damaged.tar")
	mustDo(t, os.WriteFile(cut, whole[:len(whole)/2], 0o600))
	whole[len(whole)/2] ^= 1
	mustDo(t, os.WriteFile(damaged, whole, 0o600))
	mustDo(t, os.WriteFile(older, []byte("older"), 0o600))
	none, full := filepath.Join(dir, "none"), t.TempDir()
	mustDo(t, os.WriteFile(filepath.Join(full, "x"), nil, 0o600))
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"backup", older, "--url", h.rest}, exitBroken, "admin"},
		{[]string{"backup", older, "--url", "http://127.0.0.1:1"}, exitBroken, "--data"},
		{[]string{"backup", older, "--data", data}, exitBroken, "in use by another process"},
		{[]string{"backup", older, "--data", none}, exitBroken, "no tracker in " + none},
		{[]string{"backup", older, "--rate", "1KiB"}, exitUsage, `--rate: "1KiB" is not 0 or`},
		{[]string{"backup", dir, "--url", h.rest}, exitUsage, "no plain file"},
		{[]string{"backup"}, exitUsage, "<file>"},
		{[]string{"backup", filepath.Join(none, "x.tar"), "--url", h.rest, "--token", adminToken}, exitBroken, "no such file"},
		{[]string{"restore", cut, "--data", none}, exitBroken, cut + ": the backup cannot be used: it is cut off"},
		{[]string{"restore", damaged, "--data", none}, exitBroken, damaged + ": the backup cannot be used: it is damaged"},
		{[]string{"restore", older, "--data", none}, exitBroken, "no backup of jobstream|cut off"},
		{[]string{"restore", filepath.Join(dir, "missing.tar"), "--data", none}, exitBroken, "no such file"},
		{[]string{"restore", file, "--data", full}, exitBroken, "not empty"},
		{[]string{"restore", file, "--data", data}, exitBroken, "not empty"},
		{[]string{"restore", file, "--data", older}, exitBroken, "not a directory"},
		{[]string{"restore"}, exitUsage, "<file>"},
	} {
		code, out, errs := command(t, c.args...)
		found := false
		for want := range strings.SplitSeq(c.want, "|") {
			found = found || strings.Contains(errs, want)
		}
		if code != c.code || !found || out != "" {
			t.Errorf("%q: exit code %d, %q, %q; want %d and %q", c.args, code, out, errs, c.code, c.want)
		}
	}
	if b, err := os.ReadFile(older); err != nil || string(b) != "older" {
		t.Errorf("the older backup is %q, %v", b, err)
	}
	if _, err := os.Stat(none); err == nil {
		t.Error("a restore that was refused has made a folder")
	}
	left, err := filepath.Glob(filepath.Join(dir, ".*.tmp"))
	if err != nil || len(left) > 0 {
		t.Errorf("%q is left", left)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var errs bytes.Buffer
	if code := run(ctx, []string{"backup", older, "--url", h.rest, "--token", adminToken}, nil, io.Discard, &errs); code != exitBroken {
		t.Errorf("interrupted: %d, %s", code, &errs)
	}
}

// TestContractBackupStopped backs up a folder without a server, and leaves it as it was.
func TestContractBackupStopped(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	data, file := filepath.Join(dir, "data"), filepath.Join(dir, "backup.tar")
	h := openProgram(t, data)
	j := h.submit(`{"type":"email","payload":%s,"delay":"1h"}`, letter)
	h.close()
	before := listing(t, data)
	if code, out, errs := command(t, "backup", file, "--data", data); code != exitOK || errs != "" {
		t.Fatalf("backup: %d, %q, %q", code, out, errs)
	}
	if after := listing(t, data); after != before {
		t.Errorf("the folder was\n%sand is\n%s", before, after)
	}
	restored := filepath.Join(dir, "restored")
	if code, out, errs := command(t, "restore", file, "--data", restored); code != exitOK || errs != "" {
		t.Fatalf("restore: %d, %q, %q", code, out, errs)
	}
	openProgram(t, restored).await(j.ID, "scheduled")
}

// listing has the names and sizes of all files below a folder.
func listing(t *testing.T, folder string) string {
	t.Helper()
	var all strings.Builder
	mustDo(t, filepath.WalkDir(folder, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			all.WriteString(path + " " + info.Mode().String() + "\n")
		}
		return err
	}))
	return all.String()
}

// TestPaced reads no faster than it was asked to.
func TestPaced(t *testing.T) {
	t.Parallel()
	const size, bytesPerSecond = 640 << 10, 1 << 20
	begun := time.Now()
	n, err := io.Copy(io.Discard, newPaced(t.Context(), bytes.NewReader(make([]byte, size)), bytesPerSecond))
	least := time.Duration(float64(size-bytesPerSecond/8) / bytesPerSecond * float64(time.Second))
	if took := time.Since(begun); err != nil || n != size || took < least {
		t.Errorf("%d bytes in %v, want at least %v: %v", n, took, least, err)
	}
}
