package main

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"jobstream/cmd/jobstream/internal/cli"
	"jobstream/jobs/access"
	"jobstream/jobs/access/signed"
)

// writeOperator writes the operator's token into the data folder, which is this server's
// by now.
func (s *server) writeOperator(at net.Addr) {
	path := filepath.Join(s.cfg.Data.Dir, cli.OperatorFile)
	err := os.Remove(path)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = writeNew(path, s.operator+"\n"+reachable(at)+"\n")
	}
	if err != nil {
		s.log.Warn("commands on this machine, such as jobstream reload, will need a token", "error", err)
	}
}

// reachable is where this machine can connect to what listens there.
func reachable(at net.Addr) string {
	tcp, ok := at.(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return at.String()
	}
	loopback := "127.0.0.1"
	if tcp.IP.To4() == nil {
		loopback = "::1"
	}
	return net.JoinHostPort(loopback, strconv.Itoa(tcp.Port))
}

// writeNew writes a file that only its owner can read, and that must not exist. So it
// follows no link that somebody may have put there.
func writeNew(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// keys are all tokens that the server knows.
func (s *server) keys() ([]access.Token, error) {
	all, err := s.cfg.Keys()
	own := access.Token{Hash: access.HashOf(s.operator), Principal: access.Principal{Name: access.Operator, Scopes: []access.Scope{access.Admin}}}
	return append(all, own), err
}

// followTokens has a keyring take the file of tokens up whenever it changes, until ctx
// ends. A file with a mistake changes nothing.
func (s *server) followTokens(ctx context.Context, file *watched, k *access.Keyring) {
	file.follow(ctx, func() {
		keys, err := s.keys()
		if err != nil {
			s.log.Error("the tokens stay as they were, since their file has a mistake", "error", err)
			return
		}
		k.Replace(keys)
		s.log.Info("the tokens are those of their file as it is now", "file", s.cfg.Server.Auth.TokensFile, "tokens", len(keys)-1)
	})
}

// verifier knows the tokens of the identity provider; nil if there is none. Its keys are
// those of their file. follow keeps them up to date until ctx ends; it fetches those that
// have an address.
func (s *server) verifier(ctx context.Context) (v access.Verifier, follow func(*access.Keyring), err error) {
	j := &s.cfg.Server.Auth.JWT
	if j.Issuer == "" {
		return nil, nil, nil
	}
	provider := signed.New(signed.Options{Issuer: j.Issuer, Audience: j.Audience, Scopes: j.ScopesClaim, Logger: s.log})
	if j.FetchesKeys() {
		fetch := provider.Fetch(ctx, j.JWKS)
		return provider, func(k *access.Keyring) {
			provider.OnRevoke(k.Revoke)
			fetch()
		}, nil
	}
	file := watch(j.JWKS)
	use := func() error {
		set, err := j.Keys()
		if err != nil {
			return err
		}
		if err := provider.Use(ctx, set); err != nil {
			return j.Mistake(err.Error())
		}
		return nil
	}
	if err := use(); err != nil {
		return nil, nil, err
	}
	return provider, func(k *access.Keyring) {
		provider.OnRevoke(k.Revoke)
		file.follow(ctx, func() {
			if err := use(); err != nil {
				s.log.Error("the keys of JWTs stay as they were, since their file has a mistake", "error", err)
				return
			}
			s.log.Info("the keys of JWTs are those of their file as it is now", "file", j.JWKS)
		})
	}, nil
}
