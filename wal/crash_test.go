package wal_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/rs/zerolog"

	"floodgate/engine"
	"floodgate/engine/enginetest"
	"floodgate/wal"
)

// Promise 2, acknowledged means on disk: whatever a power cut leaves of what was
// not synced, every acknowledged event is there, in whole batches, and nothing
// that was never appended.
func TestCrashKeepsTheAcknowledged(t *testing.T) {
	for _, percent := range []int{0, 30, 70, 100} {
		t.Run(fmt.Sprintf("unsynced=%d", percent), func(t *testing.T) {
			for seed := range uint64(30 / slow) {
				crashOnce(t, percent, seed)
			}
		})
	}
}

func crashOnce(t *testing.T, percent int, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, uint64(percent)))
	fs := vfs.NewCrashableMem()
	options := wal.Options{
		Dir: "/data", FS: fs, Logger: zerolog.Nop(), MemTableBytes: 1 << 20,
		MarkInterval: time.Millisecond, IndexInterval: time.Millisecond,
	}
	j := open(t, options)
	// The machine crashes at any moment of an append that goes on meanwhile.
	type cut struct {
		fs    *vfs.MemFS
		acked uint64
	}
	cuts := make(chan cut, 3)
	var crashes sync.WaitGroup
	crash := func() {
		crashes.Add(1)
		acked := j.DurableSeq()
		go func() {
			defer crashes.Done()
			clone := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(seed, acked))})
			cuts <- cut{clone, acked}
		}()
	}
	at := map[int]bool{rng.IntN(60): true, rng.IntN(60): true, rng.IntN(60): true}
	var all []engine.Event
	ends := map[uint64]bool{0: true}
	for n := range 60 {
		if at[n] {
			crash()
		}
		batch := make([]engine.Event, 1+rng.IntN(400))
		orders(batch, uint64(len(all))+1, n%2 == 0)
		if rng.IntN(4) == 0 && len(all) > 0 { // and some transitions
			seq := batch[0].Seq
			batch = append(batch[:0], engine.Event{Seq: seq, At: all[len(all)-1].At, Kind: engine.OrderRefunded, Product: "demo", Run: 1,
				Number: all[rng.IntN(len(all))].Number, Quantity: 1})
		}
		if err := j.Append(batch); err != nil {
			t.Fatal(err)
		}
		for i := range batch {
			all = append(all, enginetest.CloneEvent(&batch[i]))
		}
		ends[uint64(len(all))] = true
		if n%20 == 10 {
			err := j.WriteSnapshots(uint64(len(all)), []string{"demo"}, func(_ string, chunk func([]byte) error) error {
				return chunk(fmt.Appendf(nil, "as of %d", len(all)))
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	crashes.Wait()
	close(cuts)
	for c := range cuts {
		options.FS = c.fs
		survivor, err := wal.Open(options)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		last := survivor.DurableSeq()
		if last < c.acked || !ends[last] {
			t.Fatalf("seed %d: %d events were acknowledged, %d are there", seed, c.acked, last)
		}
		var got []engine.Event
		if err := survivor.Events(0, func(e *engine.Event) error {
			got = append(got, enginetest.CloneEvent(e))
			return nil
		}); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if diff := enginetest.DiffEvents(all[:last], got); diff != "" {
			t.Fatalf("seed %d: events (-want +got):\n%s", seed, diff)
		}
		if _, err := survivor.Check(t.Context()); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if seq := survivor.SnapshotSeq(); seq > 0 {
			_, err := survivor.Snapshot("demo", func(next func() ([]byte, error)) error {
				chunk, err := next()
				if err == nil && string(chunk) != fmt.Sprintf("as of %d", seq) {
					err = fmt.Errorf("snapshot is %q, want as of %d", chunk, seq)
				}
				return err
			})
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		if err := survivor.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Ensure that the n-th write or sync that the disk refuses, for every n, fails
// the append it belongs to or a later one, is told to Fatal once, and loses
// nothing that was acknowledged. The process ends there; so the disk is looked
// at as it survives.
func TestDiskRefuses(t *testing.T) {
	for _, refusal := range []error{syscall.EIO, syscall.ENOSPC} {
		t.Run(refusal.Error(), func(t *testing.T) {
			refused := 0
			for n := int32(0); n < 4000; n += slow {
				if !refuseOnce(t, n, refusal) {
					break
				}
				refused++
			}
			if refused < 50/slow {
				t.Fatalf("only %d writes could be refused", refused)
			}
		})
	}
}

// refuseOnce reports whether the n-th write was reached.
func refuseOnce(t *testing.T, n int32, refusal error) bool {
	// Once a disk begins to refuse it goes on refusing.
	var mu sync.Mutex
	left, armed, reached := n, false, false
	injector := errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() != errorfs.OpIsWrite || strings.Contains(op.Path, "index") {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		if !armed {
			return nil
		}
		if left--; left < 0 {
			reached = true
			return refusal
		}
		return nil
	})
	disk := vfs.NewCrashableMem()
	fatal := make(chan error, 2)
	j, err := wal.Open(wal.Options{
		Dir: "/data", FS: errorfs.Wrap(disk, injector), Logger: zerolog.Nop(), MemTableBytes: 1 << 20,
		MarkInterval: time.Millisecond, IndexInterval: time.Minute, Fatal: func(err error) { fatal <- err },
	})
	if err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	armed = true
	mu.Unlock()

	// An append may be stuck for ever in a Pebble that gave up; then Fatal
	// was told, and a process would have ended.
	var acked uint64
	done := make(chan error, 1)
	go func() {
		batch := make([]engine.Event, 20)
		for {
			if acked == 2000 {
				done <- nil
				return
			}
			orders(batch, acked+1, false)
			if err := j.Append(batch); err != nil {
				done <- err
				return
			}
			mu.Lock()
			acked += 20
			mu.Unlock()
		}
	}()
	var failure, told error
	select {
	case failure = <-done:
	case told = <-fatal:
		select {
		case failure = <-done:
		default: // it may be stuck
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if !reached {
		if failure != nil || told != nil {
			t.Fatalf("write %d: failed with %v, %v, though the disk refused nothing", n, failure, told)
		}
		armed = false
		mu.Unlock()
		err := j.Close()
		mu.Lock()
		if err != nil {
			t.Fatal(err)
		}
		return false
	}
	if failure != nil && !errors.Is(failure, wal.ErrFailed) {
		t.Fatalf("write %d: the append failed with %v", n, failure)
	}
	for _, percent := range []int{0, 100} {
		clone := disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(1, uint64(n)))})
		survivor, err := wal.Open(wal.Options{Dir: "/data", FS: clone, Logger: zerolog.Nop()})
		if err != nil {
			t.Fatalf("write %d: %v", n, err)
		}
		if got := survivor.DurableSeq(); got < acked || got > acked+20 {
			t.Fatalf("write %d: %d events were acknowledged, %d are there", n, acked, got)
		}
		if _, err := survivor.Check(t.Context()); err != nil {
			t.Fatalf("write %d: %v", n, err)
		}
		if err := survivor.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if failure != nil || told != nil {
		if err := j.Close(); !errors.Is(err, wal.ErrFailed) {
			t.Fatalf("write %d: Close returned %v after the failure", n, err)
		}
		return true
	}
	// Every append was done when the disk refused something in the background.
	// Nobody may have noticed yet; then closing does, or need not.
	closed := make(chan error, 1)
	go func() { closed <- j.Close() }()
	mu.Unlock()
	defer mu.Lock()
	select {
	case err := <-closed:
		if err != nil && !errors.Is(err, wal.ErrFailed) {
			t.Fatalf("write %d: Close returned %v", n, err)
		}
	case <-fatal:
	}
	return true
}
