package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"parley/core/config"
)

// askTime bounds how long a running server may take to answer.
const askTime = 30 * time.Second

// maxAnswer bounds its answer, in bytes: a page of evidence is the largest.
const maxAnswer = 64 << 20

// adminFlags say where a running server's admin listener is and who asks.
type adminFlags struct {
	addr, tokenFile, dataDir string
}

// add gives the command the flags. --data-dir is its own where it has one.
func (f *adminFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.addr, "admin", ownAdmin(), "address of the server's admin listener")
	c.Flags().StringVar(&f.tokenFile, "admin-token-file", "", "file with its admin token, which is data_dir/admin.token")
	c.Flags().StringVar(&f.dataDir, "data-dir", "", "the server's data_dir, whose admin.token is used")
	_ = c.MarkFlagFilename("admin-token-file")
	_ = c.MarkFlagDirname("data-dir")
}

// ask calls the admin API and decodes its answer into v, nil for none.
func (f *adminFlags) ask(ctx context.Context, method, path string, body, v any) error {
	return ask(ctx, f.addr, f.token(), method, path, body, v)
}

// send calls the admin API and returns its answer, whose body the caller
// closes. It takes as long as ctx lasts.
func (f *adminFlags) send(ctx context.Context, method, path string, body any) (*http.Response, error) {
	return send(ctx, f.addr, f.token(), method, path, body)
}

// token is the file with the admin token, "" for none. Where no flag names it, it is
// the one that the environment gives to a server on this machine, if it can be read:
// most questions need none. Another machine is told no token that nobody has named.
func (f *adminFlags) token() string {
	if f.tokenFile != "" {
		return f.tokenFile
	} else if f.dataDir != "" {
		return filepath.Join(f.dataDir, "admin.token")
	}
	if !here(f.addr) {
		return ""
	}
	file := os.Getenv("PARLEY_ADMIN_TOKEN_FILE")
	if dir := os.Getenv("PARLEY_DATA_DIR"); file == "" && dir != "" {
		file = filepath.Join(dir, "admin.token")
	}
	if r, err := os.Open(file); err != nil {
		return ""
	} else if err := r.Close(); err != nil {
		return ""
	}
	return file
}

// ownAdmin is where a server that this environment configures has its admin
// listener.
func ownAdmin() string {
	if addr := os.Getenv("PARLEY_ADMIN_LISTEN"); addr != "" {
		return dialable(addr)
	}
	return config.Defaults().Admin.Listen
}

// here reports whether an address is the loopback's, or the one that this
// environment gives to a server.
func here(addr string) bool {
	addr = dialable(bare(addr))
	host, _, err := net.SplitHostPort(addr)
	ip := net.ParseIP(host)
	return err == nil && (host == "localhost" || ip != nil && ip.IsLoopback() || addr == ownAdmin())
}

// bare is an address without what browsers write around it.
func bare(addr string) string { return strings.TrimSuffix(strings.TrimPrefix(addr, "http://"), "/") }

// dialable turns an address to listen at into one to ask at: every address of
// this machine includes its loopback, from where reading needs no token.
func dialable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return addr
}

// ask calls the admin listener at addr with the token in tokenFile, "" for
// none.
func ask(ctx context.Context, addr, tokenFile, method, path string, body, v any) error {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	resp, err := send(ctx, addr, tokenFile, method, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read the server's answer: %w", err)
	}
	if v == nil {
		return nil
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("the answer is not that of a Parley server; is %s its admin.listen?", addr)
	}
	return nil
}

// send makes one request, whose body is sent as it is where it is an io.Reader, and
// as JSON otherwise. An answer that is no success is an error.
func send(ctx context.Context, addr, tokenFile, method, path string, body any) (*http.Response, error) {
	var payload io.Reader
	if stream, ok := body.(io.Reader); ok {
		payload = stream
	} else if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("ask the server: %w", err)
		}
		payload = bytes.NewReader(b)
	}
	addr = dialable(bare(addr))
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return nil, fmt.Errorf("the admin listener %q is no address: want host:port, such as %s", addr, config.Defaults().Admin.Listen)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+addr+path, payload)
	if err != nil {
		return nil, fmt.Errorf("the admin listener %q is no address: %w", addr, err)
	}
	if tokenFile != "" {
		token, err := os.ReadFile(tokenFile)
		if err != nil {
			return nil, fmt.Errorf("read the admin token: %w; is that the server's data_dir?", err)
		}
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the server: %w; is it running, and is %s its admin.listen?", err, addr)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer)) // what cannot be read says nothing
	var said struct {
		Text    string
		Reasons []string // of /readyz
	}
	_ = json.Unmarshal(b, &said) // and neither does what is no JSON
	switch {
	case len(said.Reasons) > 0:
		return nil, fmt.Errorf("the server is not ready: %s", plain(strings.Join(said.Reasons, "; ")))
	case said.Text == "":
		return nil, fmt.Errorf("the server answered %s; is %s its admin.listen?", resp.Status, addr)
	case resp.StatusCode != http.StatusUnauthorized:
		return nil, fmt.Errorf("the server answered %s: %s", resp.Status, plain(said.Text))
	case tokenFile == "":
		return nil, fmt.Errorf("the server answered %s: it wants the token in its data_dir/admin.token; name it with --admin-token-file, or that folder", resp.Status)
	default:
		return nil, fmt.Errorf("the server answered %s: the token in %s is not its own; is %s the server whose data_dir that is?", resp.Status, tokenFile, addr)
	}
}
