package config

import (
	"strings"
	"testing"
	"time"

	"jobstream/jobs/handlers"
)

// three are the lines that a member needs.
const three = "node: {name: n1}\nbroker: {cluster: {listen: 127.0.0.1:6222, routes: ['127.0.0.1:6222', '127.0.0.1:6223', '127.0.0.1:6224']"

func TestClusterOfThreeLines(t *testing.T) {
	t.Parallel()
	c, err := parse("config.yaml", []byte(three+"}}"), handlers.Kinds(), []string{"JOBSTREAM_BROKER_CLUSTER_NAME=a"})
	if err != nil {
		t.Fatal(err)
	}
	in := c.Broker.Cluster
	if c.Node.Name != "n1" || in.Name != "a" || in.Replicas != 3 || len(in.Routes) != 3 || c.Broker.Sync != SyncAlways {
		t.Errorf("%+v, sync %v", in, c.Broker.Sync)
	}
	if tls, err := in.TLS.Load(); tls != nil || err != nil {
		t.Errorf("routes are encrypted by %v, %v; want nothing", tls, err)
	}
	if c, err = parse("config.yaml", []byte(three+"}, sync: 1s}"), handlers.Kinds(), nil); err != nil || c.Broker.Sync != time.Second {
		t.Errorf("broker.sync is not as it was set: %+v, %v", c, err)
	}
}

func TestClusterProblems(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ yaml, want string }{
		{three + "}}\nnode: {name: n2}", "node: is given twice"},
		{strings.Replace(three, "n1", "a.b", 1) + "}}", "node.name: \"a.b\" is not a name of 1 to 64 letters, digits, _ and -"},
		{strings.Replace(three, "name: n1", "role: full", 1) + "}}", "node.name: is missing"},
		{strings.Replace(three, "name: n1", "name: n1, role: worker", 1) + "}}", "broker.cluster.listen: means nothing to a worker (node.role)"},
		{three + ", replicas: 4}}", "broker.cluster.replicas: 4 is even"},
		{three + ", replicas: 5}}", "broker.cluster.routes: has 2 members besides this one, and broker.cluster.replicas: 5 needs 4"},
		{three + ", user: a}}", "broker.cluster.user: and broker.cluster.password go together"},
		{three + ", tls: {cert: a, ca: b}}}", "broker.cluster.tls.key: is missing"},
		{three + ", bootstrap: 1}}", "broker.cluster.bootstrap: 1 is not"},
		{strings.Replace(three, "listen: 127.0.0.1:6222", "listen: 6222", 1) + "}}", "broker.cluster.listen: 6222 is not an address with a port, like 10.0.0.1:6222"},
		{strings.Replace(three, "127.0.0.1:6224", "127.0.0.1", 1) + "}}", `broker.cluster.routes: ["127.0.0.1:6222","127.0.0.1:6223","127.0.0.1"] is not a list of addresses with ports`},
		{strings.ReplaceAll(three, "127.0.0.1", "10.0.0.1") + "}}", `broker.cluster.listen: "10.0.0.1:6222" is not loopback`},
		{strings.Replace(three, "127.0.0.1:6224", "db:6224", 1) + "}}", `broker.cluster.listen: "db:6224" is not loopback`},
		{"node: {name: n1}", "node.name: means something only in a cluster"},
		{"broker: {cluster: {routes: ['a:1']}}", "broker.cluster.routes: means something only in a cluster"},
		{"broker: {cluster: {bootstrap: true}}", "broker.cluster.bootstrap: means something only in a cluster"},
		{"broker: {cluster: {password: secret}}", "broker.cluster.user: means something only in a cluster"},
		{"broker: {url: nats://a}", "broker.url: is only for node.role: worker"},
		{"broker: {url: http://a}", "broker.url: the value is not an address like nats://10.0.0.1:4222"},
		{"broker: {token: secret}", "broker.token: is only for node.role: worker"},
		{three + "}, url: 'nats://t:secret@a'}", "a NATS cluster elsewhere is not supported yet"},
	} {
		_, err := parse("config.yaml", []byte(tt.yaml), handlers.Kinds(), nil)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s\nsays %v\nwant %s", tt.yaml, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s\ngives the password away: %v", tt.yaml, err)
		}
	}
	insecure := strings.ReplaceAll(three, "127.0.0.1", "10.0.0.1") + "}}\nserver: {insecure: true}"
	if _, err := parse("config.yaml", []byte(insecure), handlers.Kinds(), nil); err != nil {
		t.Errorf("confirmed routes that are not encrypted: %v", err)
	}
}
