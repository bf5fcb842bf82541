package email

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/wneessen/go-mail/smtp"

	"jobstream/jobs"
)

// The longest waits for the server at each stage, by RFC 5321, section 4.5.3.2. The
// job's own timeout bounds them all.
const (
	greetTimeout    = 5 * time.Minute // and each answer before the mail
	addressTimeout  = 5 * time.Minute // MAIL FROM, RCPT TO
	dataTimeout     = 2 * time.Minute // the answer to DATA
	blockTimeout    = 3 * time.Minute // for each piece of the message
	finalDotTimeout = 10 * time.Minute
	connectTimeout  = 30 * time.Second
	farewellTimeout = 2 * time.Second // the mail has been sent or has failed by then
)

func (s *SMTP) addr() string { return net.JoinHostPort(s.Host, strconv.Itoa(s.Port)) }

// isLocal says whether the server is this machine, so that nobody can listen.
func (s *SMTP) isLocal() bool {
	ip := net.ParseIP(s.Host)
	return strings.EqualFold(s.Host, "localhost") || ip != nil && ip.IsLoopback()
}

func (s *SMTP) tlsConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		ServerName: s.Host,
		RootCAs:    s.CA,
		// the alternative would be clear text, which protects even less
		InsecureSkipVerify: s.TLS == TLSOpportunistic && (s.Username == "" || s.isLocal()), //nolint:gosec // see above
	}
}

// session is one connection to the mail server.
type session struct {
	ctx    context.Context // of the one call of Handle that uses the session
	config *SMTP
	conn   *timedConn
	client *smtp.Client
	unhook func() bool
}

// dial connects, greets, secures the line and logs in. The end of ctx closes the
// connection, which ends every wait at once.
func dial(ctx context.Context, config *SMTP) (*session, error) {
	s := &session{ctx: ctx, config: config}
	connect := config.connect
	if connect == nil {
		connect = (&net.Dialer{Timeout: s.wait(connectTimeout)}).DialContext
	}
	raw, err := connect(ctx, "tcp", config.addr())
	if err != nil {
		return nil, s.failed("connecting", err)
	}
	s.conn = &timedConn{Conn: raw, timeout: s.wait(greetTimeout)}
	s.unhook = context.AfterFunc(ctx, func() { _ = raw.Close() }) // nothing can be done about an error
	if err := s.open(); err != nil {
		s.unhook()
		_ = raw.Close() // the first error counts
		return nil, err
	}
	return s, nil
}

// wait is the bound of one stage: the configured one, or else the standard.
func (s *session) wait(standard time.Duration) time.Duration {
	if s.config.Timeout > 0 {
		return s.config.Timeout
	}
	return standard
}

// patient sets the bound of each answer from now on.
func (s *session) patient(standard time.Duration) { s.conn.timeout = s.wait(standard) }

func (s *session) open() error {
	var conn net.Conn = s.conn
	if s.config.TLS == TLSImplicit {
		secure := tls.Client(conn, s.config.tlsConfig())
		if err := secure.HandshakeContext(s.ctx); err != nil {
			return s.failed("TLS handshake", err)
		}
		conn = secure
	}
	var err error
	if s.client, err = smtp.NewClient(conn, s.config.Host); err != nil {
		return s.failed("greeting", err)
	}
	if err := s.client.Hello(helloName(s.conn.LocalAddr())); err != nil {
		return s.failed("EHLO", err)
	}
	if err := s.startTLS(); err != nil {
		return err
	}
	return s.login()
}

func (s *session) startTLS() error {
	if s.config.TLS == TLSNone || s.config.TLS == TLSImplicit {
		return nil
	}
	offered, _ := s.client.Extension("STARTTLS")
	switch {
	case offered:
		if err := s.client.StartTLS(s.config.tlsConfig()); err != nil {
			return s.failed("STARTTLS", err)
		}
	case s.config.TLS == TLSMandatory:
		return s.failed("STARTTLS", errors.New("the server does not offer it, but email.smtp.tls is mandatory"))
	}
	return nil
}

func (s *session) login() error {
	if s.config.Username == "" {
		return nil
	}
	_, offered := s.client.Extension("AUTH")
	auth, err := s.chooseAuth(strings.Fields(offered))
	if err != nil {
		return s.failed("login", err)
	}
	if err := s.client.Auth(auth); err != nil {
		return s.failed("login", err)
	}
	return nil
}

