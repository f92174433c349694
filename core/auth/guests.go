package auth

import (
	"container/list"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"parley/core/chat"
)

// GuestsConfig configures Guests.
type GuestsConfig struct {
	// Key makes resume secrets; nodes that share rooms must share it. At
	// least 32 bytes, see LoadOrCreateKey.
	Key []byte
	// Known names no guest may have; nil: none.
	Known Known
	// Reserved are names under which the server itself writes in logs: a guest
	// must not pass for it.
	Reserved []chat.UserID
	// Fold maps names that people would confuse to one text; nil means lower
	// case. It must be pure.
	Fold func(string) string
	// Grace is how long a name stays its guest's own after the last
	// connection ended; 0 means DefaultGrace.
	Grace time.Duration
	// Names keeps names distinct on other nodes too; nil: this node is alone.
	Names Names
	// MaxNames bounds the names held at once, by connections or by grace; 0
	// means DefaultMaxNames. When it is reached, the names longest in grace
	// are given up first.
	MaxNames int
}

// Names is who has which name on all nodes.
type Names interface {
	// Hold claims a folded name for the guest who has the nonce, or extends
	// the claim, and returns whose it is. An error says that nobody can tell.
	// It is called without locks held and may wait for the network.
	Hold(folded string, nonce [NonceBytes]byte) (Owner, error)
	// Release ends the claim of the guest who has the nonce, if there is one.
	// It is called as Hold is. Where it fails the claim ends by itself.
	Release(folded string, nonce [NonceBytes]byte)
}

// Owner is whose a name is.
type Owner uint8

// The owners of a name.
const (
	Nobody         Owner = iota // or nobody knows
	Caller                      // who asked
	OtherGuest                  // at this node or another
	RegisteredUser              // who comes with a token
)

// The defaults of GuestsConfig.
const (
	DefaultGrace    = 2 * time.Minute // a train through a tunnel
	DefaultMaxNames = 200_000         // about 60 MB
)

// Guests gives distinct names to people without a token. A name is exclusive
// from Enter until Grace after the last Leave. Time passes when it is called;
// it needs no goroutine.
type Guests struct {
	cfg    GuestsConfig
	own    map[string]bool        // cfg.Reserved, folded
	shared atomic.Pointer[[]byte] // the key of all nodes; nil: not known, cfg.Key makes secrets

	mu    sync.Mutex // taken before the lock of cfg.Known, never during I/O
	names map[string]*holding
	idle  list.List // of *holding without seats, the first to expire in front
}

// holding is a name in use. Guarded by Guests.mu.
type holding struct {
	name   chat.UserID // as its first connection spelt it
	folded string
	nonce  [NonceBytes]byte // tells this holder from earlier ones of the name
	seats  []*place         // most have one, and there are many of them
	since  *list.Element    // its place in idle; nil while seated
	until  time.Time        // end of grace; valid while idle
}

// Seat is one connection's hold on a guest name.
type Seat struct {
	Identity chat.Identity
	Secret   string // lets the guest come back to the name, see Enter
	Resumed  bool   // the name was held before with this secret

	place *place
}

// place is what is kept of a Seat as long as it is held.
type place struct {
	guests  *Guests
	holding *holding
	evict   func()
	resumed bool // the guest has the secret
}

// NewGuests returns an empty Guests.
func NewGuests(cfg GuestsConfig) (*Guests, error) {
	if len(cfg.Key) < MinKeyBytes {
		return nil, fmt.Errorf("guests: the key has %d bytes, at least %d are needed", len(cfg.Key), MinKeyBytes)
	}
	if cfg.Fold == nil {
		cfg.Fold = strings.ToLower
	}
	if cfg.Grace == 0 {
		cfg.Grace = DefaultGrace
	}
	if cfg.MaxNames == 0 {
		cfg.MaxNames = DefaultMaxNames
	}
	own := make(map[string]bool)
	for _, name := range cfg.Reserved {
		own[cfg.Fold(string(name))] = true
	}
	return &Guests{cfg: cfg, own: own, names: make(map[string]*holding)}, nil
}

