package plugin

import (
	"encoding/hex"
	"os"
	"regexp"
	"strings"
	"testing"

	"parley/sdk/abi"
)

// TestSpecification compares the bytes worked out in docs/plugin-abi.md with
// what the host and this SDK encode.
func TestSpecification(t *testing.T) {
	page, err := os.ReadFile("../../docs/plugin-abi.md")
	if err != nil {
		t.Fatal(err)
	}
	input := abi.AppendInput(nil, &abi.Input{
		TimeMS: 1735689600000, Text: []byte("Hi"), Normalized: []byte("hi"),
		User: "ann", Room: "lobby", Kind: "message", Signals: abi.Signals{RecentPerMinute: 1},
	})
	if got := documented(t, string(page), "input"); got != hex.EncodeToString(input) {
		t.Errorf("the page's input is\n%s, the host encodes\n%x", got, input)
	}
	v, result := new(guest).decide(Func(func(m *Message) Result {
		r := Redact(7, "no", InNormalized(0, len(m.Normalized)))
		r.Score = 900
		return r
	}), input)
	if got := documented(t, string(page), "result"); got != hex.EncodeToString(result) {
		t.Errorf("the page's result is\n%s, the SDK encodes\n%x", got, result)
	}
	if got := abi.Pack(v, 0x1000, uint32(len(result))); got != 0x00001000_000016_02 {
		t.Errorf("the page's return value is 0x00001000_000016_02, the SDK's %#x", got)
	}
}

// documented returns the bytes of the block "```hex NAME": on each line the
// pairs of digits before the first gap of two spaces.
func documented(t *testing.T, page, name string) string {
	t.Helper()
	_, block, ok := strings.Cut(page, "```hex "+name+"\n")
	if !ok {
		t.Fatalf("docs/plugin-abi.md has no block %q", name)
	}
	block, _, _ = strings.Cut(block, "```")
	var digits strings.Builder
	for line := range strings.Lines(block) {
		bytes, _, _ := strings.Cut(line, "  ")
		if !regexp.MustCompile(`^([0-9a-f]{2} )*[0-9a-f]{2}$`).MatchString(bytes) {
			t.Fatalf("line %q does not begin with bytes", line)
		}
		digits.WriteString(strings.ReplaceAll(bytes, " ", ""))
	}
	return digits.String()
}