// chooseAuth picks the best login that the server offers. A login that shows the
// password needs a line on which nobody can listen, or an administrator who has ruled
// out TLS.
func (s *session) chooseAuth(offered []string) (smtp.Auth, error) {
	c := s.config
	_, secure := s.client.TLSConnectionState()
	open := secure || c.isLocal() || c.TLS == TLSNone
	for _, way := range []struct {
		name    string
		allowed bool
		auth    func() smtp.Auth
	}{
		{"SCRAM-SHA-256", true, func() smtp.Auth { return smtp.ScramSHA256Auth(c.Username, c.Password) }},
		{"SCRAM-SHA-1", true, func() smtp.Auth { return smtp.ScramSHA1Auth(c.Username, c.Password) }},
		{"PLAIN", open, func() smtp.Auth { return smtp.PlainAuth("", c.Username, c.Password, c.Host, true) }},
		{"LOGIN", open, func() smtp.Auth { return smtp.LoginAuth(c.Username, c.Password, c.Host, true) }},
		{"CRAM-MD5", true, func() smtp.Auth { return smtp.CRAMMD5Auth(c.Username, c.Password) }},
	} {
		if way.allowed && slices.Contains(offered, way.name) {
			return way.auth(), nil
		}
	}
	switch {
	case len(offered) == 0:
		return nil, errors.New("the server offers no login; leave email.smtp.username empty, or use its submission port (587 or 465)")
	case !open:
		return nil, fmt.Errorf("the server offers %s, which would show the password to anybody on the way; set email.smtp.tls to mandatory or implicit",
			strings.Join(offered, ", "))
	}
	return nil, fmt.Errorf("the server offers %s, none of which is known here (SCRAM, PLAIN, LOGIN, CRAM-MD5)", strings.Join(offered, ", "))
}

// helloName is the client's name for the greeting: the machine's full name, or else its
// IP address in the form of RFC 5321.
func helloName(local net.Addr) string {
	if name, err := os.Hostname(); err == nil && strings.Contains(name, ".") && isHostName(name) {
		return name
	}
	tcp, ok := local.(*net.TCPAddr)
	switch {
	case !ok:
		return "localhost"
	case tcp.IP.To4() != nil:
		return "[" + tcp.IP.String() + "]"
	}
	return "[IPv6:" + tcp.IP.String() + "]"
}

// delivery is the result of a mail for its recipients.
type delivery struct {
	Run      int        `json:"run"` // of the job
	Accepted []string   `json:"accepted,omitempty"`
	Refused  []Rejected `json:"refused,omitempty"` // for good
	deferred []Rejected // for now
}

// send gives the message to the server for all recipients. After an error none of them
// has it.
func (s *session) send(from string, to []string, message []byte) (d delivery, err error) {
	if err := s.internationalize(append([]string{from}, to...)); err != nil {
		return d, err
	}
	for pending := to; len(pending) > 0; {
		t, err := s.transact(from, pending, message)
		d.Refused = append(d.Refused, t.refused...)
		pending = t.rest(pending)
		switch {
		case err != nil && len(d.Accepted)+len(d.Refused)+len(t.deferred) == 0:
			return delivery{}, err
		case err != nil && len(t.accepted) > 0: // the fate of the accepted is the error's, not that of the others
			d.give(t.accepted, err)
			d.deferred = append(d.deferred, t.deferred...)
			return d, nil
		case err != nil:
			d.give(pending, err)
			return d, nil
		case len(t.accepted) == 0:
			d.deferred = t.deferred
			return d, nil
		}
		d.Accepted = append(d.Accepted, t.accepted...)
	}
	return d, nil
}

// give records one reason for all of these recipients not to have the mail.
func (d *delivery) give(to []string, err error) {
	for _, a := range to {
		if jobs.IsPermanent(err) {
			d.Refused = slices.Insert(d.Refused, 0, Rejected{a, err.Error()}) // the first to be reported
		} else {
			d.deferred = append(d.deferred, Rejected{a, err.Error()})
		}
	}
}

// internationalize announces addresses with letters beyond ASCII (RFC 6531), if there
// are any.
func (s *session) internationalize(addresses []string) error {
	i := slices.IndexFunc(addresses, func(a string) bool { return !isASCII(a) })
	s.client.SkipSMTPUTF8(i < 0)
	if i < 0 {
		return nil
	}
	if offered, _ := s.client.Extension("SMTPUTF8"); !offered {
		return jobs.Permanent(s.at("MAIL FROM", fmt.Errorf("the server does not offer SMTPUTF8, which the address %s needs: it has letters beyond ASCII before the @", addresses[i])))
	}
	return nil
}

// undelivered is the error for a mail that some recipients do not have yet, or that
// none may have.
func (s *session) undelivered(d delivery) error {
	const shown = 3
	all := slices.Concat(d.Refused, d.deferred)
	what := "no recipient was accepted: "
	if len(d.Accepted) > 0 {
		all, what = d.deferred, fmt.Sprintf("%d of %d recipients have to wait, the others are done with: ", len(d.deferred), len(d.Accepted)+len(d.Refused)+len(d.deferred))
	}
	var reasons []string
	for _, r := range all[:min(shown, len(all))] {
		reasons = append(reasons, r.Address+": "+r.Error)
	}
	if n := len(all) - shown; n > 0 {
		reasons = append(reasons, fmt.Sprintf("and %d more", n))
	}
	err := s.at("RCPT TO", errors.New(what+strings.Join(reasons, "; ")))
	if len(d.deferred) == 0 {
		return jobs.Permanent(err)
	}
	return err
}

