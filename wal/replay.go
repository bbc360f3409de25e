package wal

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"floodgate/engine"
)

// Events implements engine.History. It streams the records and checks each: its
// checksum, and that it begins where the one before ended. A missing event is
// ErrDamaged; events that Prune gave up are ErrPruned.
func (j *Journal) Events(after uint64, apply func(*engine.Event) error) error {
	if err := j.enter(); err != nil {
		return err
	}
	defer j.leave()
	const op = "replay"
	path := j.layout.journal()
	durable := j.durable.get() // before the iterator, which then has all of it
	if after >= durable {
		return nil
	}
	lower, upper := prefixBounds(recordPrefix)
	it, err := j.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return readError(op, path, err)
	}
	defer it.Close()
	if first := j.first.Load(); after+1 < first {
		return &Error{Op: op, Path: path, Err: fmt.Errorf("%w: asked for %d, the first is %d", ErrPruned, after+1, first)}
	}
	next := after + 1
	var d decoder
	for ok := it.SeekLT(appendRecordKey(nil, next+1)); next <= durable; ok = it.Next() {
		if !ok {
			if err := it.Error(); err != nil {
				return readError(op, path, err)
			}
			return damaged(op, path, "events %d to %d are missing", next, durable)
		}
		if err := readRecord(it, &d); err != nil {
			return readError(op, path, err)
		}
		if d.first > next || d.last() < next {
			return damaged(op, path, "event %d is missing: record %d to %d stands in its place", next, d.first, d.last())
		}
		for d.done < d.count {
			e, err := d.scan()
			if err != nil {
				return damaged(op, path, "record %d: %w", d.first, err)
			}
			if e.Seq < next {
				continue
			}
			if err := apply(e); err != nil {
				return err
			}
			next++
		}
		if _, err := d.scan(); err != nil {
			return damaged(op, path, "record %d: %w", d.first, err)
		}
	}
	return nil
}
