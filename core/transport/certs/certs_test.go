package certs_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"parley/core/transport/certs"
	"parley/core/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// lockedBuffer is a log that two goroutines may use.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(transporttest.Patience); !cond(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("it did not come true: %s", what)
		}
	}
}

// keep starts a keeper of a new pair in dir.
func keep(t *testing.T, cert, key string) (*certs.Keeper, *lockedBuffer) {
	t.Helper()
	log := new(lockedBuffer)
	cfg := certs.Defaults()
	cfg.CertFile, cfg.KeyFile = cert, key
	cfg.Watch.Quiet, cfg.Watch.Rescan = 10*time.Millisecond, 200*time.Millisecond
	k, err := certs.New(cfg, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := k.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { stop(); running.Wait() })
	return k, log
}

// serial is the number of the certificate that a client would be shown.
func serial(t *testing.T, k *certs.Keeper) int64 {
	t.Helper()
	c, err := k.Server().GetCertificate(&tls.ClientHelloInfo{})
	if err != nil {
		t.Fatal(err)
	}
	return c.Leaf.SerialNumber.Int64()
}

func TestAChangedPairIsTaken(t *testing.T) {
	a, dir := transporttest.NewAuthority(t), t.TempDir()
	end := time.Now().Add(2000 * time.Hour).Truncate(time.Second)
	cert, key, first := a.Files(dir, end)
	k, log := keep(t, cert, key)
	if got := serial(t, k); got != first || !k.NotAfter().Equal(end) {
		t.Errorf("got certificate %d until %v, want %d until %v", got, k.NotAfter(), first, end)
	}
	_, _, second := a.Files(dir, end.Add(time.Hour))
	await(t, "the new pair is in force", func() bool { return serial(t, k) == second })
	if k.Reloads() != 1 || !k.NotAfter().Equal(end.Add(time.Hour)) {
		t.Errorf("got %d reloads, until %v", k.Reloads(), k.NotAfter())
	}
	if strings.Contains(log.String(), "ends soon") {
		t.Errorf("got %s for a certificate that does not end soon", log)
	}
}

func TestABrokenPairChangesNothing(t *testing.T) {
	a := transporttest.NewAuthority(t)
	other, otherKey := a.Issue(time.Now().Add(time.Hour))
	expired, expiredKey := a.Issue(time.Now().Add(-time.Hour))
	tests := []struct {
		name      string
		cert, key []byte // nil = deleted
		says      string
	}{
		{"not PEM", []byte("x"), []byte("y"), "find any PEM"},
		{"the key of another", other, expiredKey, "private key does not match"},
		{"ended", expired, expiredKey, "the certificate ended"},
		{"deleted", nil, otherKey, "no such file"},
		{"no end", bytes.Repeat([]byte("x"), 1<<20+1), otherKey, "more than 1048576 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			// Two folders, as where the key is kept apart.
			certDir, keyDir := t.TempDir(), t.TempDir()
			cert, key, first := a.Files(certDir, time.Now().Add(time.Hour))
			if err := os.Rename(key, filepath.Join(keyDir, "tls.key")); err != nil {
				t.Fatal(err)
			}
			key = filepath.Join(keyDir, "tls.key")
			good, err := os.ReadFile(cert)
			if err != nil {
				t.Fatal(err)
			}
			goodKey, err := os.ReadFile(key)
			if err != nil {
				t.Fatal(err)
			}
			k, log := keep(t, cert, key)
			transporttest.Replace(t, key, tt.key)
			if tt.cert == nil {
				err = os.Remove(cert)
			} else {
				transporttest.Replace(t, cert, tt.cert)
			}
			if err != nil {
				t.Fatal(err)
			}
			await(t, "the log says "+tt.says, func() bool { return strings.Contains(log.String(), tt.says) })
			if got := serial(t, k); got != first || k.Failures() == 0 || k.Reloads() != 0 {
				t.Errorf("got certificate %d after %d failures and %d reloads, want %d", got, k.Failures(), k.Reloads(), first)
			}
			// The old files again are no change, and new ones are taken.
			transporttest.Replace(t, cert, good)
			transporttest.Replace(t, key, goodKey)
			transporttest.Replace(t, cert, other)
			transporttest.Replace(t, key, otherKey)
			await(t, "a good pair is taken", func() bool { return serial(t, k) != first })
		})
	}
}

func TestNewSaysWhatIsWrong(t *testing.T) {
	a, dir := transporttest.NewAuthority(t), t.TempDir()
	cert, key, _ := a.Files(dir, time.Now().Add(-time.Hour))
	for name, tt := range map[string]struct {
		change func(*certs.Config)
		says   string
	}{
		"no such file": {func(c *certs.Config) { c.CertFile = filepath.Join(dir, "none") }, "load the TLS certificate"},
		"no such key":  {func(c *certs.Config) { c.KeyFile = filepath.Join(dir, "none") }, "load the TLS certificate"},
		"ended":        {func(*certs.Config) {}, "the certificate ended"},
		"TLS 1.1":      {func(c *certs.Config) { c.MinVersion = tls.VersionTLS11 }, "below TLS 1.2"},
	} {
		cfg := certs.Defaults()
		cfg.CertFile, cfg.KeyFile = cert, key
		tt.change(&cfg)
		if _, err := certs.New(cfg, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: got %v, want it to say %q", name, err, tt.says)
		}
	}
}

func TestRunRefusesABadWatch(t *testing.T) {
	a, dir := transporttest.NewAuthority(t), t.TempDir()
	cfg := certs.Defaults()
	cfg.CertFile, cfg.KeyFile, _ = a.Files(dir, time.Now().Add(time.Hour))
	cfg.Watch.Rescan = 0
	k, err := certs.New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Run(t.Context()); err == nil {
		t.Error("got no error")
	}
}
