package redis

import (
	"errors"
	"fmt"
	"strings"

	goredis "github.com/redis/go-redis/v9"
)

// Errors that callers branch on.
var (
	// ErrUnavailable says that no answer came, or one that says that the
	// server cannot work now. Whether the command ran is unknown.
	ErrUnavailable = errors.New("redis: unavailable")
	// ErrOverloaded says that the server refused for lack of memory or
	// connections: the command did nothing.
	ErrOverloaded = errors.New("redis: overloaded")
)

// replied returns the text of a server's error reply, or "" for any other
// error: the network, a deadline, a closed client.
func replied(err error) string {
	var reply goredis.Error
	if err == nil || errors.Is(err, goredis.Nil) || !errors.As(err, &reply) {
		return ""
	}
	return reply.Error()
}

// fail sorts an error of go-redis into this package's kinds. addr says where
// the answer was expected from.
func fail(what any, addr string, err error) error {
	if err == nil || errors.Is(err, goredis.Nil) {
		return nil
	}
	text := replied(err)
	switch {
	case text == "":
		return fmt.Errorf("redis %v at %s: %w: %w", what, addr, ErrUnavailable, err)
	// Inside a script the reply begins with the script's name before Redis 7.
	case strings.Contains(text, "OOM command not allowed"):
		return fmt.Errorf("redis %v: %w: the server is at its maxmemory, raise it or shorten retention: %w", what, ErrOverloaded, err)
	case strings.Contains(text, "max number of clients reached"):
		return fmt.Errorf("redis %v: %w: the server has no connection left, raise its maxclients: %w", what, ErrOverloaded, err)
	case strings.Contains(text, "cluster support disabled"):
		return fmt.Errorf("redis %v at %s: %w: the server is not part of a cluster, write redis:// in redis.url: %w", what, addr, ErrUnavailable, err)
	}
	for _, denial := range denials {
		if strings.Contains(text, denial) {
			return fmt.Errorf("redis %v at %s: %w: the ACL of redis.url's user lacks a right that docs/redis.md lists: %w", what, addr, ErrUnavailable, err)
		}
	}
	for _, state := range unavailable {
		if strings.Contains(text, state) {
			return fmt.Errorf("redis %v: %w: %w", what, ErrUnavailable, err)
		}
	}
	return fmt.Errorf("redis %v: %w", what, err)
}

// lost is fail for what was not sent, because nobody said where to: whatever
// was answered meanwhile was no answer to the command.
func lost(what any, where string, err error) error {
	e := fail(what, where, err)
	if errors.Is(e, ErrUnavailable) || errors.Is(e, ErrOverloaded) {
		return e
	}
	return fmt.Errorf("redis %v: %w: %w", what, ErrUnavailable, err)
}

// unavailable are the error codes that speak of the server's state and not of
// the command.
// Source: https://github.com/redis/redis/blob/7.0/src/server.c, createSharedObjects.
var unavailable = []string{
	"LOADING ", "READONLY ", "MASTERDOWN ", "NOREPLICAS ", "MISCONF ", "BUSY ", "CLUSTERDOWN ", "TRYAGAIN ",
	"MOVED ", "ASK ", "NOAUTH ", "WRONGPASS ",
}

// denials are how a server says that the user may not do this. The second is
// for a command inside a script.
var denials = []string{"NOPERM ", "ACL failure in script", "The user executing the script"}
