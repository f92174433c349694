package main

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener whose connections are handed to it.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { close(p.closed); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// A visitor who never finishes a request, or never reads the answer, must not
// keep a connection and its goroutine for ever.
func TestHTTPLetsNobodyStay(t *testing.T) {
	for _, tc := range []struct {
		name, request string
		read          bool
	}{
		{"no header", "GET / HTTP/1.1\r\n", true},
		{"no body", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n", true},
		{"no next request", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", true},
		{"nothing is read", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &server{log: slog.New(slog.DiscardHandler)}
				srv := s.chatServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					_, _ = w.Write(bytes.Repeat([]byte{'x'}, 100<<10))
				}))
				ln := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
				served := make(chan error, 1)
				go func() { served <- srv.Serve(ln) }()
				client, conn := net.Pipe()
				defer client.Close()
				ended := make(chan struct{})
				ln.conns <- &watched{Conn: conn, ended: ended}
				if _, err := io.WriteString(client, tc.request); err != nil {
					t.Fatal(err)
				}
				read := make(chan struct{})
				go func() {
					defer close(read)
					if tc.read {
						_, _ = io.Copy(io.Discard, client)
					}
				}()
				select {
				case <-ended:
				case <-time.After(5 * time.Minute):
					t.Error("the connection is still open after five minutes")
					client.Close()
				}
				<-read
				_ = srv.Close()
				<-served
			})
		})
	}
}

// watched tells when the server has closed it.
type watched struct {
	net.Conn
	ended chan struct{}
}

func (w *watched) Close() error {
	select {
	case <-w.ended:
	default:
		close(w.ended)
	}
	return w.Conn.Close()
}
