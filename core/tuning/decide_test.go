package tuning_test

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"parley/core/tuning"
)

var allProfiles = []tuning.Profile{tuning.Web, tuning.Batch, tuning.Mixed}

// runs bounds the random cases of a property; the seed is fixed, so that a
// failure is seen again.
const runs = 5_000

func randomProcs(r *rand.Rand) tuning.ProcsSample {
	bound := 1 + r.IntN(64)
	procs := 1 + r.IntN(bound)
	return tuning.ProcsSample{
		Procs: procs, Bound: bound, Goroutines: r.IntN(200),
		CPU:     r.Float64() * float64(procs) * 1.1, // measured a little above is possible
		Latency: time.Duration(r.ExpFloat64() * float64(5*time.Millisecond)),
		Steady:  time.Duration(r.IntN(300)) * time.Second,
	}
}

func TestDecideProcsIsBounded(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range runs {
		for _, p := range allProfiles {
			s := randomProcs(r)
			s.Procs, s.Bound = r.IntN(100)-1, r.IntN(64)-1
			if r.IntN(10) == 0 {
				s.CPU = []float64{math.NaN(), math.Inf(1), math.Inf(-1), -1}[r.IntN(4)]
			}
			d := tuning.DecideProcs(p, s)
			if d.Value < 1 || d.Value > int64(max(1, s.Bound)) || d.Cause == "" || d.Why == "" {
				t.Fatalf("%s %+v: got %+v, want 1 to %d with a reason", p, s, d, s.Bound)
			}
		}
	}
}

func TestDecideProcsIsMonotone(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	for range runs {
		for _, p := range allProfiles {
			low := randomProcs(r)
			high := low
			switch r.IntN(4) {
			case 0:
				high.CPU += r.Float64() * float64(low.Procs)
			case 1:
				high.Latency += time.Duration(r.ExpFloat64() * float64(10*time.Millisecond))
			case 2:
				high.Goroutines += r.IntN(100)
			case 3:
				high.Bound += r.IntN(10)
			}
			if a, b := tuning.DecideProcs(p, low), tuning.DecideProcs(p, high); a.Value > b.Value {
				t.Fatalf("%s: %+v gave %+v, but %+v gave %+v", p, low, a, high, b)
			}
		}
	}
}

// A constant demand is followed in one direction and then left alone, whatever
// the latency does: up while it exceeds what the Ps can do, or down, once.
func TestDecideProcsDoesNotFlap(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	for range runs / 10 {
		for _, p := range allProfiles {
			s := randomProcs(r)
			demand := r.Float64() * float64(s.Bound) * 1.2
			s.Goroutines, s.Steady = 1000, time.Hour
			direction := 0
			for step := range 200 {
				s.CPU = min(demand, float64(s.Procs))
				s.Latency = time.Duration(r.ExpFloat64() * float64(5*time.Millisecond))
				d := tuning.DecideProcs(p, s)
				sign := int(d.Value) - s.Procs
				if sign*direction < 0 {
					t.Fatalf("%s: demand %.2f of %d, step %d: %d -> %+v turned back", p, demand, s.Bound, step, s.Procs, d)
				}
				if sign != 0 && !(p == tuning.Web && s.Procs < 2) { // its least of 2 is no direction
					direction = sign
				}
				s.Procs = int(d.Value)
			}
		}
	}
}

func TestDecideProcs(t *testing.T) {
	base := tuning.ProcsSample{Procs: 4, Bound: 8, Goroutines: 500, CPU: 1.5, Steady: time.Hour}
	with := func(change func(*tuning.ProcsSample)) tuning.ProcsSample { s := base; change(&s); return s }
	tests := []struct {
		name    string
		profile tuning.Profile
		s       tuning.ProcsSample
		want    int64
		cause   string
	}{
		{"nothing to do", tuning.Web, base, 4, "steady"},
		{"web grows early", tuning.Web, with(func(s *tuning.ProcsSample) { s.CPU = 2.5 }), 7, "cpu"},
		{"batch does not", tuning.Batch, with(func(s *tuning.ProcsSample) { s.CPU = 2.5 }), 4, "steady"},
		{"batch when full", tuning.Batch, with(func(s *tuning.ProcsSample) { s.CPU = 3.9 }), 5, "cpu"},
		{"full at the bound", tuning.Batch, with(func(s *tuning.ProcsSample) { s.Procs, s.CPU = 8, 8 }), 8, "at_bound"},
		{"few goroutines", tuning.Web, with(func(s *tuning.ProcsSample) { s.CPU, s.Goroutines = 3, 5 }), 5, "cpu"},
		{"late", tuning.Web, with(func(s *tuning.ProcsSample) { s.CPU, s.Latency = 1.9, 2*time.Millisecond }), 5, "latency"},
		{"late and idle is not for want of Ps", tuning.Web, with(func(s *tuning.ProcsSample) { s.CPU, s.Latency = 0.4, time.Second }), 4, "steady"},
		{"idle", tuning.Web, with(func(s *tuning.ProcsSample) { s.CPU = 0.1 }), 2, "idle"},
		{"idle, mixed", tuning.Mixed, with(func(s *tuning.ProcsSample) { s.CPU = 0.1 }), 1, "idle"},
		{"idle for a moment", tuning.Mixed, with(func(s *tuning.ProcsSample) { s.CPU, s.Steady = 0.1, time.Second }), 4, "steady"},
		{"the quota shrank", tuning.Mixed, with(func(s *tuning.ProcsSample) { s.Bound = 2 }), 2, "bound"},
		{"below the least", tuning.Web, with(func(s *tuning.ProcsSample) { s.Procs = 1 }), 2, "bound"},
		{"unknown profile is mixed", "x", with(func(s *tuning.ProcsSample) { s.CPU = 0.1 }), 1, "idle"},
	}
	for _, tt := range tests {
		if d := tuning.DecideProcs(tt.profile, tt.s); d.Value != tt.want || d.Cause != tt.cause {
			t.Errorf("%s: got %+v, want %d, %s", tt.name, d, tt.want, tt.cause)
		}
	}
}

