package auth_test

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"parley/core/auth"
	"parley/core/chat"
)

var testKey = []byte("0123456789abcdef0123456789abcdef")

// keyFile writes key material to a file of its own.
func keyFile(t testing.TB, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func newVerifier(t testing.TB, cfg auth.Config) *auth.Verifier {
	t.Helper()
	v, err := auth.NewVerifier(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// mint signs any claims with HS256, also ones that Sign refuses.
func mint(t testing.TB, header, claims map[string]any) string {
	t.Helper()
	enc := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	text := enc(header) + "." + enc(claims)
	m := hmac.New(sha256.New, testKey)
	m.Write([]byte(text))
	return text + "." + base64.RawURLEncoding.EncodeToString(m.Sum(nil))
}

type m = map[string]any

// wantCode checks that err is a *chat.Error with the code and a part of its
// sentence.
func wantCode(t *testing.T, err error, code chat.Code, part string) {
	t.Helper()
	var e *chat.Error
	if !errors.As(err, &e) {
		t.Fatalf("got error %v, want a *chat.Error", err)
	}
	if e.Code != code || !strings.Contains(e.Text, part) {
		t.Errorf("got %s %q, want %s and a text with %q", e.Code, e.Text, code, part)
	}
}

func TestVerify(t *testing.T) {
	future := time.Now().Add(time.Hour).Unix()
	hs := m{"alg": "HS256", "typ": "JWT"}
	v := newVerifier(t, auth.Config{Algorithm: auth.HS256, KeyFile: keyFile(t, testKey), Audience: "parley", Issuer: "idp"})
	good := func(changes m) m {
		c := m{"sub": "ann", "exp": future, "aud": "parley", "iss": "idp"}
		for k, val := range changes {
			if val == nil {
				delete(c, k)
			} else {
				c[k] = val
			}
		}
		return c
	}
	manyRoles := make([]string, chat.MaxRoles+1)
	for i := range manyRoles {
		manyRoles[i] = "r"
	}
	wellSigned := mint(t, hs, good(nil))
	tests := []struct {
		name, token, part string
	}{
		{"empty", "", "not valid here"},
		{"not a token", "hello", "not valid here"},
		{"two parts", "a.b", "not valid here"},
		{"too long", strings.Repeat("a", auth.MaxTokenBytes+1), "longer than 8192 bytes"},
		{"signature cut", wellSigned[:len(wellSigned)-2], "not valid here"},
		{"other alg in header", mint(t, m{"alg": "HS512"}, good(nil)), "not valid here"},
		{"alg none", mint(t, m{"alg": "none"}, good(nil)), "not valid here"},
		{"alg EdDSA", mint(t, m{"alg": "EdDSA"}, good(nil)), "not valid here"},
		{"critical extension", mint(t, m{"alg": "HS256", "crit": []string{"b64"}, "b64": false}, good(nil)), "extension"},
		{"expired", mint(t, hs, good(m{"exp": time.Now().Add(-time.Minute).Unix()})), "has expired"},
		{"no exp", mint(t, hs, good(m{"exp": nil})), "lacks a claim"},
		{"exp is text", mint(t, hs, good(m{"exp": "soon"})), "not valid here"},
		{"exp in the year 300000", mint(t, hs, good(m{"exp": 9.4e12})), "too far away"},
		{"not yet", mint(t, hs, good(m{"nbf": future})), "not valid yet"},
		{"other audience", mint(t, hs, good(m{"aud": "shop"})), "another service"},
		{"no audience", mint(t, hs, good(m{"aud": nil})), "lacks a claim"},
		{"other issuer", mint(t, hs, good(m{"iss": "x"})), "issuer"},
		{"no subject", mint(t, hs, good(m{"sub": nil})), "subject"},
		{"subject with space", mint(t, hs, good(m{"sub": "a b"})), "subject"},
		{"subject too long", mint(t, hs, good(m{"sub": strings.Repeat("a", 65)})), "subject"},
		{"too many roles", mint(t, hs, good(m{"roles": manyRoles})), "17 roles, at most 16"},
		{"malformed role", mint(t, hs, good(m{"roles": []string{"Admin!"}})), "malformed role"},
		{"roles is text", mint(t, hs, good(m{"roles": "admin"})), "not valid here"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := v.Verify(tt.token)
			wantCode(t, err, chat.CodeUnauthorized, tt.part)
			if !reflect.DeepEqual(got, chat.Identity{}) {
				t.Errorf("got identity %+v beside an error, want none", got)
			}
		})
	}
	got, err := v.Verify(mint(t, hs, good(m{"roles": []string{"moderator", "admin", "moderator"}})))
	want := chat.Identity{User: "ann", Class: chat.ClassUser, Roles: []string{"admin", "moderator"}, Expires: time.Unix(future, 0)}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

func TestSignedTokenExpiresAfterLeeway(t *testing.T) {
	path := keyFile(t, testKey)
	synctest.Test(t, func(t *testing.T) {
		v := newVerifier(t, auth.Config{Algorithm: auth.HS256, KeyFile: path})
		token, err := auth.Sign(testKey, auth.Claims{User: "ann", TTL: time.Minute, Roles: []string{"moderator"}, Audience: "x", Issuer: "y"})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute + auth.Leeway - time.Second)
		if id, err := v.Verify(token); err != nil || id.User != "ann" {
			t.Errorf("within leeway: got %+v, %v, want ann", id, err)
		}
		time.Sleep(2 * time.Second)
		_, err = v.Verify(token)
		wantCode(t, err, chat.CodeUnauthorized, "has expired")
	})
}

func TestSignRefuses(t *testing.T) {
	tests := []struct {
		name string
		key  []byte
		c    auth.Claims
	}{
		{"short key", []byte("short"), auth.Claims{User: "ann", TTL: time.Hour}},
		{"no lifetime", testKey, auth.Claims{User: "ann"}},
		{"bad user", testKey, auth.Claims{User: "a b", TTL: time.Hour}},
		{"bad role", testKey, auth.Claims{User: "ann", TTL: time.Hour, Roles: []string{""}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if token, err := auth.Sign(tt.key, tt.c); err == nil {
				t.Errorf("got token %q, want an error", token)
			}
		})
	}
}

// publicPEM writes a PKIX public key.
func publicPEM(t *testing.T, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func TestEdDSA(t *testing.T) {
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	file := publicPEM(t, pub)
	v := newVerifier(t, auth.Config{Algorithm: auth.EdDSA, KeyFile: keyFile(t, file)})
	c := jwt.MapClaims{"sub": "bob", "exp": time.Now().Add(time.Hour).Unix()}
	token, err := jwt.NewWithClaims(jwt.SigningMethodEdDSA, c).SignedString(priv)
	if err != nil {
		t.Fatal(err)
	}
	if id, err := v.Verify(token); err != nil || id.User != "bob" {
		t.Errorf("got %+v, %v, want bob", id, err)
	}
	// the classic confusion: HS256 with the public key as the secret
	forged, err := jwt.NewWithClaims(jwt.SigningMethodHS256, c).SignedString(file)
	if err != nil {
		t.Fatal(err)
	}
	_, err = v.Verify(forged)
	wantCode(t, err, chat.CodeUnauthorized, "not valid here")
}

func TestTokensOff(t *testing.T) {
	_, err := newVerifier(t, auth.Config{}).Verify(mint(t, m{"alg": "HS256"}, m{"sub": "ann"}))
	wantCode(t, err, chat.CodeUnauthorized, "takes no tokens")
}

// FuzzVerify: whatever is presented, nothing panics and nothing passes whose
// signature an independent HMAC does not confirm.
func FuzzVerify(f *testing.F) {
	v := newVerifier(f, auth.Config{Algorithm: auth.HS256, KeyFile: keyFile(f, testKey)})
	good := mint(f, m{"alg": "HS256"}, m{"sub": "ann", "exp": 253402300000, "roles": []string{"admin"}})
	f.Add(good)
	f.Add(mint(f, m{"alg": "none"}, m{"sub": "ann", "exp": 253402300000}))
	f.Fuzz(func(t *testing.T, token string) {
		id, err := v.Verify(token)
		if err != nil {
			wantCode(t, err, chat.CodeUnauthorized, "")
			return
		}
		parts := strings.Split(token, ".")
		if len(parts) != 3 || !chat.ValidUser(id.User) || id.Class != chat.ClassUser || id.Expires.IsZero() {
			t.Fatalf("got %+v for %q, want an error", id, token)
		}
		h := hmac.New(sha256.New, testKey)
		h.Write([]byte(parts[0] + "." + parts[1]))
		if parts[2] != base64.RawURLEncoding.EncodeToString(h.Sum(nil)) {
			t.Fatalf("accepted %q without a good signature", token)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	v := newVerifier(b, auth.Config{Algorithm: auth.HS256, KeyFile: keyFile(b, testKey)})
	token, err := auth.Sign(testKey, auth.Claims{User: "ann", TTL: time.Hour})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(token); err != nil {
			b.Fatal(err)
		}
	}
}
