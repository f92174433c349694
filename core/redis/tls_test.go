package redis_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"parley/core/redis"
	"parley/core/redis/redistest"
)

// authority signs certificates for one test.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.make("ca", &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil)
	return a
}

// issue makes a certificate and returns its files.
func (a *authority) issue(name string, hosts ...net.IP) (cert, key string) {
	a.t.Helper()
	a.make(name, &x509.Certificate{
		IPAddresses: hosts, DNSNames: []string{name + ".example"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a)
	return a.file(name + ".pem"), a.file(name + ".key")
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

func (a *authority) make(name string, c *x509.Certificate, by *authority) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c.SerialNumber, c.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: name}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := c, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name+".pem", "CERTIFICATE", der)
	a.write(name+".key", "PRIVATE KEY", keyDER)
	done, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return done, key
}

func (a *authority) write(name, kind string, der []byte) {
	a.t.Helper()
	if err := os.WriteFile(a.file(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// serve are the files of servers.
func (a *authority) serve() redistest.TLS {
	a.t.Helper()
	cert, key := a.issue("server", net.IPv4(127, 0, 0, 1))
	return redistest.TLS{Cert: cert, Key: key, CA: a.file("ca.pem")}
}

func TestTLS(t *testing.T) {
	a := newAuthority(t)
	server := redistest.Start(t, redistest.Options{TLS: a.serve()})
	cert, key := a.issue("node")
	whole := redis.TLS{CAFile: a.file("ca.pem"), CertFile: cert, KeyFile: key}
	with := func(edit func(*redis.TLS)) *redis.Client {
		tls := whole
		edit(&tls)
		return open(t, "rediss://"+server.TLSAddr(), func(c *redis.Config) { quickProbes(c); c.TLS = tls })
	}
	for _, tt := range []struct {
		name string
		edit func(*redis.TLS)
		want string // part of the error
	}{
		{"as it should be", func(*redis.TLS) {}, ""},
		{"the name in the certificate", func(c *redis.TLS) { c.ServerName = "server.example" }, ""},
		{"another name", func(c *redis.TLS) { c.ServerName = "other.example" }, "not other.example"},
		{"an unknown authority", func(c *redis.TLS) { c.CAFile = "" }, "unknown authority"},
		{"no certificate of its own", func(c *redis.TLS) { c.CertFile, c.KeyFile = "", "" }, " at 127.0.0.1:"},
	} {
		err := with(tt.edit).Ping(t.Context())
		if tt.want == "" && err != nil || tt.want != "" && (!errors.Is(err, redis.ErrUnavailable) || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
	c := with(func(*redis.TLS) {})
	e := newEar()
	listen(t, c, e).Subscribe("a")
	e.await(t, "the subscription", func() bool { return e.doubts["a"] > 0 })
	if err := c.Publish(t.Context(), "a", "hello"); err != nil {
		t.Fatal(err)
	}
	e.await(t, "the message", func() bool { return len(e.heard["a"]) == 1 })

	// The certificate is read for each connection: one that the servers do not
	// take shows in the next.
	newAuthority(t).issueTo(cert, key)
	next := with(func(*redis.TLS) {})
	if err := next.Ping(t.Context()); !errors.Is(err, redis.ErrUnavailable) {
		t.Errorf("with a stranger's certificate: got %v, want ErrUnavailable", err)
	}
	a.issueTo(cert, key)
	awaiting(t, "the renewed certificate", func() error { return next.Ping(t.Context()) })
}

// issueTo puts a certificate in place of another.
func (a *authority) issueTo(cert, key string) {
	a.t.Helper()
	fromCert, fromKey := a.issue("node")
	for from, to := range map[string]string{fromCert: cert, fromKey: key} {
		b, err := os.ReadFile(from)
		if err != nil {
			a.t.Fatal(err)
		}
		if err := os.WriteFile(to, b, 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
}

func TestTLSCluster(t *testing.T) {
	a := newAuthority(t)
	cluster := redistest.StartCluster(t, 1, 0, redistest.Options{TLS: a.serve(), Args: []string{"--tls-cluster", "yes"}})
	cert, key := a.issue("node")
	c := open(t, "rediss-cluster://"+cluster.Masters[0].TLSAddr(), func(c *redis.Config) {
		c.TLS = redis.TLS{CAFile: a.file("ca.pem"), CertFile: cert, KeyFile: key}
	})
	if _, err := c.Do(t.Context(), "set", "a", "1"); err != nil {
		t.Errorf("got %v", err)
	}
}

// TestTLSSentinel has the client, the servers and the sentinels speak TLS with
// each other, all with certificates, and the primary die.
func TestTLSSentinel(t *testing.T) {
	a := newAuthority(t)
	files := a.serve()
	primary := redistest.Start(t, redistest.Options{TLS: files})
	replica := redistest.StartReplica(t, primary, redistest.Options{TLS: files})
	sentinels := redistest.StartSentinels(t, 3, primary, replica)
	cert, key := a.issue("node")
	c := open(t, sentinels.URL(), func(c *redis.Config) {
		quickProbes(c)
		c.TLS = redis.TLS{CAFile: files.CA, CertFile: cert, KeyFile: key}
	})
	e := newEar()
	listen(t, c, e).Subscribe("a")
	if _, err := c.Do(t.Context(), "set", "k", "before"); err != nil {
		t.Fatal(err)
	}
	e.await(t, "the subscription", func() bool { return e.doubts["a"] == 1 })
	for _, s := range []*redistest.Server{primary, replica, sentinels.All[0]} {
		if _, err := open(t, "redis://"+s.TLSAddr(), nil).Do(t.Context(), "ping"); !errors.Is(err, redis.ErrUnavailable) {
			t.Errorf("without TLS at %s: got %v, want ErrUnavailable", s.TLSAddr(), err)
		}
	}
	primary.AwaitReplica()
	primary.Kill()
	goesOn(t, c, e)
	if got := replica.Do("GET", "k"); got != "after" {
		t.Errorf("at the new primary: got %q, want after", got)
	}

	// A sentinel whose certificate is a stranger's is not believed.
	other := newAuthority(t)
	c = open(t, sentinels.URL(), func(c *redis.Config) { c.TLS = redis.TLS{CAFile: other.file("ca.pem"), CertFile: cert, KeyFile: key} })
	if err := c.Ping(t.Context()); !errors.Is(err, redis.ErrUnavailable) || !strings.Contains(err.Error(), "ask the sentinel 127.0.0.1:") {
		t.Errorf("with another authority: got %v, want the sentinel named", err)
	}
}

func TestTLSSettings(t *testing.T) {
	a := newAuthority(t)
	cert, key := a.issue("node")
	nothing := filepath.Join(a.dir, "nothing.pem")
	for _, tt := range []struct {
		name, url string
		tls       redis.TLS
		want      string
	}{
		{"no such authority", "rediss://h", redis.TLS{CAFile: nothing}, "redis.tls.ca_file"},
		{"a key as authority", "rediss://h", redis.TLS{CAFile: key}, "at least one certificate"},
		{"a certificate alone", "rediss://h", redis.TLS{CertFile: cert}, "want both or none"},
		{"swapped", "rediss://h", redis.TLS{CertFile: key, KeyFile: cert}, "redis.tls.cert_file"},
		{"no TLS", "redis://h", redis.TLS{CAFile: a.file("ca.pem")}, "write rediss"},
	} {
		cfg := redis.Defaults()
		cfg.URL, cfg.TLS = tt.url, tt.tls
		if _, err := redis.Open(cfg, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestPasswordFile(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	server.Do("ACL", "SETUSER", "ann", "on", ">one", "~*", "&*", "+@all")
	file := filepath.Join(t.TempDir(), "password")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("one\n")
	url := strings.Replace(server.URL(), "//", "//ann@", 1)
	c := open(t, url, func(c *redis.Config) { c.PasswordFile = file })
	if got, err := c.Do(t.Context(), "acl", "whoami"); err != nil || got != "ann" {
		t.Errorf("got %v, %v, want ann", got, err)
	}
	// The password changes, and so does what the server takes: no restart.
	server.Do("ACL", "SETUSER", "ann", "resetpass", ">two")
	server.Do("CLIENT", "KILL", "USER", "ann")
	write("two")
	awaiting(t, "the new password", func() error { return c.Ping(t.Context()) })
	server.Do("CLIENT", "KILL", "USER", "ann")
	write("three")
	awaiting(t, "the wrong password", func() error {
		if err := c.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), "WRONGPASS") {
			return fmt.Errorf("got %v, want WRONGPASS", err)
		}
		return nil
	})
	for _, tt := range []struct{ name, url, file, text, want string }{
		{"both", strings.Replace(url, "ann@", "ann:x@", 1), file, "one", "want one of them"},
		{"no file", url, file + "x", "", "redis.password_file"},
		{"empty", url, file, "\n", "it is empty"},
		{"long", url, file, strings.Repeat("x", 5000), "has more than 4096 bytes"},
	} {
		write(tt.text)
		cfg := redis.Defaults()
		cfg.URL, cfg.PasswordFile = tt.url, tt.file
		if _, err := redis.Open(cfg, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestSentinelUser(t *testing.T) {
	primary := redistest.Start(t, redistest.Options{})
	sentinels := redistest.StartSentinels(t, 1, primary)
	sentinels.All[0].Do("ACL", "SETUSER", "parley", "on", ">secret", "-@all", "+sentinel|master")
	file := filepath.Join(t.TempDir(), "password")
	for text, want := range map[string]string{"secret": "", "wrong": "WRONGPASS"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c := open(t, sentinels.URL(), func(c *redis.Config) { c.SentinelUser, c.SentinelPasswordFile = "parley", file })
		if err := c.Ping(t.Context()); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("password %s: got %v, want %q", text, err, want)
		}
	}
	cfg := redis.Defaults()
	cfg.URL, cfg.SentinelUser = primary.URL(), "parley"
	if _, err := redis.Open(cfg, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "names no sentinels") {
		t.Errorf("a sentinel's user without one: got %v", err)
	}
}
