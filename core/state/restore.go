package state

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"strings"

	"parley/core/chat"
	"parley/core/journal"
)

// Restore returns the changes that make a room what r is again, where its store
// has lost it altogether, and what they rest on, as journal.Request.Expect takes
// it: both in one order, the settings first. stored is the room's state as the
// store holds it by now. A store that holds nothing has lost the room, and so has
// one whose room began later than r did: that is another, made since under the
// name. Where neither is so, or r never had settings of its own, there are none.
//
// Where there are more than one entry holds, the first of them makes the room
// another that began now, with interim, and the last one ends that: what is half
// done when a node dies is lost to the next one as well.
func (r *Room) Restore(stored map[string][]byte, interim chat.MessageID) (changes, expect []journal.Change, err error) {
	now, err := Load(stored)
	if err != nil {
		return nil, nil, err
	}
	if !r.kept || now.kept && now.First <= r.First {
		return nil, nil, nil
	}
	want := r.values()
	for key := range now.values() {
		if _, ok := want[key]; !ok {
			want[key] = nil
		}
	}
	keys := slices.SortedFunc(maps.Keys(want), func(a, b string) int {
		return cmp.Or(cmp.Compare(place(a), place(b)), strings.Compare(a, b))
	})
	for _, key := range keys {
		if was, ok := stored[key]; ok != (want[key] != nil) || !bytes.Equal(was, want[key]) {
			changes = append(changes, journal.Change{Key: key, Value: want[key]})
			expect = append(expect, journal.Change{Key: key, Value: was})
		}
	}
	if len(changes) <= journal.MaxChanges || now.First > r.First {
		return changes, expect, nil
	}
	last := journal.Change{Key: keyFirst, Value: want[keyFirst]}
	if n := len(changes) - 1; changes[n].Key == keyFirst {
		changes, expect = changes[:n], expect[:n]
	}
	mark := SetFirst(interim)
	changes = append(slices.Insert(changes, 1, mark), last)
	expect = append(slices.Insert(expect, 1, journal.Change{Key: keyFirst, Value: stored[keyFirst]}), mark)
	return changes, expect, nil
}

// place orders keys: whoever sees the room's first entry named sees the rest.
func place(key string) int {
	switch key {
	case keySettings:
		return 0
	case keyFirst:
		return 2
	}
	return 1
}

// values is the state as the journal stores it, by key.
func (r *Room) values() map[string][]byte {
	all := make(map[string][]byte)
	add := func(c journal.Change) { all[c.Key] = c.Value }
	add(SetSettings(r.Settings))
	if r.First != "" {
		add(SetFirst(r.First))
	}
	for u, role := range r.roles {
		add(SetRole(u, role))
	}
	for u, b := range r.bans {
		add(SetBan(u, &b))
	}
	for u, b := range r.mutes {
		add(SetMute(u, &b))
	}
	return all
}
