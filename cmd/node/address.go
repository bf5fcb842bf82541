package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"

	"jobstream/jobs/access"
)

// loopbackHost is the host of addresses without one.
const loopbackHost = "127.0.0.1"

// address is where a door listens.
type address struct {
	key  string // of Options
	host string
	port int // 0 = any free one
}

// readAddress reads an address of Options; nil for "".
func readAddress(key, text string) (*address, error) {
	if text == "" {
		return nil, nil
	}
	host, port, err := net.SplitHostPort(text)
	a := &address{key: key, host: host}
	if a.port, _ = strconv.Atoi(port); err != nil || a.port < 0 || a.port > 65535 || a.port == 0 && port != "0" {
		return nil, fmt.Errorf("node.Options.%s: %q is not an address, like :8080 or 127.0.0.1:0", key, text)
	}
	orElse(&a.host, loopbackHost)
	return a, nil
}

// addresses are where the doors listen, nil for those that do not. It refuses those by
// which everybody on other machines could do something, unless that is confirmed.
func (o *Options) addresses() (rest, nats *address, err error) {
	rest, err = readAddress("HTTP", o.HTTP)
	if err == nil {
		nats, err = readAddress("NATS", o.NATS)
	}
	if err != nil || o.Insecure {
		return rest, nats, err
	}
	for _, a := range []*address{rest, nats} {
		if a != nil && !access.Loopback(a.host) && (o.Keyring == nil || o.Keyring.Anonymous() != nil) {
			return nil, nil, fmt.Errorf("node.Options.%s: %q is not loopback (127.0.0.1, ::1, localhost), and everybody there could use the server; "+
				"set a Keyring that has nobody without a token, or confirm it by Insecure", a.key, a.host)
		}
	}
	return rest, nats, nil
}

// listen opens the port.
func (a *address) listen(ctx context.Context) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", net.JoinHostPort(a.host, strconv.Itoa(a.port)))
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("node.Options.%s: port %d on %s is in use; stop what uses it or choose another", a.key, a.port, a.host)
	}
	if err != nil {
		return nil, fmt.Errorf("node.Options.%s: %w", a.key, err)
	}
	return l, nil
}
