package gitsync

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// An offer ends a pin only where what it offers is sound itself.
func TestOnlyASoundOfferEndsAPin(t *testing.T) {
	r := newRepo(t)
	by := sshSigning(t, r)
	r.write("p.rego", "1")
	first := by.commit()
	r.write("p.rego", "2")
	second := by.commit()
	cfg := sharing(r.dir)
	cfg.Signers = []string{by.list}
	a, ca := syncer(t, cfg)
	follow(t, a)
	<-ca
	newest := offerOf(t, a, second)
	if err := a.Pin(t.Context(), Pin{Revision: first, By: "ann"}); err != nil {
		t.Fatal(err)
	}
	<-ca
	pinned := offerOf(t, a, first)
	unsigned := newRepo(t)
	unsigned.write("p.rego", "3")
	unsigned.commit()
	u, cu := syncer(t, sharing(unsigned.dir))
	if err := u.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-cu

	kept := t.TempDir()
	c, cc := cutOff(t, func(cfg *Config) { cfg.Signers, cfg.StateDir = []string{by.list}, kept })
	for _, o := range []Offer{newest, pinned} {
		if err := c.Accept(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		<-cc
	}
	without := func(o Offer, change func(*Parcel)) Offer {
		o.Pin, o.Parcel.Pack = nil, bytes.Clone(o.Parcel.Pack)
		change(&o.Parcel)
		return o
	}
	for _, tt := range []struct {
		name  string
		offer Offer
		want  string
	}{
		{"the commit in use, without what it holds", without(pinned, func(p *Parcel) { p.Pack = nil }), "open parcel"},
		{"the commit in use, changed", without(pinned, func(p *Parcel) { p.Pack[len(p.Pack)/2] ^= 4 }), "open parcel"},
		{"the commit in use, and in truth another", without(pinned, func(p *Parcel) { p.Pack = newest.Parcel.Pack; p.Want = second }), "is the commit"},
		{"unsigned", without(offer(t, u), func(*Parcel) {}), "it is not signed"},
	} {
		err := c.Accept(t.Context(), tt.offer)
		if !errors.Is(err, ErrUnsound) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want it unsound: %s", tt.name, err, tt.want)
		}
		if h := <-cc; h.refused == nil {
			t.Errorf("%s: got %+v, want a refusal", tt.name, h)
		}
		if p := c.Status().Pin; p == nil || p.Revision != first {
			t.Fatalf("%s: the pin is %+v", tt.name, p)
		}
	}
	if err := c.Accept(t.Context(), without(pinned, func(*Parcel) {})); err != nil || c.Status().Pin != nil {
		t.Errorf("a sound one: got %v, %+v", err, c.Status().Pin)
	}
	back, _ := syncer(t, func() Config { c := cfg; c.URL, c.StateDir = "/nowhere", kept; return c }())
	if err := back.Restore(t.Context()); err != nil || back.Status().Pin != nil {
		t.Errorf("after a restart: got %v, %+v", err, back.Status().Pin)
	}
	// An older one that is sound ends a pin as well, and is not taken.
	if err := c.Accept(t.Context(), Offer{Parcel: newest.Parcel, Pin: &Pin{Revision: second}}); err != nil {
		t.Fatal(err)
	}
	<-cc
	if err := c.Accept(t.Context(), without(pinned, func(*Parcel) {})); !errors.Is(err, ErrBehind) || c.Status().Pin != nil || c.Status().Commit != second {
		t.Errorf("an older one: got %v, %+v", err, c.Status())
	}
	none(t, cc)
}
