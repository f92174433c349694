package gitsync

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/format/pktline"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// sshRemote is one connection to an ssh server. Each request has a channel of
// its own on it, since git-upload-pack answers one and ends.
type sshRemote struct {
	client *ssh.Client
	path   string
	first  *sshUpload // whose refs were listed, nil once used
}

// sshUpload is git-upload-pack on the other side.
type sshUpload struct {
	session *ssh.Session
	in      io.WriteCloser
	out     io.Reader
	said    *firstBytes // on standard error
}

// openSSH connects, checks the server's key and lists the refs.
func (c Config) openSSH(ctx context.Context, ep endpoint) (_ remote, err error) {
	conf, addr, err := c.sshConfig(ep)
	if err != nil {
		return nil, err
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", c.display(), sshCause(ctx, err, c.Auth))
	}
	// A server that stalls ends with ctx, in the handshake as well.
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	end := func() { stop(); _ = conn.Close() }
	b := newBudget(c.MaxFetchBytes)
	cc, channels, requests, err := ssh.NewClientConn(&cappedConn{Conn: conn, budget: b}, addr, conf)
	if err != nil {
		end()
		return nil, fmt.Errorf("connect to %s: %w", c.display(), sshCause(ctx, err, c.Auth))
	}
	r := &sshRemote{client: ssh.NewClient(cc, channels, requests), path: ep.path}
	closeAll := func() { _ = r.client.Close(); end(); _ = r.client.Wait() }
	refs, err := r.start(ctx)
	if err != nil {
		closeAll()
		return nil, fmt.Errorf("list refs of %s: %w", c.display(), b.blame(err))
	}
	return &wire{where: c.display(), refs: refs, fetch: r.upload, end: closeAll, budget: b, redact: func(err error) error { return err }}, nil
}

// sshConfig is how we log in at which address.
func (c Config) sshConfig(ep endpoint) (*ssh.ClientConfig, string, error) {
	key, err := c.Auth.signer()
	if err != nil {
		return nil, "", err
	}
	port := ep.url.Port()
	if port == "" {
		port = "22"
	}
	addr := net.JoinHostPort(ep.url.Hostname(), port)
	check, err := knownhosts.New(c.Auth.KnownHostsFile)
	if err != nil {
		return nil, "", fmt.Errorf("read policy.git.auth.known_hosts_file: %w", err)
	}
	algorithms := hostAlgorithms(check, addr)
	if len(algorithms) == 0 {
		return nil, "", fmt.Errorf("the host key of %s is not in %s; add the line that ssh-keyscan prints once its fingerprint is known to be right",
			knownhosts.Normalize(addr), c.Auth.KnownHostsFile)
	}
	user := ep.url.User.Username()
	if user == "" {
		user = c.Auth.user()
	}
	return &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(key)}, HostKeyCallback: check, HostKeyAlgorithms: algorithms,
	}, addr, nil
}

// hostAlgorithms are those of the keys listed for addr. The server must be
// asked for one of them: it has several keys and would choose another.
func hostAlgorithms(check ssh.HostKeyCallback, addr string) (names []string) {
	none, err := ssh.NewPublicKey(ed25519.PublicKey(make([]byte, ed25519.PublicKeySize)))
	if err != nil {
		return nil
	}
	var wrong *knownhosts.KeyError
	if !errors.As(check(addr, &net.TCPAddr{}, none), &wrong) {
		return nil
	}
	for _, known := range wrong.Want {
		name := known.Key.Type()
		if slices.Contains(names, name) {
			continue
		}
		if name == ssh.KeyAlgoRSA { // with SHA-1 it is not asked for
			names = append(names, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256)
			continue
		}
		names = append(names, name)
	}
	return names
}

// sshCause says in words why the connection was refused, on either side.
func sshCause(ctx context.Context, err error, a Auth) error {
	var wrong *knownhosts.KeyError
	var revoked *knownhosts.RevokedError
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("the ssh server did not answer in time: %w", ctx.Err())
	case errors.As(err, &revoked):
		return fmt.Errorf("THE HOST KEY IS REVOKED in %s", a.KnownHostsFile)
	case errors.As(err, &wrong):
		return fmt.Errorf("THE HOST KEY HAS CHANGED: it is not the one in %s; find out why before the file is changed", a.KnownHostsFile)
	case strings.Contains(err.Error(), "no common algorithm for host key"):
		return fmt.Errorf("THE HOST KEY HAS CHANGED: the server has none of the kind that is in %s; find out why before the file is changed", a.KnownHostsFile)
	case strings.Contains(err.Error(), "unable to authenticate"):
		return fmt.Errorf("the server does not accept the key in %s", a.SSHKeyFile)
	}
	return err
}

