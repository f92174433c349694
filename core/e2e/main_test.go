package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"parley/core/e2e/rig"
)

// built is what TestMain builds once for all tests.
var built struct {
	platform string // the server's binary
	wordlist string // wordlist.wasm
}

func TestMain(m *testing.M) {
	os.Exit(rig.Suite{Build: func(dir string) error {
		built.platform = rig.Platform()
		built.wordlist = filepath.Join(dir, "wordlist.wasm")
		return rig.GoBuild([]string{"GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0"},
			"-trimpath", "-ldflags=-s -w", "-buildmode=c-shared", "-o", built.wordlist, "parley/examples/plugins/wordlist")
	}}.Main(m))
}

// The words these tests use for what the rig has.
type (
	node     = rig.Node
	settings = rig.Settings
	crowd    = rig.Crowd
)

var (
	newNode   = rig.New
	startNode = rig.Start
	freePorts = rig.FreePorts
	newCrowd  = rig.NewCrowd
	unlimited = rig.Unlimited
	token     = rig.Token
	keep      = rig.Keep
	await     = rig.Await
	within    = rig.Within
)

const patience = rig.Patience

func status[T any](n *node, path string) T {
	n.T.Helper()
	return rig.Status[T](n, path)
}
