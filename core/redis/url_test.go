package redis

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestURL(t *testing.T) {
	tests := []struct {
		url  string
		want string // the target, or part of the error
	}{
		{"redis://localhost:6379", "single tcp localhost:6379 db 0"},
		{"redis://db.example/3", "single tcp db.example:6379 db 3"},
		{"redis://[::1]", "single tcp [::1]:6379 db 0"},
		{"redis://[::1]:7000/", "single tcp [::1]:7000 db 0"},
		{"rediss://ann:p%40ss@db.example:6380/", "single tcp db.example:6380 db 0 tls login ann p@ss"},
		{"redis://:p%2Fw%25%3A@h", "single tcp h:6379 db 0 login  p/w%:"},
		{"redis://:p?w@h", "single tcp h:6379 db 0 login  p?w"},
		{"redis://:a@b@h", "single tcp h:6379 db 0 login  a@b"},
		{"unix:///run/redis.sock", "single unix /run/redis.sock db 0"},
		{"unix://ann:pw@/run/redis.sock", "single unix /run/redis.sock db 0 login ann pw"},
		{"redis-sentinel://a,b:26380,[::1]/parley", "sentinel tcp a:26379,b:26380,[::1]:26379 service parley db 0"},
		{"rediss-sentinel://u:p@a/my%20master%2F1/2", "names no service"},
		{"rediss-sentinel://u:p@a/my%2Fmaster/2", "sentinel tcp a:26379 service my/master db 2 tls login u p"},
		{"redis-cluster://a,b:7001,c", "cluster tcp a:6379,b:7001,c:6379 db 0"},
		{"rediss-cluster://a/0", "cluster tcp a:6379 db 0 tls"},

		{"", "is empty"},
		{"localhost:6379", "has no scheme"},
		{"//localhost:6379", "has no scheme"},
		{"http://localhost:6379", "scheme that is unknown"},
		{"redis://", "names no host"},
		{"redis://:6379", "more than one ':'|names no host"},
		{"redis://h:70000", "not between 1 and 65535"},
		{"redis://h:0", "not between 1 and 65535"},
		{"redis://h:", "not between 1 and 65535"},
		{"redis://h:+5", "not between 1 and 65535"},
		{"redis://::1", "more than one ':'"},
		{"redis://[::1", "'[' without ']'"},
		{"redis://[h]:1", "no IPv6 address"},
		{"redis://[::1]x", "after ']'"},
		{"redis://h h", "a character that no host name has"},
		{"redis://h/main", "not a database number"},
		{"redis://h/-1", "not a database number"},
		{"redis://h?max_retries=3", "not supported"},
		{"redis://:p/w@h", "'/' before the '@'"},
		{"redis://:%zz@h", "cannot be decoded"},
		{"redis://a,b", "names 2 hosts"},
		{"unix://", "names no socket"},
		{"unix://run/redis.sock", "names no socket"},
		{"redis-sentinel://a,b", "names no service"},
		{"redis-sentinel://a,b/", "names no service"},
		{"redis-sentinel://a,b/parley/x", "not a database number"},
		{"redis-sentinel://a,,c/parley", "bad host number 2 of 3: it names no host"},
		{"redis-cluster://a/1", "names a database"},
		{"redis-cluster://" + strings.Repeat("a,", 64) + "a", "names 65 hosts"},
		{"redis://" + strings.Repeat("a", 5000), "has 5008 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.url, func(t *testing.T) {
			got, err := parseURL(tt.url)
			if err != nil {
				for want := range strings.SplitSeq(tt.want, "|") {
					if strings.Contains(err.Error(), want) {
						return
					}
				}
				t.Fatalf("got the error %q, want %q", err, tt.want)
			}
			s := fmt.Sprintf("%s %s %s", got.mode, got.network, got.where())
			if got.service != "" {
				s += " service " + got.service
			}
			s += fmt.Sprintf(" db %d", got.db)
			if got.tls {
				s += " tls"
			}
			if got.user+got.password != "" {
				s += " login " + got.user + " " + got.password
			}
			if s != tt.want {
				t.Errorf("got %q, want %q", s, tt.want)
			}
		})
	}
}

func TestErrorsHideThePassword(t *testing.T) {
	for _, url := range []string{
		"http://ann:hunter2@h", "redis://ann:hunter2@h/x", "redis://ann:hunter2@h:%zz", "redis://ann:hunter2@:1", "hunter2",
		"redis://ann:hunter2%zz@h", "redis://ann:hunter2/@h", "redis-sentinel://ann:hunter2@a,:0/x", "redis-sentinel://ann:hunter2@a,b",
		"redis://ann:hunter2@h?x", "unix://ann:hunter2@x/y", "redis://hunter2:hunter2",
	} {
		cfg := Defaults()
		cfg.URL = url
		if _, err := Open(cfg, slog.New(slog.DiscardHandler)); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("open %s: got error %v, want one without the password", url, err)
		}
	}
}

func FuzzURL(f *testing.F) {
	for _, s := range []string{
		"", "redis://h", "rediss://u:p@h:1/0", "redis://[::1]:6379", "redis://h:0", "::", "unix:///a/b",
		"redis-sentinel://u:p@h1:26379,h2,[::1]:1/SERVICE/3", "rediss-cluster://a,b:7001,c", "redis-sentinel://,/x",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, url string) {
		got, err := parseURL(url)
		if err != nil {
			return
		}
		if len(got.hosts) == 0 || len(got.hosts) > maxHosts || got.db < 0 || (got.service != "") != (got.mode == Sentinel) {
			t.Errorf("%q became %+v", url, got)
		}
		if got.network != "tcp" {
			return
		}
		for _, h := range got.hosts { // what was completed is complete
			if again, err := hostPort(h, "1"); err != nil || again != h {
				t.Errorf("%q names the host %q, which reads as %q, %v", url, h, again, err)
			}
		}
	})
}
