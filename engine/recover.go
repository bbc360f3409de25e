package engine

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// Recovered is what a journal's history comes to.
type Recovered struct {
	Products map[string]*Product
	Seq      uint64 // of the last event
	LastAt   int64  // time of the last event replayed, 0 where none was. Unix milliseconds
	Replayed uint64 // events since the snapshots
}

// Recover reads the snapshots and the events after them. It is done before the
// port opens. An ErrDamaged means that nothing may be served.
func Recover(h History) (*Recovered, error) {
	r := &Recovered{Products: make(map[string]*Product), Seq: h.SnapshotSeq()}
	err := h.Snapshots(func(id string, next func() ([]byte, error)) error {
		p, err := ReadSnapshot(next)
		if err != nil {
			return err
		}
		if p.settings.ID != id {
			return fmt.Errorf("%w: the snapshot of %q is of %q", ErrDamaged, id, p.settings.ID)
		}
		r.Products[id] = p
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read snapshots: %w", err)
	}
	return r, r.replay(h, func(id string) (*Product, error) { return r.Products[id], nil })
}

// replay applies the events after r.Seq. Find returns a product that r does not
// know yet, or nil.
func (r *Recovered) replay(h History, find func(id string) (*Product, error)) error {
	var p *Product // of the event before: most often the same
	return h.Events(r.Seq, func(ev *Event) error {
		if ev.Seq != r.Seq+1 {
			return fmt.Errorf("%w: event %d follows event %d", ErrDamaged, ev.Seq, r.Seq)
		}
		if p == nil || p.settings.ID != ev.Product {
			p = r.Products[ev.Product]
			if p == nil {
				var err error
				if p, err = find(ev.Product); err != nil {
					return err
				}
				if p == nil {
					p = NewProduct(ev.Product)
				}
				r.Products[p.settings.ID] = p
			}
		}
		if err := p.Apply(ev); err != nil {
			return err
		}
		r.Seq, r.LastAt = ev.Seq, ev.At
		r.Replayed++
		return nil
	})
}

// GraceHolds lets no hold run out before the given time, in Unix milliseconds.
func (r *Recovered) GraceHolds(until int64) {
	for _, p := range r.Products {
		p.GraceHolds(until)
	}
}

// snapshotter shortens the replay of the next restart. It takes nothing from the
// shards: it recovers the products that changed from their last snapshots and
// the events since, as a restart would, and writes down what it comes to. So a
// snapshot never holds up a sale, and each one rehearses a restart. It costs the
// memory of the changed products a second time while it works.
type snapshotter struct {
	made atomic.Uint64
	last uint64 // sequence at the last attempt, so that a failing one is not tried without end
}

// Snapshot writes snapshots of all products that changed since the last ones. It
// returns the sequence they include and how many products were written.
func Snapshot(store SnapshotStore) (seq uint64, products int, err error) {
	r := &Recovered{Products: make(map[string]*Product), Seq: store.SnapshotSeq()}
	err = r.replay(store, func(id string) (p *Product, err error) {
		_, err = store.Snapshot(id, func(next func() ([]byte, error)) error {
			p, err = ReadSnapshot(next)
			return err
		})
		return p, err
	})
	if err != nil {
		return 0, 0, fmt.Errorf("snapshot: %w", err)
	}
	if r.Replayed == 0 {
		return r.Seq, 0, nil
	}
	ids := make([]string, 0, len(r.Products))
	for id := range r.Products {
		ids = append(ids, id)
	}
	err = store.WriteSnapshots(r.Seq, ids, func(id string, chunk func([]byte) error) error {
		return r.Products[id].WriteSnapshot(chunk)
	})
	if err != nil {
		return 0, 0, fmt.Errorf("snapshot: %w", err)
	}
	return r.Seq, len(ids), nil
}

// snapshots makes a snapshot whenever enough happened since the last one.
func (e *Engine) snapshots() {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	e.snaps.last = e.opts.Snapshots.SnapshotSeq()
	for {
		select {
		case <-e.stop:
			return
		case <-e.failed:
			return
		case <-ticker.C:
		}
		seq := e.commit.met.seq.Load()
		if seq-e.snaps.last < e.opts.SnapshotEvery {
			continue
		}
		e.snaps.last = seq
		began := time.Now()
		seq, products, err := Snapshot(stoppable{e.opts.Snapshots, e.stop})
		if errors.Is(err, errStopped) {
			return
		}
		if err == nil {
			e.snaps.made.Add(1)
		}
		e.opts.OnSnapshot(seq, products, time.Since(began), err)
	}
}

// stoppable is a store that gives a snapshot up when the engine stops: a large
// one takes longer than whoever stops a node is ready to wait.
type stoppable struct {
	SnapshotStore
	stop <-chan struct{}
}

var errStopped = errors.New("engine: stopped")

func (s stoppable) check() error {
	select {
	case <-s.stop:
		return errStopped
	default:
		return nil
	}
}

func (s stoppable) Snapshot(product string, load func(next func() ([]byte, error)) error) (bool, error) {
	return s.SnapshotStore.Snapshot(product, func(next func() ([]byte, error)) error {
		return load(func() ([]byte, error) {
			if err := s.check(); err != nil {
				return nil, err
			}
			return next()
		})
	})
}

func (s stoppable) Events(after uint64, apply func(*Event) error) error {
	return s.SnapshotStore.Events(after, func(ev *Event) error {
		if err := s.check(); err != nil {
			return err
		}
		return apply(ev)
	})
}

func (s stoppable) WriteSnapshots(seq uint64, products []string, write func(product string, chunk func([]byte) error) error) error {
	return s.SnapshotStore.WriteSnapshots(seq, products, func(product string, chunk func([]byte) error) error {
		return write(product, func(b []byte) error {
			if err := s.check(); err != nil {
				return err
			}
			return chunk(b)
		})
	})
}

// OldestNeeded returns the first sequence that the products still need in the
// journal: a retry of an idempotency key, a confirm or a refund looks up its
// order there. A run needs its orders until KeepKeys after it ended. Events after
// the snapshots are always needed.
func OldestNeeded(h History, now int64) (uint64, error) {
	oldest := h.SnapshotSeq() + 1
	err := h.Snapshots(func(_ string, next func() ([]byte, error)) error {
		p, err := firstChunk(next)
		if err != nil {
			return err
		}
		over := p.settings.EndsAt != 0 && now >= p.settings.EndsAt+KeepKeys && p.held == 0
		if !over {
			oldest = min(oldest, p.begun)
		}
		for i := range p.past {
			if p.past[i].until > now {
				oldest = min(oldest, p.past[i].begun)
			}
		}
		return nil
	})
	return oldest, err
}
