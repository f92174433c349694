package transporttest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Authority is a certificate authority of one test.
type Authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	next int64
}

// NewAuthority makes an authority.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	a := &Authority{t: t, next: 2}
	a.key = newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Parley's tests"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	check(t, err)
	a.cert, err = x509.ParseCertificate(der)
	check(t, err)
	return a
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	return key
}

// Issue returns the PEM texts of a new certificate for localhost and
// 127.0.0.1 that ends then, and of its key.
func (a *Authority) Issue(notAfter time.Time) (cert, key []byte) {
	a.t.Helper()
	private := newKey(a.t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(a.next), Subject: pkix.Name{CommonName: "localhost"},
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: notAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	a.next++
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &private.PublicKey, a.key)
	check(a.t, err)
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	check(a.t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
}

// Files puts a new pair that ends then into dir, each file in one step, and
// returns their paths and the certificate's serial number.
func (a *Authority) Files(dir string, notAfter time.Time) (cert, key string, serial int64) {
	a.t.Helper()
	serial = a.next
	c, k := a.Issue(notAfter)
	cert, key = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	Replace(a.t, cert, c)
	Replace(a.t, key, k)
	return cert, key, serial
}

// Replace writes a file in one step.
func Replace(t testing.TB, path string, b []byte) {
	t.Helper()
	check(t, os.WriteFile(path+".new", b, 0o600))
	check(t, os.Rename(path+".new", path))
}

// Pair returns a certificate for a server of the test.
func (a *Authority) Pair() tls.Certificate {
	a.t.Helper()
	pair, err := tls.X509KeyPair(a.Issue(time.Now().Add(time.Hour)))
	check(a.t, err)
	return pair
}

// Client returns the configuration of a client that trusts this authority
// alone.
func (a *Authority) Client() *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return &tls.Config{RootCAs: pool, ServerName: "localhost", MinVersion: tls.VersionTLS12}
}
