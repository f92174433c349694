package redis_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"parley/core/journal"
	journalredis "parley/core/journal/redis"
	"parley/core/redis/redistest"
)

// rights are the rules that docs/redis.md gives an operator.
func rights(t *testing.T) []string {
	t.Helper()
	b, err := os.ReadFile("../../../docs/redis.md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rules, ok := strings.CutPrefix(strings.TrimSpace(line), "ACL SETUSER parley "); ok {
			return append([]string{"ACL", "SETUSER", "parley"}, strings.Fields(rules)...)
		}
	}
	t.Fatal("docs/redis.md has no line that begins with ACL SETUSER parley")
	return nil
}

func as(user, url string) string { return strings.Replace(url, "://", "://"+user+"@", 1) }

// TestConformanceWithTheDocumentedRights runs the whole suite as a user who may
// do what docs/redis.md lists and nothing else.
func TestConformanceWithTheDocumentedRights(t *testing.T) {
	t.Run("one server", func(t *testing.T) {
		server := redistest.Start(t, redistest.Options{})
		server.Do(rights(t)...)
		conform(t, as("parley:SECRET", server.URL()), func() { server.Do("FLUSHALL") })
	})
	t.Run("cluster", func(t *testing.T) {
		cluster := redistest.StartCluster(t, 1, 0, redistest.Options{})
		cluster.Masters[0].Do(rights(t)...)
		conform(t, as("parley:SECRET", cluster.URL()), cluster.FlushAll)
	})
}

func TestMissingRights(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	for _, tt := range []struct {
		name string
		less []string
		want string
	}{
		{"no scripts", []string{"-eval", "-evalsha"}, "'evalsha'"},
		{"no writes in the script", []string{"-xadd"}, "can't run this command"},
		{"other keys", []string{"resetkeys", "~other:*"}, "keys"},
		{"no channels", []string{"resetchannels"}, "channel"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server.Do("FLUSHALL")
			server.Do("ACL", "DELUSER", "parley")
			server.Do(append(rights(t), tt.less...)...)
			j := node(t, quick(as("parley:SECRET", server.URL())), journalredis.Defaults())
			_, err := j.Append(within(t), message("lobby", "n"))
			if !errors.Is(err, journal.ErrUnavailable) || !strings.Contains(err.Error(), "lacks a right that docs/redis.md lists") || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want ErrUnavailable that names docs/redis.md and %q", err, tt.want)
			}
		})
	}
}
