package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"parley/core/e2e/rig"
)

// TestUnits runs every command of the systemd units with --help, which refuses
// flags that are not there. What follows the start must not end the service:
// systemd stops one whose ExecStartPost fails, and a server without its Redis
// is not ready and goes on.
func TestUnits(t *testing.T) {
	t.Parallel()
	units, err := filepath.Glob("../../deploy/systemd/*.service")
	if err != nil || len(units) < 2 {
		t.Fatalf("got %q, %v, want two units", units, err)
	}
	for _, unit := range units {
		text, err := os.ReadFile(unit)
		if err != nil {
			t.Fatal(err)
		}
		ran := 0
		for line := range strings.Lines(string(text)) {
			key, command, ok := strings.Cut(strings.TrimSpace(line), "=")
			if !ok || !strings.HasPrefix(key, "Exec") {
				continue
			}
			may := strings.HasPrefix(command, "-")
			if key == "ExecStartPost" && !may {
				t.Errorf("%s: %s must begin with '-', or its failure stops the service", unit, line)
			}
			args := strings.Fields(strings.TrimPrefix(command, "-"))
			cmd := exec.Command(built.platform, append(args[1:], "--help")...)
			cmd.Env = rig.CleanEnv()
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s: %s: %v: %s", unit, line, err, out)
			}
			ran++
		}
		if ran < 2 {
			t.Errorf("%s: got %d commands, want a check and a start", unit, ran)
		}
	}
}
