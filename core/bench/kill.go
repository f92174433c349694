package bench

import (
	"context"
	"errors"
)

// Nodes are this server and those beside it on the same Redis.
func (s *Server) Nodes() []*Server { return append([]*Server{s}, s.others...) }

// URL is where clients connect.
func (s *Server) URL() string {
	scheme, path := "ws", s.Path
	if s.TCP {
		scheme, path = "tcp", ""
	}
	if s.TLS {
		scheme = map[string]string{"ws": "wss", "tcp": "tls"}[scheme]
	}
	return scheme + "://" + s.Addr + path
}

// Kill ends the process of a server of our own at once, as kill -9 does, and
// returns when it has ended. Its folder stays.
func (s *Server) Kill() error {
	if s.cmd == nil {
		return errors.New("kill the server: it is not ours, or stopped")
	}
	_ = s.cmd.Process.Kill() // it may have ended by itself
	<-s.done
	return nil
}

// Restart starts a server that Kill has ended, as it was started first, and
// waits until it is ready.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.exec(); err != nil {
		return err
	}
	return s.awaitReady(ctx)
}
