package email

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"jobstream/jobs"
)

func newOutbox(t *testing.T) *Handler {
	t.Helper()
	h, err := New(Config{Transport: TransportOutbox, From: "jobstream@localhost", Outbox: filepath.Join(t.TempDir(), "data", "outbox")})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func task(payload string) *jobs.Task {
	return jobs.NewTask(&jobs.Job{ID: jobs.NewID(), Type: "email", Payload: json.RawMessage(payload)}, 1, nil)
}

func sent(t *testing.T, r jobs.Result, err error) *Sent {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	s, ok := r.Value.(*Sent)
	if !ok {
		t.Fatalf("result is a %T", r.Value)
	}
	return s
}

func TestNew(t *testing.T) {
	server := SMTP{Host: "localhost", Port: 25}
	tests := []struct {
		name   string
		config Config
		want   []string // parts of the error; none = no error
	}{
		{"outbox", Config{Transport: "outbox", From: "Jobs <a@example.com>", Outbox: "x"}, nil},
		{"smtp", Config{Transport: "smtp", From: "a@example.com", SMTP: server}, nil},
		{"no folder", Config{Transport: "outbox", From: "a@example.com"}, []string{"needs a folder"}},
		{"no transport", Config{From: "a@example.com"}, []string{`email.transport: "" is not known`}},
		{"all wrong", Config{Transport: "smtp", SMTP: SMTP{Port: 70000, TLS: "yes", Timeout: -1, Password: "x"}}, []string{
			"email.from: is empty", "email.smtp.host: ", "email.smtp.port: 70000", `email.smtp.tls: "yes"`, "email.smtp.timeout: ", "email.smtp.username: ",
		}},
		{"header in from", Config{Transport: "smtp", From: "a@example.com\nX: y", SMTP: server}, []string{"email.from: "}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h, err := New(tt.config)
			if (err == nil) != (len(tt.want) == 0) || (err == nil) != (h != nil) {
				t.Fatalf("New = %v, %v", h, err)
			}
			for _, part := range tt.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q lacks %q", err, part)
				}
			}
		})
	}
}

func TestOutbox(t *testing.T) {
	h := newOutbox(t)
	job := task(`{"to":["Jane Doe <jane@example.com>","jürg <j@bücher.example>"],"cc":"c@example.com","bcc":"hidden@example.com","reply_to":"r@example.com",
		"subject":"Grüße, 世界","body":"Hällo\rlone\nworld","html":"<p>Hällo</p>"}`)
	r, err := h.Handle(t.Context(), job)
	s := sent(t, r, err)
	id := job.Job.ID.String()
	wantFile := filepath.Join(h.config.Outbox, id+".eml")
	if s.File != wantFile || s.Transport != "outbox" || s.MessageID != "<"+id+"@localhost>" || strings.Join(s.Accepted, " ") != "jane@example.com j@xn--bcher-kva.example c@example.com hidden@example.com" || s.Rejected != nil {
		t.Errorf("result = %+v", s)
	}
	content, err := os.ReadFile(wantFile)
	if err != nil {
		t.Fatal(err)
	}
	if s.Bytes != len(content) {
		t.Errorf("bytes = %d, the file has %d", s.Bytes, len(content))
	}
	m, err := readMessage(content)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"From": "<jobstream@localhost>", "Cc": "<c@example.com>", "Reply-To": "<r@example.com>", "Mime-Version": "1.0", "Message-Id": "<" + id + "@localhost>",
		"Bcc": "", "X-Envelope-From": "jobstream@localhost", "X-Envelope-To": "jane@example.com, j@xn--bcher-kva.example, c@example.com, hidden@example.com",
	} {
		if got := m.Get(name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	to, err := m.AddressList("To")
	if err != nil || len(to) != 2 || to[0].Name != "Jane Doe" || to[1].Name != "jürg" || to[1].Address != "j@xn--bcher-kva.example" {
		t.Errorf("To = %v, %v", to, err)
	}
	if date, err := m.Date(); err != nil || time.Since(date).Abs() > time.Hour {
		t.Errorf("Date = %v, %v", date, err)
	}
	if m.subject != "Grüße, 世界" || !sameText(m.text, "Hällo\nlone\nworld") || !sameText(m.html, "<p>Hällo</p>") {
		t.Errorf("message = %+v", m)
	}
}

func TestOutboxReplacesOnRepeat(t *testing.T) {
	h := newOutbox(t)
	job := task(`{"to":"a@example.com","body":"x"}`)
	first := mustSend(t, h, job)
	second := mustSend(t, h, job)
	if first.MessageID != second.MessageID || first.File != second.File {
		t.Errorf("%+v and %+v should be the same mail", first, second)
	}
	entries, err := os.ReadDir(h.config.Outbox)
	if err != nil || len(entries) != 1 {
		t.Errorf("the outbox has %v, %v", entries, err)
	}
}

func mustSend(t *testing.T, h *Handler, job *jobs.Task) *Sent {
	t.Helper()
	r, err := h.Handle(t.Context(), job)
	return sent(t, r, err)
}

func TestOutboxErrors(t *testing.T) {
	h := newOutbox(t)
	job := task(`{"to":"a@example.com","body":"x"}`)
	if err := os.WriteFile(filepath.Dir(filepath.Dir(h.config.Outbox))+"/data", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Handle(t.Context(), job); err == nil || jobs.IsPermanent(err) {
		t.Errorf("a file where the folder should be: %v, want an error to retry", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(jobs.ErrShutdown)
	if _, err := newOutbox(t).Handle(ctx, job); !errors.Is(err, jobs.ErrShutdown) {
		t.Errorf("after the end: %v", err)
	}
}

func TestRemoveMail(t *testing.T) {
	h := newOutbox(t)
	job := task(`{"to":"a@example.com","body":"x"}`)
	if n, err := RemoveMail(h.config.Outbox, job.Job.ID); n != 0 || err != nil {
		t.Errorf("RemoveMail of nothing = %d, %v", n, err)
	}
	s := mustSend(t, h, job)
	if n, err := RemoveMail(h.config.Outbox, job.Job.ID); n != int64(s.Bytes) || err != nil {
		t.Errorf("RemoveMail = %d, %v, want %d", n, err, s.Bytes)
	}
	if _, err := os.Stat(s.File); !os.IsNotExist(err) {
		t.Errorf("the mail is still there: %v", err)
	}
	if err := os.MkdirAll(filepath.Join(s.File, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := RemoveMail(h.config.Outbox, job.Job.ID); err == nil {
		t.Error("a folder in the mail's place should be an error")
	}
}

func TestSweepOutbox(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out[box") // a name that is no pattern
	if err := SweepOutbox(dir); err != nil {
		t.Errorf("without a folder: %v", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".0193-1.tmp", "a.eml", ".keep"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := SweepOutbox(dir); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 2 || left[0].Name() != ".keep" || left[1].Name() != "a.eml" {
		t.Errorf("left = %v, %v", left, err)
	}
}

// TestResultJSON pins the names that clients read.
func TestResultJSON(t *testing.T) {
	got, err := json.Marshal(Sent{MessageID: "<x@y>", Transport: "smtp", Accepted: []string{"a@b.c"}, Rejected: []Rejected{{"d@e.f", "550 no"}}, Bytes: 7})
	want := `{"message_id":"\u003cx@y\u003e","transport":"smtp","accepted":["a@b.c"],"rejected":[{"address":"d@e.f","error":"550 no"}],"bytes":7}`
	if err != nil || string(got) != want {
		t.Errorf("JSON = %s, %v, want %s", got, err, want)
	}
}
