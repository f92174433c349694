package rig

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Get reads a page of the admin listener.
func (n *Node) Get(path string) (status int, body string) {
	return n.Ask(http.MethodGet, path, nil)
}

// Ask sends a request to the admin listener, with the admin token where the
// server has made one. Status 0 means that nobody answered.
func (n *Node) Ask(method, path string, in any) (status int, body string) {
	return n.AskAs("", method, path, in)
}

// AskAs is Ask in somebody's name; "" is the server's own.
func (n *Node) AskAs(user, method, path string, in any) (status int, body string) {
	var payload io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			n.T.Fatal(err)
		}
		payload = bytes.NewReader(b)
	}
	ctx, cancel := context.WithTimeout(n.T.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+n.Admin+path, payload)
	if err != nil {
		n.T.Fatal(err)
	}
	if token, err := os.ReadFile(filepath.Join(n.Data(), "admin.token")); err == nil {
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	if user != "" {
		req.Header.Set("X-Parley-User", user)
	}
	req.Close = true // a kept connection would outlive the test
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(b)
}

// Status decodes a JSON page of the admin listener.
func Status[T any](n *Node, path string) T {
	n.T.Helper()
	var v T
	code, body := n.Get(path)
	if code != http.StatusOK {
		n.T.Fatalf("GET %s: got status %d: %s", path, code, body)
	}
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		n.T.Fatalf("GET %s: %v in %s", path, err, body)
	}
	return v
}

// Metric returns the value of one sample of /metrics, 0 when it is absent.
// series is the name with its labels as Prometheus writes them.
func (n *Node) Metric(series string) float64 {
	n.T.Helper()
	code, body := n.Get("/metrics")
	if code != http.StatusOK {
		n.T.Fatalf("GET /metrics: got status %d: %s", code, body)
	}
	for line := range strings.Lines(body) {
		if rest, ok := strings.CutPrefix(line, series+" "); ok {
			var v float64
			if _, err := fmt.Sscan(rest, &v); err != nil {
				n.T.Fatalf("metric %s: %v in %q", series, err, line)
			}
			return v
		}
	}
	return 0
}
