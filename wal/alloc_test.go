//go:build !race

package wal_test

import (
	"testing"

	"github.com/rs/zerolog"

	"floodgate/engine"
	"floodgate/wal"
)

// Ensure that an append allocates nothing per event: an append of 1,024 events
// makes no more than the handful of allocations that its goroutines make.
func TestAppendAllocatesNothingPerEvent(t *testing.T) {
	j := open(t, wal.Options{Dir: t.TempDir(), NoSync: true, Logger: zerolog.Nop(), IndexInterval: 1e10})
	batch := make([]engine.Event, 1024)
	seq := uint64(1)
	next := func() {
		for i := range batch {
			batch[i].Seq, batch[i].Number = seq, uint32(seq)
			seq++
		}
		if err := j.Append(batch); err != nil {
			t.Fatal(err)
		}
	}
	orders(batch, seq, false)
	next()
	if got := testing.AllocsPerRun(50, next); got > 8 {
		t.Errorf("an append of %d events makes %.1f allocations", len(batch), got)
	}
}
