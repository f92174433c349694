package share

// sides are the versions that the three sides of a merge have of one name: sources,
// "" for none.
type sides struct {
	known bool   // there is a base: this folder was merged before
	base  string // what folder and head last agreed on
	local string // in the folder
	head  string
	said  bool   // the head says something of the name, if only that it was removed
	gone  string // what was removed, where it was
}

// step is what a merge does about one name.
type step int

const (
	settled  step = iota // folder and head agree
	take                 // the head's goes into the folder
	publish              // the folder's goes into the head
	conflict             // take, and keep aside what is in the folder
)

// merge decides about one name.
func (s sides) merge() step {
	switch {
	case s.local == s.head:
		return settled
	case !s.said: // Redis came back empty, or it was removed so long ago that nobody knows
		return publish
	case !s.known && s.local == "":
		return take
	case !s.known && s.head == "" && s.gone != s.local:
		return publish
	case !s.known:
		return conflict
	case s.local == s.base:
		return take
	case s.head == s.base:
		return publish
	case s.local == "":
		return take
	}
	return conflict
}
