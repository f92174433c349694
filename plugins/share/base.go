package share

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"strings"

	"parley/core/atomicfile"
	"parley/core/cluster/objects"
	"parley/plugins"
)

// base is what folder and head last agreed on. It lies in the folder that it is
// about: another folder in its place was not emptied by a person, and nodes that
// share one folder share its base.
type base struct {
	Format  int               `json:"format"`
	Plugins map[string]string `json:"plugins"` // source by name
}

const (
	baseName = ".parley-share"
	maxBase  = 64 << 10
	maxNames = 4 * maxLive
)

// neither is the source of a name whose folder and head never agreed on anything.
var neither = strings.Repeat("0", 64)

// decodeBase reads the file strictly.
func decodeBase(b []byte) (out base, err error) {
	if err := decodeStrict(b, &out); err != nil {
		return base{}, err
	}
	if out.Format != format || len(out.Plugins) > maxNames {
		return base{}, fmt.Errorf("it has format %d and %d names, want %d and at most %d", out.Format, len(out.Plugins), format, maxNames)
	}
	for name, source := range out.Plugins {
		if !plugins.ValidName(name) || !objects.Digest(source).Valid() {
			return base{}, fmt.Errorf("%.80q has %.80q, which is no source", name, source)
		}
	}
	return out, nil
}

// loadBase reads what is remembered of a folder. Nothing, or nothing that can be
// read, is not known: then what the head says counts.
func loadBase(dir string) (b base, known bool, err error) {
	fresh := base{Format: format, Plugins: make(map[string]string)}
	text, err := atomicfile.Read(filepath.Join(dir, baseName), maxBase)
	if errors.Is(err, fs.ErrNotExist) {
		return fresh, false, nil
	}
	if err == nil {
		b, err = decodeBase(text)
	}
	if err != nil {
		return fresh, false, fmt.Errorf("read %s: %w; the plugins of the other nodes count", filepath.Join(dir, baseName), err)
	}
	if b.Plugins == nil {
		b.Plugins = make(map[string]string)
	}
	return b, true, nil
}

// save writes the file.
func (b *base) save(dir string) error {
	text, err := json.Marshal(b)
	if err != nil {
		return fmt.Errorf("encode what was shared: %w", err)
	}
	if err := atomicfile.Write(filepath.Join(dir, baseName), append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("remember what was shared: %w", err)
	}
	return nil
}

// set notes what a name has, "" for nothing.
func (b *base) set(name, source string) {
	if source == "" {
		delete(b.Plugins, name)
	} else {
		b.Plugins[name] = source
	}
}

func (b *base) clone() base { return base{Format: b.Format, Plugins: maps.Clone(b.Plugins)} }

func (b *base) same(o base) bool { return maps.Equal(b.Plugins, o.Plugins) }
