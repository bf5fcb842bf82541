package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// byConfiguration starts the program with a configuration of its own.
func byConfiguration(t *testing.T, file, dir string) *house {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	h := newHouse(t, cancel)
	env := []string{"JOBSTREAM_SERVER_PORT=0", "JOBSTREAM_BROKER_PORT=-1", "JOBSTREAM_DATA_DIR=" + dir}
	go func() {
		if code := run(ctx, []string{"--config", file}, env, io.Discard, h.log); code != 0 {
			h.ended <- fmt.Sprintf("exit code %d", code)
		}
		close(h.ended)
	}()
	h.awaitReady()
	return h
}

// TestContractCallbacks configures everything in a file, rotates a secret, and submits by
// all doors.
func TestContractCallbacks(t *testing.T) {
	t.Parallel()
	type got struct {
		path string
		head http.Header
		body []byte
	}
	requests := make(chan got, 100)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		requests <- got{r.URL.Path, r.Header, body}
	}))
	defer receiver.Close()
	secret := func(c byte) string {
		return "whsec_" + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{c}, 32))
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "conf", "jobstream.yaml")
	mustDo(t, os.Mkdir(filepath.Dir(file), 0o700))
	mustDo(t, os.WriteFile(filepath.Join(dir, "conf", "secret"), []byte(secret('b')+"\n"), 0o600))
	write := func(callbacks string) {
		mustDo(t, os.WriteFile(file, []byte(fmt.Sprintf(`
server: {public_url: "https://jobs.example.com"}
callbacks: {allow: [127.0.0.1], secret: %s}
webhooks: [{url: "%s/hook", types: [report], secret: "%s"}]
`, callbacks, receiver.URL, secret('c'))), 0o600))
	}
	verified := func(r got, secrets ...byte) {
		t.Helper()
		for c := byte('a'); c <= 'c'; c++ {
			w, err := standardwebhooks.NewWebhook(secret(c))
			mustDo(t, err)
			if err := w.Verify(r.body, r.head); (err == nil) != bytes.Contains(secrets, []byte{c}) {
				t.Errorf("%s, secret %c: %v", r.path, c, err)
			}
		}
	}
	next := func(n int) map[string]got {
		t.Helper()
		all := make(map[string]got)
		for range n {
			r := <-requests
			all[r.path] = r
		}
		return all
	}

	write(secret('a'))
	h := byConfiguration(t, file, filepath.Join(dir, "data"))
	j := h.submit(`{"type":"report","callback_url":"%s/own"}`, receiver.URL)
	all := next(2)
	verified(all["/own"], 'a')
	verified(all["/hook"], 'c')
	if body := string(all["/own"].body); !strings.Contains(body, `"url":"https://jobs.example.com/jobs/`+j.ID+`"`) || !strings.Contains(body, `"data":{"id":"`+j.ID) {
		t.Errorf("the body is %s", body)
	}
	h.close()

	write(`["${file:secret}", "` + secret('a') + `"]`) // both, while receivers change theirs
	h = byConfiguration(t, file, filepath.Join(dir, "data"))
	r := h.do("POST", "/jobs/batch", fmt.Sprintf(`{"jobs":[{"type":"export","callback_url":"%s/batch"}]}`, receiver.URL))
	if r.code != 202 {
		t.Fatalf("%d %s", r.code, r.body)
	}
	verified(next(1)["/batch"], 'a', 'b')
	nc := h.dial()
	h.call(nc, "submit", fmt.Sprintf(`{"type":"export","callback_url":"%s/service"}`, receiver.URL))
	verified(next(1)["/service"], 'a', 'b')
	h.accepted(nc, "jobs.export", `{}`, "Job-Callback-Url", receiver.URL+"/bare")
	verified(next(1)["/bare"], 'a', 'b')
	h.accepted(nc, "jobs.export", `no JSON`, "Job-Callback-Url", receiver.URL+"/bad")
	if bad := next(1)["/bad"]; !bytes.Contains(bad.body, []byte(`"type":"job.failed"`)) || !bytes.Contains(bad.body, []byte("not JSON")) {
		t.Errorf("%s", bad.body)
	}
	// Their ends are no notifications, and they are in no list.
	if list, _ := h.list(""); len(list) != 5 {
		t.Errorf("%d jobs are listed", len(list))
	}
	if list, _ := h.list("?type=jobstream-webhook"); len(list) != 6 {
		t.Errorf("%d callbacks are listed", len(list))
	}
	h.do("POST", "/jobs", `{"type":"export","callback_url":"http://example.com"}`).wantProblem(t, 422, "invalid_request")
}
