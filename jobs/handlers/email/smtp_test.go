package email

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"jobstream/jobs"
)

const simple = `{"to":"a@example.com","subject":"Hello","body":"Test email"}`

// received is a mail at the server.
type received struct {
	from    string
	to      []string
	message []byte
	tls     bool
	user    string
}

// mailServer is a real SMTP server that keeps its mails.
type mailServer struct {
	*smtp.Server
	config SMTP // how to reach it
	// answers for mail, recipient and data, nil = yes
	utf8 bool // whether it expects a mail that needs SMTPUTF8
	mail func() error
	rcpt func(to string) error
	data func() error
	// dropped breaks the connection when a message has arrived
	dropped bool

	mechanisms []string // of AUTH

	mu    sync.Mutex
	mails []received
}

func (m *mailServer) got() []received {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.mails)
}

// serverSession is one connection to a mailServer.
type serverSession struct {
	server *mailServer
	conn   *smtp.Conn
	mail   received
	user   string
}

func (s *serverSession) Reset()         { s.mail = received{} }
func (s *serverSession) Logout() error  { return nil }
func (s *serverSession) isSecure() bool { _, ok := s.conn.TLSConnectionState(); return ok }

func (s *serverSession) Mail(from string, opts *smtp.MailOptions) error {
	if opts.UTF8 != s.server.utf8 {
		return &smtp.SMTPError{Code: 555, Message: "SMTPUTF8 for an ASCII mail, or none for another"}
	}
	s.mail = received{from: from}
	if s.server.mail != nil {
		return s.server.mail()
	}
	return nil
}

func (s *serverSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	if s.server.rcpt != nil {
		if err := s.server.rcpt(to); err != nil {
			return err
		}
	}
	s.mail.to = append(s.mail.to, to)
	return nil
}

func (s *serverSession) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if s.server.dropped {
		return s.conn.Conn().Close()
	}
	if s.server.data != nil {
		if err := s.server.data(); err != nil {
			return err
		}
	}
	s.mail.message, s.mail.tls, s.mail.user = b, s.isSecure(), s.user
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	s.server.mails = append(s.server.mails, s.mail)
	return nil
}

func (s *serverSession) AuthMechanisms() []string { return s.server.mechanisms }

func (s *serverSession) Auth(mechanism string) (sasl.Server, error) {
	check := func(user, password string) error {
		if user != "jobs" || password != "secret" {
			return smtp.ErrAuthFailed
		}
		s.user = user
		return nil
	}
	switch mechanism {
	case sasl.Plain:
		return sasl.NewPlainServer(func(_, user, password string) error { return check(user, password) }), nil
	case sasl.Login:
		return &loginServer{check: check}, nil
	}
	return nil, smtp.ErrAuthUnknownMechanism
}

// loginServer is the server's side of AUTH LOGIN, which go-sasl no longer has.
type loginServer struct {
	check func(user, password string) error
	step  int
	user  string
}

func (l *loginServer) Next(response []byte) (challenge []byte, done bool, err error) {
	l.step++
	switch l.step {
	case 1:
		return []byte("Username:"), false, nil
	case 2:
		l.user = string(response)
		return []byte("Password:"), false, nil
	}
	return nil, true, l.check(l.user, string(response))
}

// startServer starts a server. change may configure it before.
func startServer(t *testing.T, change func(*mailServer)) *mailServer {
	t.Helper()
	m := &mailServer{mechanisms: []string{sasl.Plain}}
	m.Server = smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		return &serverSession{server: m, conn: c}, nil
	}))
	m.Domain = "mail.example.com"
	m.AllowInsecureAuth = true
	m.EnableSMTPUTF8 = true
	m.ErrorLog = log.New(io.Discard, "", 0) // clients that leave are part of the tests
	m.config = SMTP{Host: "127.0.0.1", TLS: TLSNone, Timeout: 20 * time.Second}
	if change != nil {
		change(m)
	}
	l := listen(t)
	m.config.Port = port(l)
	if m.config.TLS == TLSImplicit {
		l = tls.NewListener(l, m.TLSConfig)
	}
	served := make(chan error, 1)
	go func() { served <- m.Serve(l) }()
	t.Cleanup(func() {
		if err := errors.Join(m.Close(), <-served); err != nil {
			t.Error(err)
		}
	})
	return m
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func port(l net.Listener) int {
	return l.Addr().(*net.TCPAddr).Port //nolint:forcetypeassert // it was opened as one
}

