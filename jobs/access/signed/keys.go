package signed

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/MicahParks/jwkset"
	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
)

// maxKeys bounds the keys of a set. A token that does not name its key is tried with each.
const maxKeys = 100

// keySet are the public keys of an issuer.
type keySet struct {
	find  keyfunc.Keyfunc
	names map[string]string // hashes of the keys, by their kid
	known map[string]bool   // by their hashes
	all   string            // a hash of the whole set
}

// parse reads a JSON Web Key Set. Keys that sign nothing, or that are of no known kind, are
// left out: issuers publish them as well.
func parse(ctx context.Context, set []byte) (*keySet, error) {
	var list struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(set, &list); err != nil {
		return nil, fmt.Errorf("is not a JSON Web Key Set: %w", err)
	}
	if len(list.Keys) > maxKeys {
		return nil, fmt.Errorf("has %d keys; at most %d are allowed", len(list.Keys), maxKeys)
	}
	store := jwkset.NewMemoryStorage()
	s := &keySet{names: make(map[string]string), known: make(map[string]bool), all: hash(set)}
	var last error
	for _, raw := range list.Keys {
		k, err := readKey(raw)
		if err != nil {
			last = err
			continue
		}
		der, err := x509.MarshalPKIXPublicKey(k.Key())
		if err != nil {
			last = err
			continue
		}
		if err := store.KeyWrite(ctx, k); err != nil {
			return nil, err
		}
		kid := k.Marshal().KID
		name := hash(append([]byte(kid+" "), der...))
		if s.names[kid] == "" { // the first of a name counts
			s.names[kid] = name
		}
		s.known[name] = true
	}
	if len(s.known) == 0 {
		return nil, errors.Join(errors.New("has no public key that verifies signatures"), last)
	}
	s.known[s.all] = true
	var err error
	s.find, err = keyfunc.New(keyfunc.Options{Storage: store, UseWhitelist: []jwkset.USE{"", jwkset.UseSig}})
	return s, err
}

// readKey reads a key. A secret that both sides have is none, since whoever has it can
// sign.
func readKey(raw []byte) (jwkset.JWK, error) {
	var m jwkset.JWKMarshal
	if err := json.Unmarshal(raw, &m); err != nil {
		return jwkset.JWK{}, err
	}
	m.X5C, m.X5U, m.X5T, m.X5TS256 = nil, "", "", "" // certificates of keys are not used
	k, err := jwkset.NewJWKFromMarshal(m, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{SkipKeyOps: true})
	if err != nil {
		return jwkset.JWK{}, err
	}
	switch k.Key().(type) {
	case *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey:
		return k, nil
	}
	return jwkset.JWK{}, errors.New("it is not a public key for signatures")
}

// of returns the key of a token, and its hash.
func (s *keySet) of(t *jwt.Token) (key any, name string, err error) {
	kid, named := t.Header["kid"].(string)
	if named && s.names[kid] == "" {
		return nil, "", errUnknownKey
	}
	key, err = s.find.Keyfunc(t)
	if !named {
		return key, s.all, err // whichever of them it is
	}
	return key, s.names[kid], err
}

func (s *keySet) has(name string) bool { return s.known[name] }

// equal reports whether the set is that of these bytes.
func (s *keySet) equal(set []byte) bool { return s != nil && s.all == hash(set) }

func hash(b []byte) string {
	sum := sha256.Sum256(bytes.TrimSpace(b))
	return string(sum[:])
}
