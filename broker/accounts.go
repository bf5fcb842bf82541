package broker

import (
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/nats-io/nats-server/v2/server"

	"jobstream/jobs/access"
	"jobstream/jobs/api"
)

// Clients from outside never come into the account of the streams, unless they are
// admins. Each principal has an account of its own. Imports connect it with what its
// scopes allow, and nothing else exists there: no stream, no subject of the server's own,
// and nobody else's inbox. Permissions repeat the same list, so that a client is refused
// with an error instead of getting no answer.
//
// A request to the service arrives here on svc.<key>.<operation>, and one that needs the
// gate on gate.<node>.<key>.<subject>. The key is that of the account. So the subject says who
// asks, and with which rights. Nobody outside can publish there.

// Surface is what a principal may use beside the service.
type Surface struct {
	// Types are the job types of which it may submit bare messages; nil = all but Reserved.
	Types []string
	// Reserved are the job types of the server's own, of which nobody may.
	Reserved []string
	// Answers are the subjects on which it may answer requests of this process.
	Answers []string
}

// Credentials are what a client connects with, and from where. Each may be empty.
type Credentials struct {
	User, Password, Token string
	From                  netip.Addr
}

// accounts decides who a client is, and makes the accounts of principals. It is nats-server's
// authentication. mu guards the maps.
type accounts struct {
	server  *Server
	secret  string        // of this process, see admitSystem
	passing chan struct{} // has a token for each request that passes the gate

	mu     sync.Mutex
	made   map[string]*account // by key
	owners map[string]string   // of the consumers of notifications; "" = everybody's
	// refusal is why no bare messages are taken; "" = they are.
	refusal string
}

// account is that of a principal with certain rights. Other rights make another one.
type account struct {
	principal *access.Principal
	user      *server.User
	hub       *server.Account // that of the streams
}

func newAccounts(s *Server) *accounts {
	return &accounts{
		server: s, secret: rand.Text(), passing: make(chan struct{}, maxPassing), made: make(map[string]*account), owners: make(map[string]string),
	}
}

// Check admits a client, or refuses it.
func (a *accounts) Check(c server.ClientAuthentication) bool {
	at := c.RemoteAddress()
	if at != nil && at.Network() == "pipe" {
		a.admitSystem(c)
		return true // a connection of this process
	}
	if a.server.o.Port == 0 {
		return false // there is a port for the routes' sake only
	}
	if a.server.o.Identify == nil {
		return true
	}
	o := c.GetOpts()
	if o.Nkey != "" || o.JWT != "" {
		return false // nothing here knows them, and nats-server would call the client by them
	}
	given := Credentials{User: o.Username, Password: o.Password, Token: o.Token}
	if tcp, ok := at.(*net.TCPAddr); ok {
		given.From = tcp.AddrPort().Addr()
	}
	u, key := a.identify(given)
	if u == nil {
		return false
	}
	c.RegisterUser(u)
	// From here on Disconnect finds the client. What was taken away before that, it could
	// not cut off.
	_, now := a.identify(given)
	return now == key
}

// identify returns what nats-server has to know of a client, and the key of its account;
// nil for one that is refused.
func (a *accounts) identify(given Credentials) (*server.User, string) {
	p := a.server.o.Identify(given)
	if p == nil || len(p.Scopes) == 0 {
		return nil, ""
	}
	u, key, err := a.user(p)
	if err != nil {
		a.server.log.Error("a client cannot be admitted", "principal", p.Name, "error", err)
		return nil, ""
	}
	return u, key
}

// insider is whoever asks in the account of the streams without a token: this process. No
// token has this name.
var insider = &access.Principal{Name: "(admin)", Scopes: []access.Scope{access.Admin}}

// caller is whom a request to the service is by.
func (a *accounts) caller(subject, reply string) *access.Principal {
	rest, outside := strings.CutPrefix(subject, servicePrefix)
	if !outside {
		return a.admin(reply)
	}
	key, _, _ := strings.Cut(rest, ".")
	if p := a.ofKey(key); p != nil {
		return p
	}
	if a.server.clustered() {
		return stranger
	}
	return insider // only admins can publish there for somebody who does not exist
}

// stranger is whoever asks by way of another member, in an account that this one does not
// have. It has no rights.
var stranger = &access.Principal{Name: "(elsewhere)"}

// admin is whoever asks in the account of the streams. The subject does not say who that is,
// but the answer goes to one client, and nats-server knows whose that is.
func (a *accounts) admin(reply string) *access.Principal {
	found, err := a.server.srv.Connz(&server.ConnzOptions{
		Account: a.server.srv.GlobalAccount().Name, FilterSubject: reply, Username: true, Limit: 2,
	})
	if reply == "" || err != nil || len(found.Conns) != 1 || found.Conns[0].AuthorizedUser == "" {
		return insider
	}
	return &access.Principal{Name: found.Conns[0].AuthorizedUser, Scopes: insider.Scopes}
}

