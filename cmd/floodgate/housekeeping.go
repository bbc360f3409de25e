package main

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"floodgate/engine"
	"floodgate/ingest"
	"floodgate/wal"
)

const (
	// lookEvery is often, because a busy node writes a megabyte in it and a look
	// costs a microsecond.
	lookEvery  = 100 * time.Millisecond
	pruneEvery = 10 * time.Minute

	// reserve is the room that a node never fills with orders: less than this,
	// or than a share of a small disk, and it sells nothing more. A journal
	// that meets a full disk fails, and takes the node with it; until then
	// confirms, cancels and the snapshots that free room must still fit.
	reserve      = 256 << 20
	reserveShare = 20 // one part in so many of the disk
)

// diskWatch knows whether there is room for more orders.
type diskWatch struct {
	dir  string
	log  zerolog.Logger
	free func(dir string) (free, total uint64, err error)

	full    atomic.Bool
	left    atomic.Uint64
	blind   atomic.Bool
	looking sync.Mutex
}

func newDiskWatch(dir string, log zerolog.Logger) *diskWatch {
	return &diskWatch{dir: dir, log: log, free: wal.FreeBytes}
}

// look measures the disk. Once full, there must be a quarter more than the
// reserve before it is not: else a node would flicker around the limit.
func (d *diskWatch) look() {
	d.looking.Lock()
	defer d.looking.Unlock()
	free, total, err := d.free(d.dir)
	if err != nil {
		if !d.blind.Swap(true) {
			d.log.Error().Err(err).Msg("the free room on the disk cannot be measured")
		}
		return
	}
	d.blind.Store(false)
	d.left.Store(free)
	need := min(total/reserveShare, reserve)
	switch full := d.full.Load(); {
	case !full && free < need:
		d.full.Store(true)
		d.log.Error().Uint64("free", free).Uint64("need", need).Msg("storage full: selling stops until there is room")
	case full && free >= need+need/4:
		d.full.Store(false)
		d.log.Info().Uint64("free", free).Msg("there is room again: selling goes on")
	}
}

func (d *diskWatch) check() ingest.Check {
	c := ingest.Check{Name: "disk", Ready: true, State: "ok", Detail: fmt.Sprintf("%d MiB are free.", d.left.Load()>>20)}
	switch {
	case d.full.Load():
		c.Ready, c.State = false, "storage-full"
	case d.blind.Load():
		c.State, c.Detail = "unknown", "The free room cannot be measured."
	}
	return c
}

// guardedEngine refuses what would need room that is not there. What an admin or
// the buyer of a held order decides is small, bounded by what was sold, and
// still let through.
type guardedEngine struct {
	*engine.Engine
	disk *diskWatch
}

func (g guardedEngine) Do(l *engine.Listing, c *engine.Command) error {
	if err := g.refusal(c); err != nil {
		return err
	}
	return g.Engine.Do(l, c)
}

func (g guardedEngine) Send(l *engine.Listing, c *engine.Command, to engine.Answerer) error {
	if err := g.refusal(c); err != nil {
		return err
	}
	return g.Engine.Send(l, c, to)
}

func (g guardedEngine) refusal(c *engine.Command) error {
	if c.Op == engine.OpPlace && g.disk.full.Load() {
		return ingest.ErrStorageFull
	}
	return nil
}

// housekeeping is what a node does beside selling: one goroutine, from start to
// stop.
type housekeeping struct {
	done chan struct{}
	gone sync.WaitGroup
}

func startHousekeeping(n *node) *housekeeping {
	h := &housekeeping{done: make(chan struct{})}
	h.gone.Go(func() {
		look, prune := time.NewTicker(lookEvery), time.NewTicker(pruneEvery)
		defer look.Stop()
		defer prune.Stop()
		for {
			select {
			case <-h.done:
				return
			case <-n.journal.Failed():
				// Found by a reader or in the background, perhaps while nobody
				// buys: the engine would not know before the next order.
				n.fail(n.journal.Err())
				return
			case <-look.C:
				n.disk.look()
			case <-prune.C:
				n.prune(time.Now())
			}
		}
	})
	return h
}

func (h *housekeeping) stop() {
	close(h.done)
	h.gone.Wait()
}

// prune forgets orders that are older than --retain and that no product needs
// any more.
func (n *node) prune(now time.Time) {
	retain := n.flags.Retain.d
	if retain == 0 {
		return
	}
	removed, err := pruneBefore(n.journal, now, retain)
	if err != nil {
		n.log.Error().Err(err).Msg("forgetting old orders failed; it will be tried again")
	} else if removed > 0 {
		n.log.Info().Uint64("events", removed).Msg("old orders forgotten")
	}
}

func pruneBefore(journal *wal.Journal, now time.Time, retain time.Duration) (removed uint64, err error) {
	needed, err := engine.OldestNeeded(journal, now.UnixMilli())
	if err != nil {
		return 0, err
	}
	kept, err := journal.SeqAt(now.Add(-retain).UnixMilli(), needed)
	if err != nil {
		return 0, err
	}
	return journal.Prune(kept - 1)
}
