package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"

	redisabsent "parley/core/absent/redis"
	"parley/core/absent/webhook"
	"parley/core/config"
	"parley/core/metrics"
	"parley/core/redis"
)

// workerCommand is what works beside the servers.
func workerCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "worker",
		Short: "Deliver messages for absent people",
		Long: "Deliver messages for people who were connected nowhere when they were mentioned or written to (docs/cluster.md,\n" +
			"\"Messages for the absent\"). Any number of workers may share the work.",
	}
	c.AddCommand(workerWebhookCommand(), workerDeadCommand())
	return c
}

// queueOf adds the flags that say where Redis is, and returns how to open it.
func queueOf(c *cobra.Command) func(log *slog.Logger) (*redis.Client, *redisabsent.Queue, error) {
	load := configured(c, "redis.", "log.")
	url := c.Flags().String("redis", "", "the Redis of the nodes, as redis.url")
	return func(log *slog.Logger) (*redis.Client, *redisabsent.Queue, error) {
		cfg, err := load()
		if err != nil {
			return nil, nil, err
		}
		if *url != "" {
			if err := redis.CheckURL(*url); err != nil {
				return nil, nil, fmt.Errorf("--redis: %w", err)
			}
			cfg.Redis.URL = *url
		}
		if cfg.Redis.URL == "" {
			return nil, nil, errors.New("there is no Redis to take messages from: give --redis URL, or --config of a node with redis.url")
		}
		if log == nil {
			log = slog.New(cfg.Log.Handler(os.Stderr))
		}
		client, err := redis.Open(redisConfig(cfg), log)
		if err != nil {
			return nil, nil, err
		}
		return client, redisabsent.NewQueue(client), nil
	}
}

func workerWebhookCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "webhook",
		Short: "Post messages for absent people to an HTTP endpoint",
		Long: "Post each message for somebody absent to an HTTP endpoint, signed as the Standard Webhooks specification says, until the\n" +
			"endpoint has taken it. It runs until SIGTERM or SIGINT. What it had in hand when it was killed is delivered by another\n" +
			"worker, or by the next, after --claim-after.",
		Example: "  echo whsec_$(openssl rand -base64 32) > webhook.secret\n" +
			"  platform worker webhook --redis redis://127.0.0.1:6379/0 --url https://push.example.org/parley --secret-file webhook.secret",
		Args: cobra.NoArgs,
	}
	wc := webhook.Defaults()
	open := queueOf(c)
	f := c.Flags()
	f.StringVar(&wc.URL, "url", "", "the endpoint")
	secrets := f.String("secret-file", "", "file with the secrets to sign with, whsec_BASE64, one on each line")
	f.StringVar(&wc.CAFile, "ca-file", "", "PEM file with the CAs to trust for the endpoint, instead of the system's")
	f.IntVar(&wc.Concurrency, "concurrency", wc.Concurrency, "deliveries under way at once")
	f.IntVar(&wc.Tries, "tries", wc.Tries, "attempts before a message becomes a dead letter")
	f.DurationVar(&wc.FirstWait, "first-wait", wc.FirstWait, "wait after the first failure; it doubles with each")
	f.DurationVar(&wc.MostWait, "most-wait", wc.MostWait, "longest of these waits")
	f.DurationVar(&wc.Timeout, "timeout", wc.Timeout, "time for one attempt")
	f.DurationVar(&wc.ClaimAfter, "claim-after", wc.ClaimAfter, "time without a sign of life after which a worker's messages go to others; the same for all workers")
	listen := f.String("metrics", "", "address that serves /metrics and /healthz")
	_ = c.MarkFlagFilename("secret-file")
	_ = c.MarkFlagFilename("ca-file")
	_ = c.MarkFlagRequired("url")
	_ = c.MarkFlagRequired("secret-file")
	c.RunE = func(c *cobra.Command, _ []string) error {
		var err error
		if wc.Secrets, err = webhook.ReadSecrets(*secrets); err != nil {
			return err
		}
		log := slog.New(config.Defaults().Log.Handler(os.Stderr))
		client, q, err := open(log)
		if err != nil {
			return err
		}
		defer client.Close()
		w, err := webhook.New(wc, q, log)
		if err != nil {
			return err
		}
		ctx, stop := context.WithCancel(c.Context())
		defer stop()
		var aside sync.WaitGroup
		defer aside.Wait()
		defer stop()
		if *listen != "" {
			if err := serveMetrics(ctx, &aside, *listen, workerMetrics(ctx, w, q), log); err != nil {
				return err
			}
		}
		fmt.Fprintln(c.OutOrStdout(), "delivering messages for absent people")
		return w.Run(ctx)
	}
	return c
}

func workerMetrics(ctx context.Context, w *webhook.Worker, q *redisabsent.Queue) []metrics.Metric {
	stats := w.Stats
	return []metrics.Metric{
		metrics.Counter("parley_worker_delivered_total", "Messages that the endpoint took.", func() uint64 { return stats().Delivered }),
		metrics.Counter("parley_worker_retried_total", "Attempts in vain that are followed by another.", func() uint64 { return stats().Retried }),
		metrics.Counter("parley_worker_dead_total", "Messages that became dead letters.", func() uint64 { return stats().Dead }),
		metrics.Counter("parley_worker_lost_total", "Messages in hand that another worker took over, or that were dropped from the stream.", func() uint64 { return stats().Lost }),
		metrics.Counter("parley_worker_unended_total", "Deliveries whose end Redis could not be told; they are made again.", func() uint64 { return stats().Unended }),
		metrics.Counter("parley_worker_redis_errors_total", "Calls to Redis that failed.", func() uint64 { return stats().Errors }),
		metrics.Gauge("parley_worker_held", "Messages in hand.", func() float64 { return float64(stats().Held) }),
		metrics.Gauge("parley_worker_circuit_open", "1 while the endpoint is left alone.", func() float64 {
			if stats().Open {
				return 1
			}
			return 0
		}),
		{Name: "parley_worker_waiting", Help: "Messages in the stream, and dead letters.", Gauge: true, Read: func(e metrics.Emit) {
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			if stream, dead, err := q.Waiting(ctx); err == nil {
				e(float64(stream), "where", "stream")
				e(float64(dead), "where", "dead")
			}
		}},
	}
}
