package config

import (
	"net"
	"reflect"
	"time"

	"parley/core/liveness"
)

// rule is a condition between keys. Its check returns what is wrong, "" for
// nothing; it runs only when each key alone is sound.
type rule struct {
	keys  []string // the first that the operator has set gets the blame
	check func(c *Config) string
}

var ruleset = []rule{
	{[]string{"auth.guests", "auth.jwt.algorithm"}, func(c *Config) string {
		if !c.Auth.Guests && c.Auth.JWT.Algorithm == "" {
			return "guests are off and so are tokens, so nobody could connect; turn one of them on"
		}
		return ""
	}},
	{[]string{"auth.jwt.key_file", "auth.jwt.algorithm"}, func(c *Config) string {
		if c.Auth.JWT.Algorithm == "EdDSA" && c.Auth.JWT.KeyFile == "" {
			return "EdDSA needs auth.jwt.key_file, the PEM public key that tokens are checked with"
		}
		return ""
	}},
	{[]string{"tls.cert_file", "tls.key_file"}, func(c *Config) string {
		if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
			return "tls.cert_file and tls.key_file belong together: set both, or neither"
		}
		return ""
	}},
	{[]string{"proxy.http", "proxy.tcp", "proxy.trusted"}, func(c *Config) string {
		if (c.Proxy.HTTP == "protocol" || c.Proxy.TCP == "protocol") && len(c.Proxy.Trusted) == 0 {
			return "the PROXY protocol needs proxy.trusted, the networks it is believed from"
		}
		return ""
	}},
	{[]string{"policy.dir", "policy.git.url"}, func(c *Config) string {
		if c.Policy.Dir != "" && c.Policy.Git.URL != "" {
			return "policy.dir and policy.git.url are both set; only one place can hold the rules"
		}
		return ""
	}},
	{[]string{"policy.git.auth.token_file", "policy.git.auth.token_env"}, func(c *Config) string {
		if c.Policy.Git.Auth.TokenFile != "" && c.Policy.Git.Auth.TokenEnv != "" {
			return "policy.git.auth.token_file and policy.git.auth.token_env are both set; the token lies in one place"
		}
		return ""
	}},
	{[]string{"policy.git.webhook.secret_file", "policy.git.webhook.secret_env"}, func(c *Config) string {
		if c.Policy.Git.Webhook.SecretFile != "" && c.Policy.Git.Webhook.SecretEnv != "" {
			return "policy.git.webhook.secret_file and policy.git.webhook.secret_env are both set; the secret lies in one place"
		}
		return ""
	}},
	{[]string{"policy.git.webhook.listen", "policy.git.webhook.secret_file", "policy.git.webhook.secret_env"}, func(c *Config) string {
		switch w := c.Policy.Git.Webhook; {
		case w.Listen != "" && !w.On():
			return "policy.git.webhook.listen needs policy.git.webhook.secret_file or secret_env; without a secret anybody could call"
		case w.On() && c.Policy.Git.URL == "":
			return "policy.git.webhook needs policy.git.url, the repository that a call makes the server look at"
		}
		return ""
	}},
	{[]string{"policy.git.signers", "policy.git.url"}, func(c *Config) string {
		if len(c.Policy.Git.Signers) > 0 && c.Policy.Git.URL == "" {
			return "policy.git.signers needs policy.git.url, the repository whose commits are signed"
		}
		return ""
	}},
	{[]string{"plugins.require_signature", "plugins.trusted_keys"}, func(c *Config) string {
		if c.Plugins.RequireSignature && len(c.Plugins.TrustedKeys) == 0 {
			return "plugins.require_signature needs plugins.trusted_keys, or no plugin could be loaded"
		}
		return ""
	}},
	{[]string{"limits.text_bytes", "limits.frame_bytes"}, func(c *Config) string {
		if f := c.Limits.FrameBytes; f > 0 && c.Limits.TextBytes > f {
			return "limits.text_bytes is larger than limits.frame_bytes, so the longest text could never arrive"
		}
		return ""
	}},
	{[]string{"limits.commands_burst", "limits.commands_per_second"}, func(c *Config) string {
		if c.Limits.CommandsPerSecond > 0 && c.Limits.CommandsBurst < c.Limits.CommandsPerSecond {
			return "limits.commands_burst is smaller than limits.commands_per_second, so that rate could not be reached"
		}
		return ""
	}},
	{[]string{"liveness.pong", "liveness.ping"}, func(c *Config) string {
		if c.Liveness.Ping > 0 && c.Liveness.Pong >= c.Liveness.Ping {
			return "liveness.pong must be shorter than liveness.ping, so that one heartbeat is judged before the next goes out"
		}
		return ""
	}},
	{[]string{"liveness.mode", "liveness.ping"}, func(c *Config) string {
		if m := c.Liveness.Mode; c.Liveness.Ping == 0 && (m == liveness.ModePing || m == liveness.ModeBoth) {
			return "liveness.mode " + string(m) + " closes on overdue heartbeats, and liveness.ping 0 sends none; choose ladder or keepalive"
		}
		return ""
	}},
	{[]string{"liveness.mode", "liveness.keepalive_idle"}, func(c *Config) string {
		if c.Liveness.Mode == liveness.ModeBoth && c.Liveness.KeepAliveIdle == 0 {
			return "liveness.mode both waits for TCP KeepAlive to fail, and liveness.keepalive_idle 0 switches it off"
		}
		return ""
	}},
	{[]string{"liveness.user_timeout", "limits.lag_seconds"}, func(c *Config) string {
		u := c.Liveness.UserTimeout
		if u > 0 && c.Limits.LagSeconds == 0 {
			return "limits.lag_seconds is 0, so slow readers may stand still for ever, but liveness.user_timeout lets the kernel end them; set it to 0 as well, or give lag_seconds a bound below it"
		}
		if u > 0 && u <= time.Duration(c.Limits.LagSeconds)*time.Second {
			return "liveness.user_timeout must be longer than limits.lag_seconds: the kernel would end slow readers before they are told why, and however alive they are"
		}
		return ""
	}},
	{[]string{"runtime.governor.procs", "runtime.automaxprocs"}, func(c *Config) string {
		if c.Runtime.Governor.Procs != "" && !c.Runtime.AutoMaxProcs {
			return "runtime.governor.procs needs runtime.automaxprocs, which says how many CPUs there are to use"
		}
		return ""
	}},
	{[]string{"listen", "tcp.listen"}, sameAddr("listen", "tcp.listen")},
	{[]string{"listen", "admin.listen"}, sameAddr("listen", "admin.listen")},
	{[]string{"tcp.listen", "admin.listen"}, sameAddr("tcp.listen", "admin.listen")},
	{[]string{"policy.git.webhook.listen", "listen"}, sameAddr("policy.git.webhook.listen", "listen")},
	{[]string{"policy.git.webhook.listen", "tcp.listen"}, sameAddr("policy.git.webhook.listen", "tcp.listen")},
	{[]string{"policy.git.webhook.listen", "admin.listen"}, sameAddr("policy.git.webhook.listen", "admin.listen")},
}

// sameAddr refuses two listeners on one fixed address.
func sameAddr(a, b string) func(*Config) string {
	return func(c *Config) string {
		v := reflect.ValueOf(c).Elem()
		x := v.FieldByIndex(root.byName[a].index).String()
		y := v.FieldByIndex(root.byName[b].index).String()
		if _, port, err := net.SplitHostPort(x); err != nil || port == "0" || x != y {
			return "" // off, or the system picks the port
		}
		return a + " and " + b + " are both " + x + "; give each listener its own address"
	}
}

// rules checks the conditions between keys.
func (l *loader) rules() {
	for _, r := range ruleset {
		if l.anyBad(r.keys) {
			continue
		}
		text := r.check(&l.cfg)
		if text == "" {
			continue
		}
		at := Problem{Source: "configuration", Key: r.keys[0]}
		for _, k := range r.keys {
			if o, set := l.origins[k]; set {
				at = o
				break
			}
		}
		l.report(at, r.keys[0], "%s", text)
	}
}

func (l *loader) anyBad(keys []string) bool {
	for _, k := range keys {
		if l.bad[k] {
			return true
		}
	}
	return false
}
