package wal_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
	"pgregory.net/rapid"

	"floodgate/engine"
	"floodgate/engine/enginetest"
	"floodgate/wal"
)

// Ensure that, whatever was appended, pruned, settled and reopened, the ledger
// tells what a toy that keeps all events in a slice tells.
func TestLedgerAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		options := wal.Options{Dir: "/data", FS: vfs.NewMem(), Logger: zerolog.Nop(), MemTableBytes: 1 << 20, CacheBytes: 1 << 20}
		j, err := wal.Open(options)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := j.Close(); err != nil {
				t.Error(err)
			}
		}()
		var events []engine.Event
		first, settled := uint64(1), uint64(0)
		numbers := map[uint32]uint32{}
		seq := func() uint64 { return uint64(len(events)) }

		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				batch := make([]engine.Event, rapid.IntRange(1, 40).Draw(t, "size"))
				for i := range batch {
					e := &batch[i]
					*e = engine.Event{Seq: seq() + uint64(i) + 1, At: int64(seq()) + int64(i), Product: "boots", Run: rapid.Uint32Range(0, 2).Draw(t, "run"), Quantity: 1}
					if n := numbers[e.Run]; n > 0 && rapid.IntRange(0, 3).Draw(t, "what") == 0 {
						e.Kind = rapid.SampledFrom([]engine.Kind{engine.OrderConfirmed, engine.OrderCancelled, engine.OrderExpired, engine.OrderRefunded}).Draw(t, "kind")
						e.Number = rapid.Uint32Range(0, n-1).Draw(t, "number")
						continue
					}
					e.Kind, e.Number, e.Price, e.Currency = engine.OrderAccepted, numbers[e.Run], 100, "EUR"
					e.Buyer = []byte(rapid.SampledFrom([]string{"", "a", "b", "c"}).Draw(t, "buyer"))
					e.Deadline = rapid.Int64Range(0, 1).Draw(t, "held") * 1e9
					if rapid.Bool().Draw(t, "keyed") {
						e.Key = fmt.Appendf(nil, "k%d", e.Seq)
					}
					numbers[e.Run]++
				}
				if err := j.Append(batch); err != nil {
					t.Fatal(err)
				}
				events = append(events, batch...)
			},
			"prune": func(t *rapid.T) {
				if seq() == 0 {
					return
				}
				upTo := rapid.Uint64Range(0, seq()).Draw(t, "upTo")
				if at := rapid.Uint64Range(j.SnapshotSeq(), seq()).Draw(t, "snapshot"); at > 0 {
					if err := j.WriteSnapshots(at, nil, nil); err != nil {
						t.Fatal(err)
					}
				}
				removed, err := j.Prune(upTo)
				if err != nil {
					t.Fatal(err)
				}
				first += removed
				if first != j.FirstSeq() || removed > 0 && first-1 > min(upTo, j.SnapshotSeq(), max(settled, seq()*b2u(settled == 0))) {
					t.Fatalf("pruned to %d, asked %d, snapshot %d, settled %d", first, upTo, j.SnapshotSeq(), settled)
				}
			},
			"settle": func(t *rapid.T) {
				settled = rapid.Uint64Range(settled, seq()).Draw(t, "settled")
				if settled == 0 {
					return // a cursor at 0 would keep all
				}
				if err := j.SetCursor(wal.SettledCursor, settled); err != nil {
					t.Fatal(err)
				}
			},
			"reopen": func(t *rapid.T) {
				if err := j.Close(); err != nil {
					t.Fatal(err)
				}
				if j, err = wal.Open(options); err != nil {
					t.Fatal(err)
				}
			},
			"look": func(t *rapid.T) {
				var want []engine.Order
				byBuyer := map[string][]engine.Order{}
				for _, o := range enginetest.OrdersOf(j.IDs(), events) {
					if o.Seq < first {
						if _, ok, err := j.Order(o.ID); ok || err != nil {
							t.Fatalf("pruned order %d: found %v, error %v", o.Seq, ok, err)
						}
						continue
					}
					o.Settled = o.Seq <= settled
					want = append(want, o)
					byBuyer[o.Buyer] = append([]engine.Order{o}, byBuyer[o.Buyer]...)
				}
				for _, o := range want {
					got, ok, err := j.Order(o.ID)
					if diff := cmp.Diff(o, got); !ok || err != nil || diff != "" {
						t.Fatalf("order %d: found %v, error %v (-want +got):\n%s", o.Seq, ok, err, diff)
					}
				}
				for _, buyer := range []string{"a", "b", "c"} {
					got, _, err := j.OrdersByBuyer(buyer, 1<<20, 0)
					if diff := cmp.Diff(byBuyer[buyer], got); err != nil || diff != "" {
						t.Fatalf("orders of %s: %v (-want +got):\n%s", buyer, err, diff)
					}
				}
				report, err := j.Check(t.Context())
				if err != nil || report.Orders != uint64(len(want)) || report.Last != seq() {
					t.Fatalf("check: %d orders of %d, last %d of %d: %v", report.Orders, len(want), report.Last, seq(), err)
				}
				if first > 1 {
					if err := j.Events(first-2, func(*engine.Event) error { return nil }); !errors.Is(err, wal.ErrPruned) {
						t.Fatalf("events that were pruned: %v", err)
					}
				}
				var got []engine.Event
				if err := j.Events(first-1, func(e *engine.Event) error {
					got = append(got, enginetest.CloneEvent(e))
					return nil
				}); err != nil {
					t.Fatal(err)
				}
				if diff := enginetest.DiffEvents(events[first-1:], got); diff != "" {
					t.Fatal(diff)
				}
				if seq() > 0 { // the event of sequence n happened at n-1
					at := rapid.Int64Range(0, int64(seq())+2).Draw(t, "at")
					below := rapid.Uint64Range(first, seq()+2).Draw(t, "below")
					got, err := j.SeqAt(at, below)
					if want := min(max(uint64(at)+1, first), seq()+1, below); err != nil || got != want {
						t.Fatalf("first sequence at %d is %d, want %d (%v)", at, got, want, err)
					}
					if got := j.LastAt(); got != int64(seq())-1 {
						t.Fatalf("last event happened at %d, want %d", got, seq()-1)
					}
				}
			},
		})
	})
}

