package enginetest

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"floodgate/engine"
)

// JournalUnderTest is a journal with the ledger that is read from it.
type JournalUnderTest interface {
	engine.Journal
	engine.SnapshotStore
	IDs() *engine.IDs
	DurableSeq() uint64
	Order(id engine.OrderID) (engine.Order, bool, error)
	OrdersByBuyer(buyer string, limit int, before uint64) (orders []engine.Order, next uint64, err error)
}

var _ JournalUnderTest = (*MemoryJournal)(nil)

// JournalFixture is what a suite tests: an empty journal and, where the journal
// outlives its owner, a way to close and open it again.
type JournalFixture struct {
	Journal JournalUnderTest
	Reopen  func(t *testing.T) JournalUnderTest // nil: nothing outlives the journal
}

// eventComparison ignores the one field that is the engine's own, and the
// difference between no bytes and empty bytes.
var eventComparison = cmp.Options{cmpopts.IgnoreUnexported(engine.Event{}), cmpopts.EquateEmpty()}

// DiffEvents says where the events begin to differ, empty where they do not.
func DiffEvents(want, got []engine.Event) string {
	n := 0
	for n < min(len(want), len(got)) && equalEvents(&want[n], &got[n]) {
		n++
	}
	if n == len(want) && n == len(got) {
		return ""
	}
	// Comparing by reflection is slow; a few events tell enough.
	near := func(events []engine.Event) []engine.Event { return events[n:min(n+5, len(events))] }
	return fmt.Sprintf("%d and %d events, equal up to index %d, then:\n%s", len(want), len(got), n,
		cmp.Diff(near(want), near(got), eventComparison))
}

func equalEvents(a, b *engine.Event) bool {
	return a.Seq == b.Seq && a.At == b.At && a.Kind == b.Kind && a.Product == b.Product && a.Run == b.Run &&
		a.Number == b.Number && a.Quantity == b.Quantity && bytes.Equal(a.Buyer, b.Buyer) && bytes.Equal(a.Key, b.Key) &&
		a.Price == b.Price && a.Currency == b.Currency && a.Deadline == b.Deadline && a.Restock == b.Restock &&
		(a.Settings == nil) == (b.Settings == nil) && (a.Settings == nil || *a.Settings == *b.Settings)
}

// SampleEvents returns events of every kind, from the given sequence, with the
// extremes that a journal must keep.
func SampleEvents(first uint64, at int64) []engine.Event {
	settings := &engine.Settings{
		ID: "boots", Name: "Boots, größer 🥾", Price: engine.MaxPrice, Currency: "EUR", LimitPerBuyer: 2,
		HoldSeconds: engine.MaxHoldSeconds, StartsAt: at - 1, EndsAt: engine.MaxTime,
	}
	long := bytes.Repeat([]byte("x"), engine.MaxID)
	events := []engine.Event{
		{Kind: engine.ProductChanged, Product: "boots", Quantity: engine.MaxStock, Settings: settings},
		{Kind: engine.ProductChanged, Product: "boots", Settings: &engine.Settings{ID: "boots"}},
		{Kind: engine.StockChanged, Product: "boots", Quantity: -17},
		{Kind: engine.SalePaused, Product: "boots"},
		{Kind: engine.SaleResumed, Product: "boots"},
		{Kind: engine.SaleOpened, Product: "boots"},
		{Kind: engine.OrderAccepted, Product: "boots", Number: 0, Quantity: 1, Price: 1999, Currency: "EUR"},
		{Kind: engine.OrderAccepted, Product: "boots", Number: 1, Quantity: 1, Buyer: []byte("u-1"), Price: 1999, Currency: "EUR"},
		{Kind: engine.OrderAccepted, Product: "boots", Number: 2, Quantity: engine.MaxQuantity, Buyer: long, Key: long, Price: 1999, Currency: "EUR", Deadline: at + 30_000},
		{Kind: engine.OrderAccepted, Product: "hats", Run: 7, Number: 41, Quantity: 2, Buyer: []byte("u-2"), Key: []byte("k"), Price: engine.MaxPrice, Currency: "JPY", Deadline: engine.MaxTime},
		{Kind: engine.OrderAccepted, Product: "boots", Number: 3, Quantity: 1, Buyer: []byte("u-1"), Price: 1999, Currency: "EUR"},
		{Kind: engine.OrderAccepted, Product: "boots", Number: 4, Quantity: 1, Buyer: []byte("u-1"), Price: 2099, Currency: "EUR", Deadline: at + 9},
		{Kind: engine.OrderConfirmed, Product: "boots", Number: 2, Quantity: engine.MaxQuantity, Buyer: long},
		{Kind: engine.OrderCancelled, Product: "hats", Run: 7, Number: 41, Quantity: 2, Buyer: []byte("u-2")},
		{Kind: engine.OrderExpired, Product: "boots", Number: 4, Quantity: 1, Buyer: []byte("u-1")},
		{Kind: engine.OrderRefunded, Product: "boots", Number: 2, Quantity: engine.MaxQuantity, Buyer: long, Restock: true},
		{Kind: engine.OrderRefunded, Product: "boots", Number: 1, Quantity: 1, Buyer: []byte("u-1")},
		{Kind: engine.SaleClosed, Product: "boots"},
		{Kind: engine.RunStarted, Product: "boots", Run: 1, Quantity: 10},
	}
	for i := range events {
		events[i].Seq = first + uint64(i)
		events[i].At = at + int64(i/3)
	}
	return events
}

