package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"

	"parley/core/absent"
)

// Bounds of what is read of an answer.
const (
	maxAnswer       = 16 << 10 // bytes read so that the connection can be used again
	maxReason       = 200      // bytes of it that are kept
	maxAnswerHeader = 16 << 10
	maxRetryAfter   = time.Hour // a longer wait is not believed
)

// verdict says what an attempt came to.
type verdict struct {
	ok     bool
	final  bool          // trying again is of no use
	sick   bool          // the endpoint, not the item, is at fault
	after  time.Duration // the endpoint asked for that long a pause; 0 = it did not
	reason string        // why not, for people
}

// newClient makes what posts. It follows no redirect: a signed message goes where
// the operator said and nowhere else.
func newClient(cfg Config) (*http.Client, error) {
	tr := &http.Transport{
		Proxy: http.ProxyFromEnvironment, MaxConnsPerHost: cfg.Concurrency, MaxIdleConnsPerHost: cfg.Concurrency, IdleConnTimeout: 30 * time.Second,
		MaxResponseHeaderBytes: maxAnswerHeader, TLSHandshakeTimeout: cfg.Timeout, ResponseHeaderTimeout: cfg.Timeout, ForceAttemptHTTP2: true,
	}
	if cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read the CA of the webhook: %w", err)
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: there is no certificate in it", cfg.CAFile)
		}
		tr.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	return &http.Client{Transport: tr, Timeout: cfg.Timeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, nil
}

// CheckURL says what is wrong with an endpoint's URL.
func CheckURL(raw string) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return errors.New("the URL of the webhook cannot be read")
	case u.Scheme != "http" && u.Scheme != "https":
		return errors.New("the URL of the webhook must begin with https:// or http://")
	case u.Host == "":
		return errors.New("the URL of the webhook names no host")
	case u.Fragment != "":
		return errors.New("the URL of the webhook has a fragment, which is never sent")
	}
	return nil
}

// post makes one attempt.
func (w *Worker) post(ctx context.Context, e *absent.Entry) verdict {
	b, err := body(e)
	if err != nil {
		return verdict{final: true, reason: "it cannot be written as JSON: " + err.Error()}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.cfg.URL, bytes.NewReader(b))
	if err != nil {
		return verdict{final: true, reason: "the request cannot be made"}
	}
	id, now := e.Key(), time.Now()
	req.Header.Set("content-type", "application/json")
	req.Header.Set("user-agent", "parley-webhook/1")
	req.Header.Set(HeaderID, id)
	req.Header.Set(HeaderTimestamp, strconv.FormatInt(now.Unix(), 10))
	req.Header.Set(HeaderSignature, Sign(w.cfg.Secrets, id, now, b))
	resp, err := w.http.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // without the URL, which may hold a password
		}
		return verdict{sick: true, reason: cut("no answer: " + err.Error())}
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	return judge(resp.StatusCode, resp.Header.Get("retry-after"), answer, now)
}

// judge says what an answer means.
func judge(status int, retryAfter string, answer []byte, now time.Time) verdict {
	if status >= 200 && status < 300 {
		return verdict{ok: true}
	}
	v := verdict{reason: cut(fmt.Sprintf("%d %s: %s", status, http.StatusText(status), answer)), after: parseRetryAfter(retryAfter, now)}
	switch {
	case status >= 300 && status < 400:
		v.final, v.reason = true, cut(fmt.Sprintf("%d %s: redirects are not followed; give the worker the URL that answers", status, http.StatusText(status)))
	case status == http.StatusRequestTimeout || status == http.StatusTooManyRequests:
		v.sick = true
	case status >= 400 && status < 500:
		v.final = true
	default:
		v.sick = true
	}
	return v
}

// parseRetryAfter reads the header Retry-After (RFC 9110 §10.2.3): seconds or a
// date. It is 0 where there is none that can be read, and never above
// maxRetryAfter.
func parseRetryAfter(s string, now time.Time) time.Duration {
	s = strings.TrimSpace(s)
	if s == "" {
		return 0
	}
	d := time.Duration(0)
	if n, err := strconv.ParseUint(s, 10, 32); err == nil {
		d = time.Duration(n) * time.Second
	} else if at, err := http.ParseTime(s); err == nil {
		d = at.Sub(now)
	}
	return min(max(d, 0), maxRetryAfter)
}

// cut makes a text of strangers one short printable line.
func cut(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, " "))
	s = strings.TrimSuffix(strings.Join(strings.Fields(s), " "), ":")
	if len(s) > maxReason {
		s = strings.ToValidUTF8(s[:maxReason], "")
	}
	return s
}