func handlerFor(t *testing.T, c SMTP) *Handler {
	t.Helper()
	h, err := New(Config{Transport: TransportSMTP, From: "Jobs <jobs@example.org>", SMTP: c})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// certificate makes a certificate for 127.0.0.1 and a pool that trusts it.
func certificate(t *testing.T) (*tls.Config, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12}, pool
}

// reports is a host that gets progress.
type reports func(percent int)

func (r reports) Report(percent int, _ string) { r(percent) }
func (reports) Log(_ jobs.Level, _, _ string)  {}

func (reports) Create() (jobs.ArtifactWriter, error)  { return nil, errors.ErrUnsupported }
func (reports) InputPath(*jobs.Input) (string, error) { return "", errors.ErrUnsupported }

func TestSMTPSends(t *testing.T) {
	server := startServer(t, nil)
	h := handlerFor(t, server.config)
	var progress []int
	job := jobs.NewTask(&jobs.Job{ID: jobs.NewID(), Payload: []byte(
		`{"to":["Ä <a@example.com>","\"jane..doe\"@example.com"],"cc":"c@example.com","bcc":"hidden@example.com","subject":"Grüße","body":".\n..\nline\n.","html":"<p>€</p>"}`,
	)}, 1, reports(func(percent int) { progress = append(progress, percent) }))
	r, err := h.Handle(t.Context(), job)
	s := sent(t, r, err)
	mails := server.got()
	if len(mails) != 1 {
		t.Fatalf("the server got %d mails", len(mails))
	}
	m := mails[0]
	if m.from != "jobs@example.org" || m.tls || len(m.to) != 4 || m.to[0] != "a@example.com" || m.to[3] != "hidden@example.com" {
		t.Errorf("envelope = %q → %q, TLS %v", m.from, m.to, m.tls)
	}
	if strings.Contains(string(m.message), "hidden") || strings.Contains(string(m.message), "Envelope") {
		t.Errorf("Bcc has leaked:\n%s", m.message)
	}
	out, err := readMessage(m.message)
	if err != nil {
		t.Fatal(err)
	}
	if out.subject != "Grüße" || !sameText(out.text, ".\n..\nline\n.") || !sameText(out.html, "<p>€</p>") || out.Get("Message-Id") != s.MessageID {
		t.Errorf("message = %+v", out)
	}
	if want := "<" + job.Job.ID.String() + "@example.org>"; s.MessageID != want || s.Transport != "smtp" || s.File != "" || len(s.Accepted) != 4 || s.Bytes == 0 {
		t.Errorf("result = %+v", s)
	}
	if len(progress) < 2 || !slices.IsSorted(progress) {
		t.Errorf("progress = %v", progress)
	}
}

func TestSMTPBigMessage(t *testing.T) {
	server := startServer(t, nil)
	body := strings.Repeat("ünïcödé and a line end\\n", 50_000)
	s := mustSend(t, handlerFor(t, server.config), task(`{"to":"a@example.com","body":"`+body+`"}`))
	out, err := readMessage(server.got()[0].message)
	if err != nil || !sameText(out.text, strings.ReplaceAll(body, `\n`, "\n")) || s.Bytes < 1_000_000 {
		t.Errorf("%d bytes came through, %v", s.Bytes, err)
	}
}

