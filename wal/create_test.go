package wal_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/rs/zerolog"

	"floodgate/engine"
	"floodgate/wal"
)

// Ensure that a directory whose making was cut off, before any write and by a
// kill or a power cut, is made by the next start, and keeps what is stored then.
func TestCreationIsCutOff(t *testing.T) {
	for _, percent := range []int{0, 50, 100} {
		t.Run(fmt.Sprintf("unsynced=%d", percent), func(t *testing.T) {
			disk := vfs.NewCrashableMem()
			var mu sync.Mutex
			var cuts []*vfs.MemFS
			injector := errorfs.InjectorFunc(func(op errorfs.Op) error {
				// Pebble removes in the background, and MemFS cannot be cloned while
				// it locks a directory. A cut before a removal is one before the
				// next write, too.
				if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && op.Kind != errorfs.OpRemove {
					mu.Lock()
					defer mu.Unlock()
					rng := rand.New(rand.NewPCG(uint64(percent), uint64(len(cuts))))
					cuts = append(cuts, disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng}))
				}
				return nil
			})
			j := open(t, wal.Options{Dir: "/srv/floodgate/data", FS: errorfs.Wrap(disk, injector), Logger: zerolog.Nop()})
			mu.Lock()
			made := len(cuts)
			mu.Unlock()
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
			if made < 20 {
				t.Fatalf("only %d cuts", made)
			}
			for n, fs := range cuts[:made] {
				j, err := wal.Open(wal.Options{Dir: "/srv/floodgate/data", FS: fs, Logger: zerolog.Nop()})
				if err != nil {
					t.Errorf("cut before write %d: %v", n, err)
					continue
				}
				if err := j.Append(make1()); err != nil {
					t.Error(err)
				}
				after := fs.CrashClone(vfs.CrashCloneCfg{})
				if err := j.Close(); err != nil {
					t.Error(err)
				}
				j, err = wal.Open(wal.Options{Dir: "/srv/floodgate/data", FS: after, Logger: zerolog.Nop()})
				if err != nil {
					t.Errorf("cut before write %d, then a power cut: %v", n, err)
					continue
				}
				if got := j.DurableSeq(); got != 1 {
					t.Errorf("cut before write %d, then a power cut: %d events are there, 1 was acknowledged", n, got)
				}
				if err := j.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func make1() []engine.Event {
	batch := make([]engine.Event, 1)
	orders(batch, 1, false)
	return batch
}
