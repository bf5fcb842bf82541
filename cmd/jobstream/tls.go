package main

import (
	"context"
	"crypto/tls"
	"sync/atomic"

	"jobstream/cmd/node"
)

// encrypt has both doors of a node encrypt by the files of server.tls, if there are any.
// When the files change, the next connection uses what they are then. Files with a mistake
// change nothing. That goes on until ctx ends.
func (s *server) encrypt(ctx context.Context, o *node.Options) error {
	files := &s.cfg.Server.TLS
	if files.Cert == "" {
		return nil
	}
	changes := watch(files.Files()...)
	first, err := files.Load()
	if err != nil {
		return &usageError{Err: err}
	}
	var used atomic.Pointer[tls.Config]
	used.Store(first)
	both := first.Clone()
	both.Certificates = nil
	both.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return used.Load(), nil }
	o.REST.TLS, o.Broker.TLS = both, both
	s.tasks.Go(func() {
		changes.follow(ctx, func() {
			next, err := files.Load()
			if err != nil {
				s.log.Error("the certificate stays as it was, since its files have a mistake", "error", err)
				return
			}
			used.Store(next)
			s.log.Info("the certificate is that of its file as it is now", "file", files.Cert, "until", next.Certificates[0].Leaf.NotAfter)
		})
	})
	return nil
}