func TestSMTPSecurity(t *testing.T) {
	serverTLS, pool := certificate(t)
	tests := []struct {
		name   string
		mode   string
		offer  bool // STARTTLS
		ca     *x509.CertPool
		tls    bool   // the mail came over TLS
		failed string // part of the error
	}{
		{name: "none", mode: TLSNone, offer: true},
		{name: "opportunistic, offered", mode: TLSOpportunistic, offer: true, ca: pool, tls: true},
		{name: "opportunistic, unknown certificate", mode: TLSOpportunistic, offer: true, tls: true},
		{name: "opportunistic, not offered", mode: TLSOpportunistic},
		{name: "mandatory", mode: TLSMandatory, offer: true, ca: pool, tls: true},
		{name: "mandatory, unknown certificate", mode: TLSMandatory, offer: true, failed: "STARTTLS: tls: failed to verify certificate"},
		{name: "mandatory, not offered", mode: TLSMandatory, failed: "STARTTLS: the server does not offer it"},
		{name: "implicit", mode: TLSImplicit, offer: true, ca: pool, tls: true},
		{name: "implicit, unknown certificate", mode: TLSImplicit, offer: true, failed: "TLS handshake: tls: failed to verify certificate"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server := startServer(t, func(m *mailServer) {
				m.config.TLS, m.config.CA = tt.mode, tt.ca
				if tt.offer {
					m.TLSConfig = serverTLS
				}
			})
			_, err := handlerFor(t, server.config).Handle(t.Context(), task(simple))
			if tt.failed != "" {
				if err == nil || jobs.IsPermanent(err) || !strings.Contains(err.Error(), tt.failed) || len(server.got()) != 0 {
					t.Errorf("err = %v, want one to retry with %q", err, tt.failed)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if mails := server.got(); len(mails) != 1 || mails[0].tls != tt.tls {
				t.Errorf("mails = %+v", mails)
			}
		})
	}
}

// TestCertificateCheck lists when an unknown certificate is accepted.
func TestCertificateCheck(t *testing.T) {
	tests := []struct {
		c    SMTP
		skip bool
	}{
		{SMTP{Host: "mail.example.com", TLS: TLSOpportunistic}, true},
		{SMTP{Host: "mail.example.com", TLS: TLSOpportunistic, Username: "u"}, false},
		{SMTP{Host: "LocalHost", TLS: TLSOpportunistic, Username: "u"}, true},
		{SMTP{Host: "::1", TLS: TLSOpportunistic, Username: "u"}, true},
		{SMTP{Host: "localhost", TLS: TLSMandatory}, false},
		{SMTP{Host: "localhost", TLS: TLSImplicit}, false},
	}
	for _, tt := range tests {
		if got := tt.c.tlsConfig().InsecureSkipVerify; got != tt.skip {
			t.Errorf("%+v: skip = %v", tt.c, got)
		}
	}
}

func TestSMTPLogin(t *testing.T) {
	serverTLS, pool := certificate(t)
	tests := []struct {
		name       string
		mode       string
		mechanisms []string
		password   string
		failed     string // part of the error
		permanent  bool
	}{
		{name: "PLAIN over STARTTLS", mode: TLSMandatory, mechanisms: []string{sasl.Plain, sasl.Login}, password: "secret"},
		{name: "PLAIN over TLS", mode: TLSImplicit, mechanisms: []string{sasl.Plain}, password: "secret"},
		{name: "LOGIN", mode: TLSMandatory, mechanisms: []string{sasl.Login}, password: "secret"},
		{name: "in clear text, as configured", mode: TLSNone, mechanisms: []string{sasl.Plain}, password: "secret"},
		{name: "refused", mode: TLSMandatory, mechanisms: []string{sasl.Plain}, password: "wrong", failed: "login: 535", permanent: true},
		{name: "none known", mode: TLSMandatory, mechanisms: []string{"GSSAPI"}, password: "secret", failed: "login: the server offers GSSAPI, none of which"},
		{name: "none offered", mode: TLSMandatory, mechanisms: nil, password: "secret", failed: "login: the server offers no login"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server := startServer(t, func(m *mailServer) {
				m.mechanisms, m.TLSConfig = tt.mechanisms, serverTLS
				m.config.TLS, m.config.CA, m.config.Username, m.config.Password = tt.mode, pool, "jobs", tt.password
			})
			_, err := handlerFor(t, server.config).Handle(t.Context(), task(simple))
			if tt.failed != "" {
				if err == nil || jobs.IsPermanent(err) != tt.permanent || !strings.Contains(err.Error(), tt.failed) || strings.Contains(err.Error(), tt.password) {
					t.Errorf("err = %v (permanent %v), want %q", err, jobs.IsPermanent(err), tt.failed)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if mails := server.got(); len(mails) != 1 || mails[0].user != "jobs" {
				t.Errorf("mails = %+v", mails)
			}
		})
	}
}

// TestNoPasswordInClearText offers PLAIN without TLS. The address means this machine
// but does not look like it.
func TestNoPasswordInClearText(t *testing.T) {
	server := startServer(t, func(m *mailServer) {
		m.config.Host, m.config.TLS, m.config.Username, m.config.Password = "0.0.0.0", TLSOpportunistic, "jobs", "secret"
	})
	_, err := handlerFor(t, server.config).Handle(t.Context(), task(simple))
	if err == nil || !strings.Contains(err.Error(), "would show the password") || len(server.got()) != 0 {
		t.Errorf("err = %v", err)
	}
}

func TestSMTPRecipients(t *testing.T) {
	gone := &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such user"}
	later := &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 7, 1}, Message: "greylisted"}
	tests := []struct {
		name     string
		answers  map[string]error
		accepted string
		rejected []Rejected
		failed   []string // parts of the error
		final    bool     // it is permanent
	}{
		{name: "all", accepted: "a@x.org b@x.org c@x.org"},
		{name: "one is unknown", answers: map[string]error{"b@x.org": gone}, accepted: "a@x.org c@x.org", rejected: []Rejected{{"b@x.org", "550 5.1.1 no such user"}}},
		{
			name: "all unknown", answers: map[string]error{"a@x.org": gone, "b@x.org": gone, "c@x.org": gone},
			failed: []string{"RCPT TO: no recipient was accepted: a@x.org: 550 5.1.1 no such user; b@x.org: 550", "; c@x.org: 550"}, final: true,
		},
		{name: "none yet", answers: map[string]error{"a@x.org": later, "b@x.org": later, "c@x.org": later}, failed: []string{"a@x.org: 451 4.7.1 greylisted"}},
		{name: "some unknown, none yet", answers: map[string]error{"a@x.org": gone, "b@x.org": later, "c@x.org": gone}, failed: []string{"b@x.org: 451"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server := startServer(t, func(m *mailServer) { m.rcpt = func(to string) error { return tt.answers[to] } })
			r, err := handlerFor(t, server.config).Handle(t.Context(), task(`{"to":["a@x.org","b@x.org"],"bcc":"c@x.org","body":"x"}`))
			if tt.failed != nil {
				if err == nil || jobs.IsPermanent(err) != tt.final || len(server.got()) != 0 {
					t.Fatalf("err = %v, permanent %v", err, jobs.IsPermanent(err))
				}
				for _, part := range tt.failed {
					if !strings.Contains(err.Error(), part) {
						t.Errorf("error %q lacks %q", err, part)
					}
				}
				return
			}
			s := sent(t, r, err)
			if strings.Join(s.Accepted, " ") != tt.accepted || !slices.Equal(s.Rejected, tt.rejected) {
				t.Errorf("result = %+v", s)
			}
			if mails := server.got(); len(mails) != 1 || strings.Join(mails[0].to, " ") != tt.accepted {
				t.Errorf("mails = %+v", mails)
			}
		})
	}
}

