package config

import (
	"crypto/tls"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"

	"jobstream/jobs"
	"jobstream/jobs/access"
	"jobstream/jobs/setting"
)

// Node is what a server is in a cluster.
type Node struct {
	Name string // of the member; needed in a cluster. That of a worker, in lists; "" = that of the machine
	Role string // "full", or "worker"
}

// Cluster is a broker's membership in a cluster. Without Listen it is in none.
type Cluster struct {
	Name      string
	Listen    string   // host:port, where the other members connect
	Routes    []string // host:port of all members; this one may be among them
	Advertise string   // host:port that members tell one another for this one; "" = Listen
	Replicas  int      // copies of each stream
	Bootstrap bool     // the data folder is that of a server that was alone, and the cluster begins with it

	User, Password string // with which the members know one another
	TLS            ClusterTLS
}

// ClusterTLS are the files by which the members encrypt their routes, and know one another.
// Each holds PEM, and its path is absolute. Without Cert the routes are not encrypted.
type ClusterTLS struct {
	Cert, Key string
	CA        string // the authority of all members' certificates
}

const (
	nodeNameKey  = "node.name"
	roleKey      = "node.role"
	listenKey    = "broker.cluster.listen"
	routesKey    = "broker.cluster.routes"
	replicasKey  = "broker.cluster.replicas"
	bootstrapKey = "broker.cluster.bootstrap"
	routeTLSKey  = "broker.cluster.tls."

	roleFull, roleWorker = "full", "worker"
)

// keys are the settings of the section node.
func (n *Node) keys() []setting.Setting {
	return []setting.Setting{
		setting.Checked(nodeNameKey, &n.Name, fmt.Sprintf("a name of 1 to %d letters, digits, _ and -", jobs.MaxTypeName), func(s string) bool {
			return s == "" || jobs.ValidTypeName(s)
		}),
		setting.OneOf(roleKey, &n.Role, roleFull, roleWorker),
	}
}

// keys are the settings of the section broker.cluster.
func (c *Cluster) keys() []setting.Setting {
	const form = "an address with a port, like 10.0.0.1:6222"
	optional := func(s string) bool { return s == "" || validAddress(s) }
	return []setting.Setting{
		setting.Checked("broker.cluster.name", &c.Name, fmt.Sprintf("a name of 1 to %d letters, digits, _ and -", jobs.MaxTypeName), jobs.ValidTypeName),
		setting.Checked(listenKey, &c.Listen, form, optional),
		setting.CheckedTexts(routesKey, &c.Routes, `a list of addresses with ports, in quotes, like ["10.0.0.1:6222", "10.0.0.2:6222", "10.0.0.3:6222"]`, validAddress),
		setting.Checked("broker.cluster.advertise", &c.Advertise, form, optional),
		setting.Whole(replicasKey, &c.Replicas, 3, 5),
		setting.Bool(bootstrapKey, &c.Bootstrap),
		setting.Text("broker.cluster.user", &c.User),
		setting.Secret(setting.Text("broker.cluster.password", &c.Password)),
		filePath(routeTLSKey+"cert", &c.TLS.Cert), filePath(routeTLSKey+"key", &c.TLS.Key), filePath(routeTLSKey+"ca", &c.TLS.CA),
	}
}

// validAddress accepts host:port.
func validAddress(s string) bool {
	host, text, err := net.SplitHostPort(s)
	if err != nil || !validHost(host) {
		return false
	}
	port, err := strconv.Atoi(text)
	return err == nil && port > 0 && port <= maxPort
}

// checkCluster checks the keys of both sections that depend on one another. In a cluster
// every message is synced unless broker.sync says otherwise: a majority that has a message
// only in memory may lose it.
func (l *loader) checkCluster() {
	n, c := &l.config.Node, &l.config.Broker.Cluster
	l.fromHere(&c.TLS.Cert, &c.TLS.Key, &c.TLS.CA)
	if c.Listen == "" {
		l.checkAlone()
		return
	}
	if !l.merged.Exists("broker.sync") {
		l.config.Broker.Sync = SyncAlways
	}
	if n.Name == "" && !l.failed(nodeNameKey) {
		l.fail(nodeNameKey, "", "is missing: each member of a cluster needs a name of its own, which never changes")
	}
	if c.Replicas%2 == 0 {
		l.fail(replicasKey, strconv.Itoa(c.Replicas), "is even, so it survives no more than one copy less; use 3 or 5")
	}
	others := slices.DeleteFunc(slices.Clone(c.Routes), func(r string) bool { return r == c.Listen })
	slices.Sort(others)
	if others = slices.Compact(others); len(others)+1 < c.Replicas && !l.failed(routesKey) {
		l.fail(routesKey, "", fmt.Sprintf("has %d members besides this one, and %s: %d needs %d; list the addresses of all members, the same ones in the file of each",
			len(others), replicasKey, c.Replicas, c.Replicas-1))
	}
	if (c.User == "") != (c.Password == "") {
		l.fail("broker.cluster.user", "", "and broker.cluster.password go together: set both, or none")
	}
	l.checkRoutes(others)
}

// fromHere makes paths absolute, which begin at the folder of the file.
func (l *loader) fromHere(paths ...*string) {
	for _, path := range paths {
		if *path != "" {
			*path = setting.Path(filepath.Dir(l.file), *path)
		}
	}
}

// checkAlone refuses what a server without a cluster has no use for. Somebody who set it
// believes to have a cluster.
func (l *loader) checkAlone() {
	n, c := &l.config.Node, &l.config.Broker.Cluster
	set := ""
	switch {
	case n.Name != "":
		set = nodeNameKey
	case len(c.Routes) > 0:
		set = routesKey
	case c.Advertise != "":
		set = "broker.cluster.advertise"
	case c.Bootstrap:
		set = bootstrapKey
	case c.User+c.Password != "":
		set = "broker.cluster.user"
	case c.TLS != ClusterTLS{}:
		set = routeTLSKey + "cert"
	default:
		return
	}
	if !l.failed(listenKey) {
		l.fail(set, "", "means something only in a cluster; set "+listenKey+" as well, or leave it out")
	}
}

// checkRoutes refuses routes beyond this machine that are not encrypted, and half of the
// files for encryption.
func (l *loader) checkRoutes(others []string) {
	c := &l.config.Broker.Cluster
	t := &c.TLS
	for key, path := range map[string]string{"cert": t.Cert, "key": t.Key, "ca": t.CA} {
		if path == "" && *t != (ClusterTLS{}) && !l.failed(routeTLSKey+key) {
			l.fail(routeTLSKey+key, "", "is missing; routes are encrypted by cert, key and ca together")
		}
	}
	if t.Cert != "" || l.config.Server.Insecure {
		return
	}
	for _, address := range append([]string{c.Listen}, others...) {
		if host, _, err := net.SplitHostPort(address); err == nil && !access.Loopback(host) {
			l.fail(listenKey, quote(address), "is not loopback (127.0.0.1, ::1, localhost), and whoever reaches the routes could read and change everything; "+
				"set broker.cluster.tls, or confirm it by server.insecure: true")
			return
		}
	}
}

// Load reads the files. Every member has to show a certificate of the authority, whether it
// connects or is connected to. The error is [Problems]. The result is nil without files.
func (t *ClusterTLS) Load() (*tls.Config, error) {
	if t.Cert == "" {
		return nil, nil
	}
	pair, err := readPair(routeTLSKey, t.Cert, t.Key)
	if err != nil {
		return nil, err
	}
	pool, err := readAuthorities(routeTLSKey+"ca", t.CA)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair},
		RootCAs: pool, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
	}, nil
}
