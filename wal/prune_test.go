package wal_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/rs/zerolog"

	"floodgate/engine"
	"floodgate/wal"
)

// Ensure that a Prune that a kill or a power cut ended anywhere leaves a journal
// that is whole, and that the next Prune ends its work.
func TestPruneIsCutOff(t *testing.T) {
	const batches, each, upTo = 10, 20, 100
	for _, percent := range []int{0, 50, 100} {
		t.Run(fmt.Sprintf("unsynced=%d", percent), func(t *testing.T) {
			disk := vfs.NewCrashableMem()
			var mu sync.Mutex
			armed := false
			var cuts []*vfs.MemFS
			cut := func() {
				rng := rand.New(rand.NewPCG(uint64(percent), uint64(len(cuts))))
				cuts = append(cuts, disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng}))
			}
			injector := errorfs.InjectorFunc(func(op errorfs.Op) error {
				mu.Lock()
				defer mu.Unlock()
				if armed && op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
					cut()
				}
				return nil
			})
			options := wal.Options{Dir: "/data", FS: errorfs.Wrap(disk, injector), Logger: zerolog.Nop(), IndexInterval: time.Millisecond}
			j := open(t, options)
			batch := make([]engine.Event, each)
			for n := range uint64(batches) {
				orders(batch, n*each+1, true)
				if n%2 == 1 { // and some transitions
					last := &batch[each-1]
					*last = engine.Event{Seq: last.Seq, At: last.At, Kind: engine.OrderRefunded, Product: "demo", Run: 1, Number: batch[0].Number, Quantity: 1}
				}
				if err := j.Append(batch); err != nil {
					t.Fatal(err)
				}
			}
			err := j.WriteSnapshots(batches*each, []string{"demo"}, func(_ string, chunk func([]byte) error) error { return chunk([]byte("x")) })
			if err != nil {
				t.Fatal(err)
			}
			if err := j.Flush(); err != nil {
				t.Fatal(err)
			}
			mu.Lock()
			armed = true
			mu.Unlock()
			if removed, err := j.Prune(upTo); err != nil || removed != upTo {
				t.Fatalf("%d events were forgotten, %v", removed, err)
			}
			mu.Lock()
			armed = false
			cut()
			mu.Unlock()
			for n, fs := range cuts {
				options.FS = fs
				j, err := wal.Open(options)
				if err != nil {
					t.Fatalf("cut %d: %v", n, err)
				}
				if _, err := j.Check(t.Context()); err != nil {
					t.Errorf("cut %d of %d: %v", n, len(cuts), err)
				}
				if _, err := j.Prune(upTo); err != nil {
					t.Errorf("cut %d: %v", n, err)
				}
				if report, err := j.Check(t.Context()); err != nil || report.First != upTo+1 || report.Last != batches*each {
					t.Errorf("cut %d, and pruned again: %d to %d, %v", n, report.First, report.Last, err)
				}
				if err := j.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// Ensure that an order that is pruned while it is read is not told as it was
// accepted: what became of it goes with it, and a refund could be made twice.
func TestAnOrderThatIsPrunedWhileItIsReadIsGone(t *testing.T) {
	j := open(t, wal.Options{Dir: "/data", FS: vfs.NewMem(), Logger: zerolog.Nop()})
	batch := make([]engine.Event, 2)
	orders(batch, 1, false)
	batch[1] = engine.Event{Seq: 2, At: batch[0].At, Kind: engine.OrderRefunded, Product: "demo", Run: 1, Quantity: 1}
	if err := j.Append(batch); err != nil {
		t.Fatal(err)
	}
	orders(batch, 3, false)
	if err := j.Append(batch); err != nil {
		t.Fatal(err)
	}
	if err := j.WriteSnapshots(4, nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := j.Flush(); err != nil {
		t.Fatal(err)
	}
	if o, err := j.OrderAround(1, func() error { return nil }); err != nil || o == nil || o.Status != engine.Refunded {
		t.Fatalf("before: %+v, %v", o, err)
	}
	o, err := j.OrderAround(1, func() error {
		removed, err := j.Prune(2)
		if err == nil && removed != 2 {
			err = fmt.Errorf("%d events were forgotten", removed)
		}
		return err
	})
	if err != nil || o != nil {
		t.Errorf("the order is %+v, %v", o, err)
	}
}

// Ensure that a clock that was wrong for a while, as after a start without a
// battery, makes no order older than it is.
func TestAClockThatWasWrongMakesNoOrderOld(t *testing.T) {
	const now = 1_700_000_000_000
	j := open(t, wal.Options{Dir: "/data", FS: vfs.NewMem(), Logger: zerolog.Nop()})
	batch := make([]engine.Event, 1)
	for i, at := range []int64{now, 0, now + 1} {
		orders(batch, uint64(i)+1, false)
		batch[0].At = at
		if err := j.Append(batch); err != nil {
			t.Fatal(err)
		}
	}
	if seq, err := j.SeqAt(now, 4); err != nil || seq != 1 {
		t.Errorf("the first event of now is %d, want 1 (%v)", seq, err)
	}
}