// ofKey is the principal of an account; nil if there is none.
func (a *accounts) ofKey(key string) *access.Principal {
	a.mu.Lock()
	defer a.mu.Unlock()
	if acc := a.made[key]; acc != nil {
		return acc.principal
	}
	return nil
}

// user is what nats-server knows about a principal, and the key of its account.
func (a *accounts) user(p *access.Principal) (*server.User, string, error) {
	hub := a.server.srv.GlobalAccount()
	if p.May(access.Admin) {
		u := &server.User{Username: p.Name, Account: hub, ConnectionDeadline: p.Expires}
		if a.server.clustered() {
			// Whoever comes by such a connection is a member, and says whose a request is.
			u.Permissions = &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{dialSubjects + ">"}}}
		}
		return u, p.Name + "-" + p.Rights(), nil
	}
	key, may := a.keyOf(p)
	a.mu.Lock()
	defer a.mu.Unlock()
	acc := a.made[key]
	if acc == nil {
		if len(a.made) >= maxAccounts {
			return nil, "", fmt.Errorf("%d accounts have been made since the start, for as many principals and rights; a restart forgets them", maxAccounts)
		}
		var err error
		if acc, err = a.open(key, p, may); err != nil {
			return nil, "", err
		}
		a.made[key] = acc
	}
	u := *acc.user
	u.ConnectionDeadline = p.Expires
	return &u, key, nil
}

// keyOf is the key of a principal's account with its present rights, and what it may use.
func (a *accounts) keyOf(p *access.Principal) (string, Surface) {
	var may Surface
	if a.server.o.Surface != nil {
		may = a.server.o.Surface(p)
	}
	more := slices.Concat([]string{"types"}, may.Types, []string{"reserved"}, may.Reserved, []string{"answers"}, may.Answers)
	return p.Name + "-" + p.Rights(more...), may
}

// Refresh cuts off the clients of principals whose [Surface] has changed, so that they
// connect again with what they may use now.
func (s *Server) Refresh() {
	a := s.accounts
	a.mu.Lock()
	made := maps.Clone(a.made)
	a.mu.Unlock()
	for key, acc := range made {
		if acc.user.Account.NumLocalConnections() == 0 {
			continue
		}
		if now, _ := a.keyOf(acc.principal); now != key {
			s.disconnect(&server.ConnzOptions{Account: acc.user.Account.Name})
		}
	}
}

// open makes the account of a principal.
func (a *accounts) open(key string, p *access.Principal, may Surface) (*account, error) {
	acc, _ := a.server.srv.LookupOrRegisterAccount(accountPrefix + key)
	g := grants{hub: a.server.srv.GlobalAccount(), account: acc, key: key, gate: a.server.gate()}
	g.of(p, may)
	made := &account{principal: p, hub: g.hub, user: &server.User{
		Username: p.Name, Account: acc,
		Permissions: &server.Permissions{
			Publish:   &server.SubjectPermission{Allow: g.publish, Deny: g.reserved},
			Subscribe: &server.SubjectPermission{Allow: g.subscribe},
		},
	}}
	for consumer, owner := range a.owners {
		if owner == p.Name || owner == "" {
			g.failed = append(g.failed, made.useConsumer(consumer))
		}
	}
	g.failed = append(g.failed, a.divert(acc))
	return made, errors.Join(g.failed...)
}

// useConsumer lets the principal have messages from a consumer.
func (a *account) useConsumer(name string) error {
	if !a.principal.May(access.Read) {
		return nil
	}
	next := "$JS.API.CONSUMER.MSG.NEXT." + NotificationsStream + "." + name
	ack := "$JS.ACK." + NotificationsStream + "." + name + ".>"
	return errors.Join(a.user.Account.AddServiceImport(a.hub, next, next), a.user.Account.AddServiceImport(a.hub, ack, ack))
}

const (
	// maxAccounts bounds the accounts, which nats-server cannot forget. Each is a principal
	// with certain rights, and takes some 100 KiB.
	maxAccounts = 10_000

	accountPrefix = "jobstream-"
	servicePrefix = "svc."
	gatePrefix    = "gate."

	// nowhere is a subject that nobody listens to. An empty list of permissions would allow
	// everything.
	nowhere = "jobstream.nowhere"
)

