package main

import (
	"path/filepath"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/jobs/access"
)

// adminToken is the token with which tests reach the streams themselves. The servers of
// tests know it; testdata/tokens.yaml has its hash.
const adminToken = "jst_K1IiC3PyrjsfNZN75HvaNhDE04LUq74T1FG7"

// tokensFile is the path of a file that has it.
func tokensFile(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("testdata/tokens.yaml")
	mustDo(t, err)
	return path
}

// knowAdmin lets a server know the token. Whoever has none is anonymous, as always.
func knowAdmin(c *config.Config) {
	c.Server.Auth.Tokens = map[string]*config.Token{"tests": {SHA256: access.HashOf(adminToken).String(), Scopes: []string{"admin"}}}
}

// adminStreams connects to the streams of the server at url until the test ends.
func adminStreams(t *testing.T, url string) (*nats.Conn, jetstream.JetStream) {
	t.Helper()
	nc, err := nats.Connect(url, nats.Token(adminToken), nats.NoReconnect())
	mustDo(t, err)
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	mustDo(t, err)
	return nc, js
}
