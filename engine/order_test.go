package engine_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"strings"
	"testing"

	"floodgate/engine"
)

// RFC 9562, 5.7: 48 bits of Unix milliseconds, version 7, variant 10.
func TestIDsWithoutAKeyAreVersion7(t *testing.T) {
	ids := engine.NewIDs([16]byte{1})
	var scratch [32]byte
	for _, row := range []struct {
		seq uint64
		at  int64
	}{
		{1, 0}, {1, 1}, {2, 1_700_000_000_000}, {1<<40 - 1, engine.MaxTime}, {1<<39 + 12345, 1<<48 - 1},
	} {
		id := ids.Sequential(row.seq, row.at, &scratch)
		if id.Version() != 7 || id[6]>>4 != 7 {
			t.Errorf("%v: version %d", id, id.Version())
		}
		if id[8]>>6 != 0b10 {
			t.Errorf("%v: variant %b", id, id[8]>>6)
		}
		if got := int64(binary.BigEndian.Uint64(id[:8]) >> 16); got != row.at {
			t.Errorf("%v: time %d, want %d", id, got, row.at)
		}
		if got := id.Sequence(); got != row.seq {
			t.Errorf("%v: sequence %d, want %d", id, got, row.seq)
		}
		if again := ids.Sequential(row.seq, row.at, nil); again != id {
			t.Errorf("%v and %v name one order", id, again)
		}
	}
}

func TestIDsSortByTime(t *testing.T) {
	ids := engine.NewIDs([16]byte{1})
	before := ""
	for at := range int64(1000) {
		id := ids.Sequential(1000-uint64(at), 1_700_000_000_000+at, nil).String()
		if id <= before {
			t.Fatalf("%s of a later order does not follow %s", id, before)
		}
		before = id
	}
}

// Who knows an order's time and sequence still has 34 bits to guess.
func TestIDsCannotBeGuessedWithoutTheSecret(t *testing.T) {
	const hash1, hash2 = 0x0fff, 0x3fffff << 40
	mine, theirs := engine.NewIDs([16]byte{1}), engine.NewIDs([16]byte{2})
	ones1, ones2 := uint64(0), uint64(0)
	seen := make(map[uint64]bool)
	for seq := range uint64(2000) {
		id := mine.Sequential(seq, 1_700_000_000_000, nil)
		if id == theirs.Sequential(seq, 1_700_000_000_000, nil) {
			t.Fatalf("two secrets name order %d alike", seq)
		}
		high, low := binary.BigEndian.Uint64(id[:8])&hash1, binary.BigEndian.Uint64(id[8:])&hash2
		seen[high<<52|low>>12] = true
		ones1 |= high
		ones2 |= low
	}
	if ones1 != hash1 || ones2 != hash2 {
		t.Errorf("the hash never sets the bits %x and %x", hash1&^ones1, hash2&^ones2)
	}
	if len(seen) < 1990 {
		t.Errorf("2000 orders have %d hashes", len(seen))
	}
}

// RFC 9562, 5.5: a name-based UUID. Every node names a retry alike.
func TestIDsOfAKeyAreVersion5(t *testing.T) {
	id := engine.KeyedID("p", 1, []byte("a"), []byte("k"))
	if id.Version() != 5 || id[8]>>6 != 0b10 {
		t.Errorf("%v: version %d, variant %b", id, id.Version(), id[8]>>6)
	}
	if again := engine.KeyedID("p", 1, []byte("a"), []byte("k")); again != id {
		t.Errorf("%v and %v name one retry", id, again)
	}
	// Pinned: an id that changes with a release breaks the retries of before.
	if got, want := id.String(), "95995e1b-06e7-5c1d-ac2c-9d6e1f24774a"; got != want {
		t.Errorf("the id is %s, it was %s", got, want)
	}
	seen := map[engine.OrderID]string{}
	for _, row := range []struct {
		product    string
		run        uint32
		buyer, key string
	}{
		{"p", 1, "a", "k"}, {"q", 1, "a", "k"}, {"p", 2, "a", "k"}, {"p", 1, "b", "k"}, {"p", 1, "a", "l"},
		{"p", 1, "", "ak"}, {"p", 1, "ak", ""}, {"p", 1, "", "k"}, {"pa", 1, "", "k"},
		{strings.Repeat("p", 64), 1<<32 - 1, strings.Repeat("b", 64), strings.Repeat("k", 64)},
		{strings.Repeat("p", 64), 1<<32 - 1, strings.Repeat("b", 63), "b" + strings.Repeat("k", 63)},
	} {
		id := engine.KeyedID(row.product, row.run, []byte(row.buyer), []byte(row.key))
		name := row.product + "|" + row.buyer + "|" + row.key
		if other, taken := seen[id]; taken {
			t.Errorf("%s and %s have one id", name, other)
		}
		seen[id] = name
	}
}

func TestOrderIDsAreReadAsTheyAreWritten(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for range 1000 {
		var id engine.OrderID
		binary.BigEndian.PutUint64(id[:8], rng.Uint64())
		binary.BigEndian.PutUint64(id[8:], rng.Uint64())
		text := id.String()
		if got, ok := engine.ParseOrderID([]byte(text)); !ok || got != id {
			t.Fatalf("%s was read as %s, %v", text, got, ok)
		}
		if got, ok := engine.ParseOrderID([]byte(strings.ToUpper(text))); !ok || got != id {
			t.Fatalf("%s in capitals was read as %s, %v", text, got, ok)
		}
	}
}

func TestWhatIsNoOrderID(t *testing.T) {
	const good = "0190a5b0-1234-7abc-8def-0123456789ab"
	if _, ok := engine.ParseOrderID([]byte(good)); !ok {
		t.Fatalf("%s was refused", good)
	}
	for _, text := range []string{
		"", "0", good[1:], good + "0", "{" + good + "}", "urn:uuid:" + good,
		strings.ReplaceAll(good, "-", ""), strings.Replace(good, "-", "_", 1),
		strings.Replace(good, "a", "g", 1), strings.Replace(good, "0", " ", 1),
		"0190a5b0-1234-7abc-8def-0123456789a\x00", "0190a5b01-234-7abc-8def-0123456789ab",
	} {
		if id, ok := engine.ParseOrderID([]byte(text)); ok || id != (engine.OrderID{}) {
			t.Errorf("%q was read as %v", text, id)
		}
	}
}

func FuzzParseOrderID(f *testing.F) {
	f.Add([]byte("0190a5b0-1234-7abc-8def-0123456789ab"))
	f.Add([]byte("0190A5B0-1234-7ABC-8DEF-0123456789AB"))
	f.Add([]byte("------------------------------------"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, text []byte) {
		id, ok := engine.ParseOrderID(text)
		if !ok {
			return
		}
		if again := id.String(); !bytes.EqualFold([]byte(again), text) {
			t.Errorf("%q was read as %s", text, again)
		}
	})
}

func TestAnOrderRemembersHowItWasAccepted(t *testing.T) {
	for _, row := range []struct {
		deadline int64
		want     engine.Status
	}{{0, engine.Confirmed}, {1, engine.Held}} {
		o := engine.Order{Deadline: row.deadline, Status: engine.Cancelled}
		if got := o.Accepted(); got != row.want {
			t.Errorf("deadline %d: accepted as %v, want %v", row.deadline, got, row.want)
		}
	}
}