// TestSMTPDeferred has recipients that are deferred. The next attempt tries them again,
// nobody gets the mail twice, and a retry by hand keeps to that.
func TestSMTPDeferred(t *testing.T) {
	gone := &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such user"}
	later := &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 7, 1}, Message: "greylisted"}
	var answers map[string]error
	var end error
	server := startServer(t, func(m *mailServer) {
		m.rcpt = func(to string) error { return answers[to] }
		m.data = func() error { return end }
	})
	h := handlerFor(t, server.config)
	job := task(`{"to":["a@x.org","b@x.org"],"cc":"c@x.org","bcc":"d@x.org","body":"x"}`).Job
	job.Run = 1
	attempt := func() (jobs.Result, error) {
		task := jobs.NewTask(job, 1, nil)
		r, err := h.Handle(t.Context(), task)
		next := *job
		next.Checkpoint = task.NextCheckpoint()
		job = &next
		return r, err
	}
	waits := func(says string) {
		t.Helper()
		if _, err := attempt(); err == nil || jobs.IsPermanent(err) || !strings.Contains(err.Error(), says) {
			t.Fatalf("err = %v, want one with %q", err, says)
		}
	}
	answers = map[string]error{"b@x.org": gone, "c@x.org": later, "d@x.org": later}
	waits("2 of 4 recipients have to wait, the others are done with: c@x.org: 451 4.7.1 greylisted; d@x.org: 451")
	answers = map[string]error{"a@x.org": errors.New("has it"), "b@x.org": errors.New("never"), "d@x.org": later}
	waits("1 of 4 recipients have to wait")
	end = &smtp.SMTPError{Code: 452, Message: "full"}
	answers = nil
	waits("1 of 4 recipients have to wait, the others are done with: d@x.org: SMTP server")
	end = nil
	job.Run = 2 // a retry by hand tries b again
	r, err := attempt()
	s := sent(t, r, err)
	if strings.Join(s.Accepted, " ") != "a@x.org c@x.org b@x.org d@x.org" || s.Rejected != nil {
		t.Errorf("result = %+v", s)
	}
	var to []string
	for _, m := range server.got() {
		to = append(to, strings.Join(m.to, " "))
	}
	if got := strings.Join(to, ", "); got != "a@x.org, c@x.org, b@x.org d@x.org" {
		t.Errorf("the mail went to %s", got)
	}
}

