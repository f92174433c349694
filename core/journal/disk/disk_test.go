package disk_test

import (
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"parley/core/journal"
	"parley/core/journal/disk"
	"parley/core/journal/journaltest"
)

func TestConformance(t *testing.T) {
	defer goleak.VerifyNone(t)
	for _, c := range []struct {
		name string
		set  func(*disk.Config)
	}{
		{"defaults", func(*disk.Config) {}},
		{"no window, one room in memory", func(c *disk.Config) { c.CommitWindow, c.MaxCachedRooms = 0, 1 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			journaltest.Run(t, func(t *testing.T) journaltest.Store {
				cfg := config(filepath.Join(t.TempDir(), "journal.db"))
				c.set(&cfg)
				return journaltest.Store{Open: func(t *testing.T, o journaltest.Options) journal.Journal {
					if o.MaxEntries > 0 {
						cfg.MaxEntries = o.MaxEntries
					}
					if o.NonceWindow > 0 {
						cfg.NonceWindow = o.NonceWindow
					}
					return open(t, cfg)
				}}
			})
		})
	}
}

// open opens a journal that is closed with the test.
func open(t testing.TB, cfg disk.Config) *disk.Journal {
	t.Helper()
	j, err := disk.Open(cfg, nil)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return j
}
