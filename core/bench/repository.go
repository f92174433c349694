package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// repository is a Git repository of rules on this machine, offered by git's own
// HTTP server. Its methods belong to one goroutine.
type repository struct {
	url string

	dir    string // the working tree
	merges int
	srv    *http.Server
	done   chan struct{} // closed when srv has ended
}

// changed is the file to which every merge adds a line.
const changed = "parley.rego"

// newRepository makes a repository with rules in the folder dir, and serves it
// until close.
func newRepository(ctx context.Context, dir string, rules map[string][]byte) (*repository, error) {
	if _, err := exec.LookPath("git"); err != nil {
		return nil, fmt.Errorf("this mode makes a Git repository and serves it, for which it needs git: %w", err)
	}
	r := &repository{dir: filepath.Join(dir, "rules"), done: make(chan struct{})}
	if err := os.Mkdir(r.dir, 0o755); err != nil {
		return nil, fmt.Errorf("make a folder for the rules: %w", err)
	}
	if _, err := r.git(ctx, "init", "--quiet", "--initial-branch=main"); err != nil {
		return nil, err
	}
	for name, text := range rules {
		path := filepath.Join(r.dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return nil, fmt.Errorf("make a folder for the rules: %w", err)
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return nil, fmt.Errorf("write the rules: %w", err)
		}
	}
	if _, err := r.commit(ctx); err != nil {
		return nil, err
	}
	return r, r.serve(ctx)
}

// git runs git in the working tree, free of the configuration of whoever calls.
func (r *repository) git(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = r.dir
	cmd.Env = slices.DeleteFunc(cleanEnv(nil), func(e string) bool { return strings.HasPrefix(e, "GIT_") })
	cmd.Env = append(cmd.Env, "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=bench", "GIT_AUTHOR_EMAIL=bench@example.org", "GIT_COMMITTER_NAME=bench", "GIT_COMMITTER_EMAIL=bench@example.org")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, tail(out))
	}
	return strings.TrimSpace(string(out)), nil
}

// commit makes what is in the working tree the head of the branch and returns it.
func (r *repository) commit(ctx context.Context) (string, error) {
	for _, args := range [][]string{{"add", "--all"}, {"commit", "--quiet", "--message=change the rules"}} {
		if _, err := r.git(ctx, args...); err != nil {
			return "", err
		}
	}
	return r.git(ctx, "rev-parse", "HEAD")
}

// merge changes the rules, by a comment, and returns the commit.
func (r *repository) merge(ctx context.Context) (string, error) {
	f, err := os.OpenFile(filepath.Join(r.dir, changed), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return "", fmt.Errorf("change the rules: %w", err)
	}
	r.merges++
	_, err = fmt.Fprintf(f, "\n# Change %d.\n", r.merges)
	if err := errors.Join(err, f.Close()); err != nil {
		return "", fmt.Errorf("change the rules: %w", err)
	}
	return r.commit(ctx)
}

// serve begins to offer the repository.
func (r *repository) serve(ctx context.Context) error {
	programs, err := r.git(ctx, "--exec-path")
	if err != nil {
		return err
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("serve the rules: %w", err)
	}
	r.url = "http://" + ln.Addr().String() + "/" + filepath.Base(r.dir) + "/.git"
	r.srv = &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: &cgi.Handler{
		Path: filepath.Join(programs, "git-http-backend"), Root: "/", InheritEnv: []string{"PATH"},
		Env: []string{"GIT_PROJECT_ROOT=" + filepath.Dir(r.dir), "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1",
			"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"}, // whoever runs the benchmark made it
	}}
	go func() { // ends with close
		defer close(r.done)
		_ = r.srv.Serve(ln) // http.ErrServerClosed; anything else shows as a merge that does not go live
	}()
	return nil
}

// close stops serving.
func (r *repository) close() error {
	err := r.srv.Close()
	<-r.done
	return err
}
