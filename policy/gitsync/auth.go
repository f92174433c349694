package gitsync

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/crypto/ssh"

	"parley/core/atomicfile"
)

// Auth is how the server is asked for a private repository. Secrets are named
// by where they lie and read for each poll, so that they can be replaced while
// the server runs; they appear in no log and no error.
type Auth struct {
	// User is the user name that goes with the token, or for ssh; the URL's own
	// wins for ssh. "" is "git".
	User string
	// TokenFile or TokenEnv, a variable of the environment, holds the token or
	// password for https.
	TokenFile, TokenEnv string
	// SSHKeyFile is the private key, without a passphrase; KnownHostsFile lists
	// the server's key. ssh needs both.
	SSHKeyFile, KnownHostsFile string
	// CAFile holds certificates (PEM) that are trusted besides the system's.
	CAFile string
}

const (
	defaultUser    = "git"
	maxSecretBytes = 64 << 10 // of a token, key or certificate file
)

// validateAuth names the first field of Auth that does not fit the URL.
func (c Config) validateAuth() error {
	ep, err := c.endpoint()
	if err != nil {
		return err
	}
	a := c.Auth
	token := a.TokenFile != "" || a.TokenEnv != ""
	switch {
	case a.TokenFile != "" && a.TokenEnv != "":
		return errors.New("policy.git.auth.token_file and policy.git.auth.token_env are both set; the token lies in one place")
	case ep.ssh() && (a.SSHKeyFile == "" || a.KnownHostsFile == ""):
		return fmt.Errorf("policy.git.url %q needs policy.git.auth.ssh_key_file and policy.git.auth.known_hosts_file", c.display())
	case !ep.ssh() && (a.SSHKeyFile != "" || a.KnownHostsFile != ""):
		return errors.New("policy.git.auth.ssh_key_file and known_hosts_file are for ssh, which policy.git.url is not")
	case token && (ep.url == nil || ep.ssh()):
		return errors.New("policy.git.auth.token_file and token_env are for https, which policy.git.url is not")
	case token && ep.url.User != nil:
		return errors.New("policy.git.url holds credentials, and so does policy.git.auth; keep the latter")
	case token && ep.url.Scheme == "http" && !loopback(ep.url.Hostname()):
		return errors.New("policy.git.url is http, which would show the token to everybody on the way; use https")
	case a.CAFile != "" && (ep.url == nil || ep.url.Scheme != "https"):
		return errors.New("policy.git.auth.ca_file is for https, which policy.git.url is not")
	}
	return nil
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// user is who asks.
func (a Auth) user() string {
	if a.User == "" {
		return defaultUser
	}
	return a.User
}

// token reads the token; "" when none is configured.
func (a Auth) token() (string, error) {
	switch {
	case a.TokenFile != "":
		b, err := atomicfile.Read(a.TokenFile, maxSecretBytes)
		if err != nil {
			return "", fmt.Errorf("read policy.git.auth.token_file: %w", err)
		}
		if token := string(bytes.TrimSpace(b)); token != "" && !strings.ContainsAny(token, "\r\n") {
			return token, nil
		}
		return "", fmt.Errorf("read policy.git.auth.token_file: %s holds no token or more than one line", a.TokenFile)
	case a.TokenEnv != "":
		if token := strings.TrimSpace(os.Getenv(a.TokenEnv)); token != "" {
			return token, nil
		}
		return "", fmt.Errorf("read policy.git.auth.token_env: the variable %s is not set", a.TokenEnv)
	}
	return "", nil
}

// signer reads the private key.
func (a Auth) signer() (ssh.Signer, error) {
	b, err := atomicfile.Read(a.SSHKeyFile, maxSecretBytes)
	if err != nil {
		return nil, fmt.Errorf("read policy.git.auth.ssh_key_file: %w", err)
	}
	key, err := ssh.ParsePrivateKey(b)
	var locked *ssh.PassphraseMissingError
	switch {
	case errors.As(err, &locked):
		return nil, fmt.Errorf("read policy.git.auth.ssh_key_file: %s has a passphrase, and nobody is here to type it; make a deploy key without", a.SSHKeyFile)
	case err != nil: // the library's error is about the content, which stays here
		return nil, fmt.Errorf("read policy.git.auth.ssh_key_file: %s is no private key", a.SSHKeyFile)
	}
	return key, nil
}

// transport returns what https goes through, and what closes it.
func (a Auth) transport() (http.RoundTripper, func(), error) {
	if a.CAFile == "" {
		return http.DefaultTransport, func() {}, nil
	}
	pem, err := atomicfile.Read(a.CAFile, maxSecretBytes)
	if err != nil {
		return nil, nil, fmt.Errorf("read policy.git.auth.ca_file: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, nil, fmt.Errorf("read policy.git.auth.ca_file: %s holds no certificate", a.CAFile)
	}
	t := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{}).DialContext, ForceAttemptHTTP2: true,
		TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
	}
	return t, t.CloseIdleConnections, nil
}
