package gitsync

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// Config says what to follow.
type Config struct {
	// URL is an https:// or http:// URL, a file:// URL, or a path on this
	// machine. Credentials may stand in the URL (https://user:token@host/…);
	// they are never logged.
	URL string
	// Ref is a branch or tag, a full name ("refs/heads/main"), or "HEAD".
	Ref string
	// Path is the folder inside the repository; "" is the whole repository.
	Path string
	// Interval is the time between polls, 10 % more or less each time so that
	// the nodes of a cluster do not ask all at once.
	Interval time.Duration
	// Timeout bounds one poll with its download.
	Timeout time.Duration
	// StateDir is the folder for the last good policy; "" keeps none.
	StateDir string
	// MaxFetchBytes bounds what one poll may receive.
	MaxFetchBytes int64
}

// Defaults returns a Config with everything but URL and StateDir set.
func Defaults() Config {
	return Config{
		Ref:           "main",
		Interval:      4 * time.Second, // a merged change is live within 5 s without any webhook
		Timeout:       30 * time.Second,
		MaxFetchBytes: 32 << 20, // a repository of text with some documents beside it
	}
}

// Validate names the first field that is out of range.
func (c Config) Validate() error {
	if _, err := c.endpoint(); err != nil {
		return err
	}
	switch {
	case c.Ref == "" || strings.HasPrefix(c.Ref, "-") || strings.ContainsAny(c.Ref, " ~^:?*[\\\x00") || strings.Contains(c.Ref, ".."):
		return fmt.Errorf("policy.git.ref %q is not a branch, a tag, a full ref name or HEAD", c.Ref)
	case c.Path != "" && (path.IsAbs(c.Path) || path.Clean(c.Path) == ".." || strings.HasPrefix(path.Clean(c.Path), "../")):
		return fmt.Errorf("policy.git.path %q leads out of the repository", c.Path)
	case c.Interval <= 0:
		return fmt.Errorf("policy.git.interval %v must be above zero", c.Interval)
	case c.Timeout <= 0:
		return fmt.Errorf("git timeout %v must be above zero", c.Timeout)
	case c.MaxFetchBytes <= 0:
		return fmt.Errorf("git fetch bound %d must be above zero", c.MaxFetchBytes)
	}
	return nil
}

// endpoint is where the repository is: a URL, or a local path.
type endpoint struct {
	url  *url.URL // nil for a local path
	path string
}

func (c Config) endpoint() (endpoint, error) {
	if c.URL == "" {
		return endpoint{}, errors.New("policy.git.url is empty")
	}
	scheme, rest, ok := strings.Cut(c.URL, "://")
	if !ok {
		if strings.HasPrefix(c.URL, "-") || isSCP(c.URL) {
			return endpoint{}, fmt.Errorf("policy.git.url %q is neither a path nor an https, http or file URL", c.display())
		}
		return endpoint{path: c.URL}, nil
	}
	switch scheme {
	case "file":
		if !filepath.IsAbs(rest) {
			return endpoint{}, fmt.Errorf("policy.git.url %q needs three slashes and an absolute path: file:///srv/policy.git", c.URL)
		}
		return endpoint{path: rest}, nil
	case "https", "http":
		u, err := url.Parse(c.URL)
		if err != nil || u.Host == "" {
			return endpoint{}, fmt.Errorf("policy.git.url %q is malformed", c.display())
		}
		return endpoint{url: u}, nil
	}
	return endpoint{}, fmt.Errorf("policy.git.url has the scheme %q; https, http, file and plain paths are supported", scheme)
}

// isSCP reports whether s is git's short form of an ssh URL, host:path.
func isSCP(s string) bool {
	colon := strings.IndexByte(s, ':')
	return colon > 0 && !strings.Contains(s[:colon], "/")
}

// display is the URL without credentials, for people and logs.
func (c Config) display() string {
	if !strings.Contains(c.URL, "://") {
		return c.URL
	}
	u, err := url.Parse(c.URL)
	if err != nil {
		return "(malformed URL)"
	}
	u.User = nil
	return u.String()
}

// redact removes the URL's credentials from an error's text.
func (c Config) redact(err error) error {
	u, perr := url.Parse(c.URL)
	if err == nil || perr != nil || u.User == nil {
		return err
	}
	text := strings.ReplaceAll(err.Error(), u.User.String()+"@", "")
	if secret, ok := u.User.Password(); ok && secret != "" {
		text = strings.ReplaceAll(text, secret, "***")
	}
	if text == err.Error() {
		return err
	}
	return errors.New(text)
}

// dir is Path in the form the tree walk wants: clean, "" for the root.
func (c Config) dir() string {
	if p := path.Clean(strings.Trim(c.Path, "/")); p != "." {
		return p
	}
	return ""
}

// identity names what is followed; a last good policy of something else is not
// ours to restore. Credentials do not count: a new token is the same repository.
func (c Config) identity() string {
	sum := sha256.Sum256([]byte(c.display() + "\x00" + c.Ref + "\x00" + c.dir()))
	return hex.EncodeToString(sum[:])
}
