package wal

import (
	"encoding/binary"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"floodgate/engine"
)

// pruneBatch is how many records are given up in one batch.
const pruneBatch = 64

// Prune forgets events up to the given sequence, with the orders they accepted,
// and returns how many it forgot. A record goes only as a whole, and only when
// all of it is in the snapshots, in the index and behind every cursor; the last
// record always stays. What was forgotten is remembered by its end, so the
// journal still knows a gap from a beginning.
//
// The new beginning is stored first, and nobody reads what is before it. Then
// the records are swept away, with what they left in the index and among the
// transitions. A crash on the way leaves records for the next Prune to sweep.
func (j *Journal) Prune(upTo uint64) (removed uint64, err error) {
	if err := j.enter(); err != nil {
		return 0, err
	}
	defer j.leave()
	j.pruning.Lock()
	defer j.pruning.Unlock()
	upTo = j.cursors.least(min(upTo, j.SnapshotSeq(), j.indexed.get()))
	removed, err = j.moveFirst(upTo)
	if err == nil {
		err = j.sweep()
	}
	return removed, readError("prune", j.layout.journal(), err)
}

// moveFirst makes the journal begin with the record that follows upTo, or has
// it without ending there, and returns how many events that forgets.
func (j *Journal) moveFirst(upTo uint64) (uint64, error) {
	first := j.first.Load()
	r, err := j.newOrderReader()
	if err != nil {
		return 0, err
	}
	defer r.close()
	if !r.it.SeekLT(appendRecordKey(nil, upTo+2)) {
		return 0, r.it.Error()
	}
	if err := readRecord(r.it, &r.d); err != nil {
		return 0, err
	}
	if r.d.first <= first {
		return 0, nil
	}
	b := j.db.NewBatch()
	defer b.Close()
	if err := b.Set(firstKey, binary.BigEndian.AppendUint64(nil, r.d.first), nil); err != nil {
		return 0, err
	}
	// Readers learn it before anything goes, so that they can tell what was
	// pruned from what is missing.
	j.first.Store(r.d.first)
	return r.d.first - first, j.commit(b, pebble.Sync)
}

// sweep deletes the records before the first.
func (j *Journal) sweep() error {
	first := j.first.Load()
	lower, _ := prefixBounds(recordPrefix)
	end := appendRecordKey(nil, first)
	it, err := j.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: end})
	if err != nil {
		return err
	}
	defer it.Close()
	if !it.First() {
		return it.Error()
	}
	index, changes := j.index.db.NewBatch(), j.db.NewBatch()
	defer index.Close()
	defer changes.Close()
	var d decoder
	var room []byte
	for n, ok := 1, true; ok; n, ok = n+1, it.Next() {
		if err := readRecord(it, &d); err != nil {
			return err
		}
		for {
			e, err := d.scan()
			if err != nil {
				return fmt.Errorf("%w: %w", ErrDamaged, err)
			}
			if e == nil {
				break
			}
			if room, err = forget(index, changes, room, e); err != nil {
				return err
			}
		}
		if n%pruneBatch == 0 {
			if err := j.commitForget(index, changes); err != nil {
				return err
			}
		}
	}
	if err := it.Error(); err != nil {
		return err
	}
	if err := j.commitForget(index, changes); err != nil {
		return err
	}
	// The records must not go before the index has forgotten them durably,
	// and it has no log.
	if err := j.index.db.Flush(); err != nil {
		return err
	}
	if err := changes.DeleteRange(lower, end, nil); err != nil {
		return err
	}
	return j.commit(changes, pebble.Sync)
}

func (j *Journal) commitForget(index, changes *pebble.Batch) error {
	for _, b := range []*pebble.Batch{index, changes} {
		if b.Empty() {
			continue
		}
		if err := j.commit(b, pebble.NoSync); err != nil {
			return err
		}
		b.Reset()
	}
	return nil
}

// forget deletes what the event left in the index and among the transitions.
func forget(index, changes *pebble.Batch, room []byte, e *engine.Event) ([]byte, error) {
	if id, ok := indexedID(e); ok {
		room = appendIDKey(room[:0], id)
		if err := index.Delete(room, nil); err != nil {
			return room, err
		}
	}
	if hash, ok := indexedBuyer(e); ok {
		room = appendBuyerKey(room[:0], hash, e.Seq)
		if err := index.Delete(room, nil); err != nil {
			return room, err
		}
	}
	if e.Kind.Order() {
		room = appendTransitionKey(room[:0], e.Product, e.Run, e.Number)
		if err := changes.Delete(room, nil); err != nil {
			return room, err
		}
	}
	return room, nil
}

// SeqAt returns the first sequence whose event happened at the given time (Unix
// milliseconds) or later, and below where there is none before that. It looks at
// one event after the other: a clock that was wrong for a while leaves times
// that are not in order, and events between such must not seem old.
func (j *Journal) SeqAt(at int64, below uint64) (uint64, error) {
	if err := j.enter(); err != nil {
		return 0, err
	}
	defer j.leave()
	seq, err := j.seqAt(at, min(below, j.durable.get()+1))
	return seq, readError("search", j.layout.journal(), err)
}

func (j *Journal) seqAt(at int64, below uint64) (uint64, error) {
	r, err := j.newOrderReader()
	if err != nil {
		return 0, err
	}
	defer r.close()
	next := j.first.Load()
	for ok := r.it.SeekGE(appendRecordKey(nil, next)); next < below; ok = r.it.Next() {
		if !ok {
			if err := r.it.Error(); err != nil {
				return 0, err
			}
			return 0, fmt.Errorf("%w: event %d is missing", ErrDamaged, next)
		}
		if err := readRecord(r.it, &r.d); err != nil {
			return 0, err
		}
		for {
			e, err := r.d.scan()
			if err != nil {
				return 0, fmt.Errorf("%w: %w", ErrDamaged, err)
			}
			if e == nil {
				break
			}
			if e.At >= at {
				return min(e.Seq, below), nil
			}
		}
		next = r.d.last() + 1
	}
	return below, nil
}
