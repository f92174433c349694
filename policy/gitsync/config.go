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
	// URL is an https://, http://, ssh:// or file:// URL, git's short form of an
	// ssh URL (git@host:path), or a path on this machine. Credentials may stand
	// in the URL (https://user:token@host/…); they are never logged.
	URL string
	// Auth proves to the server who asks.
	Auth Auth
	// Signers are files that name those of whom one must have signed the commit,
	// or the annotated tag where Ref is one (see package signers). They are read
	// again for each poll. None: signatures are not looked at.
	Signers []string
	// Ref is a branch or tag, a full name ("refs/heads/main"), or "HEAD".
	Ref string
	// Path is the folder inside the repository; "" is the whole repository.
	Path string
	// Interval is the time between polls, 10 % more or less each time so that
	// the nodes of a cluster do not ask all at once.
	Interval time.Duration
	// Timeout bounds one poll with its download.
	Timeout time.Duration
	// Debounce is the least time between two polls that were asked for by
	// Trigger. The first is made at once, and of those asked for meanwhile one.
	Debounce time.Duration
	// StateDir is the folder for the last good policy; "" keeps none.
	StateDir string
	// MaxFetchBytes bounds what one poll may receive.
	MaxFetchBytes int64
	// Share has parcels made of what is taken, for other nodes.
	Share bool
}

// Defaults returns a Config with everything but URL and StateDir set.
func Defaults() Config {
	return Config{
		Ref:           "main",
		Interval:      4 * time.Second, // a merged change is live within 5 s without any webhook
		Timeout:       30 * time.Second,
		Debounce:      500 * time.Millisecond, // a merge makes several calls of a webhook
		MaxFetchBytes: 32 << 20,               // a repository of text with some documents beside it
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
	case c.Debounce < 0:
		return fmt.Errorf("git debounce %v must not be below zero", c.Debounce)
	case c.MaxFetchBytes <= 0:
		return fmt.Errorf("git fetch bound %d must be above zero", c.MaxFetchBytes)
	}
	return c.validateAuth()
}

// endpoint is where the repository is: a URL, or a local path.
type endpoint struct {
	url  *url.URL // nil for a local path; git's short form is an ssh URL here
	path string   // of a local one, or as an ssh server is told it
}

func (e endpoint) ssh() bool { return e.url != nil && e.url.Scheme == "ssh" }

func (c Config) endpoint() (endpoint, error) {
	if c.URL == "" {
		return endpoint{}, errors.New("policy.git.url is empty")
	}
	scheme, rest, ok := strings.Cut(c.URL, "://")
	if !ok {
		return c.shortEndpoint()
	}
	switch scheme {
	case "file":
		if !filepath.IsAbs(rest) {
			return endpoint{}, fmt.Errorf("policy.git.url %q needs three slashes and an absolute path: file:///srv/policy.git", c.URL)
		}
		return endpoint{path: rest}, nil
	case "https", "http", "ssh":
		u, err := url.Parse(c.URL)
		if err != nil || u.Hostname() == "" || strings.HasPrefix(u.Hostname(), "-") {
			return endpoint{}, fmt.Errorf("policy.git.url %q is malformed", c.display())
		}
		ep := endpoint{url: u, path: u.Path}
		if strings.HasPrefix(u.Path, "/~") { // git-fetch(1): a path below somebody's home
			ep.path = u.Path[1:]
		}
		if _, secret := u.User.Password(); secret && scheme == "ssh" {
			return endpoint{}, fmt.Errorf("policy.git.url %q holds a password; ssh is authenticated by policy.git.auth.ssh_key_file alone", c.display())
		}
		return ep, nil
	}
	return endpoint{}, fmt.Errorf("policy.git.url has the scheme %q; https, http, ssh, file and plain paths are supported", scheme)
}

// shortEndpoint reads what has no scheme: a path, or user@host:path.
func (c Config) shortEndpoint() (endpoint, error) {
	if strings.HasPrefix(c.URL, "-") {
		return endpoint{}, fmt.Errorf("policy.git.url %q is neither a path nor an https, http, ssh or file URL", c.URL)
	}
	if !isSCP(c.URL) {
		return endpoint{path: c.URL}, nil
	}
	where, path, _ := strings.Cut(c.URL, ":")
	user, host, named := strings.Cut(where, "@")
	u := &url.URL{Scheme: "ssh", Host: host}
	if named {
		u.User = url.User(user)
	} else {
		u.Host = where
	}
	if u.Host == "" || strings.HasPrefix(u.Host, "-") || path == "" {
		return endpoint{}, fmt.Errorf("policy.git.url %q is malformed", c.URL)
	}
	return endpoint{url: u, path: path}, nil
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

// redact removes the URL's credentials and the given secrets from an error's
// text.
func (c Config) redact(err error, secrets ...string) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	if u, perr := url.Parse(c.URL); perr == nil && u.User != nil {
		text = strings.ReplaceAll(text, u.User.String()+"@", "")
		if secret, ok := u.User.Password(); ok {
			secrets = append(secrets, secret)
		}
	}
	for _, s := range secrets {
		if s != "" {
			text = strings.ReplaceAll(text, s, "***")
		}
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
