//go:build !linux

package intake

import (
	"context"
	"sync/atomic"
)

// lot is empty where there is no epoll: connections wait as goroutines.
type lot struct{ parked atomic.Int64 }

type spot struct{}

func newLot() (*lot, error)            { return nil, nil }
func (*lot) run(context.Context) error { return nil }
func (*lot) arm(*Reader) bool          { return false }
func (*lot) leave(*Reader)             {}
func (*lot) close()                    {}
