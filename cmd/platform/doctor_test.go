package main

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"parley/core/doctor"
)

func TestDoctor(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data") // as before the first start
	out, err := command(t, "doctor", "--data_dir", dir, "--json")
	var report struct {
		Worst  doctor.State
		Checks []doctor.Check
	}
	if jerr := json.Unmarshal([]byte(out), &report); jerr != nil {
		t.Fatalf("got %v for %s", jerr, out)
	}
	if (report.Worst == doctor.Bad) != errors.Is(err, errTold) || len(report.Checks) < 15 {
		t.Errorf("got %s, %v, %d checks, want an error if and only if something is bad", report.Worst, err, len(report.Checks))
	}
	out, err = command(t, "doctor", "--data_dir", dir, "--redis.url", "redis://127.0.0.1:1")
	if !errors.Is(err, errTold) || !strings.Contains(out, "bad      redis persistence") && !strings.Contains(out, "bad   redis persistence") {
		t.Errorf("no Redis there: got %v, %s", err, out)
	}
	out, err = command(t, "doctor", "--data_dir", dir, "--liveness.mode", "keepalive", "--liveness.ping", "0", "--liveness.keepalive_idle", "0")
	if err == nil {
		t.Errorf("nothing finds dead peers: got no error, %s", out)
	}
	if _, err := command(t, "doctor", "--redis.url", "nonsense"); err == nil {
		t.Error("a bad address: got no error")
	}
}
