package release

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"parley/core/atomicfile"
)

// Patch is one change that takes a canary back, as an HTTP request: a JSON
// merge patch (RFC 7396) of a Kubernetes object, say.
type Patch struct {
	URL  string
	Body []byte
}

// Patcher sends patches.
type Patcher struct {
	// TokenFile holds a bearer token, read for each request, since Kubernetes
	// renews it; empty: none.
	TokenFile string
	// CAFile holds the certificates the server's is checked against; empty: those of the system.
	CAFile string
}

// Bounds of taking back.
const (
	patchTries   = 6
	patchTimeout = 10 * time.Second
	firstPause   = time.Second // doubled after each failure
	maxFile      = 1 << 20     // bytes of a token or of certificates
)

// Apply sends the patches in their order, each until it is accepted or has
// failed six times, over half a minute: a canary that should be gone must not
// stay because the API was restarted. One that fails does not keep the others
// from being sent.
func (p Patcher) Apply(ctx context.Context, patches []Patch) error {
	client, err := p.client()
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	var errs []error
	for _, patch := range patches {
		errs = append(errs, p.insist(ctx, client, patch))
	}
	return errors.Join(errs...)
}

func (p Patcher) insist(ctx context.Context, client *http.Client, patch Patch) (err error) {
	for try, pause := 1, firstPause; ; try, pause = try+1, 2*pause {
		var final bool
		if final, err = p.send(ctx, client, patch); err == nil || final || try == patchTries {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return errors.Join(err, context.Cause(ctx))
		}
	}
}

// send sends one patch. final says that trying again would not help.
func (p Patcher) send(ctx context.Context, client *http.Client, patch Patch) (final bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPatch, patch.URL, bytes.NewReader(patch.Body))
	if err != nil {
		return true, fmt.Errorf("patch %s: %w", patch.URL, err)
	}
	req.Header.Set("Content-Type", "application/merge-patch+json")
	if p.TokenFile != "" {
		token, err := atomicfile.Read(p.TokenFile, maxFile)
		if err != nil {
			return false, fmt.Errorf("read the token for %s: %w", patch.URL, err)
		}
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	resp, err := client.Do(req)
	if err != nil {
		return false, err // names the method and the URL
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
	if resp.StatusCode/100 != 2 {
		return resp.StatusCode/100 == 4 && resp.StatusCode != http.StatusConflict && resp.StatusCode != http.StatusTooManyRequests,
			fmt.Errorf("patch %s: status %d: %.300s", patch.URL, resp.StatusCode, answer)
	}
	return true, nil
}

func (p Patcher) client() (*http.Client, error) {
	t := &http.Transport{Proxy: http.ProxyFromEnvironment}
	if p.CAFile != "" {
		pem, err := atomicfile.Read(p.CAFile, maxFile)
		if err != nil {
			return nil, fmt.Errorf("read the certificates: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate in PEM form", p.CAFile)
		}
		t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return &http.Client{Transport: t, Timeout: patchTimeout}, nil
}
