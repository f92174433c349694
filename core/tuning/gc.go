package tuning

import "fmt"

// GCSample is what DecideGOGC and DecideMemoryLimit look at. Sizes in bytes.
type GCSample struct {
	Live        int64 // heap that the last collection found in use
	Other       int64 // what Go has besides the heap: stacks, metadata
	Connections int   // open now
	Limit       int64 // the soft memory limit; 0 = none
	Cgroup      int64 // the cgroup's limit; 0 = none
	GOGC        int   // in force, percent
}

// The ladder that DecideGOGC moves on. Each halving of GOGC doubles the number of
// collections and saves less memory than the one before.
var gogcSteps = [...]int{50, 100, 200, 400}

const (
	// burstBytes is what a connection may need at once beside its idle state:
	// one frame being decoded, judged and stored.
	burstBytes = 16 << 10
	// The heap may be planned to grow to this share of the limit; above it the
	// limit, not GOGC, would drive the collector.
	plannedPercent = 80
	// A step up must also fit with this much more live heap, so that a heap
	// that breathes does not swing the setting.
	slackPercent = 25
	// Without a limit: the most that garbage may add to the live heap.
	freeGarbage = 512 << 20
)

// DecideGOGC returns the GOGC that fits a sample: the largest step whose heap
// goal, with what else Go has and a burst of every connection, stays within 80 %
// of the limit; without a limit, the largest whose garbage stays within 512
// MiB. It is pure, between 50 and 400, and monotone: more live heap, more
// connections or a smaller limit never give more. A step up needs 25 % of
// slack, so a live heap that moves by less changes it at most once.
func DecideGOGC(s GCSample) Decision {
	low := largestStep(s, 100+slackPercent) // what may be gone up to
	high := largestStep(s, 100)             // what must be gone down to
	why := fmt.Sprintf("live heap %d MiB, %d connections, limit %d MiB", s.Live>>20, s.Connections, s.Limit>>20)
	switch {
	case high < s.GOGC && high == gogcSteps[0] && s.Limit > 0 && goal(s, high, 100) > planned(s.Limit):
		return Decision{int64(high), "tight", why + ": not even the lowest step fits, the limit will drive the collector"}
	case high < s.GOGC:
		return Decision{int64(high), "memory", why}
	case low > s.GOGC:
		return Decision{int64(low), "room", why}
	}
	return Decision{int64(s.GOGC), "steady", why}
}

// largestStep is the highest step that fits with the given percentage of the
// live heap, or the lowest one.
func largestStep(s GCSample, percent int64) int {
	for i := len(gogcSteps) - 1; i > 0; i-- {
		if fits(s, gogcSteps[i], percent) {
			return gogcSteps[i]
		}
	}
	return gogcSteps[0]
}

func fits(s GCSample, gogc int, percent int64) bool {
	if s.Limit > 0 {
		return goal(s, gogc, percent) <= planned(s.Limit)
	}
	garbage := live(s, percent)/100*int64(gogc) + int64(s.Connections)*burstBytes
	return gogc <= 100 || garbage <= freeGarbage
}

func planned(limit int64) int64 { return limit / 100 * plannedPercent }

// goal is how large Go's memory gets before the next collection ends: live
// heap x (1 + GOGC/100), as the guide at https://go.dev/doc/gc-guide says, with
// the rest of Go's memory and a burst.
func goal(s GCSample, gogc int, percent int64) int64 {
	return live(s, percent)/100*int64(100+gogc) + s.Other + int64(s.Connections)*burstBytes
}

// live scales the live heap; it is capped where products could overflow.
func live(s GCSample, percent int64) int64 { return min(max(s.Live, 0), 1<<50) / 100 * percent }

const (
	crowdedPercent = 85 // of the usual limit: from here the limit is raised
	easedPercent   = 70 // of the usual limit: from here it is lowered again
	percentCrowded = 95 // of the cgroup's limit, while crowded
)

// DecideMemoryLimit returns the soft memory limit that fits a sample: 90 % of
// the cgroup's, and 95 % while live heap and the rest of Go's memory fill more
// than 85 % of that, because collecting more often cannot free what is in use
// and would take up to half of the CPU. It goes back when they fall below 70 %.
// It is pure and monotone in the live heap. Without a cgroup limit it leaves
// the limit.
func DecideMemoryLimit(s GCSample) Decision {
	if s.Cgroup <= 0 {
		return Decision{s.Limit, "steady", "the cgroup has no memory limit"}
	}
	usual, crowded := s.Cgroup/100*percentOfCgroup, s.Cgroup/100*percentCrowded
	used := min(s.Live, 1<<50) + s.Other
	why := fmt.Sprintf("%d of %d MiB are live heap or not heap", used>>20, usual>>20)
	switch {
	case used > usual/100*crowdedPercent && s.Limit != crowded:
		return Decision{crowded, "crowded", why}
	case used < usual/100*easedPercent && s.Limit != usual:
		return Decision{usual, "eased", why}
	case s.Limit != usual && s.Limit != crowded: // the cgroup's limit has changed
		return Decision{usual, "cgroup", why}
	}
	return Decision{s.Limit, "steady", why}
}
