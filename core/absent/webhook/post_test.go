package webhook

import (
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"parley/core/absent"
)

func TestJudge(t *testing.T) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	for status, want := range map[int]verdict{
		200: {ok: true}, 202: {ok: true}, 204: {ok: true},
		301: {final: true}, 307: {final: true},
		400: {final: true}, 401: {final: true}, 404: {final: true}, 410: {final: true}, 422: {final: true},
		408: {sick: true}, 429: {sick: true}, 500: {sick: true}, 502: {sick: true}, 503: {sick: true},
	} {
		got := judge(status, "", nil, now)
		if got.ok != want.ok || got.final != want.final || got.sick != want.sick || got.after != 0 {
			t.Errorf("%d: got %+v, want %+v", status, got, want)
		}
		if !got.ok && !strings.Contains(got.reason, http.StatusText(status)) {
			t.Errorf("%d: got reason %q", status, got.reason)
		}
	}
	if v := judge(503, "7", []byte("  come\x00 back\n\u202elater \xff"), now); v.after != 7*time.Second || v.reason != "503 Service Unavailable: come back later" {
		t.Errorf("got %+v", v)
	}
	if v := judge(500, "", []byte(strings.Repeat("é", 1000)), now); len(v.reason) > maxReason || !utf8.ValidString(v.reason) {
		t.Errorf("got a reason of %d bytes", len(v.reason))
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	for s, want := range map[string]time.Duration{
		"": 0, "0": 0, " 3 ": 3 * time.Second, "-3": 0, "3.5": 0, "x": 0, "999999999": maxRetryAfter, "99999999999999999999": 0,
		"Thu, 26 Nov 2026 12:00:30 GMT": 30 * time.Second, "Thu, 26 Nov 2026 11:00:30 GMT": 0, "Thu, 26 Nov 2099 11:00:30 GMT": maxRetryAfter,
	} {
		if got := parseRetryAfter(s, now); got != want {
			t.Errorf("%q: got %s, want %s", s, got, want)
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	f.Add("3")
	f.Add("Thu, 26 Nov 2026 12:00:30 GMT")
	f.Fuzz(func(t *testing.T, s string) {
		if d := parseRetryAfter(s, time.Unix(1764000000, 0)); d < 0 || d > maxRetryAfter {
			t.Fatalf("%q: got %s", s, d)
		}
		if r := cut(s); len(r) > maxReason || !utf8.ValidString(r) || strings.ContainsAny(r, "\n\r\x00\x1b") {
			t.Fatalf("%q: got reason %q", s, r)
		}
	})
}

func TestCheckURL(t *testing.T) {
	for _, good := range []string{"https://push.example.org/parley", "http://10.0.0.7:8080/x?y=1", "http://[::1]:80"} {
		if err := CheckURL(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{"", "push.example.org", "ftp://x/", "https://", "https://x/#y", "http://x\x00/"} {
		if CheckURL(bad) == nil {
			t.Errorf("%q: got no error", bad)
		}
	}
}

// TestSign holds the signature against the example of the Standard Webhooks
// specification's own test vector.
func TestSign(t *testing.T) {
	secrets, err := ParseSecrets([]byte("\nwhsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n\n"))
	if err != nil {
		t.Fatal(err)
	}
	id, at, b := "msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`)
	const want = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
	got := Sign(secrets, id, at, b)
	if got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
	other := Secret(strings.Repeat("x", 24))
	both := Sign([]Secret{other, secrets[0]}, id, at, b)
	if err := Verify(secrets[0], id, "1614265330", both, b, at.Add(time.Minute)); err != nil {
		t.Errorf("one of two signatures: %v", err)
	}
	for name, err := range map[string]error{
		"another secret": Verify(Secret(strings.Repeat("y", 24)), id, "1614265330", both, b, at),
		"another body":   Verify(other, id, "1614265330", both, append(b, ' '), at),
		"another id":     Verify(other, "msg_x", "1614265330", both, b, at),
		"another time":   Verify(other, id, "1614265331", both, b, at),
		"an old one":     Verify(other, id, "1614265330", both, b, at.Add(Tolerance+time.Second)),
		"no time":        Verify(other, id, "x", both, b, at),
		"no signature":   Verify(other, id, "1614265330", "", b, at),
	} {
		if err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

func TestSecrets(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":   "\n \n",
		"no prefix": "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
		"no base64": "whsec_???",
		"short":     "whsec_c2hvcnQ=",
		"long":      "whsec_" + strings.Repeat("AAAA", 30),
		"many":      strings.Repeat("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n", 5),
		"a book":    strings.Repeat("\n", 5000),
	} {
		if s, err := ParseSecrets([]byte(text)); err == nil {
			t.Errorf("%s: got %d secrets", name, len(s))
		} else if strings.Contains(err.Error(), "MfKQ9r8") {
			t.Errorf("%s: the error tells a secret: %v", name, err)
		}
	}
	if _, err := ReadSecrets(t.TempDir() + "/nowhere"); err == nil {
		t.Error("no file: got no error")
	}
}

func FuzzSecrets(f *testing.F) {
	f.Add([]byte("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n"))
	f.Add([]byte("whsec_"))
	f.Fuzz(func(t *testing.T, b []byte) {
		secrets, err := ParseSecrets(b)
		if err != nil {
			return
		}
		for _, s := range secrets {
			if len(s) < minSecret || len(s) > maxSecret {
				t.Fatalf("a secret of %d bytes", len(s))
			}
		}
	})
}

func TestBody(t *testing.T) {
	b, err := body(&absent.Entry{Room: "lobby", Epoch: "e", Seq: 7, ID: "m", From: "ann", User: "bob", Kind: "direct", Time: 1764000000123, Text: "<hi>"})
	const want = `{"type":"message.direct","timestamp":"2025-11-24T16:00:00.123Z","data":{"room":"lobby","epoch":"e","seq":7,"id":"m","from":"ann","user":"bob","kind":"direct","ts":1764000000123,"text":"<hi>"}}`
	if err != nil || string(b) != want {
		t.Errorf("got %s, %v\nwant %s", b, err, want)
	}
}
