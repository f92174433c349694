package auth_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"parley/core/auth"
	"parley/core/chat"
)

// knownSet is a Known for tests.
type knownSet map[string]bool

func (k knownSet) Known(folded string) bool { return k[folded] }

func newGuests(t testing.TB, cfg auth.GuestsConfig) *auth.Guests {
	t.Helper()
	cfg.Key = testKey
	g, err := auth.NewGuests(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func enter(t testing.TB, g *auth.Guests, name chat.UserID, secret string) *auth.Seat {
	t.Helper()
	s, err := g.Enter(name, secret, nil)
	if err != nil {
		t.Fatalf("enter %q: %v", name, err)
	}
	return s
}

// suggestion takes the free name out of a name_taken sentence.
func suggestion(t *testing.T, err error) chat.UserID {
	t.Helper()
	wantCode(t, err, chat.CodeNameTaken, "is free")
	var e *chat.Error
	errors.As(err, &e)
	parts := strings.Split(e.Text, `"`)
	return chat.UserID(parts[len(parts)-2])
}

func TestNoGuestPassesForTheServer(t *testing.T) {
	g := newGuests(t, auth.GuestsConfig{Reserved: []chat.UserID{"Parley", "Parley-2"}})
	_, err := g.Enter("parLEY", "", nil)
	wantCode(t, err, chat.CodeNameTaken, `"parLEY" is this server's own; "parLEY-3" is free`)
}

func TestGuestNamesAreDistinct(t *testing.T) {
	g := newGuests(t, auth.GuestsConfig{Known: knownSet{"root": true, "ann-2": true}})
	first := enter(t, g, "Ann", "")
	if first.Identity.User != "Ann" || first.Identity.Class != chat.ClassGuest || first.Resumed {
		t.Errorf("got %+v, want a new guest Ann", first)
	}
	_, err := g.Enter("aNN", "", nil)
	wantCode(t, err, chat.CodeNameTaken, `"aNN" is in use; "aNN-3" is free`) // ann-2 is a user's
	enter(t, g, suggestion(t, err), "")
	_, err = g.Enter("ROOT", "", nil)
	wantCode(t, err, chat.CodeNameTaken, "belongs to a registered user")
	_, err = g.Enter("a b", "", nil)
	wantCode(t, err, chat.CodeBadRequest, "a guest name has")
	if seated, idle := g.Len(); seated != 2 || idle != 0 {
		t.Errorf("got %d seated and %d idle, want 2 and 0", seated, idle)
	}
}

func TestSuggestionsAreValidAndFree(t *testing.T) {
	g := newGuests(t, auth.GuestsConfig{})
	long := chat.UserID(strings.Repeat("é", chat.MaxUserBytes/2))
	enter(t, g, long, "")
	for range 30 { // beyond the numbered suggestions
		_, err := g.Enter(long, "", nil)
		name := suggestion(t, err)
		if !chat.ValidUser(name) {
			t.Fatalf("suggested %q, which is not a valid name", name)
		}
		enter(t, g, name, "")
	}
}

func TestFreshNames(t *testing.T) {
	g := newGuests(t, auth.GuestsConfig{})
	seen := make(map[chat.UserID]bool)
	for range 1000 {
		s := enter(t, g, "", "")
		if seen[s.Identity.User] || !strings.HasPrefix(string(s.Identity.User), "guest-") || !chat.ValidUser(s.Identity.User) {
			t.Fatalf("got %q, want a new guest-xxxx", s.Identity.User)
		}
		seen[s.Identity.User] = true
	}
}

func TestNameIsKeptThroughGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuests(t, auth.GuestsConfig{Grace: time.Minute})
		s := enter(t, g, "ann", "")
		time.Sleep(time.Hour) // connected: no grace runs
		s.Leave(true)
		s.Leave(true) // twice is once
		time.Sleep(59 * time.Second)
		_, err := g.Enter("ann", "", nil)
		wantCode(t, err, chat.CodeNameTaken, "kept for 1m0s")

		back := enter(t, g, "ANN", s.Secret)
		if !back.Resumed || back.Identity.User != "ann" || back.Secret != s.Secret {
			t.Errorf("got %+v, want the same guest again", back)
		}
		second := enter(t, g, "ann", s.Secret) // another tab
		back.Leave(true)
		time.Sleep(time.Hour)
		_, err = g.Enter("ann", "", nil)
		wantCode(t, err, chat.CodeNameTaken, "in use")
		second.Leave(true)
		time.Sleep(time.Minute)
		if seated, idle := g.Len(); seated != 0 || idle != 0 {
			t.Errorf("after grace: got %d seated, %d idle, want none", seated, idle)
		}
		other := enter(t, g, "ann", "")
		if other.Resumed || other.Secret == s.Secret {
			t.Error("a new holder of the name got the old one's secret")
		}
		_, err = g.Enter("ann", s.Secret, nil) // the first ann's time is over
		wantCode(t, err, chat.CodeNameTaken, "in use")
	})
}

func TestSecretSurvivesRestart(t *testing.T) {
	s := enter(t, newGuests(t, auth.GuestsConfig{}), "ann", "")
	after := newGuests(t, auth.GuestsConfig{})
	back := enter(t, after, "ann", s.Secret)
	if !back.Resumed || back.Secret != s.Secret {
		t.Errorf("got resumed %t and the same secret %t, want both", back.Resumed, back.Secret == s.Secret)
	}
	if again := enter(t, after, "ann", back.Secret); !again.Resumed {
		t.Error("the second resume is not one")
	}
}

