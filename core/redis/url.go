package redis

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// Mode says how the client finds the server that holds a key.
type Mode string

// The modes.
const (
	Single   Mode = "single"   // one server at one address
	Sentinel Mode = "sentinel" // one primary, which sentinels name
	Cluster  Mode = "cluster"  // keys are spread over many primaries by slot
)

// target is what a URL names.
type target struct {
	mode     Mode
	tls      bool
	network  string   // "tcp", or "unix" for Single
	hosts    []string // host:port, or the path of the socket; one for Single
	service  string   // what the sentinels call the primary
	db       int
	user     string
	password string
}

// schemes are the forms of a URL.
var schemes = map[string]target{
	"redis":           {mode: Single},
	"rediss":          {mode: Single, tls: true},
	"unix":            {mode: Single, network: "unix"},
	"redis-sentinel":  {mode: Sentinel},
	"rediss-sentinel": {mode: Sentinel, tls: true},
	"redis-cluster":   {mode: Cluster},
	"rediss-cluster":  {mode: Cluster, tls: true},
}

const (
	serverPort   = "6379"
	sentinelPort = "26379"
	maxURL       = 4096 // bytes
	maxHosts     = 64   // sentinels, or first nodes of a cluster; more are found through these
)

// CheckURL reports what is wrong with the address of a server. The error
// continues a sentence that begins with the URL, and never shows a password.
func CheckURL(raw string) error {
	_, err := parseURL(raw)
	return err
}

// ModeOf is the mode that a URL asks for, "" for one that cannot be read.
func ModeOf(raw string) Mode {
	t, err := parseURL(raw)
	if err != nil {
		return ""
	}
	return t.mode
}

// parseURL reads the address of a server. It is not net/url's work, which
// takes one host only.
func parseURL(raw string) (target, error) {
	if raw == "" {
		return target{}, errors.New("is empty; want redis://host:port, redis-sentinel://h1,h2,h3/SERVICE or redis-cluster://h1,h2,h3")
	}
	if len(raw) > maxURL {
		return target{}, fmt.Errorf("has %d bytes; want at most %d", len(raw), maxURL)
	}
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok || scheme == "" {
		return target{}, errors.New("has no scheme; want redis://host:port, or rediss://host:port for TLS")
	}
	t, ok := schemes[scheme]
	if !ok {
		return t, fmt.Errorf("has a scheme that is unknown; want redis, redis-sentinel or redis-cluster, rediss, rediss-sentinel or rediss-cluster for TLS, or unix")
	}
	if t.network == "" {
		t.network = "tcp"
	}
	authority, path := rest, ""
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		authority, path = rest[:i], rest[i+1:]
	}
	login := ""
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		login, authority = authority[:i], authority[i+1:]
	}
	if strings.ContainsAny(authority+path, "?#") {
		return t, errors.New("has options after '?' or '#', which are not supported; use the redis.* settings, and write these characters percent-encoded in a password")
	}
	if strings.ContainsRune(path, '@') {
		return t, errors.New("has a '/' before the '@'; write it as %2F in a password")
	}
	if err := t.readLogin(login); err != nil {
		return t, err
	}
	if t.network == "unix" {
		if authority != "" || path == "" {
			return t, errors.New("names no socket; want unix:///path")
		}
		t.hosts = []string{"/" + path}
		return t, nil
	}
	if err := t.readHosts(authority); err != nil {
		return t, err
	}
	return t, t.readPath(strings.TrimSuffix(path, "/"))
}

// readLogin reads "user:password".
func (t *target) readLogin(login string) error {
	user, password, _ := strings.Cut(login, ":")
	var err1, err2 error
	t.user, err1 = url.PathUnescape(user)
	t.password, err2 = url.PathUnescape(password)
	if err1 != nil || err2 != nil {
		return errors.New("has a user or password that cannot be decoded; write special characters percent-encoded, '%' as %25")
	}
	return nil
}

// readHosts reads "host:port,host:port", where ports may be left out.
func (t *target) readHosts(list string) error {
	hosts := strings.Split(list, ",")
	if len(hosts) > maxHosts {
		return fmt.Errorf("names %d hosts; want at most %d, the others are found through them", len(hosts), maxHosts)
	}
	if t.mode == Single && len(hosts) > 1 {
		return fmt.Errorf("names %d hosts; want one, or redis-cluster:// or redis-sentinel://", len(hosts))
	}
	port := serverPort
	if t.mode == Sentinel {
		port = sentinelPort
	}
	for i, h := range hosts {
		addr, err := hostPort(h, port)
		if err != nil && len(hosts) > 1 {
			return fmt.Errorf("has a bad host number %d of %d: it %w", i+1, len(hosts), err)
		}
		if err != nil {
			return err
		}
		t.hosts = append(t.hosts, addr)
	}
	return nil
}

// hostPort completes an address with the usual port.
func hostPort(s, usual string) (string, error) {
	host, port := s, usual
	switch i := strings.LastIndexByte(s, ':'); {
	case strings.HasPrefix(s, "["): // IPv6
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return "", errors.New("has '[' without ']'")
		}
		host = s[1:end]
		if net.ParseIP(host) == nil {
			return "", errors.New("has no IPv6 address between '[' and ']'")
		}
		if after := s[end+1:]; strings.HasPrefix(after, ":") {
			port = after[1:]
		} else if after != "" {
			return "", errors.New("has something other than a port after ']'")
		}
	case i >= 0:
		host, port = s[:i], s[i+1:]
		if strings.Contains(host, ":") {
			return "", errors.New("has more than one ':'; write an IPv6 address in brackets, as [::1]:6379")
		}
	}
	if host == "" {
		return "", errors.New("names no host; want host:port")
	}
	for _, c := range []byte(host) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`\"'<>%{}|^`+"`", c) >= 0 {
			return "", errors.New("has a host with a character that no host name has")
		}
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return "", errors.New("has a port that is not between 1 and 65535")
	}
	return net.JoinHostPort(host, strconv.FormatUint(n, 10)), nil
}

// readPath reads the part after the hosts: "DB", "SERVICE/DB" or nothing.
func (t *target) readPath(path string) error {
	db := path
	switch t.mode {
	case Cluster:
		if path != "" && path != "0" {
			return errors.New("names a database; a cluster has only number 0, so leave it out")
		}
		return nil
	case Sentinel:
		var err error
		service, rest, _ := strings.Cut(path, "/")
		if t.service, err = url.PathUnescape(service); err != nil || t.service == "" || strings.ContainsAny(t.service, "\r\n\x00 ") {
			return errors.New("names no service; want redis-sentinel://h1,h2,h3/SERVICE, where SERVICE is the name in 'sentinel monitor'")
		}
		db = rest
	}
	if db == "" {
		return nil
	}
	n, err := strconv.ParseUint(db, 10, 31)
	if err != nil {
		return errors.New("has a path that is not a database number")
	}
	t.db = int(n)
	return nil
}

// where names the hosts, for errors.
func (t target) where() string { return strings.Join(t.hosts, ",") }
