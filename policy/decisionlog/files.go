package decisionlog

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	namePrefix = "decisions-" // then the id of the first record
	nameSuffix = ".jsonl"

	// minBytes is the least that all files may take together.
	minBytes = 1 << 20
	// parts is how many files share MaxBytes: when the oldest goes, that much
	// of the past goes with it.
	parts = 16
)

// files are the rotated files of one folder. Writing belongs to one goroutine;
// mu guards what readers need.
type files struct {
	dir       string
	most      int64 // bytes of all files
	each      int64 // bytes of one file
	retention time.Duration
	log       *slog.Logger

	// Owned by the writer.
	out     *os.File // nil before the first record, and after a failure
	outSize int64
	opened  time.Time

	mu    sync.Mutex
	names []string         // sorted, the oldest first; guarded by mu
	bytes map[string]int64 // guarded by mu
}

func openFiles(cfg Config, log *slog.Logger) (*files, error) {
	f := &files{dir: cfg.Dir, most: cfg.MaxBytes, each: cfg.MaxBytes / parts, retention: cfg.Retention, log: log, bytes: map[string]int64{}}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the decision log: %w", err)
	}
	names, err := logFiles(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("open the decision log: %w", err)
	}
	for _, name := range names {
		info, err := os.Stat(filepath.Join(cfg.Dir, name))
		if err != nil {
			return nil, fmt.Errorf("open the decision log: %w", err)
		}
		f.names = append(f.names, name)
		f.bytes[name] = info.Size()
	}
	return f, nil
}

// logFiles are the names of the log's files in dir, the oldest first.
func logFiles(dir string) (names []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.Type().IsRegular() && validID(startOf(e.Name())) {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// startOf is the id of the first record of a file, from its name.
func startOf(name string) string {
	id, ok := strings.CutPrefix(name, namePrefix)
	id, ok2 := strings.CutSuffix(id, nameSuffix)
	if !ok || !ok2 {
		return ""
	}
	return id
}

// write appends records to the newest file, and makes a new one where that is
// full or old.
func (f *files) write(records []*Record, now time.Time) (written int, err error) {
	var buf []byte
	for _, r := range records {
		line, err := r.appendLine(nil)
		if err != nil {
			f.log.Error("a decision cannot be kept", "err", err)
			continue
		}
		if f.out != nil && (f.outSize+int64(len(buf)+len(line)) > f.each || f.retention > 0 && now.Sub(f.opened) > f.retention/parts) {
			if err := f.flush(buf); err != nil {
				return written, err
			}
			buf = buf[:0]
			f.close()
		}
		if f.out == nil {
			if err := f.create(r.ID, now); err != nil {
				return written, err
			}
		}
		buf = append(buf, line...)
		written++
	}
	return written, f.flush(buf)
}

func (f *files) create(id string, now time.Time) error {
	name := namePrefix + id + nameSuffix
	out, err := os.OpenFile(filepath.Join(f.dir, name), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("write the decision log: %w", err)
	}
	f.out, f.outSize, f.opened = out, 0, now
	f.mu.Lock()
	f.names = append(f.names, name)
	f.bytes[name] = 0
	f.mu.Unlock()
	f.sweep(now)
	return nil
}

func (f *files) flush(buf []byte) error {
	if len(buf) == 0 || f.out == nil {
		return nil
	}
	n, err := f.out.Write(buf)
	f.outSize += int64(n)
	f.mu.Lock()
	f.bytes[filepath.Base(f.out.Name())] += int64(n)
	f.mu.Unlock()
	if err != nil {
		f.close() // what comes next begins a file of its own: this one may end in half a line
		return fmt.Errorf("write the decision log: %w", err)
	}
	return nil
}

func (f *files) close() {
	if f.out == nil {
		return
	}
	if err := f.out.Close(); err != nil {
		f.log.Error("the decision log's file does not close", "err", err)
	}
	f.out = nil
}

// sweep removes the oldest files above the bounds; the one being written stays.
func (f *files) sweep(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	total := f.each // what the newest may still take
	for _, n := range f.bytes {
		total += n
	}
	for len(f.names) > 1 {
		name := f.names[0]
		// A file's records are older than the first of the next file.
		old := f.retention > 0 && startOf(f.names[1]) < firstID(now.Add(-f.retention))
		if total <= f.most && !old && len(f.names) <= 2*parts {
			return
		}
		if err := os.Remove(filepath.Join(f.dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			f.log.Error("an old file of the decision log cannot be removed", "file", name, "err", err)
			return
		}
		total -= f.bytes[name]
		delete(f.bytes, name)
		f.names = f.names[1:]
	}
}

func (f *files) size() (n int, bytes int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, b := range f.bytes {
		bytes += b
	}
	return len(f.names), bytes
}

// list is the files at this moment, the newest first.
func (f *files) list() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := slices.Clone(f.names)
	slices.Reverse(out)
	return out
}

// tail returns the last n records of all files, the oldest first.
func (f *files) tail(n int) (out []*Record, err error) {
	for _, name := range f.list() {
		var part []*Record
		err = readFile(filepath.Join(f.dir, name), func(r *Record) bool {
			if part = append(part, r); len(part) >= 2*n {
				part = slices.Clone(part[len(part)-n:])
			}
			return true
		})
		out = append(part, out...)
		if len(out) >= n || err != nil {
			break
		}
	}
	return out[max(0, len(out)-n):], err
}

// readFile calls f for each record of a file until it returns false. Lines
// that are none, as the last one of a process that was killed, are passed over.
func readFile(path string, f func(*Record) bool) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read the decision log: %w", err)
	}
	defer file.Close()
	return Read(file, func(r *Record, err error) bool { return err != nil || f(r) })
}

// Read calls f for each line of a log, with a record or with why it is none,
// until f returns false.
func Read(from io.Reader, f func(r *Record, err error) bool) error {
	in := bufio.NewReaderSize(from, MaxRecordBytes+2)
	for long := false; ; {
		line, err := in.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			long = true
			continue
		case err != nil && !errors.Is(err, io.EOF):
			return fmt.Errorf("read the decision log: %w", err)
		}
		if long {
			if !f(nil, fmt.Errorf("a line has more than %d bytes", MaxRecordBytes)) {
				return nil
			}
		} else if len(bytes.TrimSpace(line)) > 0 {
			if !f(Decode(line)) {
				return nil
			}
		}
		if long = false; err != nil {
			return nil
		}
	}
}
