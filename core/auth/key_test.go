package auth_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"parley/core/auth"
)

func TestLoadOrCreateKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data", "jwt.key")
	var (
		wg   sync.WaitGroup
		keys [8]string
	)
	for i := range keys { // processes starting together agree on one key
		wg.Go(func() {
			key, err := auth.LoadOrCreateKey(path)
			if err != nil {
				t.Error(err)
			}
			keys[i] = string(key)
		})
	}
	wg.Wait()
	for i, k := range keys {
		if k != keys[0] || len(k) != 43 {
			t.Errorf("key %d: got %d bytes, same as the first: %t; want 43 and the same", i, len(k), k == keys[0])
		}
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("got mode %v, %v, want 0600", st.Mode(), err)
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("got %v, %v in the folder, want the key alone", left, err)
	}
}

func TestBadKeys(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, alg string
		data      []byte
		want      string
	}{
		{"empty secret", auth.HS256, nil, "has 0 bytes, at least 32 are needed"},
		{"short secret", auth.HS256, []byte(strings.Repeat("x", 31) + "\n\n"), "has 31 bytes"},
		{"large secret", auth.HS256, make([]byte, 5000), "has more than 4096 bytes"},
		{"no PEM", auth.EdDSA, testKey, "holds no PEM block"},
		{"other PEM", auth.EdDSA, []byte("-----BEGIN X-----\n-----END X-----\n"), `holds a "X"`},
		{"broken PEM", auth.EdDSA, []byte("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"), "parse key"},
		{"elliptic key", auth.EdDSA, publicPEM(t, &ec.PublicKey), "want Ed25519"},
		{"large PEM", auth.EdDSA, make([]byte, 5000), "has more than 4096 bytes"},
		{"unknown algorithm", "RS256", testKey, "is not one of HS256, EdDSA"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := auth.NewVerifier(auth.Config{Algorithm: tt.alg, KeyFile: keyFile(t, tt.data)})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
	missing := filepath.Join(t.TempDir(), "none")
	if _, err := auth.LoadKey(missing); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: got %v, want not-exist", err)
	}
	if _, err := auth.LoadPublicKey(missing); err == nil {
		t.Error("missing public key: got no error")
	}
	if _, err := auth.LoadOrCreateKey(filepath.Join(keyFile(t, testKey), "below-a-file")); err == nil {
		t.Error("impossible path: got no error")
	}
}

func TestAdminToken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.token")
	if _, err := auth.LoadAdminToken(path); err == nil {
		t.Error("before creation: got no error")
	}
	made, err := auth.LoadOrCreateAdminToken(path)
	if err != nil {
		t.Fatal(err)
	}
	read, err := auth.LoadAdminToken(path)
	if err != nil {
		t.Fatal(err)
	}
	if !made.Valid(read.Reveal()) {
		t.Error("the token read from the file is not accepted")
	}
	for _, bad := range []string{"", "x", made.Reveal() + "x", made.Reveal()[1:]} {
		if made.Valid(bad) {
			t.Errorf("%d bytes of garbage are accepted", len(bad))
		}
	}
	if (auth.AdminToken{}).Valid("") {
		t.Error("the zero token accepts the empty text")
	}
	if s := fmt.Sprintf("%v %+v %#v %s", made, made, made, made); strings.Contains(s, made.Reveal()) {
		t.Errorf("printing shows the token: %s", s)
	}
	if _, err := auth.LoadOrCreateAdminToken(keyFile(t, []byte("short"))); err == nil {
		t.Error("short file: got no error")
	}
}