// TestSMTPUnknownFateOfSome retries the recipients whose fate is known.
func TestSMTPUnknownFateOfSome(t *testing.T) {
	later := &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 7, 1}, Message: "greylisted"}
	server := startServer(t, func(m *mailServer) {
		m.rcpt = func(to string) error { return map[string]error{"b@x.org": later}[to] }
		m.dropped = true
	})
	job := task(`{"to":["a@x.org","b@x.org"],"body":"x"}`)
	_, err := handlerFor(t, server.config).Handle(t.Context(), job)
	if err == nil || jobs.IsPermanent(err) || !strings.Contains(err.Error(), "a@x.org: ") || !strings.Contains(err.Error(), "may have delivered it") {
		t.Fatalf("err = %v", err)
	}
	server = startServer(t, nil)
	again := *job.Job
	again.Checkpoint = job.NextCheckpoint()
	s := mustSend(t, handlerFor(t, server.config), jobs.NewTask(&again, 2, nil))
	if strings.Join(s.Accepted, " ") != "b@x.org" || len(s.Rejected) != 1 || s.Rejected[0].Address != "a@x.org" {
		t.Errorf("%+v", s)
	}
}

// TestSMTPUTF8 sends to an address beyond ASCII, if the server supports it.
func TestSMTPUTF8(t *testing.T) {
	server := startServer(t, func(m *mailServer) { m.utf8 = true })
	s := mustSend(t, handlerFor(t, server.config), task(`{"to":["jürgen@bücher.example","b@x.org"],"body":"x"}`))
	if mails := server.got(); len(mails) != 1 || strings.Join(mails[0].to, " ") != "jürgen@xn--bcher-kva.example b@x.org" || len(s.Accepted) != 2 {
		t.Errorf("%+v, %+v", mails, s)
	}
	old := startServer(t, func(m *mailServer) { m.EnableSMTPUTF8 = false })
	_, err := handlerFor(t, old.config).Handle(t.Context(), task(`{"to":"jürgen@x.org","body":"x"}`))
	if !jobs.IsPermanent(err) || !strings.Contains(err.Error(), "does not offer SMTPUTF8, which the address jürgen@x.org needs") || len(old.got()) != 0 {
		t.Errorf("err = %v", err)
	}
}

