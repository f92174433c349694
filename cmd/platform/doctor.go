package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"parley/core/config"
	"parley/core/doctor"
	"parley/core/redis"
)

// doctorTime bounds all checks together; Redis has a bound of its own.
const doctorTime = 15 * time.Second

func doctorCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Check this machine: limits, kernel settings, clock, disk, Redis",
		Long: "Check the machine against the configuration and say what to change, with the command for it.\n" +
			"Nothing is changed. The exit code is 1 when something is bad.",
		Args: cobra.NoArgs,
	}
	asJSON := c.Flags().Bool("json", false, "print JSON instead of a table")
	load := configured(c, "data_dir", "limits.connections", "liveness.", "redis.")
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := load()
		if err != nil {
			return err
		}
		checks, err := examine(c.Context(), cfg)
		if err != nil {
			return err
		}
		show := doctor.Print
		if *asJSON {
			show = doctor.PrintJSON
		}
		if err := show(c.OutOrStdout(), checks); err != nil {
			return err
		}
		if doctor.Worst(checks) == doctor.Bad {
			return errTold
		}
		return nil
	}
	return c
}

func examine(ctx context.Context, cfg config.Config) ([]doctor.Check, error) {
	ctx, cancel := context.WithTimeout(ctx, doctorTime)
	defer cancel()
	dc := doctor.Config{DataDir: cfg.DataDir, Connections: cfg.Limits.Connections, Liveness: livenessConfig(cfg)}
	if cfg.Redis.URL != "" {
		client, err := redis.Open(redisConfig(cfg), slog.New(slog.DiscardHandler))
		if err != nil {
			return nil, err
		}
		defer client.Close()
		dc.Redis = client
	}
	return doctor.Run(ctx, dc), nil
}