// TestJournal holds any journal to the contract of engine/ports.go, and its
// ledger to what was appended.
func TestJournal(t *testing.T, open func(t *testing.T) JournalFixture) {
	t.Run("EveryKindComesBackAsItWas", func(t *testing.T) {
		f := open(t)
		want := SampleEvents(1, 1_700_000_000_000)
		appendAll(t, f.Journal, want)
		checkEvents(t, f.Journal, 0, want)
		eachLife(t, f, func(t *testing.T, j JournalUnderTest) {
			for after := range want {
				checkEvents(t, j, uint64(after), want[after:])
			}
			checkEvents(t, j, uint64(len(want)), nil)
			checkEvents(t, j, uint64(len(want))+9, nil)
		})
	})
	t.Run("BatchesOfAllSizes", func(t *testing.T) {
		f := open(t)
		var want []engine.Event
		for _, size := range []int{1, 2, 255, 256, 1023, 1024, 1025, 5000, 1} {
			batch := acceptedEvents(uint64(len(want))+1, size)
			appendAll(t, f.Journal, batch)
			want = append(want, batch...)
			if got := f.Journal.DurableSeq(); got != uint64(len(want)) {
				t.Fatalf("durable sequence is %d after %d events", got, len(want))
			}
		}
		eachLife(t, f, func(t *testing.T, j JournalUnderTest) {
			checkEvents(t, j, 0, want)
			checkEvents(t, j, 1500, want[1500:])
		})
	})
	t.Run("EventsAreTheCallersAgain", func(t *testing.T) {
		f := open(t)
		batch := SampleEvents(1, 1000)
		want := make([]engine.Event, len(batch))
		for i := range batch {
			want[i] = CloneEvent(&batch[i])
		}
		appendAll(t, f.Journal, batch)
		for i := range batch {
			for _, b := range [][]byte{batch[i].Buyer, batch[i].Key} {
				for n := range b {
					b[n] = '!'
				}
			}
			batch[i] = engine.Event{}
		}
		checkEvents(t, f.Journal, 0, want)
	})
	t.Run("WrongSequenceIsRefused", func(t *testing.T) {
		f := open(t)
		appendAll(t, f.Journal, acceptedEvents(1, 3))
		for _, first := range []uint64{0, 3, 5} {
			if err := f.Journal.Append(acceptedEvents(first, 1)); err == nil {
				t.Errorf("sequence %d was appended after 3", first)
			}
		}
		gap := acceptedEvents(4, 3)
		gap[2].Seq++
		if err := f.Journal.Append(gap); err == nil {
			t.Error("a gap within a batch was appended")
		}
		checkEvents(t, f.Journal, 0, acceptedEvents(1, 3))
	})
	t.Run("ErrorOfApplyEndsTheReplay", func(t *testing.T) {
		f := open(t)
		appendAll(t, f.Journal, acceptedEvents(1, 10))
		enough, calls := errors.New("enough"), 0
		err := f.Journal.Events(0, func(*engine.Event) error {
			if calls++; calls == 4 {
				return enough
			}
			return nil
		})
		if !errors.Is(err, enough) || calls != 4 {
			t.Errorf("Events returned %v after %d calls, want %v after 4", err, calls, enough)
		}
	})
	t.Run("OrdersByID", func(t *testing.T) {
		f := open(t)
		events := SampleEvents(1, 1_700_000_000_000)
		appendAll(t, f.Journal, events)
		eachLife(t, f, func(t *testing.T, j JournalUnderTest) {
			for _, want := range OrdersOf(j.IDs(), events) {
				got, ok, err := j.Order(want.ID)
				if err != nil || !ok {
					t.Fatalf("order %s: found %v, error %v", want.ID, ok, err)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("order %s (-want +got):\n%s", want.ID, diff)
				}
				for bit := range 128 {
					wrong := want.ID
					wrong[bit/8] ^= 1 << (bit % 8)
					if _, ok, err := j.Order(wrong); ok || err != nil {
						t.Fatalf("id %s with bit %d wrong: found %v, error %v", want.ID, bit, ok, err)
					}
				}
			}
		})
	})
	t.Run("OrdersByBuyer", func(t *testing.T) {
		f := open(t)
		var events []engine.Event
		for n := range 40 {
			batch := acceptedEvents(uint64(len(events))+1, 100)
			for i := range batch {
				batch[i].Buyer = fmt.Appendf(nil, "u-%d", (n+i)%7)
			}
			appendAll(t, f.Journal, batch)
			events = append(events, batch...)
		}
		eachLife(t, f, func(t *testing.T, j JournalUnderTest) {
			want := make(map[string][]engine.Order)
			orders := OrdersOf(j.IDs(), events)
			for i := len(orders) - 1; i >= 0; i-- {
				want[orders[i].Buyer] = append(want[orders[i].Buyer], orders[i])
			}
			for buyer, all := range want {
				for _, limit := range []int{1000, len(all), 97} {
					var got []engine.Order
					for before, pages := uint64(0), 0; ; pages++ {
						page, next, err := j.OrdersByBuyer(buyer, limit, before)
						if err != nil || len(page) > limit || pages > len(all) {
							t.Fatalf("page %d has %d orders, error %v", pages, len(page), err)
						}
						got = append(got, page...)
						if before = next; next == 0 {
							break
						}
					}
					if diff := cmp.Diff(all, got); diff != "" {
						t.Fatalf("orders of %s by %d (-want +got):\n%s", buyer, limit, diff)
					}
				}
			}
			for _, nobody := range []string{"", "u-7", "u-"} {
				if got, next, err := j.OrdersByBuyer(nobody, 10, 0); len(got) != 0 || next != 0 || err != nil {
					t.Errorf("orders of %q: %d, next %d, error %v", nobody, len(got), next, err)
				}
			}
		})
	})
	t.Run("Snapshots", func(t *testing.T) { testSnapshots(t, open(t)) })
}