// TestSMTPWaits has the server take as long for each answer as RFC 5321 allows, and
// longer. Its clock is the bubble's.
func TestSMTPWaits(t *testing.T) {
	for _, tt := range []struct {
		step    string
		longest time.Duration
		set     time.Duration // email.smtp.timeout
	}{
		{step: "connect", longest: 5 * time.Minute},
		{step: "EHLO", longest: 5 * time.Minute},
		{step: "MAIL", longest: 5 * time.Minute},
		{step: "RCPT", longest: 5 * time.Minute},
		{step: "DATA", longest: 2 * time.Minute},
		{step: ".", longest: 10 * time.Minute},
		{step: ".", longest: 40 * time.Second, set: 40 * time.Second},
		{step: "connect", longest: 6 * time.Minute, set: 6 * time.Minute},
	} {
		for _, late := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s %s %t", tt.step, tt.longest, late), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := &script{step: tt.step, answer: "", reached: make(chan struct{}), wait: tt.longest - time.Second}
					if late {
						s.wait = tt.longest + time.Second
					}
					var serving sync.WaitGroup
					config := SMTP{Host: "mail.example.com", Port: 25, TLS: TLSNone, Timeout: tt.set}
					config.connect = func(context.Context, string, string) (net.Conn, error) {
						client, server := net.Pipe()
						serving.Go(func() { s.talk(server); _ = server.Close() })
						return client, nil
					}
					defer serving.Wait()
					_, err := handlerFor(t, config).Handle(t.Context(), task(simple))
					if late && (err == nil || !strings.Contains(err.Error(), "did not answer within "+tt.longest.String())) || !late && err != nil {
						t.Errorf("err = %v", err)
					}
				})
			})
		}
	}
}

// TestSMTPUnknownFate breaks the dialogue after the whole message. The mail may have
// been delivered, so it is not sent again unless the configuration says so.
func TestSMTPUnknownFate(t *testing.T) {
	for _, cause := range []error{nil, jobs.ErrTimeout, jobs.ErrShutdown} {
		for _, again := range []bool{false, true} {
			t.Run(fmt.Sprint(cause, again), func(t *testing.T) {
				answer := drop
				if cause != nil {
					answer = hang
				}
				s := startScript(t, ".", answer)
				s.config.RetryUnknown = again
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				go func() {
					<-s.reached
					if cause != nil {
						cancel(cause)
					}
				}()
				_, err := handlerFor(t, s.config).Handle(ctx, task(simple))
				if err == nil || jobs.IsPermanent(err) == again || strings.Contains(err.Error(), "may have delivered it") == again {
					t.Errorf("err = %v", err)
				}
				if cause != nil && !errors.Is(err, cause) {
					t.Errorf("err = %v, want %v in it", err, cause)
				}
			})
		}
	}
}

// TestSMTPFewAtATime has a server that accepts two recipients per transaction.
func TestSMTPFewAtATime(t *testing.T) {
	server := startServer(t, func(m *mailServer) { m.MaxRecipients = 2 })
	s := mustSend(t, handlerFor(t, server.config), task(`{"to":"a@x.org,b@x.org,c@x.org,d@x.org,e@x.org","body":"x"}`))
	if strings.Join(s.Accepted, " ") != "a@x.org b@x.org c@x.org d@x.org e@x.org" || s.Rejected != nil {
		t.Errorf("result = %+v", s)
	}
	if mails := server.got(); len(mails) != 3 {
		t.Errorf("%d transactions, want 3", len(mails))
	}
}

// TestSMTPSecondTransactionFails counts those who have the mail, whatever happens to
// the rest.
func TestSMTPSecondTransactionFails(t *testing.T) {
	server := startServer(t, func(m *mailServer) {
		m.MaxRecipients = 1
		n := 0
		m.data = func() error {
			if n++; n > 1 {
				return &smtp.SMTPError{Code: 554, EnhancedCode: smtp.EnhancedCode{5, 6, 0}, Message: "enough"}
			}
			return nil
		}
	})
	job := task(`{"to":"a@x.org,b@x.org,c@x.org","body":"x"}`)
	if _, err := handlerFor(t, server.config).Handle(t.Context(), job); err == nil || jobs.IsPermanent(err) || !strings.Contains(err.Error(), "c@x.org: 452") {
		t.Fatalf("err = %v", err)
	}
	again := *job.Job
	again.Checkpoint = job.NextCheckpoint()
	s := mustSend(t, handlerFor(t, server.config), jobs.NewTask(&again, 2, nil))
	if strings.Join(s.Accepted, " ") != "a@x.org" || len(s.Rejected) != 2 || !strings.Contains(s.Rejected[0].Error, "554 5.6.0 enough") || !strings.Contains(s.Rejected[1].Error, "554 5.6.0 enough") {
		t.Errorf("result = %+v", s)
	}
	if n := len(server.got()); n != 1 {
		t.Errorf("%d mails", n)
	}
}

