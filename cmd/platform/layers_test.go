package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestLayersAreTold holds docs/architecture.md to the ranks of TestImports: each
// package stands in the table at its layer, or, if tests alone use it, in the
// text below.
func TestLayersAreTold(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	quoted, row := regexp.MustCompile("`([^`]+)`"), regexp.MustCompile(`^\| (\d+) \| ([^|]+) \|`)
	layers, named := map[string]int{}, map[string]bool{}
	for line := range strings.Lines(string(text)) {
		for _, m := range quoted.FindAllStringSubmatch(line, -1) {
			named[m[1]] = true
		}
		if m := row.FindStringSubmatch(line); m != nil {
			layer, _ := strconv.Atoi(m[1]) // digits
			for _, name := range quoted.FindAllStringSubmatch(m[2], -1) {
				layers[name[1]] = layer
			}
		}
	}
	if len(layers) < 50 {
		t.Fatalf("the table names %d packages: the test does not see it", len(layers))
	}
	for _, p := range list(t) {
		name := strings.TrimPrefix(p.ImportPath, "parley/")
		key, _ := longest(rank, name)
		layer, told := layers[name]
		switch {
		case told && layer != rank[key]:
			t.Errorf("%s is told at layer %d and has rank %d", name, layer, rank[key])
		case !told && !named[name] && !named[key] && !strings.HasPrefix(name, "examples/"):
			t.Errorf("%s does not stand in docs/architecture.md", name)
		}
	}
}
