package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"parley/core/atomicfile"
	"parley/plugins"
)

// pemKey is the type of a PEM block that holds a private key (RFC 5958).
const pemKey = "PRIVATE KEY"

// maxKeyFile bounds a key file, in bytes.
const maxKeyFile = 16 << 10

func pluginKeygenCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "keygen --key FILE",
		Short: "Make a key to sign modules with, and print what servers are told of it",
		Long: "Make an ed25519 key in FILE (PKCS #8 in PEM, readable by its owner alone) and print the public key, which goes into\n" +
			"plugins.trusted_keys of the servers that shall trust it. A file that is there is never written over.",
		Args: cobra.NoArgs,
	}
	file := c.Flags().String("key", "", "file to write")
	_ = c.MarkFlagRequired("key")
	c.RunE = func(c *cobra.Command, _ []string) error {
		public, err := makeKey(*file)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(c.OutOrStdout(), "%s\n", base64.StdEncoding.EncodeToString(public))
		return err
	}
	return c
}

// makeKey writes a new private key and returns its public part.
func makeKey(file string) (ed25519.PublicKey, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("%s is there already: name another file", file)
	}
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	err = errors.Join(pem.Encode(f, &pem.Block{Type: pemKey, Bytes: der}), f.Sync(), f.Close())
	if err != nil {
		_ = os.Remove(file) // half a key
		return nil, fmt.Errorf("write the key: %w", err)
	}
	return public, nil
}

// readKey reads a private key that nobody but its owner can.
func readKey(file string) (ed25519.PrivateKey, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read the key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read the key: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("others can read the key %s (mode %04o): chmod 600 it, and think about whether to make another", file, mode)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return nil, fmt.Errorf("read the key: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != pemKey {
		return nil, fmt.Errorf("%s holds no private key in PEM; `platform plugin keygen` makes one", file)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read the key %s: %w", file, err)
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("the key in %s is a %T; modules are signed with ed25519", file, key)
	}
	return private, nil
}

func pluginSignCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "sign --key FILE NAME.wasm",
		Short: "Sign a module and its manifest",
		Long: "Sign a module and its manifest. The signature and the module's SHA-256 go into NAME.json, which is made where there\n" +
			"is none; everything else in it stays as it is written. A change of either file afterwards makes it wrong.",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: modules,
	}
	keyFile := c.Flags().String("key", "", "file with the private key; see keygen")
	_ = c.MarkFlagRequired("key")
	_ = c.MarkFlagFilename("key")
	c.RunE = func(c *cobra.Command, args []string) error {
		key, err := readKey(*keyFile)
		if err != nil {
			return err
		}
		path, err := module(args[0])
		if err != nil {
			return err
		}
		to, err := sign(path, key)
		if err != nil {
			return fmt.Errorf("sign %s: %w", path, err)
		}
		_, err = fmt.Fprintf(c.OutOrStdout(), "%s holds the signature of %s by %s\n", to, path,
			base64.StdEncoding.EncodeToString(key.Public().(ed25519.PublicKey)))
		return err
	}
	return c
}

// sign writes the signature into the manifest beside the module and returns
// where that is.
func sign(path string, key ed25519.PrivateKey) (string, error) {
	file, err := plugins.ReadFile(path, plugins.Defaults())
	if err != nil {
		return "", err
	}
	signed := plugins.Sign(file.Manifest, file.Wasm, key)
	text := file.Sidecar
	if text == nil {
		text = file.Manifest.JSON()
	}
	if text, err = setKey(text, "signature", map[string]string{
		"key":   base64.StdEncoding.EncodeToString(signed.Signature.Key),
		"value": base64.StdEncoding.EncodeToString(signed.Signature.Value),
	}); err != nil {
		return "", err
	}
	if text, err = setKey(text, "sha256", signed.SHA256); err != nil {
		return "", err
	}
	written, err := plugins.ParseManifest(text)
	if err != nil {
		return "", err
	}
	if err := plugins.Verify(written, file.Wasm, []ed25519.PublicKey{signed.Signature.Key}); err != nil {
		return "", err
	}
	to := filepath.Join(filepath.Dir(path), file.Name+".json")
	return to, atomicfile.Write(to, text, 0o644)
}
