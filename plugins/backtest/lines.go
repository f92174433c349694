package backtest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

const (
	linesPage = 1000    // records of one page of Lines
	maxLine   = 4 << 20 // bytes of one record: the largest input in base64, and the reasons
)

// Lines reads records from a file of JSON objects, one a line, as the admin
// API gives them. Members it does not know are passed over.
func Lines(r io.Reader) Source {
	s := bufio.NewScanner(r)
	s.Buffer(nil, maxLine)
	return &lines{scan: s}
}

type lines struct {
	scan *bufio.Scanner
	n    int
}

// Next implements Source. The error names the line.
func (l *lines) Next(ctx context.Context) ([]Record, error) {
	var page []Record
	for len(page) < linesPage && l.scan.Scan() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		l.n++
		if len(l.scan.Bytes()) == 0 {
			continue
		}
		var r Record
		if err := json.Unmarshal(l.scan.Bytes(), &r); err != nil {
			return nil, fmt.Errorf("line %d is no record: %w", l.n, err)
		}
		page = append(page, r)
	}
	if err := l.scan.Err(); errors.Is(err, bufio.ErrTooLong) {
		return nil, fmt.Errorf("line %d has more than %d bytes", l.n+1, maxLine)
	} else if err != nil {
		return nil, fmt.Errorf("line %d: %w", l.n+1, err)
	}
	if len(page) == 0 {
		return nil, io.EOF
	}
	return page, nil
}

// Filtered leaves out the records of other rooms ("" for all) and those older
// than since (Unix ms), for sources that cannot.
func Filtered(s Source, room string, since int64) Source { return &filtered{s, room, since} }

type filtered struct {
	source Source
	room   string
	since  int64
}

// Next implements Source.
func (f *filtered) Next(ctx context.Context) ([]Record, error) {
	page, err := f.source.Next(ctx)
	kept := page[:0]
	for _, r := range page {
		if (f.room == "" || r.Room == f.room) && r.Time >= f.since {
			kept = append(kept, r)
		}
	}
	return kept, err
}