func randomGC(r *rand.Rand) tuning.GCSample {
	s := tuning.GCSample{
		Live: r.Int64N(8 << 30), Other: r.Int64N(1 << 30), Connections: r.IntN(200_000),
		GOGC: []int{10, 50, 75, 100, 150, 200, 400, 1000}[r.IntN(8)],
	}
	if r.IntN(3) > 0 {
		s.Cgroup = r.Int64N(16 << 30)
		s.Limit = s.Cgroup / 100 * 90
	}
	return s
}

func TestDecideGOGCIsBoundedAndMonotone(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	for range runs {
		low := randomGC(r)
		high := low // wants more memory, or has less
		switch r.IntN(4) {
		case 0:
			high.Live += r.Int64N(4 << 30)
		case 1:
			high.Connections += r.IntN(100_000)
		case 2:
			high.Other += r.Int64N(1 << 30)
		case 3:
			if low.Limit > 0 {
				high.Limit = 1 + r.Int64N(low.Limit)
			}
		}
		a, b := tuning.DecideGOGC(low), tuning.DecideGOGC(high)
		if a.Value < b.Value {
			t.Fatalf("%+v gave %+v, but %+v gave %+v", low, a, high, b)
		}
		if a.Value < 50 || a.Value > 400 || a.Cause == "" || a.Why == "" {
			t.Fatalf("%+v: got %+v, want 50 to 400 with a reason", low, a)
		}
	}
}

// A live heap that moves by less than a tenth up and down changes GOGC at most
// twice: to the first value, and once down from it.
func TestDecideGOGCDoesNotFlap(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	for range runs / 10 {
		s := randomGC(r)
		middle, changes := s.Live, 0
		for range 100 {
			s.Live = int64(float64(middle) * (0.91 + 0.18*r.Float64()))
			d := tuning.DecideGOGC(s)
			if int(d.Value) != s.GOGC {
				changes++
			}
			s.GOGC = int(d.Value)
		}
		if changes > 2 {
			t.Fatalf("%+v: got %d changes, want at most 2", s, changes)
		}
	}
}

func TestDecideGOGC(t *testing.T) {
	const mib = 1 << 20
	tests := []struct {
		name  string
		s     tuning.GCSample
		want  int64
		cause string
	}{
		{"much room", tuning.GCSample{Live: 100 * mib, Limit: 900 * mib, GOGC: 200}, 400, "room"},
		{"room, but not with slack", tuning.GCSample{Live: 140 * mib, Limit: 900 * mib, GOGC: 200}, 200, "steady"},
		{"less room", tuning.GCSample{Live: 300 * mib, Limit: 900 * mib, GOGC: 200}, 100, "memory"},
		{"connections take room", tuning.GCSample{Live: 100 * mib, Limit: 900 * mib, GOGC: 400, Connections: 30_000}, 100, "memory"},
		{"tight", tuning.GCSample{Live: 700 * mib, Limit: 900 * mib, GOGC: 200}, 50, "tight"},
		{"tight already", tuning.GCSample{Live: 700 * mib, Limit: 900 * mib, GOGC: 50}, 50, "steady"},
		{"no limit, small", tuning.GCSample{Live: 50 * mib, GOGC: 200}, 400, "room"},
		{"no limit, large", tuning.GCSample{Live: 4096 * mib, GOGC: 200}, 100, "memory"},
	}
	for _, tt := range tests {
		if d := tuning.DecideGOGC(tt.s); d.Value != tt.want || d.Cause != tt.cause {
			t.Errorf("%s: got %+v, want %d, %s", tt.name, d, tt.want, tt.cause)
		}
	}
}

func TestDecideMemoryLimit(t *testing.T) {
	const cgroup = 1_000_000_000
	usual, crowded := int64(900_000_000), int64(950_000_000)
	tests := []struct {
		name  string
		s     tuning.GCSample
		want  int64
		cause string
	}{
		{"no cgroup", tuning.GCSample{Limit: 77}, 77, "steady"},
		{"usual", tuning.GCSample{Cgroup: cgroup, Limit: usual, Live: 400_000_000}, usual, "steady"},
		{"crowded", tuning.GCSample{Cgroup: cgroup, Limit: usual, Live: 700_000_000, Other: 80_000_000}, crowded, "crowded"},
		{"still crowded", tuning.GCSample{Cgroup: cgroup, Limit: crowded, Live: 700_000_000}, crowded, "steady"},
		{"eased", tuning.GCSample{Cgroup: cgroup, Limit: crowded, Live: 600_000_000}, usual, "eased"},
		{"another cgroup limit", tuning.GCSample{Cgroup: cgroup, Limit: 5, Live: 700_000_000}, usual, "cgroup"},
	}
	for _, tt := range tests {
		if d := tuning.DecideMemoryLimit(tt.s); d.Value != tt.want || d.Cause != tt.cause {
			t.Errorf("%s: got %+v, want %d, %s", tt.name, d, tt.want, tt.cause)
		}
	}
	r := rand.New(rand.NewPCG(6, 6))
	for range runs {
		s := randomGC(r)
		more := s
		more.Live += r.Int64N(1 << 30)
		a, b := tuning.DecideMemoryLimit(s), tuning.DecideMemoryLimit(more)
		if s.Cgroup > 0 && (a.Value > b.Value || a.Value > s.Cgroup) {
			t.Fatalf("%+v gave %+v, more live heap %+v", s, a, b)
		}
	}
}
