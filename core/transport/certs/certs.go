// Package certs keeps the TLS certificate of the listeners: read from two PEM
// files, and read again when they change.
//
// A pair that cannot be used (half written, a key that is not the
// certificate's, expired) changes nothing: the pair before it stays in force,
// the log says why, and the counter of failures grows. New handshakes use the
// pair in force; connections that exist go on with the one they have.
package certs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"parley/core/atomicfile"
	"parley/core/watch"
)

// maxFileBytes bounds a file: a chain of a few certificates has some 10 KiB.
const maxFileBytes = 1 << 20

// warnBefore is how long before its end a certificate is called to the
// operator's attention when it is loaded.
const warnBefore = 7 * 24 * time.Hour

// Config says where the pair is.
type Config struct {
	CertFile   string // PEM: the certificate first, then its chain
	KeyFile    string // PEM; may be the same file
	MinVersion uint16 // tls.VersionTLS12 or tls.VersionTLS13
	Watch      watch.Config
}

// Defaults returns a Config with everything but the files set.
func Defaults() Config {
	return Config{MinVersion: tls.VersionTLS12, Watch: watch.Defaults()}
}

// Keeper keeps one pair. Its methods may be called from any goroutine.
type Keeper struct {
	cfg Config
	log *slog.Logger

	pair      atomic.Pointer[pair]
	reloads   atomic.Uint64
	failures  atomic.Uint64
	reloading sync.Mutex
	refused   [sha256.Size]byte // under reloading: the content that was refused last
}

// pair is a certificate that can be used.
type pair struct {
	cert tls.Certificate
	sum  [sha256.Size]byte // of both files
}

// New reads the pair. It starts nothing; see Run.
func New(cfg Config, log *slog.Logger) (*Keeper, error) {
	if cfg.MinVersion < tls.VersionTLS12 {
		return nil, fmt.Errorf("certs: MinVersion %#x is below TLS 1.2 (RFC 8996)", cfg.MinVersion)
	}
	k := &Keeper{cfg: cfg, log: log}
	p, err := k.read()
	if err == nil {
		err = p.usable(time.Now())
	}
	if err != nil {
		return nil, fmt.Errorf("load the TLS certificate: %w", err)
	}
	k.take(p)
	return k, nil
}

// Run reads the pair again whenever its files change, until ctx ends; it
// returns nil then.
func (k *Keeper) Run(ctx context.Context) error {
	dirs := []string{filepath.Dir(k.cfg.CertFile)}
	if d := filepath.Dir(k.cfg.KeyFile); d != dirs[0] {
		dirs = append(dirs, d)
	}
	watching := make([]*watch.Watcher, len(dirs))
	for i, dir := range dirs {
		cfg := k.cfg.Watch
		cfg.Dir = dir
		w, err := watch.New(cfg, k.log, func(context.Context) { k.reload() })
		if err != nil {
			return err
		}
		watching[i] = w
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	errs := make([]error, len(watching))
	var running sync.WaitGroup
	for i, w := range watching {
		running.Go(func() {
			defer stop()
			errs[i] = w.Run(ctx)
		})
	}
	running.Wait()
	return errors.Join(errs...)
}

// Server returns the configuration of a listener's TLS. protocols are offered
// in ALPN (RFC 7301); none switches it off. The caller must not change it.
func (k *Keeper) Server(protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion:     k.cfg.MinVersion,
		NextProtos:     protocols,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &k.pair.Load().cert, nil },
		// What is written is one frame or a batch of them, and full records
		// cost fewer writes.
		DynamicRecordSizingDisabled: true,
	}
}

// NotAfter returns when the certificate in force ends.
func (k *Keeper) NotAfter() time.Time { return k.pair.Load().cert.Leaf.NotAfter }

// Reloads returns how often a new pair was taken into force.
func (k *Keeper) Reloads() uint64 { return k.reloads.Load() }

// Failures returns how often a changed pair could not be used.
func (k *Keeper) Failures() uint64 { return k.failures.Load() }

// reload takes the files' present content into force if it is new and usable.
func (k *Keeper) reload() {
	k.reloading.Lock()
	defer k.reloading.Unlock()
	old := k.pair.Load()
	p, err := k.read()
	switch {
	case p.sum == old.sum:
		k.refused = [sha256.Size]byte{} // whatever was refused is gone
		return
	case p.sum == k.refused:
		return // said already
	case err == nil:
		err = p.usable(time.Now())
	}
	if err != nil {
		k.refused = p.sum
		k.failures.Add(1)
		k.log.Error("the new TLS certificate cannot be used; the old one stays", slog.Any("error", err),
			slog.Time("old_not_after", old.cert.Leaf.NotAfter))
		return
	}
	k.refused = [sha256.Size]byte{}
	k.reloads.Add(1)
	k.take(p)
	k.log.Info("TLS certificate changed", slog.Any("names", p.cert.Leaf.DNSNames), slog.Time("not_after", p.cert.Leaf.NotAfter))
}

func (k *Keeper) take(p *pair) {
	k.pair.Store(p)
	if left := time.Until(p.cert.Leaf.NotAfter); left < warnBefore {
		k.log.Warn("the TLS certificate ends soon; replace its files, they are read again by themselves",
			slog.String("cert_file", k.cfg.CertFile), slog.Duration("left", left.Round(time.Minute)))
	}
}

// read reads both files. With an error the pair has a sum alone, which is the
// same for the same mistake.
func (k *Keeper) read() (*pair, error) {
	cert, err := atomicfile.Read(k.cfg.CertFile, maxFileBytes)
	if err != nil {
		return &pair{sum: sha256.Sum256([]byte(err.Error()))}, err
	}
	key, err := atomicfile.Read(k.cfg.KeyFile, maxFileBytes)
	if err != nil {
		return &pair{sum: sha256.Sum256([]byte(err.Error()))}, err
	}
	p := &pair{sum: sha256.Sum256(bytes.Join([][]byte{cert, key}, []byte{0}))}
	if p.cert, err = tls.X509KeyPair(cert, key); err != nil {
		return p, fmt.Errorf("%s with %s: %w", k.cfg.CertFile, k.cfg.KeyFile, err)
	}
	if p.cert.Leaf == nil { // GODEBUG x509keypairleaf=0
		p.cert.Leaf, err = x509.ParseCertificate(p.cert.Certificate[0])
	}
	return p, err
}

// usable says why no client would take the certificate now.
func (p *pair) usable(now time.Time) error {
	if end := p.cert.Leaf.NotAfter; now.After(end) {
		return fmt.Errorf("the certificate ended %s", end.UTC().Format(time.RFC3339))
	}
	return nil
}
