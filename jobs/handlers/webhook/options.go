package webhook

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	"jobstream/jobs"
	"jobstream/jobs/handlers/internal/guard"
	"jobstream/jobs/handlers/internal/signature"
	"jobstream/jobs/setting"
	"jobstream/jobs/strict"
)

// Options are the settings of all callbacks. [Options.Check] reads them once they are set.
type Options struct {
	// Allow are addresses and hosts that a job's callback_url may have although others
	// must be public and use https.
	Allow []string
	// Secret signs, as whsec_…, ${env:NAME} or ${file:PATH}. Each of several makes a
	// signature. None: requests are not signed.
	Secret   []string
	Webhooks []Webhook
	// PublicURL is the address of this server for others, for links; "" = no links.
	PublicURL string
	Version   string // of this program; "" = unknown

	// read by Check
	allow    guard.Allow
	public   string // PublicURL
	secrets  signature.Secrets
	webhooks map[string]signature.Secrets // by URL

	resolver *net.Resolver  // nil: the system's
	roots    *x509.CertPool // nil: the system's
}

// Webhook is a URL that is notified of the ends of jobs, whatever callback_url they have.
type Webhook struct {
	jobs.Webhook
	Secret []string // as in [Options]; none = those
}

// Settings binds the keys of the section callbacks.
func (o *Options) Settings() []setting.Setting {
	return []setting.Setting{
		setting.Texts("callbacks.allow", &o.Allow),
		setting.Secret(setting.OneOrMore("callbacks.secret", &o.Secret)),
	}
}

// ParseWebhook reads one entry of the list webhooks from JSON, strictly. Errors are
// [*jobs.Error]s that point at the fields.
func ParseWebhook(body []byte) (w Webhook, err error) {
	err = jobs.Read("", body, func(v strict.Value) {
		v.Object(
			strict.Need("url", func(v strict.Value) { w.URL, _ = v.Text() }),
			strict.May("types", func(v strict.Value) { w.Types = strict.As(v, strict.Texts) }),
			strict.May("statuses", func(v strict.Value) { w.Statuses = strict.As(v, readStatuses) }),
			strict.May("secret", func(v strict.Value) { w.Secret = strict.As(v, readSecrets) }),
		)
	})
	return w, err
}

func readStatuses(raw json.RawMessage) (all []jobs.Status, err error) {
	names, err := strict.Texts(raw)
	for _, name := range names {
		s, ok := jobs.ParseStatus(name)
		if !ok || !s.Ended() {
			return nil, fmt.Errorf("%s is not a status of an end: completed, failed or cancelled", jobs.Quote(name))
		}
		all = append(all, s)
	}
	return all, err
}

func readSecrets(raw json.RawMessage) ([]string, error) {
	if s, err := strict.Text(raw); err == nil {
		return []string{s}, nil
	}
	all, err := strict.Texts(raw)
	if err != nil {
		return nil, errors.New("must be text or a list of texts")
	}
	return all, nil
}

// Check reads everything, and reports the problem with a key, if any. Relative paths of
// secrets begin at folder, that of the configuration's file. types are the names that a
// webhook may ask for; nil = any.
func (o *Options) Check(folder string, types map[string]bool, fail func(path, text string)) {
	var err error
	if o.allow, err = guard.ParseAllow(o.Allow); err != nil {
		fail("callbacks.allow", err.Error())
	}
	if o.secrets, err = reveal(o.Secret, folder); err != nil {
		fail("callbacks.secret", err.Error())
	}
	if err := o.checkPublicURL(); err != nil {
		fail("server.public_url", err.Error())
	}
	o.webhooks = nil
	if len(o.Webhooks) > 0 {
		o.webhooks = make(map[string]signature.Secrets)
	}
	for i, w := range o.Webhooks {
		at := fmt.Sprintf("webhooks.%d", i)
		if err := checkWebhook(w.URL); err != nil {
			fail(at+".url", err.Error())
		}
		if _, known := o.webhooks[w.URL]; known {
			fail(at+".url", "is that of another webhook; give that one all the types and statuses")
		}
		secrets, err := reveal(w.Secret, folder)
		if err != nil {
			fail(at+".secret", err.Error())
		}
		if len(secrets) == 0 {
			secrets = o.secrets
		}
		o.webhooks[w.URL] = secrets
		for _, name := range w.Types {
			if types != nil && !types[name] {
				fail(at+".types", jobs.Quote(name)+" is not a job type")
			}
		}
	}
}

// reveal reads secrets, with what ${env:NAME} and ${file:PATH} stand for.
func reveal(texts []string, folder string) (signature.Secrets, error) {
	plain := make([]string, len(texts))
	for i, text := range texts {
		var err error
		if plain[i], err = setting.Reveal(text, folder); err != nil {
			return nil, err
		}
	}
	return signature.Parse(plain...)
}

func (o *Options) checkPublicURL() error {
	if o.PublicURL == "" {
		return nil
	}
	u, err := url.Parse(o.PublicURL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return errors.New("must be the address of this server for others, like https://jobs.example.com")
	}
	o.public = strings.TrimRight(o.PublicURL, "/")
	return nil
}

// Checked says whether Check has read everything.
func (o *Options) Checked() bool {
	return (len(o.Allow) == 0 || !o.allow.Empty()) && (o.PublicURL == "" || o.public != "") &&
		(len(o.Secret) == 0 || len(o.secrets) > 0) && (len(o.Webhooks) == 0 || o.webhooks != nil)
}

// checkWebhook checks a URL of the configuration, which is trusted: it may lead into the
// own network, but not to the metadata of a cloud.
func checkWebhook(text string) error {
	u, err := parse(text)
	if err != nil {
		return err
	}
	return guard.LinkLocal(guard.Allow{}).Host(u.Hostname())
}

// parse reads a URL as the transport does.
func parse(text string) (*url.URL, error) {
	if err := jobs.CheckCallbackURL(text); err != nil {
		return nil, err
	}
	u, err := url.Parse(text)
	if err != nil {
		var e *url.Error
		if errors.As(err, &e) {
			err = e.Err
		}
		return nil, fmt.Errorf("is no URL: %w", err)
	}
	if u.Hostname() == "" {
		return nil, errors.New("has no host")
	}
	return u, nil
}

// CheckURL returns the problem with the callback_url of a job, as far as it is known
// before its name is resolved; see [jobs.CallbackChecker].
func (o *Options) CheckURL(text string) error {
	u, err := parse(text)
	if err != nil {
		return err
	}
	if !strings.EqualFold(u.Scheme, "https") && !o.allow.Host(u.Hostname()) {
		return errors.New("must begin with https://; http is for hosts in callbacks.allow")
	}
	if err := guard.Public(o.allow).Host(u.Hostname()); err != nil {
		return fmt.Errorf("%w; callbacks.allow could name it", err)
	}
	return nil
}
