package doctor

import (
	"io"
	"testing"
	"time"
)

// What the test's own disk cannot be made to be.

func TestJudgeSync(t *testing.T) {
	for median, want := range map[time.Duration]State{300 * time.Microsecond: OK, 10 * time.Millisecond: Warn, 100 * time.Millisecond: Bad} {
		if c := judgeSync(median, 31, "/d"); c.State != want || (c.Change == "") != (want == OK) {
			t.Errorf("%v: got %+v, want %s", median, c, want)
		}
	}
}

func TestJudgeSpace(t *testing.T) {
	for _, tt := range []struct {
		name string
		v    volume
		want State
	}{
		{"plenty", volume{free: 5 << 30, size: 9 << 30, inodes: 1e6, countsNodes: true}, OK},
		{"no inodes counted", volume{free: 5 << 30, size: 9 << 30}, OK},
		{"little", volume{free: 1<<30 - 1, size: 9 << 30}, Warn},
		{"next to none", volume{free: 1 << 20, size: 9 << 30}, Bad},
		{"no inodes", volume{free: 5 << 30, size: 9 << 30, inodes: 10, countsNodes: true}, Warn},
	} {
		if c := judgeSpace(tt.v, "/d"); c.State != tt.want || (c.Change == "") != (tt.want == OK) {
			t.Errorf("%s: got %+v, want %s", tt.name, c, tt.want)
		}
	}
}

func TestPrintSaysWhenItCannot(t *testing.T) {
	r, w := io.Pipe()
	r.Close()
	if err := Print(w, []Check{{Name: "a", State: OK}}); err == nil {
		t.Error("got no error from a closed pipe")
	}
}
