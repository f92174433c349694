package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"
)

// readyTime bounds one question of `platform ready`.
const readyTime = 3 * time.Second

func readyCommand() *cobra.Command {
	var f adminFlags
	var wait time.Duration
	c := &cobra.Command{
		Use:   "ready",
		Short: "Say whether a running server wants clients, for health checks of containers and scripts",
		Long: "Ask a running server whether it wants clients. The exit code is 0 when it does. Otherwise it is 1, and the reasons are\n" +
			"printed. It needs no token.",
		Args: cobra.NoArgs,
	}
	f.add(c)
	c.Flags().DurationVar(&wait, "wait", 0, "time to go on asking until the server is ready")
	c.RunE = func(c *cobra.Command, _ []string) error {
		end := time.Now().Add(wait)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			err := f.ready(c.Context())
			if err == nil {
				_, err = fmt.Fprintln(c.OutOrStdout(), "ready")
				return err
			}
			if !time.Now().Before(end) {
				return err
			}
			select {
			case <-tick.C:
			case <-c.Context().Done():
				return err
			}
		}
	}
	return c
}

// ready returns nil when the server wants clients, else why it does not.
func (f *adminFlags) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	resp, err := f.send(ctx, http.MethodGet, "/readyz", nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}
