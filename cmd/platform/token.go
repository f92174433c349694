package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"parley/core/auth"
	"parley/core/chat"
	"parley/core/config"
)

func tokenCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "token --user NAME [--role ROLE]...",
		Short: "Print a token for development, signed with this server's own HS256 key",
		Long: "Print a token for development, signed with the HS256 key of the server whose data_dir or auth.jwt.key_file is given.\n" +
			"It goes into the web client's sign-in, or into the hello: {\"type\":\"hello\",\"token\":\"...\"}.",
		Args: cobra.NoArgs,
	}
	load := configured(c, "data_dir", "auth.jwt.")
	user := c.Flags().String("user", "", "user name")
	roles := c.Flags().StringSlice("role", nil, "global role, such as moderator; may be repeated")
	ttl := c.Flags().Duration("ttl", 24*time.Hour, "lifetime of the token")
	_ = c.MarkFlagRequired("user")
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := load()
		if err != nil {
			return err
		}
		if cfg.Auth.JWT.Algorithm != auth.HS256 {
			return errors.New("auth.jwt.algorithm is not HS256: tokens come from your identity provider, which holds the private key")
		}
		if !chat.ValidUser(chat.UserID(*user)) {
			return fmt.Errorf("%q is no user name: 1 to %d bytes of letters, digits and -_.@+:, beginning with a letter or digit", *user, chat.MaxUserBytes)
		}
		file := keyFile(cfg)
		_, statErr := os.Stat(file)
		load := auth.LoadOrCreateKey
		if cfg.Auth.JWT.KeyFile != "" { // a server makes none there either
			load = auth.LoadKey
		}
		key, err := load(file)
		if err != nil {
			return err
		}
		if errors.Is(statErr, fs.ErrNotExist) { // a misspelt data_dir would show only at the sign-in
			fmt.Fprintf(c.ErrOrStderr(), "made a new key, %s: the token is for the server that uses it\n", file)
		}
		text, err := auth.Sign(key, auth.Claims{User: chat.UserID(*user), Roles: *roles, TTL: *ttl,
			Audience: cfg.Auth.JWT.Audience, Issuer: cfg.Auth.JWT.Issuer})
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(c.OutOrStdout(), text)
		return err
	}
	return c
}

// keyFile is where the key of tokens is.
func keyFile(cfg config.Config) string {
	if cfg.Auth.JWT.KeyFile != "" {
		return cfg.Auth.JWT.KeyFile
	}
	return filepath.Join(cfg.DataDir, "jwt.key")
}
