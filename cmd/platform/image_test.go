package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// descriptor is an OCI content descriptor (OCI Image Format, descriptor.md).
type descriptor struct {
	MediaType string
	Digest    string
	Size      int64
}

// untar reads a whole archive into memory.
func untar(t *testing.T, r io.Reader) map[string][]byte {
	t.Helper()
	files := make(map[string][]byte)
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			files[strings.TrimPrefix(h.Name, "./")] = b
		}
	}
}

// blob returns what a descriptor names, checked against its digest and size.
func blob(t *testing.T, files map[string][]byte, d descriptor) []byte {
	t.Helper()
	hash, ok := strings.CutPrefix(d.Digest, "sha256:")
	b, found := files["blobs/sha256/"+hash]
	if !ok || !found || int64(len(b)) != d.Size {
		t.Fatalf("blob %s of %d bytes: got %d bytes, present %v", d.Digest, d.Size, len(b), found)
	}
	if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != hash {
		t.Fatalf("blob %s has another digest", d.Digest)
	}
	return b
}

func decodeInto(t *testing.T, b []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
}

func TestImageHoldsOneStaticBinaryThatRuns(t *testing.T) {
	archive := filepath.Join(t.TempDir(), "parley.oci.tar")
	cmd := exec.Command("sh", "deploy/image.sh", "v1.2.3", archive)
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("image.sh: %v\n%s", err, out)
	} else if !strings.Contains(string(out), "binary ") || !strings.Contains(string(out), "archive ") {
		t.Errorf("got %q, want both sizes", out)
	}
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	files := untar(t, f)
	if got := string(files["oci-layout"]); got != `{"imageLayoutVersion":"1.0.0"}` {
		t.Errorf("got oci-layout %q", got)
	}
	var index struct{ Manifests []descriptor }
	decodeInto(t, files["index.json"], &index)
	var manifest struct {
		Config descriptor
		Layers []descriptor
	}
	decodeInto(t, blob(t, files, index.Manifests[0]), &manifest)
	var config struct {
		Config struct{ Entrypoint []string }
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	decodeInto(t, blob(t, files, manifest.Config), &config)
	z, err := gzip.NewReader(bytes.NewReader(blob(t, files, manifest.Layers[0])))
	if err != nil {
		t.Fatal(err)
	}
	layer, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(layer); "sha256:"+hex.EncodeToString(sum[:]) != config.RootFS.DiffIDs[0] {
		t.Error("diff_id is not the digest of the layer")
	}
	if got := config.Config.Entrypoint; len(got) != 1 || got[0] != "/platform" {
		t.Errorf("got entrypoint %q, want /platform", got)
	}
	runs(t, untar(t, bytes.NewReader(layer))["platform"])
}

// runs checks that the binary needs no loader and no library, and starts.
func runs(t *testing.T, binary []byte) {
	t.Helper()
	e, err := elf.NewFile(bytes.NewReader(binary))
	if err != nil {
		t.Fatalf("the layer holds no ELF file at /platform: %v", err)
	}
	for _, p := range e.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("the binary asks for a dynamic loader; a scratch image has none")
		}
	}
	path := filepath.Join(t.TempDir(), "platform")
	if err := os.WriteFile(path, binary, 0o700); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(path, "version").Output()
	if err != nil || !strings.HasPrefix(string(out), "parley v1.2.3 ") {
		t.Errorf("version: got %q, %v", out, err)
	}
}
