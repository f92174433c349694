package e2e

import (
	"crypto/tls"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"parley/core/client"
	"parley/core/transport/transporttest"
)

// TestTLSOnBothListeners talks over wss and TLS, and changes the certificate
// under living connections.
func TestTLSOnBothListeners(t *testing.T) {
	t.Parallel()
	authority, dir := transporttest.NewAuthority(t), t.TempDir()
	soon := time.Now().Add(time.Hour).Truncate(time.Second)
	cert, key, first := authority.Files(dir, soon)
	n := startNode(t, settings{"tls.cert_file": cert, "tls.key_file": key})
	wss, tcps := "wss://"+n.HTTP+"/v1/ws", "tls://"+n.TCP
	ann := visit(t, client.Options{URL: wss, Guest: "ann", TLS: authority.Client()})
	bob := visit(t, client.Options{URL: tcps, Guest: "bob", TLS: authority.Client()})
	ann.enters("lobby")
	bob.enters("lobby")
	_, nonce := ann.says("lobby", "is anyone listening in?")
	bob.hears(nonce)
	_, nonce = bob.says("lobby", strings.Repeat("no ", 1000))
	ann.hears(nonce)

	for _, addr := range []string{n.HTTP, n.TCP} {
		if got := serial(t, authority, addr); got != first {
			t.Errorf("%s: got certificate %d, want %d", addr, got, first)
		}
	}
	if got := n.Metric("parley_tls_certificate_not_after_seconds"); int64(got) != soon.Unix() {
		t.Errorf("got the end %v, want %v", got, soon.Unix())
	}

	if err := os.WriteFile(key, []byte("half a key"), 0o600); err != nil {
		t.Fatal(err)
	}
	await(t, "the broken pair was refused", func() bool { return n.Metric("parley_tls_reload_failures_total") > 0 })
	if got := serial(t, authority, n.HTTP); got != first {
		t.Errorf("got certificate %d after a broken one, want %d", got, first)
	}
	n.Logs("the old one stays")
	_, _, second := authority.Files(dir, soon.Add(time.Hour))
	for _, addr := range []string{n.HTTP, n.TCP} {
		await(t, addr+" uses the new certificate", func() bool { return serial(t, authority, addr) == second })
	}
	_, nonce = ann.says("lobby", "still here")
	bob.hears(nonce)

	if _, err := client.Dial(within(t), client.Options{URL: n.WSURL()}); err == nil {
		t.Error("the HTTP listener speaks without TLS too")
	}
	n.Stop()
	for name, v := range map[string]*visitor{"wss": ann, "tls": bob} {
		if ce := v.closed(); ce.Code != 1012 {
			t.Errorf("%s: closed with %v, want 1012", name, ce)
		}
	}
}

// serial returns the number of the certificate that addr shows. The
// connection speaks TLS 1.3 and ends.
func serial(t *testing.T, a *transporttest.Authority, addr string) int64 {
	t.Helper()
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", addr, a.Client())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	state := c.ConnectionState()
	if state.Version != tls.VersionTLS13 {
		t.Errorf("%s: got TLS version %#x, want 1.3", addr, state.Version)
	}
	return state.PeerCertificates[0].SerialNumber.Int64()
}
