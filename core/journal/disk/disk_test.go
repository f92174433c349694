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
	journaltest.Run(t, func(t *testing.T) journaltest.Store {
		path := filepath.Join(t.TempDir(), "journal.db")
		return journaltest.Store{Open: func(t *testing.T, o journaltest.Options) journal.Journal {
			cfg := disk.Defaults()
			cfg.Path = path
			if o.MaxEntries > 0 {
				cfg.MaxEntries = o.MaxEntries
			}
			return open(t, cfg)
		}}
	})
}

// open opens a journal that logs to the test and is closed with it.
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
