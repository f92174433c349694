package bench

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

const (
	drawEvery = 200 * time.Millisecond
	barWidth  = 30
)

// progress draws a bar where there is something to draw it on.
func (b *Bench) progress(what string, at func() (float64, string)) (stop func()) {
	if b.Progress == nil {
		return func() {}
	}
	return Progress(b.Progress, what, at)
}

// Progress draws a bar on a terminal until the returned function is called,
// which takes it away and waits for the goroutine that draws. at returns how
// far the work is, 0 to 1, and what to say beside; that goroutine calls it.
func Progress(out io.Writer, what string, at func() (float64, string)) (stop func()) {
	quit := make(chan struct{})
	var drawing sync.WaitGroup
	drawing.Go(func() {
		tick := time.NewTicker(drawEvery)
		defer tick.Stop()
		for {
			part, text := at()
			fmt.Fprintf(out, "\r\x1b[K%s", bar(what, part, text))
			select {
			case <-tick.C:
			case <-quit:
				fmt.Fprint(out, "\r\x1b[K")
				return
			}
		}
	})
	return func() {
		close(quit)
		drawing.Wait()
	}
}

// bar is one line of progress.
func bar(what string, part float64, text string) string {
	full := int(min(max(part, 0), 1) * barWidth)
	return fmt.Sprintf("%-12s [%s%s] %s", what, strings.Repeat("#", full), strings.Repeat(".", barWidth-full), text)
}
