package plugin_test

import (
	"bytes"
	"fmt"

	"parley/sdk/plugin"
)

// A judge is tested natively, without WebAssembly.
func ExampleTry() {
	links := plugin.Func(func(m *plugin.Message) plugin.Result {
		at := bytes.Index(m.Normalized, []byte("http://"))
		if at < 0 {
			return plugin.Allow()
		}
		end := at + len("http://")
		for end < len(m.Normalized) && m.Normalized[end] > ' ' {
			end++
		}
		return plugin.Redact(1, "Links without TLS are masked here.", plugin.InNormalized(at, end))
	})

	r, err := plugin.Try(links, &plugin.Message{Text: []byte("see HTTP://example.com please")})
	fmt.Println(r.Verdict, r.Reason, r.Spans, err)

	r, err = plugin.Try(links, &plugin.Message{Text: []byte("see https://example.com please")})
	fmt.Println(r.Verdict, err)
	// Output:
	// redact Links without TLS are masked here. [{1 4 18}] <nil>
	// allow <nil>
}