// transaction is the result of one SMTP transaction for its recipients.
type transaction struct {
	accepted []string
	refused  []Rejected // for good
	deferred []Rejected // for now
}

// rest are those of all who neither have the message nor were refused.
func (t *transaction) rest(all []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(a string) bool {
		return slices.Contains(t.accepted, a) ||
			slices.ContainsFunc(t.refused, func(r Rejected) bool { return r.Address == a })
	})
}

// transact runs one transaction. Without an error the accepted recipients have the
// message. With one, nobody has it, or the fate of the accepted is unknown: see
// [session.data].
func (s *session) transact(from string, to []string, message []byte) (transaction, error) {
	var t transaction
	s.patient(addressTimeout)
	if err := s.client.Mail("<" + from + ">"); err != nil {
		return t, s.failed("MAIL FROM", err)
	}
	for _, a := range to {
		if err := s.recipient(&t, a); err != nil {
			t.accepted = nil
			return t, err
		}
	}
	if len(t.accepted) == 0 {
		_ = s.client.Reset() // politeness before QUIT: the outcome is known
		return t, nil
	}
	return t, s.data(message)
}

// recipient names one recipient to the server. An error is one of the whole
// transaction.
func (s *session) recipient(t *transaction, address string) error {
	err := s.client.Rcpt("<" + address + ">")
	if err == nil {
		t.accepted = append(t.accepted, address)
		return nil
	}
	said := answerIn(err)
	switch {
	case said == nil, said.code == 421: // the connection is gone
		return s.failed("RCPT TO <"+address+">", err)
	case said.code/100 == 5:
		t.refused = append(t.refused, Rejected{address, said.Error()})
	default:
		t.deferred = append(t.deferred, Rejected{address, said.Error()})
	}
	return nil
}

// data sends the message. Once it is complete, only the server's answer tells whether
// the server has it. Without that answer another try may deliver it twice (RFC 5321,
// section 4.5.3.2.6). So it fails for good, unless the configuration wants it
// otherwise.
func (s *session) data(message []byte) error {
	s.patient(dataTimeout)
	w, err := s.client.Data()
	if err != nil {
		return s.failed("DATA", err)
	}
	s.patient(blockTimeout)
	if _, err := w.Write(message); err != nil {
		return s.failed("sending the message", err)
	}
	s.patient(finalDotTimeout)
	err = w.Close()
	switch {
	case err == nil:
		return nil
	case answerIn(err) != nil || s.config.RetryUnknown:
		return s.failed("end of the message", err)
	}
	return jobs.Permanent(fmt.Errorf("%w; the message was sent whole, so the server may have delivered it: it is not sent again "+
		"(email.smtp.retry_unknown: true would)", s.failed("end of the message", err)))
}

// close ends the session. Errors no longer matter.
func (s *session) close() {
	s.conn.timeout = min(s.conn.timeout, farewellTimeout)
	_ = s.client.Quit()
	s.unhook()
	_ = s.conn.Close()
}

// failed adds the stage of the dialogue to an error. An answer of class 5 makes it
// permanent.
func (s *session) failed(stage string, err error) error {
	if s.ctx.Err() != nil { // then the end of the context is the reason
		return s.at(stage, context.Cause(s.ctx))
	}
	said := answerIn(err)
	switch {
	case said == nil:
		return s.at(stage, err)
	case said.code/100 == 5:
		return jobs.Permanent(s.at(stage, said))
	}
	return s.at(stage, said)
}

func (s *session) at(stage string, err error) error {
	return fmt.Errorf("SMTP server %s: %s: %w", s.config.addr(), stage, err)
}

// answer is the server's refusal.
type answer struct {
	code int
	text string // one line
}

func (a *answer) Error() string { return fmt.Sprintf("%03d %s", a.code, a.text) }

// answerIn finds the server's answer in an error: the last one if there are several
// (EHLO, then HELO), nil if there is none.
func answerIn(err error) *answer {
	var several interface{ Unwrap() []error }
	if errors.As(err, &several) {
		list := several.Unwrap()
		err = list[len(list)-1]
	}
	var said *textproto.Error
	if !errors.As(err, &said) {
		return nil
	}
	return &answer{said.Code, oneLine(said.Msg)}
}

func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// timedConn bounds every single read and write. After the first timeout it is closed,
// so that the rest of the dialogue does not wait as well.
type timedConn struct {
	net.Conn
	timeout time.Duration
}

// Read is net.Conn's, with the timeout.
func (c *timedConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.timeout)); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(p)
	return n, c.explain(err)
}

// Write is net.Conn's, with the timeout.
func (c *timedConn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.timeout)); err != nil {
		return 0, err
	}
	n, err := c.Conn.Write(p)
	return n, c.explain(err)
}

func (c *timedConn) explain(err error) error {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	_ = c.Close() // the timeout is the error to report
	return fmt.Errorf("the server did not answer within %s: %w", c.timeout, err)
}