// Enter seats a guest. An empty name asks for any. A secret from an earlier
// Seat, given along with that name, gives it back, also while older connections of that guest
// still hold it and after a restart of the server; a secret that does not fit
// is treated as none. Errors are *chat.Error: name_taken suggests a free name,
// bad_request names the rule, overloaded says that MaxNames is reached.
//
// The evict function is called at most once, without locks held, when a token
// user claims the name: the connection must end. It may be nil.
func (g *Guests) Enter(name chat.UserID, secret string, evict func()) (*Seat, error) {
	for range freshTries {
		seat, err := g.enter(name, secret, evict)
		if err != nil || g.cfg.Names == nil {
			return seat, err
		}
		h := seat.place.holding
		switch owner, err := g.cfg.Names.Hold(h.folded, h.nonce); {
		case err != nil, owner == Caller: // where nobody can tell, this node's word counts
			return seat, nil
		case name != "":
			return nil, seat.place.refused(name, owner)
		}
		seat.place.abandon() // a name made up here that another node has made up as well
	}
	return nil, chat.Errorf(chat.CodeOverloaded, "this server finds no free name; choose one")
}

// freshTries is how often a name is made up before it counts as hopeless.
const freshTries = 8

// refused gives up a seat whose name is somebody else's on another node.
func (p *place) refused(name chat.UserID, owner Owner) *chat.Error {
	p.abandon()
	g, why := p.guests, "is in use"
	if owner == RegisteredUser {
		why = "belongs to a registered user"
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	// Names with a number are those other nodes have suggested, too.
	free := withSuffix(string(name), "-"+randomLetters(4))
	if !g.freeLocked(free) {
		free = string(g.freshLocked())
	}
	return chat.Errorf(chat.CodeNameTaken, "the name %q %s; %q is free", name, why, free)
}

// abandon takes a seat back as if it had never been.
func (p *place) abandon() {
	p.rise(false)
	g := p.guests
	g.mu.Lock()
	defer g.mu.Unlock()
	if h := p.holding; len(h.seats) == 0 && g.names[h.folded] == h { // a guest with the secret left grace behind
		g.dropLocked(h)
	}
}

// Share sets the key of all nodes. Secrets are made with it from now on; those
// made with this node's own still count.
func (g *Guests) Share(key []byte) { g.shared.Store(&key) }

// Held is a name that a guest of this node has.
type Held struct {
	Folded string
	Nonce  [NonceBytes]byte
}

// Held returns every name in use or in grace.
func (g *Guests) Held() []Held {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sweepLocked(time.Now())
	all := make([]Held, 0, len(g.names))
	for _, h := range g.names {
		all = append(all, Held{h.folded, h.nonce})
	}
	return all
}

func (g *Guests) enter(name chat.UserID, secret string, evict func()) (*Seat, error) {
	if name != "" && !chat.ValidUser(name) {
		return nil, chat.Errorf(chat.CodeBadRequest,
			"a guest name has 1 to %d bytes of letters, digits and -_.@+: and begins with a letter or digit", chat.MaxUserBytes)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sweepLocked(time.Now())
	if name == "" {
		name = g.freshLocked()
	}
	folded := g.cfg.Fold(string(name))
	nonce, resume := g.open(folded, secret)
	h := g.names[folded]
	switch {
	case g.own[folded]:
		return nil, g.takenLocked(name, "is this server's own")
	case g.cfg.Known != nil && g.cfg.Known.Known(folded):
		return nil, g.takenLocked(name, "belongs to a registered user")
	case h != nil && !(resume && hmac.Equal(h.nonce[:], nonce[:])):
		return nil, g.takenLocked(name, h.taken(g.cfg.Grace))
	case h == nil && !g.makeRoomLocked():
		e := chat.Errorf(chat.CodeOverloaded, "this server has no place for another guest; try again later")
		e.Retry = g.cfg.Grace
		return nil, e
	}
	if h == nil {
		if !resume {
			rand.Read(nonce[:]) // never fails, see crypto/rand
		}
		h = &holding{name: name, folded: folded, nonce: nonce}
		g.names[folded] = h
	}
	return g.seatLocked(h, resume, evict), nil
}

// seatLocked adds a connection to a holding.
func (g *Guests) seatLocked(h *holding, resumed bool, evict func()) *Seat {
	if h.since != nil {
		g.idle.Remove(h.since)
		h.since = nil
	}
	p := &place{guests: g, holding: h, evict: evict, resumed: resumed}
	if h.seats == nil {
		h.seats = make([]*place, 0, 1)
	}
	h.seats = append(h.seats, p)
	return &Seat{
		Identity: chat.Identity{User: h.name, Class: chat.ClassGuest},
		Secret:   g.seal(h.folded, h.nonce),
		Resumed:  resumed,
		place:    p,
	}
}

// Leave gives the seat up. It may be called twice. The name is kept through grace
// if the guest was told the secret, here or before: without it nobody could come
// back to the name, not even the guest. It may wait for Names.Release.
func (s *Seat) Leave(told bool) { s.place.leave(told) }

// Leaver returns Leave without the rest of the Seat, for who keeps it as long
// as a connection lasts.
func (s *Seat) Leaver() func(told bool) { return s.place.leave }

func (p *place) leave(told bool) {
	if h := p.holding; p.rise(told) && p.guests.cfg.Names != nil {
		p.guests.cfg.Names.Release(h.folded, h.nonce)
	}
}

// rise gives the seat up at this node, and reports whether nobody can come back
// to the name.
func (p *place) rise(told bool) (free bool) {
	g, h := p.guests, p.holding
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.Index(h.seats, p)
	if i < 0 {
		return false
	}
	h.seats = slices.Delete(h.seats, i, i+1)
	switch {
	case len(h.seats) > 0:
	case !told && !p.resumed:
		g.dropLocked(h)
		return true
	default:
		h.until = time.Now().Add(g.cfg.Grace)
		h.since = g.idle.PushBack(h)
	}
	return false
}

// Claim takes the name from any guest who holds it, because a token user has
// proven to own it: their connections are evicted before Claim returns. Enter
// the user into Known first, so that no guest slips in between.
func (g *Guests) Claim(user chat.UserID) (evicted int) { return g.Lose(g.cfg.Fold(string(user))) }

// Lose is Claim with the folded name, for who has heard of it from another
// node.
func (g *Guests) Lose(folded string) (evicted int) {
	g.mu.Lock()
	h := g.names[folded]
	if h == nil {
		g.mu.Unlock()
		return 0
	}
	g.dropLocked(h)
	seats := h.seats
	h.seats = nil
	g.mu.Unlock()
	for _, s := range seats {
		if s.evict != nil {
			s.evict()
		}
	}
	return len(seats)
}

// Len returns how many names are held by connections and how many by grace.
func (g *Guests) Len() (seated, idle int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sweepLocked(time.Now())
	return len(g.names) - g.idle.Len(), g.idle.Len()
}

// sweepLocked forgets names whose grace has ended.
func (g *Guests) sweepLocked(now time.Time) {
	for e := g.idle.Front(); e != nil; e = g.idle.Front() {
		h := e.Value.(*holding)
		if now.Before(h.until) {
			return
		}
		g.dropLocked(h)
	}
}

// makeRoomLocked sees to it that one more name can be held.
func (g *Guests) makeRoomLocked() bool {
	for len(g.names) >= g.cfg.MaxNames {
		e := g.idle.Front()
		if e == nil {
			return false
		}
		g.dropLocked(e.Value.(*holding))
	}
	return true
}

func (g *Guests) dropLocked(h *holding) {
	delete(g.names, h.folded)
	if h.since != nil {
		g.idle.Remove(h.since)
		h.since = nil
	}
}

// freeLocked reports whether a guest could have the name now.
func (g *Guests) freeLocked(name string) bool {
	folded := g.cfg.Fold(name)
	return g.names[folded] == nil && !g.own[folded] && (g.cfg.Known == nil || !g.cfg.Known.Known(folded))
}

// freshLocked makes up a free name, "guest-k3fa".
func (g *Guests) freshLocked() chat.UserID {
	const length = 4 // 31^4 = 923,521 names; longer ones follow when many are held
	for n := length; ; n++ {
		for range 4 {
			if name := "guest-" + randomLetters(n); g.freeLocked(name) {
				return chat.UserID(name)
			}
		}
	}
}

// takenLocked builds the name_taken error with a free name in its sentence.
func (g *Guests) takenLocked(name chat.UserID, why string) *chat.Error {
	return chat.Errorf(chat.CodeNameTaken, "the name %q %s; %q is free", name, why, g.suggestLocked(name))
}

// taken says why the name cannot be had: somebody has it, or had it just now
// and may come back with the secret of the welcome.
func (h *holding) taken(grace time.Duration) string {
	if h.since == nil {
		return "is in use"
	}
	return fmt.Sprintf("is kept for %v for the guest who left it; that guest gets it back with the secret of the welcome", grace)
}

// suggestLocked finds a free name like the one asked for.
func (g *Guests) suggestLocked(name chat.UserID) string {
	for n := 2; n < 20; n++ {
		if s := withSuffix(string(name), fmt.Sprintf("-%d", n)); g.freeLocked(s) {
			return s
		}
	}
	if s := withSuffix(string(name), "-"+randomLetters(4)); g.freeLocked(s) {
		return s
	}
	return string(g.freshLocked())
}

// withSuffix appends, shortening the name where it would grow too long.
func withSuffix(name, suffix string) string {
	cut := min(len(name), chat.MaxUserBytes-len(suffix))
	for cut > 0 && cut < len(name) && !utf8.RuneStart(name[cut]) {
		cut--
	}
	return name[:cut] + suffix
}

// randomLetters returns n letters and digits that cannot be mistaken for one
// another when read aloud or copied by hand.
func randomLetters(n int) string {
	const alphabet = "abcdefghjkmnpqrstuvwxyz23456789"
	b := make([]byte, n)
	rand.Read(b) // never fails, see crypto/rand
	for i := range b {
		b[i] = alphabet[int(b[i])%len(alphabet)] // the slight bias does not matter for names
	}
	return string(b)
}

// A resume secret is base64url(nonce || HMAC-SHA256(key, "guest" 0 nonce
// folded name)): bound to the name, made again from the key after a restart,
// and different for each guest who had the name.
const (
	// NonceBytes is the length of what tells a guest from others who had the
	// name.
	NonceBytes  = 16
	secretBytes = NonceBytes + sha256.Size
	// MaxSecretBytes is the length of a resume secret.
	MaxSecretBytes = secretBytes * 4 / 3
)

func mac(key []byte, folded string, nonce [NonceBytes]byte) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte("guest\x00"))
	m.Write(nonce[:])
	m.Write([]byte(folded))
	return m.Sum(nil)
}

// seal makes the secret of a holding.
func (g *Guests) seal(folded string, nonce [NonceBytes]byte) string {
	key := g.cfg.Key
	if shared := g.shared.Load(); shared != nil {
		key = *shared
	}
	return base64.RawURLEncoding.EncodeToString(append(nonce[:], mac(key, folded, nonce)...))
}

// open checks a secret for a name and returns its nonce.
func (g *Guests) open(folded, secret string) (nonce [NonceBytes]byte, ok bool) {
	if len(secret) != MaxSecretBytes {
		return nonce, false
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(secret)
	if err != nil || len(raw) != secretBytes {
		return nonce, false
	}
	nonce = [NonceBytes]byte(raw[:NonceBytes])
	if hmac.Equal(raw[NonceBytes:], mac(g.cfg.Key, folded, nonce)) {
		return nonce, true
	}
	if shared := g.shared.Load(); shared != nil && hmac.Equal(raw[NonceBytes:], mac(*shared, folded, nonce)) {
		return nonce, true
	}
	return [NonceBytes]byte{}, false
}