// start starts git-upload-pack and reads the refs it begins with.
func (r *sshRemote) start(ctx context.Context) (*packp.AdvRefs, error) {
	session, err := r.client.NewSession()
	if err != nil {
		return nil, fmt.Errorf("open a session: %w", err)
	}
	u := &sshUpload{session: session, said: &firstBytes{most: 512}}
	session.Stderr = u.said
	if u.in, err = session.StdinPipe(); err != nil {
		return nil, err
	}
	if u.out, err = session.StdoutPipe(); err != nil {
		return nil, err
	}
	if err := session.Start("git-upload-pack " + quote(r.path)); err != nil {
		return nil, fmt.Errorf("start git-upload-pack: %w", err)
	}
	refs := packp.NewAdvRefs()
	if err := refs.Decode(u.out); err != nil {
		_ = session.Close()
		switch {
		case ctx.Err() != nil:
			return nil, fmt.Errorf("the server did not answer in time: %w", ctx.Err())
		case errors.Is(err, packp.ErrEmptyInput):
			_ = session.Wait() // standard error is read by then
			return nil, fmt.Errorf("the server gave none: %q", u.said.String())
		case errors.Is(err, packp.ErrEmptyAdvRefs):
			return nil, transport.ErrEmptyRemoteRepository
		}
		return nil, err
	}
	if refs.IsEmpty() {
		_ = session.Close()
		return nil, transport.ErrEmptyRemoteRepository
	}
	transport.FilterUnsupportedCapabilities(refs.Capabilities)
	r.first = u
	return refs, nil
}

// upload sends one request and returns the answer, which must be closed.
func (r *sshRemote) upload(ctx context.Context, req *packp.UploadPackRequest) (*packp.UploadPackResponse, error) {
	if r.first == nil {
		if _, err := r.start(ctx); err != nil {
			return nil, err
		}
	}
	u := r.first
	r.first = nil
	resp, err := u.send(req)
	if err != nil {
		_ = u.session.Close()
		if ctx.Err() != nil {
			err = fmt.Errorf("the server did not answer in time: %w", ctx.Err())
		}
		return nil, err
	}
	return resp, nil
}

func (u *sshUpload) send(req *packp.UploadPackRequest) (*packp.UploadPackResponse, error) {
	if err := req.UploadRequest.Encode(u.in); err != nil {
		return nil, err
	}
	if err := req.UploadHaves.Encode(u.in, false); err != nil {
		return nil, err
	}
	if err := pktline.NewEncoder(u.in).EncodeString("done\n"); err != nil {
		return nil, err
	}
	// Who has heard "done" may answer and go before it hears of the end; what it
	// has said can still be read.
	if err := u.in.Close(); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("end the request: %w", err)
	}
	resp := packp.NewUploadPackResponse(req)
	return resp, resp.Decode(readCloser{u.out, u.session})
}

// readCloser closes the session of what it reads.
type readCloser struct {
	io.Reader
	session *ssh.Session
}

// Close implements io.Closer. That the server has closed already is no error.
func (r readCloser) Close() error {
	_ = r.session.Close()
	return nil
}

// quote makes one word of s for a POSIX shell, as git's sq_quote does.
func quote(s string) string {
	return "'" + strings.NewReplacer("'", `'\''`, "!", `'\!'`).Replace(s) + "'"
}

// firstBytes keeps the beginning of what is written to it.
type firstBytes struct {
	b    []byte
	most int
}

// Write implements io.Writer.
func (f *firstBytes) Write(p []byte) (int, error) {
	f.b = append(f.b, p[:min(len(p), f.most-len(f.b))]...)
	return len(p), nil
}

func (f *firstBytes) String() string { return strings.TrimSpace(string(f.b)) }

// cappedConn lets bytes in until the budget is spent.
type cappedConn struct {
	net.Conn
	budget *budget
}

// Read implements io.Reader.
func (c *cappedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if over := c.budget.spend(n); over != nil {
		return 0, over
	}
	return n, err
}