func TestBadSecrets(t *testing.T) {
	g := newGuests(t, auth.GuestsConfig{})
	s := enter(t, g, "ann", "")
	bob := enter(t, g, "bob", "")
	flipped := []byte(s.Secret)
	flipped[40] ^= 1
	for name, secret := range map[string]string{
		"none": "", "short": "abc", "another guest's": bob.Secret, "flipped": string(flipped),
		"not base64": strings.Repeat("!", auth.MaxSecretBytes), "huge": strings.Repeat("a", 1<<20),
	} {
		if _, err := g.Enter("ann", secret, nil); err == nil {
			t.Errorf("%s: got ann's name, want name_taken", name)
		}
		if fresh := enter(t, g, chat.UserID("carl-"+strings.ReplaceAll(name, " ", "")[:4]), secret[:min(len(secret), 10)]); fresh.Resumed {
			t.Errorf("%s: a bad secret resumed a free name", name)
		}
	}
}

// TestARefusedGuestKeepsNoName: whoever was never told the secret could not come
// back to it, and nobody else could have it.
func TestARefusedGuestKeepsNoName(t *testing.T) {
	g := newGuests(t, auth.GuestsConfig{})
	refused := enter(t, g, "ann", "")
	refused.Leave(false)
	refused.Leave(false)
	ann := enter(t, g, "ann", "")
	ann.Leave(true)
	again := enter(t, g, "ann", ann.Secret)
	again.Leave(false) // refused as well, but she has the secret
	_, err := g.Enter("ann", "", nil)
	wantCode(t, err, chat.CodeNameTaken, "is kept for")
	if seated, idle := g.Len(); seated != 0 || idle != 1 {
		t.Errorf("got %d seated, %d idle, want one idle", seated, idle)
	}
}

func TestTokenUserTakesNameFromGuest(t *testing.T) {
	known := knownSet{}
	g := newGuests(t, auth.GuestsConfig{Known: known})
	var evicted []string
	a, err := g.Enter("ann", "", func() {
		g.Len() // no lock is held
		evicted = append(evicted, "a")
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.Enter("ann", a.Secret, func() { evicted = append(evicted, "b") }); err != nil {
		t.Fatal(err)
	}
	enter(t, g, "ann", a.Secret) // without a function
	known["ann"] = true
	if n := g.Claim("Ann"); n != 3 || len(evicted) != 2 {
		t.Errorf("got %d evicted, %v called, want 3 and both", n, evicted)
	}
	a.Leave(true) // late, harmless
	if n := g.Claim("Ann"); n != 0 {
		t.Errorf("second claim: got %d evicted, want 0", n)
	}
	_, err = g.Enter("ann", a.Secret, nil)
	wantCode(t, err, chat.CodeNameTaken, "registered user")
	idle := enter(t, g, "bob", "")
	idle.Leave(true)
	if n := g.Claim("bob"); n != 0 {
		t.Errorf("claim of an idle name: got %d evicted, want 0", n)
	}
	if seated, idle := g.Len(); seated != 0 || idle != 0 {
		t.Errorf("got %d seated, %d idle, want none", seated, idle)
	}
}

func TestNamesAreBounded(t *testing.T) {
	g := newGuests(t, auth.GuestsConfig{MaxNames: 3})
	a, b := enter(t, g, "a", ""), enter(t, g, "b", "")
	enter(t, g, "c", "")
	_, err := g.Enter("d", "", nil)
	wantCode(t, err, chat.CodeOverloaded, "no place for another guest")
	b.Leave(true)
	a.Leave(true)
	enter(t, g, "d", "") // b has been idle the longest
	_, err = g.Enter("a", "", nil)
	wantCode(t, err, chat.CodeNameTaken, "kept for 2m0s")
}

func TestGuestsConcurrently(t *testing.T) {
	g := newGuests(t, auth.GuestsConfig{Grace: time.Nanosecond, MaxNames: 50})
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		seated = make(map[chat.UserID]int)
	)
	for w := range 8 {
		wg.Go(func() {
			for i := range 300 {
				s, err := g.Enter(chat.UserID(fmt.Sprintf("n%d", (w+i)%5)), "", nil)
				if err != nil {
					continue
				}
				mu.Lock()
				seated[s.Identity.User]++
				if seated[s.Identity.User] > 1 {
					t.Errorf("%s is held twice", s.Identity.User)
				}
				seated[s.Identity.User]--
				mu.Unlock()
				s.Leave(true)
				g.Claim("n3")
			}
		})
	}
	wg.Wait()
}

func TestGuestsNeedAKey(t *testing.T) {
	if _, err := auth.NewGuests(auth.GuestsConfig{Key: []byte("short")}); err == nil {
		t.Error("got no error for a short key")
	}
}

// FuzzResume: no secret but the true one opens a held name.
func FuzzResume(f *testing.F) {
	g := newGuests(f, auth.GuestsConfig{})
	secretOfAnn := enter(f, g, "ann", "").Secret
	f.Add("ann", secretOfAnn[:len(secretOfAnn)-1]+"A")
	f.Add("ANN", "")
	f.Add("bob\x00", strings.Repeat("A", auth.MaxSecretBytes))
	f.Fuzz(func(t *testing.T, name, secret string) {
		s, err := g.Enter(chat.UserID(name), secret, nil)
		if err != nil {
			var e *chat.Error
			if !errors.As(err, &e) {
				t.Fatalf("got %T, want *chat.Error", err)
			}
			return
		}
		defer s.Leave(true)
		if s.Resumed && secret != secretOfAnn {
			t.Fatalf("secret %q resumed %q", secret, name)
		}
	})
}

func BenchmarkEnterLeave(b *testing.B) {
	g := newGuests(b, auth.GuestsConfig{})
	s := enter(b, g, "ann", "")
	b.ReportAllocs()
	for b.Loop() {
		again, err := g.Enter("ann", s.Secret, nil)
		if err != nil {
			b.Fatal(err)
		}
		again.Leave(true)
	}
}
