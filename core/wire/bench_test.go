package wire_test

import (
	"testing"

	"parley/core/chat"
	"parley/core/journal"
	"parley/core/wire"
)

// A chat message of the size people write.
const benchText = "has anybody tried the new build on the small machine yet? it starts in no time"

func BenchmarkDecodeSend(b *testing.B) {
	frame := []byte(`{"type":"send","id":"17","room":"lobby","nonce":"` + goldenNonce + `","text":"` + benchText + `"}`)
	b.SetBytes(int64(len(frame)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := wire.Decode(frame); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeRefused(b *testing.B) {
	frame := []byte(`{"type":"send","id":"17","room":"Lobby","text":"x"}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := wire.Decode(frame); err == nil {
			b.Fatal("taken")
		}
	}
}

func BenchmarkEncodeEntry(b *testing.B) {
	e := &journal.Entry{Seq: 123456, ID: goldenID, Kind: journal.KindMessage, From: "ann", Time: 1764000000123, Nonce: goldenNonce, Text: benchText}
	b.ReportAllocs()
	for b.Loop() {
		wire.EncodeEntry("lobby", e)
	}
}

func BenchmarkEncodeAck(b *testing.B) {
	r := &journal.Receipt{Epoch: "9f3c01d2", Seq: 123456, ID: goldenID, Outcome: chat.Accepted}
	b.ReportAllocs()
	for b.Loop() {
		wire.EncodeAck("17", "lobby", r)
	}
}

func BenchmarkEncodePresence(b *testing.B) {
	ev := wire.PresenceEvent{Type: wire.Presence, Room: "lobby", Event: "join", User: "ann", Count: 3}
	b.ReportAllocs()
	for b.Loop() {
		wire.Encode(ev)
	}
}
