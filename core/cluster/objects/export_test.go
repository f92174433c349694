package objects

import "context"

// Old is old.
func (s *Store) Old(ctx context.Context) ([]string, error) { return s.old(ctx) }

// Drop is drop.
func (s *Store) Drop(ctx context.Context, d string) (bool, error) { return s.drop(ctx, d) }
