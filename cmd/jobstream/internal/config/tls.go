package config

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"unicode"

	"jobstream/jobs/setting"
)

// TLS are the files by which both doors encrypt. Each holds PEM, and its path is
// absolute. Without Cert the doors do not encrypt.
type TLS struct {
	Cert string // the certificate, and those that lead from it to an authority
	Key  string // the private key of the certificate
	// ClientCA has the authorities of clients, each of which then needs a certificate;
	// "" = clients need none.
	ClientCA string
}

const (
	certKey     = "server.tls.cert"
	keyKey      = "server.tls.key"
	clientCAKey = "server.tls.client_ca"
)

// keys are the settings of the section server.tls.
func (t *TLS) keys() []setting.Setting {
	return []setting.Setting{filePath(certKey, &t.Cert), filePath(keyKey, &t.Key), filePath(clientCAKey, &t.ClientCA)}
}

// filePath is a setting that names a file.
func filePath(key string, p *string) setting.Setting {
	return setting.Checked(key, p, "the path of a file", func(s string) bool { return !strings.ContainsFunc(s, unicode.IsControl) })
}

// Files are the paths that are set.
func (t *TLS) Files() (all []string) {
	for _, path := range []string{t.Cert, t.Key, t.ClientCA} {
		if path != "" {
			all = append(all, path)
		}
	}
	return all
}

// checkTLS checks keys of the section that depend on one another.
func (l *loader) checkTLS() {
	t := &l.config.Server.TLS
	l.fromHere(&t.Cert, &t.Key, &t.ClientCA)
	switch {
	case t.Cert != "" && t.Key == "" && !l.failed(keyKey):
		l.fail(keyKey, "", "is missing; "+certKey+" needs the file with its private key")
	case t.Cert == "" && t.Key != "" && !l.failed(certKey):
		l.fail(certKey, "", "is missing; "+keyKey+" needs the file with its certificate")
	case t.Cert == "" && t.ClientCA != "" && !l.failed(certKey):
		l.fail(certKey, "", "is missing; clients have certificates only where the server has one")
	}
}

// Load reads the files as they are now. The error is [Problems].
func (t *TLS) Load() (*tls.Config, error) {
	cert, err := readPEM(certKey, t.Cert)
	if err != nil {
		return nil, err
	}
	key, err := readPEM(keyKey, t.Key)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, t.mistake(cert, err)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
	if t.ClientCA == "" {
		return c, nil
	}
	if c.ClientCAs, err = readAuthorities(clientCAKey, t.ClientCA); err != nil {
		return nil, err
	}
	c.ClientAuth = tls.RequireAndVerifyClientCert
	c.SessionTicketsDisabled = true // so that every connection is checked by the authorities of today
	return c, nil
}

// mistake says which of the two files is wrong, and how.
func (t *TLS) mistake(cert []byte, err error) error {
	if _, wrong := leaf(cert); wrong != nil {
		return wrongFile(certKey, t.Cert, wrong.Error())
	}
	text := strings.TrimPrefix(err.Error(), "tls: ")
	return wrongFile(keyKey, t.Key, "is not the key of the certificate in "+certKey+": "+text)
}

// leaf is the first certificate in PEM.
func leaf(data []byte) (*x509.Certificate, error) {
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, errors.New("has a certificate that cannot be read: " + err.Error())
		}
		return c, nil
	}
	return nil, errors.New("has no certificate in PEM")
}

// Certificate is the server's own certificate as it is in its file now.
func (t *TLS) Certificate() (*x509.Certificate, error) {
	data, err := readPEM(certKey, t.Cert)
	if err != nil {
		return nil, err
	}
	c, err := leaf(data)
	if err != nil {
		return nil, wrongFile(certKey, t.Cert, err.Error())
	}
	return c, nil
}

// readAuthorities reads the certificates of authorities.
func readAuthorities(key, path string) (*x509.CertPool, error) {
	data, err := readPEM(key, path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, wrongFile(key, path, "has no certificate in PEM")
	}
	return pool, nil
}

// readPair reads the certificate of this process and its key, which stand in a section as
// cert and key.
func readPair(section, cert, key string) (pair tls.Certificate, err error) {
	public, err := readPEM(section+"cert", cert)
	if err != nil {
		return pair, err
	}
	private, err := readPEM(section+"key", key)
	if err != nil {
		return pair, err
	}
	if pair, err = tls.X509KeyPair(public, private); err != nil {
		return pair, wrongFile(section+"cert", cert, "and "+section+"key are no pair: "+strings.TrimPrefix(err.Error(), "tls: "))
	}
	return pair, nil
}

func readPEM(key, path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, wrongFile(key, path, "does not exist")
	case err != nil:
		return nil, wrongFile(key, path, "cannot be read: "+err.Error())
	}
	return data, nil
}

func wrongFile(key, path, text string) error {
	return Problems{{Key: key, Value: strconv.Quote(path), Text: text}}
}
