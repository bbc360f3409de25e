package wal_test

import (
	"bytes"
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	"floodgate/engine"
	"floodgate/engine/enginetest"
	"floodgate/wal"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// Ensure that the bytes on disk stay what version 1 made them, and that they
// are read back as they were meant.
func TestRecordGolden(t *testing.T) {
	for name, events := range map[string][]engine.Event{
		"record-v1-every-kind": enginetest.SampleEvents(1, 1_700_000_000_000),
		"record-v1-accepted":   goldenOrders(1<<33, 40),
	} {
		value, err := wal.EncodeRecord(nil, events[0].Seq, events)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join("testdata", name+".hex")
		if *update {
			if err := os.WriteFile(path, []byte(hex.Dump(value)), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		golden, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.Dump(value); got != string(golden) {
			t.Errorf("%s: the bytes have changed; a new layout needs a new version\n%s", name, got)
		}
		checkDecode(t, events, value)
	}
}

func goldenOrders(first uint64, n int) []engine.Event {
	events := make([]engine.Event, n)
	orders(events, first, false)
	return events
}

// Ensure that a keyless order of a buyer with a 10 byte id costs 16 bytes at
// most, everything of the record included.
func TestRecordIsSmall(t *testing.T) {
	for _, n := range []int{64, 256, 1024} {
		value, err := wal.EncodeRecord(nil, 1<<33, goldenOrders(1<<33, n))
		if err != nil {
			t.Fatal(err)
		}
		if each := float64(len(value)) / float64(n); each > 16 {
			t.Errorf("an order in a batch of %d costs %.1f bytes", n, each)
		}
	}
}

func checkDecode(t rapid.TB, want []engine.Event, value []byte) {
	t.Helper()
	var got []engine.Event
	err := wal.DecodeRecord(want[0].Seq, value, func(e *engine.Event) { got = append(got, enginetest.CloneEvent(e)) })
	if err != nil {
		t.Fatal(err)
	}
	if diff := enginetest.DiffEvents(want, got); diff != "" {
		t.Fatalf("events (-want +got):\n%s", diff)
	}
}

// Ensure that any events at all come back as they were.
func TestRecordRoundTrip(t *testing.T) {
	word := rapid.SampledFrom([]string{"", "boots", "hats", "a", "EUR", "größe"})
	settings := rapid.Custom(func(t *rapid.T) *engine.Settings {
		return &engine.Settings{
			ID: word.Draw(t, "id"), Name: rapid.String().Draw(t, "name"), Currency: word.Draw(t, "currency"),
			Price: rapid.Int64().Draw(t, "price"), LimitPerBuyer: rapid.Int64().Draw(t, "limit"),
			HoldSeconds: rapid.Int64().Draw(t, "hold"), StartsAt: rapid.Int64().Draw(t, "starts"), EndsAt: rapid.Int64().Draw(t, "ends"),
		}
	})
	event := rapid.Custom(func(t *rapid.T) engine.Event {
		e := engine.Event{
			At: rapid.Int64().Draw(t, "at"), Kind: engine.Kind(rapid.IntRange(1, 31).Draw(t, "kind")),
			Product: word.Draw(t, "product"), Run: rapid.Uint32().Draw(t, "run"), Number: rapid.Uint32().Draw(t, "number"),
			Quantity: rapid.OneOf(rapid.Just(int64(1)), rapid.Int64()).Draw(t, "quantity"),
			Buyer:    rapid.SliceOfN(rapid.Byte(), 0, 64).Draw(t, "buyer"), Key: rapid.SliceOfN(rapid.Byte(), 0, 64).Draw(t, "key"),
			Price: rapid.Int64().Draw(t, "price"), Currency: word.Draw(t, "currency"),
			Deadline: rapid.OneOf(rapid.Just(int64(0)), rapid.Int64()).Draw(t, "deadline"), Restock: rapid.Bool().Draw(t, "restock"),
		}
		if rapid.Bool().Draw(t, "settled") {
			e.Settings = settings.Draw(t, "settings")
		}
		return e
	})
	rapid.Check(t, func(t *rapid.T) {
		first := rapid.Uint64Range(1, 1<<60).Draw(t, "first")
		events := rapid.SliceOfN(event, 1, 20).Draw(t, "events")
		for i := range events {
			events[i].Seq = first + uint64(i)
			if i > 0 && rapid.Bool().Draw(t, "alike") {
				p := &events[i-1]
				events[i].Product, events[i].Run, events[i].Price, events[i].Currency = p.Product, p.Run, p.Price, p.Currency
				events[i].Number = p.Number + 1
			}
		}
		value, err := wal.EncodeRecord(nil, first, events)
		if err != nil {
			t.Fatal(err)
		}
		checkDecode(t, events, value)
	})
}

// FuzzRecord feeds the decoder any bytes. It may refuse them, but not panic; what
// it accepts is encoded and decoded again to the same events.
func FuzzRecord(f *testing.F) {
	for _, events := range [][]engine.Event{enginetest.SampleEvents(1, 1000), goldenOrders(1, 3)} {
		value, err := wal.EncodeRecord(nil, events[0].Seq, events)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(value[:len(value)-8])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		_ = wal.DecodeRecord(1, body, func(*engine.Event) {}) // with a wrong checksum, most likely
		var events []engine.Event
		err := wal.DecodeRecord(1, wal.Seal(body), func(e *engine.Event) { events = append(events, enginetest.CloneEvent(e)) })
		if err != nil {
			return
		}
		value, err := wal.EncodeRecord(nil, 1, events)
		if err != nil {
			t.Fatal(err)
		}
		checkDecode(t, events, value)
	})
}

// Ensure that no flipped bit of a record passes.
func TestRecordBitFlips(t *testing.T) {
	events := enginetest.SampleEvents(1, 1_700_000_000_000)
	value, err := wal.EncodeRecord(nil, 1, events)
	if err != nil {
		t.Fatal(err)
	}
	for bit := range len(value) * 8 {
		flipped := bytes.Clone(value)
		flipped[bit/8] ^= 1 << (bit % 8)
		if err := wal.DecodeRecord(1, flipped, func(*engine.Event) {}); err == nil {
			t.Fatalf("bit %d was flipped and nobody noticed", bit)
		}
	}
	for n := range value {
		if err := wal.DecodeRecord(1, value[:n], func(*engine.Event) {}); err == nil {
			t.Fatalf("%d of %d bytes were accepted", n, len(value))
		}
	}
	if err := wal.DecodeRecord(2, value, func(*engine.Event) {}); err == nil {
		t.Error("a record was accepted under another's key")
	}
}

func TestRecordRefusesUnknownKinds(t *testing.T) {
	for _, kind := range []engine.Kind{0, 32, 255} {
		if _, err := wal.EncodeRecord(nil, 1, []engine.Event{{Seq: 1, Kind: kind}}); err == nil {
			t.Errorf("kind %d was encoded", kind)
		}
	}
}