func TestSMTPServerRefuses(t *testing.T) {
	tests := []struct {
		stage string
		set   func(*mailServer, func() error)
	}{
		{"MAIL FROM: ", func(m *mailServer, f func() error) { m.mail = f }},
		{"end of the message: ", func(m *mailServer, f func() error) { m.data = f }},
	}
	for _, tt := range tests {
		for code, permanent := range map[int]bool{452: false, 552: true} {
			t.Run(fmt.Sprint(tt.stage, code), func(t *testing.T) {
				refuse := func() error {
					return &smtp.SMTPError{Code: code, EnhancedCode: smtp.NoEnhancedCode, Message: "full up"}
				}
				server := startServer(t, func(m *mailServer) { tt.set(m, refuse) })
				_, err := handlerFor(t, server.config).Handle(t.Context(), task(simple))
				want := fmt.Sprintf("SMTP server %s: %s%d full up", server.config.addr(), tt.stage, code)
				if err == nil || err.Error() != want || jobs.IsPermanent(err) != permanent {
					t.Errorf("err = %v (permanent %v), want %q", err, jobs.IsPermanent(err), want)
				}
			})
		}
	}
}

// stages are the steps of a dialogue without TLS and login, by their names in a script
// and in errors.
var stages = []struct{ step, name string }{
	{"connect", "greeting"},
	{"EHLO", "EHLO"},
	{"MAIL", "MAIL FROM"},
	{"RCPT", "RCPT TO"},
	{"DATA", "DATA"},
	{".", "end of the message"},
}

const (
	hang = "hang" // be silent from then on
	drop = "drop" // close the connection
)

// script is a server that misbehaves by a script. At one step it gives answer, else it
// answers as usual.
type script struct {
	step, answer string
	reached      chan struct{} // closed at that step
	wait         time.Duration // before it answers there
	config       SMTP
}

func startScript(t *testing.T, step, answer string) *script {
	t.Helper()
	l := listen(t)
	s := &script{step: step, answer: answer, reached: make(chan struct{}), config: SMTP{Host: "127.0.0.1", Port: port(l), TLS: TLSNone, Timeout: 20 * time.Second}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		s.talk(conn)
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return s
}

func (s *script) talk(conn net.Conn) {
	r := bufio.NewReader(conn)
	usual := map[string]string{"connect": "220 hello", "EHLO": "250 hello", "HELO": "250 hello", "DATA": "354 go on", "QUIT": "221 bye"}
	step := "connect"
	var once sync.Once
	for {
		answer := usual[step]
		if answer == "" {
			answer = "250 ok"
		}
		if step == s.step || s.step == "EHLO" && step == "HELO" {
			once.Do(func() { close(s.reached) })
			if s.answer != "" {
				answer = s.answer
			}
			if s.wait > 0 {
				time.Sleep(s.wait) // by the bubble's clock
			}
		}
		switch answer {
		case drop:
			return
		case hang:
			_, _ = io.Copy(io.Discard, r) // until the client gives up
			return
		}
		if _, err := io.WriteString(conn, answer+"\r\n"); err != nil || step == "QUIT" {
			return
		}
		var err error
		if step, err = nextStep(r, step == "DATA" && strings.HasPrefix(answer, "354")); err != nil {
			return
		}
	}
}

// nextStep reads a command, or a whole message.
func nextStep(r *bufio.Reader, message bool) (string, error) {
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return "", err
		}
		line = strings.TrimRight(line, "\r\n")
		if !message {
			verb, _, _ := strings.Cut(line, " ")
			return verb, nil
		}
		if line == "." {
			return ".", nil
		}
	}
}

