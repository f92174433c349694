package liveness

import (
	"errors"
	"fmt"
	"net"
)

// KeepAlive returns the kernel's part of cfg, for
// (*net.TCPConn).SetKeepAliveConfig. Do not leave it to a net.ListenConfig
// where KeepAlive is to be off: there, Enable false means Go's own default.
func KeepAlive(cfg Config) net.KeepAliveConfig {
	return net.KeepAliveConfig{
		Enable:   cfg.KeepAliveIdle > 0,
		Idle:     cfg.KeepAliveIdle,
		Interval: cfg.KeepAliveInterval,
		Count:    cfg.KeepAliveCount,
	}
}

// Apply sets KeepAlive and, on systems that have it, the user timeout of a
// connection. On Linux a user timeout also overrides the probe count: a
// connection ends at the first probe that is due when it has passed (tcp(7)).
func Apply(c *net.TCPConn, cfg Config) error {
	if err := c.SetKeepAliveConfig(KeepAlive(cfg)); err != nil {
		return fmt.Errorf("set keepalive: %w", err)
	}
	if cfg.UserTimeout <= 0 {
		return nil
	}
	rc, err := c.SyscallConn()
	if err != nil {
		return fmt.Errorf("set user timeout: %w", err)
	}
	if err := SetUserTimeout(rc, cfg.UserTimeout); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("set user timeout: %w", err)
	}
	return nil
}
