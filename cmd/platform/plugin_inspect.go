package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"parley/plugins"
)

func pluginInspectCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "inspect NAME.wasm",
		Short: "Print what a module is, without running it: exports, imports, memory, limits, signature, manifest",
		Args:  cobra.ExactArgs(1), ValidArgsFunction: modules,
	}
	trusted := c.Flags().StringSlice("trusted-key", nil, "public key whose signature is trusted, in base64 (plugins.trusted_keys); may be repeated")
	asJSON := c.Flags().Bool("json", false, "print it as JSON")
	c.RunE = func(c *cobra.Command, args []string) error {
		cfg := plugins.Defaults()
		for _, text := range *trusted {
			key, err := plugins.ParseKey(text)
			if err != nil {
				return fmt.Errorf("--trusted-key: %w", err)
			}
			cfg.TrustedKeys = append(cfg.TrustedKeys, key)
		}
		path, err := module(args[0])
		if err != nil {
			return err
		}
		i, err := plugins.Inspect(path, cfg)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if *asJSON {
			return printJSON(c.OutOrStdout(), struct {
				plugins.Inspection
				Manifest json.RawMessage `json:"manifest"`
			}{i, i.Manifest.JSON()})
		}
		return showInspection(c.OutOrStdout(), i)
	}
	return c
}

func showInspection(out io.Writer, i plugins.Inspection) error {
	grows := "fixed"
	switch {
	case i.MemoryGrows && i.MemoryMax == 0:
		grows = "grows, no maximum of its own"
	case i.MemoryGrows:
		grows = fmt.Sprintf("grows to %d KiB", int(i.MemoryMax)*64)
	}
	signature := i.Signature
	if i.Signer != "" {
		signature += ", by " + i.Signer
	}
	rows := [][2]string{
		{"name", i.Name},
		{"sha256", i.Digest},
		{"size", fmt.Sprintf("%s: %s of code in %d functions, %s of data", size(int64(i.Bytes)), size(int64(i.CodeBytes)), i.Functions, size(int64(i.DataBytes)))},
		{"memory", fmt.Sprintf("%d KiB, %s", int(i.MemoryPages)*64, grows)},
		{"limits", fmt.Sprintf("%d fuel, %s of memory, %s in, %s out", i.Limits.Fuel, size(int64(i.Limits.MemoryBytes)), size(int64(i.Limits.InputBytes)), size(int64(i.Limits.OutputBytes)))},
		{"signature", signature},
		{"imports", listed(i.Imports)},
		{"exports", listed(i.Exports)},
	}
	if i.ModuleDigest != i.Digest {
		rows = append(rows, [2]string{"without manifest", i.ModuleDigest})
	}
	for _, r := range rows {
		if _, err := fmt.Fprintf(out, "%-10s %s\n", r[0], r[1]); err != nil {
			return err
		}
	}
	if i.Source == "none" {
		_, err := fmt.Fprintln(out, "manifest   none: the defaults hold")
		return err
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, i.Manifest.JSON(), "", "  "); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "manifest   from the %s\n%s\n", i.Source, pretty.String())
	return err
}

// listed puts each name, which its author chose, on a line of its own.
func listed(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	shown := make([]string, len(names))
	for i, name := range names {
		shown[i] = plain(name)
	}
	return strings.Join(shown, "\n           ")
}