func TestSMTPEveryStage(t *testing.T) {
	for _, stage := range stages {
		for answer, permanent := range map[string]bool{"451 not now": false, "421 closing": false, "554-no\r\n554 never": true, drop: false} {
			t.Run(stage.name+" "+answer[:4], func(t *testing.T) {
				s := startScript(t, stage.step, answer)
				_, err := handlerFor(t, s.config).Handle(t.Context(), task(simple))
				permanent := permanent || answer == drop && stage.step == "." // it may have been delivered
				if err == nil || jobs.IsPermanent(err) != permanent {
					t.Fatalf("err = %v, permanent %v", err, jobs.IsPermanent(err))
				}
				want := []string{s.config.addr(), stage.name}
				if answer != drop {
					want = append(want, strings.ReplaceAll(answer[4:], "\r\n554 ", " "))
				}
				for _, part := range want {
					if !strings.Contains(err.Error(), part) {
						t.Errorf("error %q lacks %q", err, part)
					}
				}
				if strings.ContainsAny(err.Error(), "\r\n") {
					t.Errorf("error %q has several lines", err)
				}
			})
		}
	}
}

// TestSMTPCancel ends the context while the server is silent.
func TestSMTPCancel(t *testing.T) {
	for _, stage := range stages {
		t.Run(stage.name, func(t *testing.T) {
			s := startScript(t, stage.step, hang)
			s.config.Timeout = time.Hour
			ctx, cancel := context.WithCancelCause(t.Context())
			go func() {
				<-s.reached
				cancel(jobs.ErrTimeout)
			}()
			_, err := handlerFor(t, s.config).Handle(ctx, task(simple))
			if !errors.Is(err, jobs.ErrTimeout) || jobs.IsPermanent(err) != (stage.step == ".") {
				t.Errorf("err = %v", err)
			}
		})
	}
}

func TestSMTPTimeout(t *testing.T) {
	for _, stage := range stages {
		t.Run(stage.name, func(t *testing.T) {
			t.Parallel()
			s := startScript(t, stage.step, hang)
			s.config.Timeout = 300 * time.Millisecond
			_, err := handlerFor(t, s.config).Handle(t.Context(), task(simple))
			if err == nil || !strings.Contains(err.Error(), "did not answer within 300ms") || jobs.IsPermanent(err) != (stage.step == ".") {
				t.Errorf("err = %v", err)
			}
		})
	}
}

// TestSMTPHangingTLS has a server that accepts the connection and no handshake.
func TestSMTPHangingTLS(t *testing.T) {
	s := startScript(t, "connect", hang)
	s.config.TLS = TLSImplicit
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		<-s.reached
		cancel(jobs.ErrShutdown)
	}()
	if _, err := handlerFor(t, s.config).Handle(ctx, task(simple)); !errors.Is(err, jobs.ErrShutdown) {
		t.Errorf("err = %v", err)
	}
}

// TestSMTPHangingQuit needs no answer to QUIT: the mail is sent once the server has
// accepted it.
func TestSMTPHangingQuit(t *testing.T) {
	s := startScript(t, "QUIT", hang)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-s.reached
		cancel()
	}()
	r, err := handlerFor(t, s.config).Handle(ctx, task(simple))
	sent(t, r, err)
}

func TestSMTPNoServer(t *testing.T) {
	l := listen(t)
	config := SMTP{Host: "127.0.0.1", Port: port(l)}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := handlerFor(t, config).Handle(t.Context(), task(simple))
	if err == nil || jobs.IsPermanent(err) || !strings.Contains(err.Error(), "connecting") || !strings.Contains(err.Error(), config.addr()) {
		t.Errorf("err = %v", err)
	}
}

func TestHelloName(t *testing.T) {
	for _, tt := range []struct {
		addr net.Addr
		want string
	}{
		{&net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)}, "[192.0.2.1]"},
		{&net.TCPAddr{IP: net.ParseIP("2001:db8::1")}, "[IPv6:2001:db8::1]"},
		{&net.UnixAddr{}, "localhost"},
	} {
		if got := helloName(tt.addr); got != tt.want && !strings.Contains(got, ".") {
			t.Errorf("helloName(%v) = %q, want %q", tt.addr, got, tt.want)
		}
	}
}
