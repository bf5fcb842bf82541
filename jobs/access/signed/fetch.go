package signed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"jobstream/jobs/access"
)

const (
	maxSet       = 1 << 20 // bytes
	fetchTimeout = 10 * time.Second
	retryFirst   = time.Second      // after the first failure, while there are no keys; doubled with each
	retryLast    = time.Minute      // likewise, at most
	refreshEvery = 10 * time.Minute // so that a key that the issuer has withdrawn is noticed
	// unknownEvery is the least time between two fetches for keys that are not known.
	unknownEvery = time.Minute
	maxRedirects = 5
)

// fetcher gets the keys from an address.
type fetcher struct {
	v       *Verifier
	address string
	client  *http.Client
	unknown *rate.Limiter
	ctx     context.Context // of Fetch

	mu sync.Mutex // one fetch at a time
}

// CheckAddress returns an error unless keys may be fetched from there. Whoever can change
// them on their way can make tokens.
func CheckAddress(address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "":
		return errors.New("is not an address like https://login.example.com/keys")
	case u.User != nil:
		return errors.New("must not have a name or password in it")
	case u.Scheme == "https", u.Scheme == "http" && loopback(u.Hostname()):
		return nil
	}
	return errors.New("must begin with https://, since whoever changes the keys on their way can log in as anybody")
}

func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && a.IsLoopback()
}

// Fetch has the keys come from an address. The function that it returns fetches them, and
// again from time to time, until ctx ends. While it cannot, the last ones stay. Call Fetch
// once, before the first Verify.
func (v *Verifier) Fetch(ctx context.Context, address string) (run func()) {
	f := &fetcher{
		v: v, address: address, ctx: ctx, unknown: rate.NewLimiter(rate.Every(unknownEvery), 1),
		client: &http.Client{Timeout: fetchTimeout, CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) > maxRedirects {
				return errors.New("too many redirects")
			}
			return CheckAddress(r.URL.String())
		}},
	}
	v.fetch = f
	return f.run
}

// run fetches the keys now, and again from time to time.
func (f *fetcher) run() {
	retry := retryFirst
	for {
		f.mu.Lock()
		err := f.get()
		f.mu.Unlock()
		next := refreshEvery
		switch {
		case f.ctx.Err() != nil:
			return
		case err != nil && f.v.keys.Load() == nil:
			f.v.o.Logger.Error("nobody can log in by a JWT, since the keys cannot be fetched; check the address, and that this machine can reach it (server.auth.jwt.jwks)",
				"address", f.address, "error", err, "again_in", retry)
			next, retry = retry, min(2*retry, retryLast)
		case err != nil:
			f.v.o.Logger.Warn("the keys of JWTs stay as they were, since they cannot be fetched (server.auth.jwt.jwks)", "address", f.address, "error", err)
		}
		select {
		case <-f.ctx.Done():
			return
		case <-time.After(next):
		}
	}
}

// again fetches the keys for a token with an unknown one. The error is a refusal if that
// is going on already.
func (f *fetcher) again() error {
	if !f.mu.TryLock() {
		return notYet()
	}
	defer f.mu.Unlock()
	if !f.unknown.Allow() {
		return nil
	}
	if err := f.get(); err != nil {
		f.v.o.Logger.Warn("the keys of JWTs stay as they were, since they cannot be fetched (server.auth.jwt.jwks)", "address", f.address, "error", err)
		return &access.Refusal{Kind: access.NotYet, Why: "the key of the JWT is not known, and the issuer's keys cannot be fetched now; try again later", Again: unknownEvery}
	}
	return nil
}

// get fetches the keys and uses them. The caller holds mu.
func (f *fetcher) get() error {
	r, err := http.NewRequestWithContext(f.ctx, http.MethodGet, f.address, http.NoBody)
	if err != nil {
		return err
	}
	r.Header.Set("Accept", "application/json")
	answer, err := f.client.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }() // it has been read
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("the answer is %s", answer.Status)
	}
	set, err := io.ReadAll(io.LimitReader(answer.Body, maxSet+1))
	switch {
	case err != nil:
		return err
	case len(set) > maxSet:
		return fmt.Errorf("the answer is longer than %d bytes", maxSet)
	case f.v.keys.Load().equal(set):
		return nil
	}
	if err := f.v.Use(f.ctx, set); err != nil {
		return fmt.Errorf("the answer %w", err)
	}
	f.v.o.Logger.Info("the keys of JWTs are those of their address as it is now", "address", f.address)
	return nil
}
