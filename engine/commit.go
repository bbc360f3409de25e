package engine

import (
	"sync"
	"sync/atomic"
	"time"
)

// committer gives events their sequence and has the journal store them. There is
// one per node, so the node has one sequence without gaps, shards that decide at
// the same time share an fsync, and a reader of the journal needs one cursor. It
// takes all that was decided while it waited for the disk.
//
// After each durable batch it publishes the products' views, then answers. A
// journal error ends it: memory is ahead of the disk and only a replay may
// repair it.
type committer struct {
	journal Journal
	seq     uint64
	shards  []*shard
	telling *telling
	onFail  func(error)
	busy    atomic.Bool // between taking a batch and being ready for the next

	mu      sync.Mutex
	ready   sync.Cond // something was decided, or no more will come
	space   sync.Cond // open was taken
	open    []decided
	events  int // in open; an answer without an event counts as one
	closing bool
	broken  atomic.Bool // memory is ahead of the disk, for good

	joined []Event
	taken  []decided
	met    commitMetrics
}

// decided is what a shard made of one batch.
type decided struct {
	shard  *shard
	batch  *batch // nil where holds ran out and nobody asked
	events []Event
	views  []viewChange
}

type viewChange struct {
	listing *Listing
	view    *View
}

// size is what of the decided waits for the disk: events, or answers to refused
// commands, whichever are more.
func (d *decided) size() int {
	if d.batch == nil {
		return len(d.events)
	}
	return max(len(d.events), len(d.batch.commands))
}

// maxUndurable bounds what waits for the disk: a shard that is ahead by more
// waits, its inbox fills, and buyers are refused fast.
const maxUndurable = 1 << 14

func newCommitter(journal Journal, seq uint64, tell *telling, onFail func(error)) *committer {
	c := &committer{journal: journal, seq: seq, telling: tell, onFail: onFail}
	c.ready.L, c.space.L = &c.mu, &c.mu
	return c
}

// submit hands over what a shard decided.
func (c *committer) submit(d decided) {
	c.mu.Lock()
	for c.events >= maxUndurable && !c.broken.Load() {
		c.space.Wait()
	}
	c.open = append(c.open, d)
	c.events += d.size()
	first := len(c.open) == 1
	c.mu.Unlock()
	if first {
		c.ready.Signal()
	}
}

// close ends run once everything submitted is durable.
func (c *committer) close() {
	c.mu.Lock()
	c.closing = true
	c.mu.Unlock()
	c.ready.Signal()
}

func (c *committer) run() {
	for {
		c.busy.Store(false)
		for _, s := range c.shards {
			s.inbox.ready()
		}
		c.mu.Lock()
		for len(c.open) == 0 && !c.closing {
			c.ready.Wait()
		}
		if len(c.open) == 0 {
			c.mu.Unlock()
			return
		}
		c.busy.Store(true)
		c.taken, c.open, c.events = c.open, c.taken[:0], 0
		c.mu.Unlock()
		c.space.Broadcast()
		c.store(c.taken)
		clear(c.taken)
		// Whoever gets an answer may send the next order, and an fsync costs
		// the same for more of them.
		c.telling.wait()
	}
}

func (c *committer) store(all []decided) {
	state := answered
	if c.broken.Load() {
		state = failed
	} else if err := c.append(all); err != nil {
		state = failed
		c.mu.Lock()
		c.broken.Store(true)
		c.mu.Unlock()
		c.space.Broadcast()
		c.onFail(err)
	}
	for _, d := range all {
		if state == answered {
			for _, v := range d.views {
				v.listing.view.Store(v.view)
			}
		}
		d.shard.finish(d, state)
	}
}

func (c *committer) append(all []decided) error {
	for _, d := range all {
		for i := range d.events {
			c.seq++
			ev := &d.events[i]
			ev.Seq = c.seq
			if ev.command != nil {
				ev.command.Answer.Seq = c.seq
			}
		}
	}
	events := all[0].events
	if len(all) > 1 {
		c.joined = c.joined[:0]
		for _, d := range all {
			c.joined = append(c.joined, d.events...)
		}
		events = c.joined
		defer clear(c.joined)
	}
	if len(events) == 0 {
		return nil
	}
	began := time.Now()
	err := c.journal.Append(events)
	c.met.events.observe(int64(len(events)))
	c.met.latency.observe(int64(time.Since(began)))
	if err == nil {
		c.met.seq.Store(c.seq)
	}
	return err
}
