package wal

import (
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"floodgate/engine"
)

// SettledCursor is the name of the cursor up to which Postgres has the orders.
const SettledCursor = "settled"

// cursors are named sequences that others remember here: how far the relay has
// published, how far Postgres has settled. They never move backwards, and
// Prune forgets nothing beyond any of them.
type cursors struct {
	mu      sync.Mutex
	values  map[string]uint64
	settled atomic.Uint64
}

func (j *Journal) loadCursors() error {
	j.cursors.values = make(map[string]uint64)
	lower, upper := prefixBounds(cursorPrefix)
	it, err := j.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return readError("open", j.layout.journal(), err)
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		name, value := string(it.Key()[1:]), it.Value()
		if len(value) != 8 {
			return damaged("open", j.layout.journal(), "cursor %q has %d bytes", name, len(value))
		}
		seq := binary.BigEndian.Uint64(value)
		if durable := j.durable.get(); seq > durable {
			return damaged("open", j.layout.journal(), "cursor %q is at %d, the journal ends at %d", name, seq, durable)
		}
		j.cursors.values[name] = seq
	}
	j.cursors.settled.Store(j.cursors.values[SettledCursor])
	return readError("open", j.layout.journal(), it.Error())
}

// Cursor returns the sequence of the named cursor, 0 where it was never set.
func (j *Journal) Cursor(name string) (uint64, error) {
	j.cursors.mu.Lock()
	defer j.cursors.mu.Unlock()
	return j.cursors.values[name], nil
}

// SetCursor moves the named cursor, durably. It refuses to move it backwards or
// beyond the durable sequence; where it stands already, nothing is done.
func (j *Journal) SetCursor(name string, seq uint64) error {
	if err := j.enter(); err != nil {
		return err
	}
	defer j.leave()
	refuse := func(format string, args ...any) error {
		return &Error{Op: "set cursor " + name + " of", Path: j.layout.journal(), Err: fmt.Errorf(format, args...)}
	}
	if name == "" || len(name) > engine.MaxID {
		return refuse("its name has %d bytes, want 1 to %d", len(name), engine.MaxID)
	}
	if durable := j.durable.get(); seq > durable {
		return refuse("%d is beyond the durable %d", seq, durable)
	}
	j.cursors.mu.Lock()
	defer j.cursors.mu.Unlock()
	old, known := j.cursors.values[name]
	if known && seq == old {
		return nil
	}
	if seq < old {
		return refuse("%d is behind the present %d", seq, old)
	}
	b := j.db.NewBatch()
	defer b.Close()
	if err := b.Set(appendCursorKey(nil, name), binary.BigEndian.AppendUint64(nil, seq), nil); err != nil {
		return refuse("%w", err)
	}
	if err := j.commit(b, pebble.Sync); err != nil {
		return err
	}
	j.cursors.values[name] = seq
	if name == SettledCursor {
		j.cursors.settled.Store(seq)
	}
	return nil
}

// least returns the sequence that every cursor has passed, at most limit.
func (c *cursors) least(limit uint64) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, seq := range c.values {
		limit = min(limit, seq)
	}
	return limit
}
