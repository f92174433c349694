package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"parley/core/atomicfile"
	"parley/plugins"
)

func pluginInstallCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "install NAME.wasm --dir DIR | --data-dir DATA",
		Short: "Verify a module and put it into a server's plugin folder",
		Long: "Verify a module as the server does, test vectors included, and put it with its manifest into the server's plugin\n" +
			"folder: --dir names it (plugins.dir), --data-dir its parent, where `make run` has it. A running server takes it\n" +
			"into use a moment later. The manifest goes first and names the module's SHA-256, so that at no moment a module is\n" +
			"in force with a manifest that is not its own. With --wait the command ends when the server judges with it.",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: modules,
	}
	var host hostFlags
	var admin adminFlags
	host.add(c)
	admin.add(c)
	dir := c.Flags().String("dir", "", "the server's plugin folder (plugins.dir)")
	c.Flags().Lookup("data-dir").Usage = "the server's data_dir; its folder plugins and its admin.token are used"
	wait := c.Flags().Duration("wait", 0, "how long to wait for the server to judge with it; 0: not at all")
	_ = c.MarkFlagDirname("dir")
	c.RunE = func(c *cobra.Command, args []string) error {
		to, err := pluginFolder(*dir, admin.dataDir)
		if err != nil {
			return err
		}
		l, err := host.load(c, args[0])
		if err != nil {
			return err
		}
		file, digest, vectors := l.File, l.Digest(), len(l.Manifest.Vectors)
		if err := l.close(); err != nil {
			return err
		}
		began := time.Now()
		source, err := install(file, to)
		if err != nil {
			return fmt.Errorf("install %s: %w", file.Name, err)
		}
		fmt.Fprintf(c.OutOrStdout(), "%s is in %s (%s, %d vectors pass)\n", file.Name, to, digest[:12], vectors)
		if *wait == 0 {
			return nil
		}
		if err := admin.await(c.Context(), file.Name, source, *wait); err != nil {
			return err
		}
		_, err = fmt.Fprintf(c.OutOrStdout(), "the server judges with it, %d ms later\n", time.Since(began).Milliseconds())
		return err
	}
	return c
}

// pluginFolder is the folder to install to, made where the server's data_dir
// is there and it is not: it need not have started with it.
func pluginFolder(dir, dataDir string) (string, error) {
	switch {
	case (dir == "") == (dataDir == ""):
		return "", errors.New("say where to install: --dir, the server's plugins.dir, or --data-dir, its parent; not both")
	case dir != "":
		return dir, nil
	}
	if _, err := os.Stat(dataDir); err != nil {
		return "", fmt.Errorf("find the server's data_dir: %w", err)
	}
	dir = filepath.Join(dataDir, "plugins")
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("make the plugin folder: %w", err)
	}
	return dir, nil
}

// install puts a module and its manifest into a plugin folder, each whole or
// not at all. A Catalog reads the module, then the manifest. So the manifest
// goes first and names the module's digest: whoever reads in between finds the
// old module with a manifest of another one, refuses that pair and keeps what
// it has; whoever finds the new module finds the new manifest. It returns the
// name of the pair: see plugins.SourceDigest.
func install(f plugins.File, dir string) (source string, err error) {
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		err = errors.New("it is a file")
	}
	if err != nil {
		return "", fmt.Errorf("plugin folder %s: %w", dir, err)
	}
	manifest := f.Sidecar
	if manifest == nil { // none, or within the module; an older one may lie in the folder
		manifest = f.Manifest.JSON()
	}
	if f.Manifest.SHA256 == "" {
		sum := plugins.ModuleDigest(f.Wasm)
		if manifest, err = setKey(manifest, "sha256", hex.EncodeToString(sum[:])); err != nil {
			return "", err
		}
	}
	if _, err := plugins.ParseManifest(manifest); err != nil {
		return "", fmt.Errorf("its manifest: %w", err)
	}
	if err := atomicfile.Write(filepath.Join(dir, f.Name+".json"), manifest, 0o644); err != nil {
		return "", err
	}
	return plugins.SourceDigest(f.Wasm, manifest), atomicfile.Write(filepath.Join(dir, f.Name+".wasm"), f.Wasm, 0o644)
}

// await asks until the server judges with those files, or refused them for good.
func (f *adminFlags) await(ctx context.Context, name, source string, most time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	hint := "is its plugins.dir the folder installed to? See its log and `platform plugin list`"
	for {
		all, err := f.plugins(ctx)
		if err != nil && ctx.Err() == nil {
			return err
		}
		for _, p := range all {
			switch {
			case p.Name != name:
			case judges(p, source):
				return nil
			case p.Error == "" || p.ErrorSource != source: // of other files
			case p.RetryAt.IsZero():
				return fmt.Errorf("the server refused %s: %s", name, plain(p.Error))
			default:
				hint = "it will try again: " + plain(p.Error)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waited %v and the server does not judge with %s yet: %s", most, name, hint)
		}
	}
}