// Subjects that a scope allows. Requests go to the account of the streams; what is heard
// comes from there.
var (
	// readable are requests that change nothing.
	readable = []string{
		"$JS.API.INFO", "$JS.API.STREAM.INFO.*", "$JS.API.STREAM.LIST", "$JS.API.STREAM.NAMES",
		"$JS.API.CONSUMER.LIST.*", "$JS.API.CONSUMER.NAMES.*", "$JS.API.CONSUMER.INFO.*.*",
	}
	// gated are requests about consumers of notifications, which pass only through the gate.
	gated = []string{
		"$JS.API.CONSUMER.CREATE." + NotificationsStream + ".>",
		"$JS.API.CONSUMER.DURABLE.CREATE." + NotificationsStream + ".*",
		"$JS.API.CONSUMER.DELETE." + NotificationsStream + ".*",
	}
	// owned are requests to a consumer of notifications; each is imported alone, see
	// account.useConsumer.
	owned = []string{"$JS.API.CONSUMER.MSG.NEXT." + NotificationsStream + ".*", "$JS.ACK." + NotificationsStream + ".*.>"}
	// heard are the subjects of notifications and logs.
	heard = []string{"job.>", "jobstream.log.>"}
)

// export lets other accounts import what [grants] gives them.
func export(hub *server.Account) error {
	service := servicePrefix + "*.>"
	single := append([]string{jobsSubjects, "jobs.*", "jobs.*.*", refusedSubjects, asked + ".*", "$SRV.>", service, gatePrefix + "*.>"}, readable...)
	var failed []error
	for _, s := range single {
		failed = append(failed, hub.AddServiceExport(s, nil))
	}
	failed = append(failed, hub.SetServiceExportResponseThreshold(service, api.MaxWait+ackTimeout)) // nats-server forgets who waits longer
	for _, s := range owned {
		failed = append(failed, hub.AddServiceExportWithResponse(s, server.Streamed, nil))
	}
	for _, s := range append([]string{cancelSubjects}, heard...) {
		failed = append(failed, hub.AddStreamExport(s, nil))
	}
	return errors.Join(failed...)
}

const (
	// replies is where the answers to requests of this process arrive.
	replies = "_JOBSTREAM"
	// asked is where those arrive that clients may answer; see Server.Request.
	asked = "_JOBSTREAM_ASKED"
)

const cancelSubjects = "jobstream.worker.cancel.>"

// grants connects an account with what its principal may use.
type grants struct {
	hub, account *server.Account
	key, gate    string
	publish      []string
	reserved     []string // of publish, but not allowed
	subscribe    []string
	failed       []error
}

// of grants what the scopes of a principal allow. The operations of the service check
// scopes by themselves, so that a refusal has an answer that names the scope.
func (g *grants) of(p *access.Principal, may Surface) {
	g.publish, g.subscribe = []string{nowhere}, []string{"_INBOX.>"}
	service := servicePrefix + g.key + ".>"
	g.request(service, "jobstream.>")
	g.failed = append(g.failed, g.account.SetServiceImportSharing(g.hub, service, true)) // see Server.awaited
	if p.May(access.Submit) {
		g.request("", refusedSubjects)
		if may.Types == nil {
			g.request("", jobsSubjects)
			for _, t := range may.Reserved {
				g.reserved = append(g.reserved, "jobs."+t, "jobs."+t+".>")
			}
		}
		for _, t := range may.Types {
			g.request("", "jobs."+t)
			g.request("", "jobs."+t+".*")
		}
	}
	if p.May(access.Read) {
		g.request("", "$SRV.>")
		for _, s := range readable {
			g.request("", s)
		}
		for _, s := range gated {
			g.request(g.gate+g.key+"."+s, s)
		}
		g.publish = append(g.publish, owned...)
		for _, s := range heard {
			g.listen(s)
		}
	}
	if p.May(access.Work) {
		g.listen(cancelSubjects)
		if len(may.Answers) > 0 {
			g.request("", asked+".*")
		}
		for _, s := range may.Answers {
			g.failed = append(g.failed, g.hub.AddStreamExport(s, nil))
			g.listen(s)
		}
	}
}

// request lets the principal publish on a subject, which arrives in the account of the
// streams as to; "" = under the same subject.
func (g *grants) request(to, subject string) {
	g.publish = append(g.publish, subject)
	if err := g.account.AddServiceImport(g.hub, subject, to); err != nil {
		g.failed = append(g.failed, fmt.Errorf("%s: %w", subject, err))
	}
}

// listen lets the principal subscribe to a subject.
func (g *grants) listen(subject string) {
	g.subscribe = append(g.subscribe, subject)
	if err := g.account.AddStreamImport(g.hub, subject, ""); err != nil {
		g.failed = append(g.failed, fmt.Errorf("%s: %w", subject, err))
	}
}

// Disconnect cuts the clients of a principal off. Whoever connects again is identified
// anew.
func (s *Server) Disconnect(principal string) {
	s.disconnect(&server.ConnzOptions{User: principal})
}

// disconnect cuts these clients off.
func (s *Server) disconnect(of *server.ConnzOptions) {
	of.Limit = math.MaxInt32
	open, err := s.srv.Connz(of)
	if err != nil {
		s.log.Warn("the clients of a token that was changed are not cut off", "error", err)
		return
	}
	for _, c := range open.Conns {
		_ = s.srv.DisconnectClientByID(c.Cid) // it fails for one that has gone
	}
}
