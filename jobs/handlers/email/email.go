// Package email is the built-in job type that sends a mail. It builds an
// RFC 5322 message from the job's payload and hands it to one of two transports:
// "outbox" leaves it as an .eml file in a folder, "smtp" gives it to a mail
// server.
//
// Start with [New] and [Config]. [Handler.Check] says early what is wrong with a
// payload, [Handler.Handle] sends the mail and returns a [Sent]. [RemoveMail]
// and [SweepOutbox] keep the outbox folder tidy.
//
// The payload is a JSON object:
//
//	to        one address, several with commas between them, or a list; required
//	cc, bcc   the same, optional
//	reply_to  the same, optional
//	subject   one line of text
//	body      plain text
//	html      the same as HTML; with both, the reader's program chooses
//
// One of body and html is required. Only the configuration sets the sender. So a client
// that may submit jobs cannot write in somebody else's name.
//
// An attempt over SMTP ends like this:
//
//   - An answer that begins with 5 is final, at any stage. That includes a refused
//     login: the server understood it.
//   - An answer that begins with 4 is tried again. So is every failure without an
//     answer: no connection, a timeout, an invalid certificate.
//   - Each recipient gets the mail once. Recipients that the server defers are tried
//     again, in a second transaction over the same connection, because some servers
//     take only a few at a time. The next attempt tries those who are still left.
//     Recipients that the server refuses for good are listed in the result with its
//     words. If the server accepts nobody, the job fails.
//   - The connection may break between the last byte of the message and the server's
//     answer. Then the mail may have been delivered, so the job fails for good and says
//     so, unless [SMTP].RetryUnknown is set.
//
// The Message-ID is made from the job's id. Receivers can recognize a mail that was
// sent twice because the process died before the outcome was stored.
package email

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/mail"
	"slices"
	"strings"
	"time"

	"jobstream/jobs"
)

// The values of [Config].Transport.
const (
	TransportOutbox = "outbox"
	TransportSMTP   = "smtp"
)

// The values of [SMTP].TLS.
const (
	TLSNone          = "none"          // clear text, logins too
	TLSOpportunistic = "opportunistic" // STARTTLS if the server offers it
	TLSMandatory     = "mandatory"     // STARTTLS or nothing
	TLSImplicit      = "implicit"      // TLS from the first byte on, as on port 465
)

// Config is the configuration of the sender and the transport.
type Config struct {
	Transport string // TransportOutbox or TransportSMTP
	From      string // the sender, "a@example.com" or "Name <a@example.com>"
	Outbox    string // folder for the .eml files of TransportOutbox
	SMTP      SMTP   // for TransportSMTP
}

// SMTP is the configuration of the mail server.
type SMTP struct {
	Host     string
	Port     int
	Username string // "" = no login
	Password string
	// TLS is one of the TLS constants; "" is TLSOpportunistic. Certificates are
	// checked. TLSOpportunistic skips the check if there is no password to protect, or
	// if the server is this machine. Clear text would be allowed there, so an unknown
	// certificate does no harm.
	TLS string
	// Timeout bounds connecting, and each single wait for the server. 0 stands for 30
	// seconds to connect, and for the times of RFC 5321. The job's own timeout bounds
	// the whole.
	Timeout time.Duration
	// RetryUnknown sends a mail again even if it may have been delivered.
	RetryUnknown bool
	// CA are the authorities that may sign the server's certificate; nil stands for the
	// system's.
	CA *x509.CertPool

	connect func(ctx context.Context, network, address string) (net.Conn, error) // for tests; nil = net.Dialer
}

// Handler sends mails. It implements jobs.Handler and jobs.Checker. All methods may be
// called concurrently.
type Handler struct {
	config Config
	from   *mail.Address
}

var (
	_ jobs.Handler = (*Handler)(nil)
	_ jobs.Checker = (*Handler)(nil)
)

// New checks the configuration and makes a handler. It uses neither the folder nor the
// network. The error names every wrong key.
func New(c Config) (*Handler, error) {
	if c.SMTP.TLS == "" {
		c.SMTP.TLS = TLSOpportunistic
	}
	var errs []error
	from, err := parseAddress(c.From)
	if err != nil {
		errs = append(errs, fmt.Errorf("email.from: %w", err))
	}
	switch c.Transport {
	case TransportOutbox:
		if c.Outbox == "" {
			errs = append(errs, errors.New("email: the outbox needs a folder"))
		}
	case TransportSMTP:
		errs = append(errs, c.SMTP.check()...)
	default:
		errs = append(errs, fmt.Errorf("email.transport: %q is not known; allowed are %s and %s", c.Transport, TransportOutbox, TransportSMTP))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return &Handler{config: c, from: from}, nil
}

func (s *SMTP) check() []error {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf("email.smtp."+format, args...)) }
	if s.Host == "" || hasControl(s.Host) {
		fail("host: %q is not a host name or IP address", s.Host)
	}
	if s.Port < 1 || s.Port > 65535 {
		fail("port: %d is not a port; allowed are 1 to 65535", s.Port)
	}
	if modes := []string{TLSNone, TLSOpportunistic, TLSMandatory, TLSImplicit}; !slices.Contains(modes, s.TLS) {
		fail("tls: %q is not known; allowed are %s", s.TLS, strings.Join(modes, ", "))
	}
	if s.Timeout < 0 {
		fail("timeout: %s is negative", s.Timeout)
	}
	if s.Username == "" && s.Password != "" {
		fail("username: is empty, but there is a password")
	}
	return errs
}