func testSnapshots(t *testing.T, f JournalFixture) {
	j := f.Journal
	appendAll(t, j, acceptedEvents(1, 30))
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // a MiB
	want := map[string][]string{}
	write := func(seq uint64, fresh map[string][]string) error {
		products := make([]string, 0, len(fresh))
		for p := range fresh {
			products = append(products, p)
		}
		room := make([]byte, 0, len(big))
		return j.WriteSnapshots(seq, products, func(product string, chunk func([]byte) error) error {
			for _, c := range fresh[product] {
				room = append(room[:0], c...)
				if err := chunk(room); err != nil {
					return err
				}
				clear(room) // it is ours again
			}
			return nil
		})
	}
	keep := func(seq uint64, fresh map[string][]string) {
		t.Helper()
		if err := write(seq, fresh); err != nil {
			t.Fatal(err)
		}
		for p, c := range fresh {
			want[p] = c
		}
	}
	check := func(seq uint64) {
		t.Helper()
		if got := j.SnapshotSeq(); got != seq {
			t.Fatalf("snapshot sequence is %d, want %d", got, seq)
		}
		got := map[string][]string{}
		err := j.Snapshots(func(product string, next func() ([]byte, error)) error {
			if _, twice := got[product]; twice {
				return fmt.Errorf("product %s came twice", product)
			}
			chunks, err := readChunks(next)
			got[product] = chunks
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("snapshots (-want +got):\n%s", diff)
		}
		for product, chunks := range want {
			ok, err := j.Snapshot(product, func(next func() ([]byte, error)) error {
				got, err := readChunks(next)
				if diff := cmp.Diff(chunks, got, cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("snapshot of %s (-want +got):\n%s", product, diff)
				}
				return err
			})
			if !ok || err != nil {
				t.Fatalf("snapshot of %s: found %v, error %v", product, ok, err)
			}
		}
		if ok, err := j.Snapshot("nothing", func(func() ([]byte, error)) error { return nil }); ok || err != nil {
			t.Fatalf("snapshot of nothing: found %v, error %v", ok, err)
		}
	}

	check(0)
	keep(10, map[string][]string{"boots": {"one", "two", "three"}, "hats": {string(big), "rest"}, "empty": nil})
	check(10)
	keep(10, map[string][]string{}) // nothing moved
	keep(20, map[string][]string{"boots": {"four"}})
	check(20)

	broken := errors.New("broken")
	err := j.WriteSnapshots(30, []string{"boots", "hats"}, func(product string, chunk func([]byte) error) error {
		if err := chunk([]byte("half")); err != nil {
			return err
		}
		return broken
	})
	if !errors.Is(err, broken) {
		t.Fatalf("WriteSnapshots returned %v, want %v", err, broken)
	}
	check(20) // all or nothing
	for _, wrong := range []uint64{19, 31} {
		if err := write(wrong, map[string][]string{"boots": {"five"}}); err == nil {
			t.Errorf("a snapshot as of %d was stored, between 20 and 30 events", wrong)
		}
	}
	check(20)
	if f.Reopen != nil {
		j = f.Reopen(t)
		check(20)
		keep(25, map[string][]string{"hats": {"six"}})
		check(25)
	}
}

func readChunks(next func() ([]byte, error)) (chunks []string, err error) {
	for {
		c, err := next()
		if err != nil || c == nil {
			return chunks, err
		}
		chunks = append(chunks, string(c))
	}
}

// eachLife runs the check on the journal, and again after it was reopened.
func eachLife(t *testing.T, f JournalFixture, check func(t *testing.T, j JournalUnderTest)) {
	t.Run("live", func(t *testing.T) { check(t, f.Journal) })
	if f.Reopen != nil {
		j := f.Reopen(t)
		t.Run("reopened", func(t *testing.T) { check(t, j) })
	}
}

func appendAll(t *testing.T, j engine.Journal, events []engine.Event) {
	t.Helper()
	if err := j.Append(events); err != nil {
		t.Fatal(err)
	}
}

func checkEvents(t *testing.T, j engine.History, after uint64, want []engine.Event) {
	t.Helper()
	var got []engine.Event
	err := j.Events(after, func(e *engine.Event) error {
		got = append(got, CloneEvent(e))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := DiffEvents(want, got); diff != "" {
		t.Fatalf("events after %d (-want +got):\n%s", after, diff)
	}
}

func acceptedEvents(first uint64, n int) []engine.Event {
	events := make([]engine.Event, n)
	for i := range events {
		seq := first + uint64(i)
		events[i] = engine.Event{
			Seq: seq, At: 1_700_000_000_000 + int64(seq), Kind: engine.OrderAccepted, Product: "boots", Run: 1,
			Number: uint32(seq), Quantity: 1, Buyer: fmt.Appendf(nil, "buyer-%d", seq%1000), Price: 1999, Currency: "EUR",
		}
	}
	return events
}

// OrdersOf returns the orders that the events leave, in order, as a toy ledger
// would tell them.
func OrdersOf(ids *engine.IDs, events []engine.Event) []engine.Order {
	var orders []engine.Order
	at := make(map[orderPlace]int)
	for i := range events {
		e := &events[i]
		place := orderPlace{e.Product, e.Run, e.Number}
		switch {
		case e.Kind == engine.OrderAccepted:
			o := engine.Order{
				ID: ids.Sequential(e.Seq, e.At, nil), Seq: e.Seq, Product: e.Product, Run: e.Run, Number: e.Number,
				Buyer: string(e.Buyer), Key: string(e.Key), Quantity: e.Quantity, Price: e.Price, Currency: e.Currency,
				AcceptedAt: e.At, Deadline: e.Deadline, Status: e.Status(),
			}
			if len(e.Key) > 0 {
				o.ID = engine.KeyedID(e.Product, e.Run, e.Buyer, e.Key)
			}
			at[place] = len(orders)
			orders = append(orders, o)
		case e.Kind.Order():
			if n, ok := at[place]; ok {
				orders[n].Status = e.Status()
			}
		}
	}
	return orders
}