func b2u(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

func TestCursors(t *testing.T) {
	options := wal.Options{Dir: "/data", FS: vfs.NewMem(), Logger: zerolog.Nop()}
	j := open(t, options)
	batch := make([]engine.Event, 100)
	orders(batch, 1, false)
	if err := j.Append(batch); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		name string
		seq  uint64
		ok   bool
	}{{"relay", 50, true}, {"relay", 50, true}, {"relay", 49, false}, {"relay", 101, false}, {"settled", 20, true}, {"", 1, false}, {"relay", 100, true}} {
		if err := j.SetCursor(step.name, step.seq); (err == nil) != step.ok {
			t.Errorf("cursor %q to %d: %v", step.name, step.seq, err)
		}
	}
	id, node := j.IDs().Sequential(7, 1, nil), j.NodeID()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j = open(t, options)
	for name, want := range map[string]uint64{"relay": 100, "settled": 20, "nobody": 0} {
		if got, err := j.Cursor(name); got != want || err != nil {
			t.Errorf("cursor %s is %d, want %d (%v)", name, got, want, err)
		}
	}
	if j.IDs().Sequential(7, 1, nil) != id || j.NodeID() != node {
		t.Error("the node's identity changed")
	}
	if s := j.Stats(); s.Durable != 100 || s.First != 1 || s.Marked != 100 {
		t.Errorf("stats: %+v", s)
	}
}

// Ensure that a closed journal says so, that Close may be called twice, and that
// options are checked all at once.
func TestClosedAndOptions(t *testing.T) {
	j := open(t, wal.Options{Dir: "/data", FS: vfs.NewMem(), Logger: zerolog.Nop()})
	stop := make(chan struct{})
	woken := make(chan error, 1)
	go func() {
		_, err := j.Wait(0, stop)
		woken <- err
	}()
	batch := make([]engine.Event, 1)
	orders(batch, 1, false)
	if err := j.Append(batch); err != nil {
		t.Fatal(err)
	}
	if err := <-woken; err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for name, err := range map[string]error{
		"Append": j.Append(batch), "Events": j.Events(0, nil), "SetCursor": j.SetCursor("a", 1),
	} {
		if !errors.Is(err, wal.ErrClosed) {
			t.Errorf("%s after Close: %v", name, err)
		}
	}
	if _, _, err := j.Order(j.IDs().Sequential(1, 1, nil)); !errors.Is(err, wal.ErrClosed) {
		t.Errorf("Order after Close: %v", err)
	}
	err := wal.Options{CacheBytes: 1, MarkInterval: -1}.Validate()
	for _, field := range []string{"Dir", "CacheBytes", "MarkInterval"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%v does not name %s", err, field)
		}
	}
}
