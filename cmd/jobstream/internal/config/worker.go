package config

import (
	"crypto/tls"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"jobstream/jobs/handlers"
	"jobstream/jobs/setting"
)

// Servers are where a worker finds its server or cluster, and what it shows there.
type Servers struct {
	URL   string // addresses with commas between them
	Token string // "" = the one in URL, if there is any
	TLS   ClientTLS
}

// ClientTLS are files in PEM, whose paths are absolute.
type ClientTLS struct {
	CA        string // the authorities of the servers; "" = those that this machine trusts
	Cert, Key string // of the worker, for servers that let in nobody without; "" = none
}

const (
	urlKey       = "broker.url"
	tokenKey     = "broker.token"
	clientTLSKey = "broker.tls."
	publicURLKey = "server.public_url"
)

// IsWorker reports whether this is a worker: it takes leases, and has no jobs of its own.
func (c *Config) IsWorker() bool { return c.Node.Role == roleWorker }

// keys are the settings of a worker in the section broker.
func (s *Servers) keys() []setting.Setting {
	at := setting.Checked(urlKey, &s.URL, "an address like nats://10.0.0.1:4222 or tls://10.0.0.1:4222, or some with commas between them", func(s string) bool {
		return s == "" || !slices.ContainsFunc(strings.Split(s, ","), func(one string) bool { return !validURL(strings.TrimSpace(one)) })
	})
	return []setting.Setting{
		setting.Secret(at), // there may be a token in it
		setting.Secret(setting.Text(tokenKey, &s.Token)),
		filePath(clientTLSKey+"ca", &s.TLS.CA), filePath(clientTLSKey+"cert", &s.TLS.Cert), filePath(clientTLSKey+"key", &s.TLS.Key),
	}
}

// validURL accepts the address of a NATS server.
func validURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "nats" || u.Scheme == "tls") && u.Hostname() != "" && strings.Trim(u.Path, "/") == "" && u.RawQuery == ""
}

// refuseServers refuses what only a worker has a use for.
func (l *loader) refuseServers() {
	for _, k := range l.config.Broker.Servers.keys() {
		if !l.merged.Exists(k.Path) || l.merged.Get(k.Path) == "" || l.failed(k.Path) {
			continue
		}
		l.fail(k.Path, "", "is only for node.role: worker, which connects there; a server has its broker inside, and a NATS cluster elsewhere is not supported yet. "+
			"Leave it out, or set broker.cluster for a cluster of servers")
		return
	}
}

// forWorkers are the keys and the sections that a worker uses.
var forWorkers = []string{
	"server.host", "server.port", publicURLKey, "data.dir", "node.", urlKey, tokenKey, clientTLSKey,
	"worker.max_workers", "worker.shutdown_grace", "email.", "jobs.", "log.",
}

// atServers are the keys of types that count at the servers only, where jobs wait.
var atServers = []string{
	".retry_count", ".timeout", ".max_workers", ".concurrency_per_key", ".rate", ".burst",
	".backoff.kind", ".backoff.base", ".backoff.max", ".backoff.jitter", ".backoff.delays", ".lease",
}

// checkWorker checks a worker's keys, and refuses those of a server: somebody who set one
// believes that it counts here.
func (l *loader) checkWorker() {
	s := &l.config.Broker.Servers
	l.fromHere(&s.TLS.CA, &s.TLS.Cert, &s.TLS.Key)
	if s.URL == "" && !l.failed(urlKey) {
		l.fail(urlKey, "", "is missing: a worker (node.role) takes its jobs from there, like nats://10.0.0.1:4222")
	}
	if (s.TLS.Cert == "") != (s.TLS.Key == "") {
		l.fail(clientTLSKey+"cert", "", "and "+clientTLSKey+"key go together: set both, or none")
	}
	for _, k := range l.keys {
		if l.merged.Exists(k.Path) && !l.failed(k.Path) {
			l.checkUsed(k.Path)
		}
	}
	if l.schedules != nil {
		l.checkUsed(schedulesKey)
	}
	if l.shipped {
		l.fail("jobs", "", "is missing: name the types that this worker does, each with its run; at the servers they are run: remote")
		return
	}
	for _, t := range l.types {
		l.checkWork(t)
	}
}

// checkUsed refuses a key that is set, if no worker uses it.
func (l *loader) checkUsed(key string) {
	switch {
	case !slices.ContainsFunc(forWorkers, func(used string) bool {
		return key == used || strings.HasSuffix(used, ".") && strings.HasPrefix(key, used)
	}):
		l.fail(key, "", "means nothing to a worker (node.role): it is set at the servers; leave it out here")
	case strings.HasPrefix(key, "jobs.") && slices.ContainsFunc(atServers, func(end string) bool {
		return strings.Count(key, ".") == 1+strings.Count(end, ".") && strings.HasSuffix(key, end)
	}):
		l.fail(key, "", "counts where jobs wait: set it at the servers, beside run: remote, and leave it out here")
	}
}

// checkWork refuses a type that no worker can do.
func (l *loader) checkWork(t namedType) {
	key := "jobs." + t.name + ".run"
	k := handlers.Find(l.config.Kinds, t.Run)
	if k == nil || l.failed(key) {
		return
	}
	hands, _ := t.Options.(interface{ HandsOver() bool })
	files, _ := t.Options.(interface{ LeavesFiles() bool })
	switch {
	case k.Inside:
		l.fail(key, t.Run, "needs the history, the queue or the broker of a server: no worker can do it, the servers do")
	case k.Name == "remote":
		l.fail(key, t.Run, "is what the servers say of this type; here it says what this worker does, like exec or http")
	case hands != nil && hands.HandsOver():
		l.fail("jobs."+t.name+".async", "", "hands jobs over, which only a server does; let the servers do this type")
	case k.Name == "email" && l.config.Email.Transport != "smtp":
		l.fail("email.transport", l.config.Email.Transport, "is a folder of a server; a worker needs smtp for jobs."+t.name)
	case l.config.Callbacks.PublicURL == "" && (len(t.Inputs) > 0 || files != nil && files.LeavesFiles()):
		l.fail(publicURLKey, "", fmt.Sprintf("is missing: jobs.%s has files, which go over REST; set the address where this machine reaches the REST side of the servers", t.name))
	}
}

// Load reads the files. The error is [Problems].
func (t *ClientTLS) Load() (*tls.Config, error) {
	if t.CA == "" && t.Cert == "" {
		return nil, nil
	}
	made := &tls.Config{MinVersion: tls.VersionTLS12}
	var err error
	if t.CA != "" {
		if made.RootCAs, err = readAuthorities(clientTLSKey+"ca", t.CA); err != nil {
			return nil, err
		}
	}
	if t.Cert == "" {
		return made, nil
	}
	pair, err := readPair(clientTLSKey, t.Cert, t.Key)
	if err != nil {
		return nil, err
	}
	made.Certificates = []tls.Certificate{pair}
	return made, nil
}