// Check validates a payload. The error is a *jobs.Error that names every wrong field.
func (h *Handler) Check(p *jobs.Payload) error {
	_, err := parse(p.JSON)
	return err
}

// Sent is the result of a job.
type Sent struct {
	MessageID string     `json:"message_id"`
	Transport string     `json:"transport"`
	Accepted  []string   `json:"accepted"`           // the recipients of the mail, Bcc included
	Rejected  []Rejected `json:"rejected,omitempty"` // those that the server refused
	File      string     `json:"file,omitempty"`     // path of the .eml file; outbox only
	Bytes     int        `json:"bytes"`              // size of the message
}

// Rejected is a recipient that the server did not take.
type Rejected struct {
	Address string `json:"address"`
	Error   string `json:"error"` // the server's answer
}

// Handle sends the mail of one job. The value of the result is a [Sent]. The package
// comment says which errors are permanent.
func (h *Handler) Handle(ctx context.Context, t *jobs.Task) (jobs.Result, error) {
	p, err := parse(t.Job.Payload)
	if err != nil {
		return jobs.Result{}, jobs.Permanent(err)
	}
	l := letter{id: t.Job.ID, from: h.from, payload: p, date: time.Now()}
	send := h.sendSMTP
	if h.config.Transport == TransportOutbox {
		send = h.sendOutbox
	}
	sent, err := send(ctx, t, &l)
	if err != nil {
		return jobs.Result{}, err
	}
	sent.MessageID = l.messageID()
	sent.Transport = h.config.Transport
	return jobs.Result{Value: sent}, nil
}

func (h *Handler) sendOutbox(ctx context.Context, t *jobs.Task, l *letter) (*Sent, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	content, err := l.bytes(true)
	if err != nil {
		return nil, err
	}
	t.Progress(50, "writing the mail to the outbox")
	file, err := writeMail(h.config.Outbox, l.id, content)
	if err != nil {
		return nil, fmt.Errorf("writing to the outbox: %w", err)
	}
	t.Progress(100, "the mail is in the outbox")
	t.Log(jobs.LevelInfo, "the mail is in the outbox")
	return &Sent{Accepted: l.payload.recipients(), File: file, Bytes: len(content)}, nil
}

func (h *Handler) sendSMTP(ctx context.Context, t *jobs.Task, l *letter) (*Sent, error) {
	content, err := l.bytes(false)
	if err != nil {
		return nil, err
	}
	t.Progress(10, "connecting to "+h.config.SMTP.addr())
	s, err := dial(ctx, &h.config.SMTP)
	if err != nil {
		return nil, err
	}
	defer s.close()
	before, to := earlier(t, l.payload.recipients())
	t.Progress(50, fmt.Sprintf("sending to %d recipient(s)", len(to)))
	d, err := s.send(addrSpec(h.from), to, content)
	if err != nil {
		if len(before.Accepted) == 0 {
			return nil, err
		}
		d.give(to, err)
	}
	d.Run = before.Run
	d.Accepted, d.Refused = append(before.Accepted, d.Accepted...), append(before.Refused, d.Refused...)
	if len(d.deferred) > 0 || len(d.Accepted) == 0 {
		if err := t.SetCheckpoint(d); err != nil {
			return nil, jobs.Permanent(fmt.Errorf("who has got the mail cannot be remembered: %w", err))
		}
		return nil, s.undelivered(d)
	}
	t.Progress(100, fmt.Sprintf("sent to %d recipient(s)", len(d.Accepted)))
	for _, r := range d.Refused {
		t.Logf(jobs.LevelWarn, "%s was refused: %s", r.Address, r.Error)
	}
	t.Logf(jobs.LevelInfo, "sent to %d recipient(s) by %s", len(d.Accepted), h.config.SMTP.addr())
	return &Sent{Accepted: d.Accepted, Rejected: d.Refused, Bytes: len(content)}, nil
}

// earlier returns what earlier attempts delivered, and the recipients who are left.
func earlier(t *jobs.Task, all []string) (d delivery, left []string) {
	if c := t.Checkpoint(); c != nil && json.Unmarshal(c, &d) != nil {
		d = delivery{} // not a checkpoint of this package
	}
	if d.Run != t.Job.Run {
		d.Run, d.Refused = t.Job.Run, nil // a retry by hand tries the refused ones again
	}
	return d, (&transaction{accepted: d.Accepted, refused: d.Refused}).rest(all)
}
