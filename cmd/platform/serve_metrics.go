package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"

	"parley/core/metrics"
)

// serveMetrics serves the metrics of a command that works beside the servers, until
// ctx ends: /metrics, and /healthz, which says that the process lives.
func serveMetrics(ctx context.Context, aside *sync.WaitGroup, addr string, ms []metrics.Metric, log *slog.Logger) error {
	reg := metrics.New(log)
	if err := reg.Add(ms...); err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", reg.Handler())
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("--metrics: %w", err)
	}
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: readHeaderTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes}
	aside.Go(func() { _ = srv.Serve(ln) })
	aside.Go(func() {
		<-ctx.Done()
		_ = srv.Close()
	})
	return nil
}
