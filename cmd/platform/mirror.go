package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/spf13/cobra"

	redisjournal "parley/core/journal/redis"
	"parley/core/mirror"
	"parley/core/redis"
)

// mirrorSide are the flags about one of the two deployments.
type mirrorSide struct {
	name         string
	url, ca      *string
	passwordFile *string
}

func addMirrorSide(c *cobra.Command, name, what string) mirrorSide {
	s := mirrorSide{
		name:         name,
		url:          c.Flags().String(name, "", what+": its redis.url, as docs/redis.md has it"),
		passwordFile: c.Flags().String(name+"-password-file", "", "file with the password for --"+name),
		ca:           c.Flags().String(name+"-ca-file", "", "authorities of --"+name+", in place of the system's"),
	}
	_ = c.MarkFlagRequired(name)
	return s
}

// mirrorOptions are the other flags.
type mirrorOptions struct {
	cfg         mirror.Config
	check       bool
	metrics     string
	settle      time.Duration
	keep        int
	callTimeout time.Duration
}

func mirrorCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "mirror --from URL --to URL --room PATTERN...",
		Short: "Carry rooms between two deployments, both ways",
		Long: "Carry the chosen rooms between the Redis of one deployment and that of another, both ways: what is posted at one appears\n" +
			"at the other, once, with the same id, author and time, and a place in that room's own order. It runs until it is stopped, and\n" +
			"may be stopped and started at any time and anywhere: how far each room has come is stored with the entries themselves.",
		Args: cobra.NoArgs,
	}
	from, to := addMirrorSide(c, "from", "the one deployment"), addMirrorSide(c, "to", "the other deployment")
	o := mirrorOptions{cfg: mirror.Defaults()}
	c.Flags().StringArrayVar(&o.cfg.Patterns, "room", nil, "room to carry, or a pattern such as 'team-*'; may be given again")
	_ = c.MarkFlagRequired("room")
	c.Flags().BoolVar(&o.cfg.OneWay, "one-way", false, "carry from --from to --to only")
	c.Flags().IntVar(&o.cfg.Workers, "workers", o.cfg.Workers, "rooms carried at once in each direction")
	c.Flags().DurationVar(&o.cfg.ReportEvery, "report", o.cfg.ReportEvery, "how often to say what was carried; 0 for never")
	c.Flags().StringVar(&o.metrics, "metrics", "", "address that serves /metrics and /healthz, as 127.0.0.1:9100")
	c.Flags().IntVar(&o.keep, "keep", redisjournal.Defaults().MaxEntries, "entries that a room keeps, as journal.retention_entries of both; 0 for all")
	c.Flags().DurationVar(&o.callTimeout, "call-timeout", 5*time.Second, "how long to wait for an answer")
	c.Flags().BoolVar(&o.check, "check", false, "carry nothing: compare both sides, print the error rate, exit 1 unless it is 0")
	c.Flags().DurationVar(&o.settle, "settle", 5*time.Second, "with --check, leave out what is newer: it may be on its way")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := o.cfg.Check(); err != nil {
			return err
		}
		log := slog.New(slog.NewTextHandler(c.ErrOrStderr(), nil))
		var sides [2]mirror.Side
		var ended sync.WaitGroup
		defer ended.Wait()
		ctx, cancel := context.WithCancel(c.Context())
		defer cancel()
		for i, s := range []mirrorSide{from, to} {
			j, end, err := s.open(o, log)
			if err != nil {
				return err
			}
			defer end()
			if !o.check {
				ended.Go(func() { _ = j.Run(ctx) })
			}
			sides[i] = mirror.Side{Name: s.name, Journal: j}
		}
		if o.check {
			return checkMirror(ctx, c.OutOrStdout(), o, sides)
		}
		m, err := mirror.New(o.cfg, sides[0], sides[1], log)
		if err != nil {
			return err
		}
		if o.metrics != "" {
			if err := serveMetrics(ctx, &ended, o.metrics, mirrorMetrics(m.Stats), log); err != nil {
				return err
			}
		}
		log.Info("mirror carries", "rooms", o.cfg.Patterns, "one_way", o.cfg.OneWay)
		return m.Run(ctx)
	}
	return c
}

// open opens one deployment's journal. end closes it.
func (s mirrorSide) open(o mirrorOptions, log *slog.Logger) (j *redisjournal.Journal, end func(), err error) {
	rc := redis.Defaults()
	rc.URL, rc.PasswordFile, rc.TLS.CAFile, rc.CallTimeout = *s.url, *s.passwordFile, *s.ca, o.callTimeout
	log = log.With("side", s.name)
	client, err := redis.Open(rc, log)
	if err != nil {
		return nil, nil, fmt.Errorf("--%s: %w", s.name, err)
	}
	jc := redisjournal.Defaults()
	jc.MaxEntries = o.keep
	if j, err = redisjournal.New(jc, client, log); err != nil {
		_ = client.Close()
		return nil, nil, fmt.Errorf("--keep: %w", err)
	}
	return j, func() { _ = j.Close(); _ = client.Close() }, nil
}

// checkMirror prints what both sides hold.
func checkMirror(ctx context.Context, out io.Writer, o mirrorOptions, sides [2]mirror.Side) error {
	c, err := mirror.Compare(ctx, o.cfg, sides[0], sides[1], o.settle)
	if err != nil {
		return err
	}
	for _, d := range c.Differ {
		fmt.Fprintf(out, "%s: %d entries at --from, %d at --to; missing at --to %d, at --from %d; twice %d, holes %d; settings, roles and bans that differ %d",
			d.Room, d.From, d.To, d.MissingTo, d.MissingFrom, d.Twice, d.Holes, d.Keys)
		if d.Example != "" {
			fmt.Fprintf(out, "; one that is missing: %s", printable(string(d.Example)))
		}
		fmt.Fprintln(out)
	}
	fmt.Fprintf(out, "%d rooms, %d entries, %d errors: error rate %.6f%%", c.Rooms, c.Messages, c.Errors, 100*c.Rate())
	if c.Older > 0 {
		fmt.Fprintf(out, " (%d more are older than what the other side keeps)", c.Older)
	}
	fmt.Fprintln(out)
	if c.Errors > 0 {
		return exitCode(1)
	}
	return nil
}
