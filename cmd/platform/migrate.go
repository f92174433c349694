package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"parley/core/archive"
	"parley/core/config"
	"parley/core/journal/disk"
	redisjournal "parley/core/journal/redis"
	"parley/core/redis"
)

func migrateCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "migrate --from DATA_DIR --to redis://HOST:PORT",
		Short: "Move the rooms of a stopped server from its own store to Redis",
		Long: "Copy every room of a stopped server's embedded store to Redis, with epochs, seqs, ids and answers to nonces, so that\n" +
			"clients go on where they were when the server starts with redis.url. The store is left as it is. A run that was\n" +
			"interrupted is gone on with by another, and every room is compared at the end. Rooms that Redis has with other content\n" +
			"are an error. Evidence, plugin state and keys stay in the data folder.\n\n" +
			"How to reach Redis, its prefix and journal.nonce_window are those of the server's configuration: give the same\n" +
			"--config, variables or flags.",
		Args: cobra.NoArgs,
	}
	from := c.Flags().String("from", "", "the server's data_dir")
	to := c.Flags().String("to", "", "the URL of the Redis server")
	load := configured(c, "redis.", "journal.nonce_window")
	c.Flags().Lookup("redis.url").Hidden = true // --to says it
	_ = c.MarkFlagDirname("from")
	for _, name := range []string{"from", "to"} {
		if err := c.MarkFlagRequired(name); err != nil {
			panic(err) // the flag is not there
		}
	}
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := load()
		if err != nil {
			return err
		}
		cfg.Redis.URL = *to
		return migrate(c.Context(), *from, cfg, c.OutOrStdout(), slog.New(slog.NewTextHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn})))
	}
	return c
}

// migrate copies the rooms, then the answers to nonces.
func migrate(ctx context.Context, dir string, cfg config.Config, out io.Writer, log *slog.Logger) (err error) {
	dc := disk.Defaults()
	dc.Path, dc.NonceWindow = filepath.Join(dir, "parley.db"), cfg.Journal.NonceWindow
	dc.MaxEntries, dc.MaxAge = 0, 0 // nothing goes by being moved
	if _, err := os.Stat(dc.Path); err != nil {
		return fmt.Errorf("open the store: %w; is %s the server's data_dir?", err, dir)
	}
	from, err := disk.Open(dc, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	client, err := redis.Open(redisConfig(cfg), log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	to, err := redisjournal.New(redisjournal.Defaults(), client, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()

	sum, err := archive.Copy(ctx, from, to, func(c archive.Copied) {
		did := "copied"
		if c.Already {
			did = "was there"
		}
		fmt.Fprintf(out, "%-9s %s: %d entries up to %d of epoch %s, sha256 %x\n", did, plain(string(c.Room)), c.Digest.Entries, c.Digest.Top.Seq, plain(c.Digest.Top.Epoch), c.Digest.Log[:8])
	})
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	answers := 0
	err = from.Answers(ctx, func(a disk.Answer) error {
		answers++
		return to.Remember(ctx, a.Room, a.User, a.Nonce, a.Receipt, a.Left)
	})
	if err != nil {
		return fmt.Errorf("migrate the answers to nonces: %w", err)
	}
	_, err = fmt.Fprintf(out, "%s with %s and %s to nonces are in Redis, equal to the store here; start the server with redis.url\n",
		count(sum.Rooms, "room", "rooms"), count(sum.Entries, "entry", "entries"), count(answers, "answer", "answers"))
	return err
}
