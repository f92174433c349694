package redis

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"parley/core/atomicfile"
)

// TLS says whom to trust and who the client is. It is read only where the
// URL's scheme asks for TLS.
type TLS struct {
	// CAFile holds the certificates of the authorities that sign the servers'
	// certificates, as PEM; "" trusts the system's.
	CAFile string
	// CertFile and KeyFile hold the client's certificate and key, as PEM; both
	// or none. They are read for every connection, so a renewed certificate
	// is used from the next one on.
	CertFile, KeyFile string
	// ServerName is the name in the servers' certificates; "" is the host by
	// which each is reached.
	ServerName string
}

// config makes the settings of a connection, or says which file is wrong.
func (t TLS) config() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CAFile != "" {
		pem, err := atomicfile.Read(t.CAFile, maxPEM)
		if err != nil {
			return nil, fmt.Errorf("redis.tls.ca_file: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("redis.tls.ca_file %s: want at least one certificate as PEM", t.CAFile)
		}
	}
	if (t.CertFile == "") != (t.KeyFile == "") {
		return nil, errors.New("redis.tls.cert_file and redis.tls.key_file: want both or none")
	}
	if t.CertFile == "" {
		return c, nil
	}
	load := func() (*tls.Certificate, error) {
		cert, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("redis.tls.cert_file %s with redis.tls.key_file %s: %w", t.CertFile, t.KeyFile, err)
		}
		return &cert, nil
	}
	if _, err := load(); err != nil {
		return nil, err
	}
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	return c, nil
}

const (
	maxPEM      = 1 << 20 // every authority of the system's list is below 300 KiB
	maxPassword = 4 << 10 // Redis itself takes more, nobody has one
)

// login gives a connection its user and password.
type login func(context.Context) (user, password string, err error)

// newLogin makes a login. A password file is read for every connection, so a
// changed password needs no restart. what names the setting in errors.
func newLogin(what, user, password, file string) (login, error) {
	if file == "" {
		return func(context.Context) (string, string, error) { return user, password, nil }, nil
	}
	if password != "" {
		return nil, fmt.Errorf("%s is set, and redis.url holds a password as well: want one of them", what)
	}
	read := func(context.Context) (string, string, error) {
		b, err := atomicfile.Read(file, maxPassword)
		if err != nil {
			return "", "", fmt.Errorf("%s: %w", what, err)
		}
		b = bytes.TrimRight(b, "\r\n")
		if len(b) == 0 {
			return "", "", fmt.Errorf("%s %s: it is empty", what, file)
		}
		return user, string(b), nil
	}
	_, _, err := read(context.Background())
	return read, err
}
