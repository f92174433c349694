package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"parley/core/archive"
)

func backupCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "backup --out FILE",
		Short: "Write all rooms of a running server to a file",
		Long: "Write all rooms of a running server, with either store, to a file: settings, roles, bans, messages and what waits for\n" +
			"review. The server goes on meanwhile. The file is checked before it gets its name, so a file that is there is whole.\n" +
			"It holds what people wrote: keep it as you keep the server's data. docs/keeping.md says what it does not hold.",
		Args: cobra.NoArgs,
	}
	var admin adminFlags
	admin.add(c)
	out := c.Flags().String("out", "", "the file to write; one that is there is replaced")
	_ = c.MarkFlagFilename("out")
	if err := c.MarkFlagRequired("out"); err != nil {
		panic(err) // the flag is not there
	}
	c.RunE = func(c *cobra.Command, _ []string) error {
		sum, err := backup(c.Context(), &admin, *out)
		if err != nil {
			return err
		}
		return printSummary(c.OutOrStdout(), "wrote", *out, sum)
	}
	c.AddCommand(verifyCommand())
	return c
}

func printSummary(out io.Writer, did, name string, sum archive.Summary) error {
	text := fmt.Sprintf("%s %s: %s, %s, %s that %s for review", did, name, count(sum.Rooms, "room", "rooms"), count(sum.Entries, "entry", "entries"),
		count(sum.Reviews, "message", "messages"), word(sum.Reviews, "waits", "wait"))
	if sum.Notes > 0 {
		text += fmt.Sprintf(", %s for absent people", count(sum.Notes, "message", "messages"))
	}
	if sum.Missing > 0 {
		text += fmt.Sprintf("; %s damaged in the store and %s missing", count(sum.Missing, "entry was", "entries were"), word(sum.Missing, "is", "are"))
	}
	_, err := fmt.Fprintln(out, text)
	return err
}

// backup takes the server's archive, checks it on the way, and gives it its name
// when it is whole and on disk.
func backup(ctx context.Context, admin *adminFlags, name string) (sum archive.Summary, err error) {
	resp, err := admin.send(ctx, http.MethodGet, "/v1/backup", nil)
	if err != nil {
		return sum, err
	}
	defer resp.Body.Close()
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*.part") // for its owner alone
	if err != nil {
		return sum, fmt.Errorf("write the backup: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreClosedFile(f.Close()), os.Remove(f.Name()))
		}
	}()
	if _, sum, err = archive.Verify(io.TeeReader(resp.Body, f)); err != nil {
		return sum, fmt.Errorf("%w; nothing was kept: the server or the connection ended in the middle, look at its log and try again", err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return sum, fmt.Errorf("write the backup: %w", err)
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return sum, fmt.Errorf("write the backup: %w", err)
	}
	return sum, nil
}

func ignoreClosedFile(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

func verifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify FILE",
		Short: "Read a backup to its end and say what is in it, or where it is damaged",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			h, sum, err := verify(args[0])
			if err != nil {
				return err
			}
			if err := printSummary(c.OutOrStdout(), "checked", args[0], sum); err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "taken %s from %s\n", h.Created.UTC().Format("2006-01-02 15:04:05 UTC"), plain(h.Server))
			return err
		},
	}
}

func verify(name string) (h archive.Header, sum archive.Summary, err error) {
	f, err := os.Open(name)
	if err != nil {
		return h, sum, fmt.Errorf("read the backup: %w", err)
	}
	defer f.Close()
	h, sum, err = archive.Verify(f)
	if err != nil {
		return h, sum, fmt.Errorf("%s: %w", name, err)
	}
	return h, sum, nil
}

func restoreCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "restore --in FILE",
		Short: "Put the rooms of a backup into a running server",
		Long: "Put the rooms of a backup into a running server, with either store, empty or not. Each room of the backup replaces the\n" +
			"server's room of that name, whose later messages are lost; other rooms stay. Every room begins a new epoch, so clients\n" +
			"are told to reset. The file is read to its end first: one that is damaged changes nothing.\n\n" +
			"What waited for absent people when the backup was taken may have reached them since, so it is left in the file. With\n" +
			"--absent it is delivered: for a move to another Redis, or when Redis has lost it.",
		Args: cobra.NoArgs,
	}
	var admin adminFlags
	admin.add(c)
	in := c.Flags().String("in", "", "the backup")
	absent := c.Flags().Bool("absent", false, "also have the messages for absent people delivered that the backup has")
	_ = c.MarkFlagFilename("in")
	if err := c.MarkFlagRequired("in"); err != nil {
		panic(err) // the flag is not there
	}
	c.RunE = func(c *cobra.Command, _ []string) error {
		_, held, err := verify(*in)
		if err != nil {
			return fmt.Errorf("%w; nothing was restored", err)
		}
		f, err := os.Open(*in)
		if err != nil {
			return fmt.Errorf("read the backup: %w", err)
		}
		defer f.Close()
		path := "/v1/restore"
		if *absent && held.Notes > 0 {
			path += "?absent=1"
		}
		resp, err := admin.send(c.Context(), http.MethodPost, path, f)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		var sum archive.Summary
		if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&sum); err != nil {
			return fmt.Errorf("read the server's answer: %w", err)
		}
		if err := printSummary(c.OutOrStdout(), "restored", *in, sum); err != nil || sum.Notes == held.Notes {
			return err
		}
		_, err = fmt.Fprintf(c.OutOrStdout(), "not delivered: %s for absent people%s\n", count(held.Notes-sum.Notes, "message", "messages"),
			map[bool]string{true: ", of rooms or entries that the backup does not have", false: "; --absent has them delivered"}[*absent])
		return err
	}
	return c
}
