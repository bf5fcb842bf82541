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
// One of body and html must be there. The sender stands in the configuration
// only, so that whoever may submit a job cannot write in anybody's name.
//
// What becomes of an attempt over SMTP:
//
//   - an answer that begins with 5 ends the job for good, at any stage: also a
//     refused login, since the server has understood and said no;
//   - an answer that begins with 4, and everything that is no answer (no
//     connection, a timeout, a certificate that does not fit) is tried again;
//   - each recipient gets the mail once. Those that the server takes have it; those
//     that it refuses for the moment are tried again, in a second transaction over
//     the same connection (a server that takes few at a time answers in this way),
//     and then with the next attempt, which knows who has it already; those that it
//     refuses for good are listed in the result with the server's words, and if
//     nobody else is left the job is completed, or failed if nobody was taken;
//   - if the connection breaks when the message is sent whole and the server has
//     not answered yet, the mail may be delivered: the job fails for good and says
//     so, unless [SMTP].RetryUnknown.
//
// The Message-ID is made from the job's id: if a mail is sent twice all the same,
// because the process died before the outcome was stored, receivers can tell.
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

// Config says who sends and how.
type Config struct {
	Transport string // TransportOutbox or TransportSMTP
	From      string // the sender, "a@example.com" or "Name <a@example.com>"
	Outbox    string // folder for the .eml files of TransportOutbox
	SMTP      SMTP   // for TransportSMTP
}

// SMTP is how to reach the mail server.
type SMTP struct {
	Host     string
	Port     int
	Username string // "" = no login
	Password string
	// TLS is one of the TLS constants; "" is TLSOpportunistic. Certificates are
	// checked, except with TLSOpportunistic when there is no password to protect
	// or the server is this machine: what may go in clear text is not worse off
	// behind a certificate that nobody knows.
	TLS string
	// Timeout bounds connecting, and each single wait for the server; 0 are 30
	// seconds for connecting, and the times of RFC 5321 for the rest. The whole is
	// bounded by the job's own timeout.
	Timeout time.Duration
	// RetryUnknown has mails sent again whose fate is not known, and which may be
	// delivered already.
	RetryUnknown bool
	// CA are the authorities that may sign the server's certificate; nil are the
	// system's.
	CA *x509.CertPool

	connect func(ctx context.Context, network, address string) (net.Conn, error) // for tests; nil = net.Dialer
}

// Handler sends mails. It implements jobs.Handler and jobs.Checker and may be
// used by many goroutines at once.
type Handler struct {
	config Config
	from   *mail.Address
}

var (
	_ jobs.Handler = (*Handler)(nil)
	_ jobs.Checker = (*Handler)(nil)
)

// New checks the configuration and makes a handler of it. It touches neither
// folder nor network. The error names every key that is wrong.
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

// Check says whether the payload can become a mail. The error is a *jobs.Error
// with every field that is wrong.
func (h *Handler) Check(payload json.RawMessage) error {
	_, err := parse(payload)
	return err
}

// Sent is the result of a job.
type Sent struct {
	MessageID string     `json:"message_id"`
	Transport string     `json:"transport"`
	Accepted  []string   `json:"accepted"`           // who gets the mail, Bcc too
	Rejected  []Rejected `json:"rejected,omitempty"` // whom the server refused
	File      string     `json:"file,omitempty"`     // path of the .eml file; outbox only
	Bytes     int        `json:"bytes"`              // size of the message
}

// Rejected is a recipient that the server did not take.
type Rejected struct {
	Address string `json:"address"`
	Error   string `json:"error"` // the server's answer
}

// Handle sends the mail of one job; the result's value is a [Sent]. See the
// package's description for which errors are permanent.
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
	return &Sent{Accepted: d.Accepted, Rejected: d.Refused, Bytes: len(content)}, nil
}

// earlier is what the attempts before have done, and who is left of all.
func earlier(t *jobs.Task, all []string) (d delivery, left []string) {
	if c := t.Checkpoint(); c != nil && json.Unmarshal(c, &d) != nil {
		d = delivery{} // not ours
	}
	if d.Run != t.Job.Run {
		d.Run, d.Refused = t.Job.Run, nil // a retry by hand tries those again
	}
	return d, (&transaction{accepted: d.Accepted, refused: d.Refused}).rest(all)
}
