package wal

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2"

	"floodgate/engine"
)

// Report is what Check counted.
type Report struct {
	First   uint64 // first sequence not pruned
	Last    uint64 // last durable sequence
	Indexed uint64 // index cursor
	Records uint64
	Events  uint64
	Orders  uint64
	Bytes   uint64 // of records, before compression
	Chunks  uint64 // of snapshots
	Runs    []RunCount
}

// RunCount counts the orders of one run of a product that the journal holds.
type RunCount struct {
	Product string
	Run     uint32
	Orders  [engine.Refunded + 1]uint64 // by engine.Status
	Units   [engine.Refunded + 1]int64
}

// Check reads everything the journal holds and holds it against itself: each
// record's checksum, sequences without a gap, every index entry and every
// transition against the events, every snapshot chunk. It changes nothing and
// the journal may be in use meanwhile. The first contradiction is returned as
// ErrDamaged, with what was counted until then.
func (j *Journal) Check(ctx context.Context) (Report, error) {
	if err := j.enter(); err != nil {
		return Report{}, err
	}
	defer j.leave()
	j.pruning.Lock()
	defer j.pruning.Unlock()
	c := &checker{j: j, ctx: ctx, runs: make(map[runKey]*runCheck)}
	err := c.run()
	c.finish()
	return c.report, readError("check", j.layout.journal(), err)
}

// checker compares, without holding the ledger in memory: sets of keys are
// compared by their number and the sum of their hashes, and an order costs a
// byte for its status.
type checker struct {
	j       *Journal
	ctx     context.Context
	snap    *pebble.Snapshot // of the journal
	index   *pebble.Snapshot // of the index; the older one
	report  Report
	runs    map[runKey]*runCheck
	want    keySet // index entries the events ask for
	changes uint64 // orders that changed since they were accepted
}

type runKey struct {
	product string
	run     uint32
}

// runCheck has the orders of a run in pages, by number.
type runCheck struct {
	count RunCount
	pages map[uint32]*[pageLen]orderCheck
}

const pageLen = 1024

type orderCheck struct {
	status   engine.Status
	changed  bool
	quantity int32
}

// keySet is a multiset of keys, as its size and the sum of the keys' hashes.
type keySet struct{ size, sum uint64 }

func (s *keySet) add(key []byte) { s.size++; s.sum += xxhash.Sum64(key) }

func (c *checker) run() error {
	j := c.j
	c.index = j.index.db.NewSnapshot()
	defer c.index.Close()
	c.snap = j.db.NewSnapshot()
	defer c.snap.Close()
	var err error
	if c.report.First, err = loadNumber(c.snap, firstKey); err != nil {
		return err
	}
	c.report.First = max(c.report.First, 1)
	if c.report.Indexed, err = loadNumber(c.index, indexedKey); err != nil {
		return err
	}
	if err := c.records(); err != nil {
		return err
	}
	if err := c.entries(); err != nil {
		return err
	}
	if err := c.transitions(); err != nil {
		return err
	}
	return c.chunks()
}

func (c *checker) records() error {
	lower, upper := prefixBounds(recordPrefix)
	it, err := c.snap.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return err
	}
	defer it.Close()
	next := c.report.First
	var d decoder
	var key []byte
	for ok := it.SeekGE(appendRecordKey(nil, next)); ok; ok = it.Next() {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		if err := readRecord(it, &d); err != nil {
			return err
		}
		if d.first != next {
			return fmt.Errorf("%w: event %d is missing, record %d stands in its place", ErrDamaged, next, d.first)
		}
		for {
			e, err := d.scan()
			if err != nil {
				return fmt.Errorf("%w: record %d: %w", ErrDamaged, d.first, err)
			}
			if e == nil {
				break
			}
			if key, err = c.event(e, key); err != nil {
				return fmt.Errorf("%w: event %d: %w", ErrDamaged, e.Seq, err)
			}
		}
		next = d.last() + 1
		c.report.Records++
		c.report.Events += uint64(d.count)
		c.report.Bytes += uint64(len(it.Value()))
	}
	if err := it.Error(); err != nil {
		return err
	}
	c.report.Last = next - 1
	// What the snapshot shows may still be on its way to the disk.
	if !c.j.durable.wait(c.report.Last, c.ctx.Done(), c.j.closing, c.j.options.ReadTimeout) {
		return fmt.Errorf("%w: event %d is not durable", ErrBehind, c.report.Last)
	}
	if c.report.Indexed > c.report.Last {
		return fmt.Errorf("%w: the index is at %d, the journal ends at %d", ErrDamaged, c.report.Indexed, c.report.Last)
	}
	return nil
}

func (c *checker) event(e *engine.Event, room []byte) ([]byte, error) {
	if !e.Kind.Order() {
		return room, nil
	}
	r := c.runs[runKey{e.Product, e.Run}]
	if r == nil {
		r = &runCheck{count: RunCount{Product: e.Product, Run: e.Run}, pages: make(map[uint32]*[pageLen]orderCheck)}
		c.runs[runKey{e.Product, e.Run}] = r
	}
	page := r.pages[e.Number/pageLen]
	if page == nil {
		page = new([pageLen]orderCheck)
		r.pages[e.Number/pageLen] = page
	}
	o := &page[e.Number%pageLen]
	if e.Kind != engine.OrderAccepted {
		if o.status == 0 && c.report.First > 1 {
			return room, nil // of an order that was pruned
		}
		if o.status == 0 {
			return room, fmt.Errorf("order %d of %s run %d was never accepted", e.Number, e.Product, e.Run)
		}
		if !o.changed {
			c.changes++
		}
		o.status, o.changed = e.Status(), true
		return room, nil
	}
	if o.status != 0 {
		return room, fmt.Errorf("order %d of %s run %d was accepted twice", e.Number, e.Product, e.Run)
	}
	if e.Quantity < 1 || e.Quantity > engine.MaxQuantity {
		return room, fmt.Errorf("order %d of %s run %d has %d units", e.Number, e.Product, e.Run, e.Quantity)
	}
	c.report.Orders++
	o.status, o.quantity = e.Status(), int32(e.Quantity)
	if e.Seq > c.report.Indexed {
		return room, nil
	}
	if id, ok := indexedID(e); ok {
		room = appendIDKey(room[:0], id)
		room = binary.AppendUvarint(room, e.Seq)
		c.want.add(room)
	}
	if hash, ok := indexedBuyer(e); ok {
		room = appendBuyerKey(room[:0], hash, e.Seq)
		c.want.add(room)
	}
	return room, nil
}

func (c *checker) entries() error {
	var have keySet
	var room []byte
	for _, prefix := range []byte{buyerPrefix, idPrefix} {
		err := c.each(c.index, prefix, func(key, value []byte) error {
			if entrySeq(key, value) < c.report.First {
				return nil // of a Prune that was cut off; the next one sweeps it
			}
			room = append(append(room[:0], key...), value...)
			have.add(room)
			return nil
		})
		if err != nil {
			return err
		}
	}
	if have != c.want {
		return fmt.Errorf("%w: the index has %d entries (sum %x), the events ask for %d (sum %x)",
			ErrDamaged, have.size, have.sum, c.want.size, c.want.sum)
	}
	return nil
}

// entrySeq returns the sequence that an index entry points to, 0 where it is not
// readable; an entry that is missing for that is noticed.
func entrySeq(key, value []byte) uint64 {
	if key[0] == buyerPrefix && len(key) == buyerKeyLen {
		return ^binary.BigEndian.Uint64(key[buyerKeyLen-8:])
	}
	d := decoder{in: value}
	return d.uvarint()
}

func (c *checker) transitions() error {
	found := uint64(0)
	err := c.each(c.snap, transitionPrefix, func(key, value []byte) error {
		product, run, number, ok := splitTransitionKey(key)
		if !ok {
			return fmt.Errorf("%w: %q is no transition's key", ErrDamaged, key)
		}
		t, err := decodeTransition(value)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		var o orderCheck
		if r := c.runs[runKey{string(product), run}]; r != nil && r.pages[number/pageLen] != nil {
			o = r.pages[number/pageLen][number%pageLen]
		}
		if o.status == 0 && c.report.First > 1 {
			return nil // of an order that was pruned
		}
		if !o.changed || o.status != t.status {
			return fmt.Errorf("%w: order %d of %s run %d: the ledger says %v, its events say %v",
				ErrDamaged, number, product, run, t.status, o.status)
		}
		found++
		return nil
	})
	if err == nil && found != c.changes {
		err = fmt.Errorf("%w: the ledger has %d changed orders, the events have %d", ErrDamaged, found, c.changes)
	}
	return err
}

func (c *checker) chunks() error {
	return c.j.Snapshots(func(_ string, next func() ([]byte, error)) error {
		for {
			chunk, err := next()
			if err != nil || chunk == nil {
				return err
			}
			c.report.Chunks++
		}
	})
}

func (c *checker) each(snap *pebble.Snapshot, prefix byte, visit func(key, value []byte) error) error {
	lower, upper := prefixBounds(prefix)
	it, err := snap.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		if err := visit(it.Key(), it.Value()); err != nil {
			return err
		}
	}
	return it.Error()
}

func (c *checker) finish() {
	for _, r := range c.runs {
		for _, page := range r.pages {
			for _, o := range page {
				if int(o.status) < len(r.count.Orders) && o.status != 0 {
					r.count.Orders[o.status]++
					r.count.Units[o.status] += int64(o.quantity)
				}
			}
		}
		c.report.Runs = append(c.report.Runs, r.count)
	}
	slices.SortFunc(c.report.Runs, func(a, b RunCount) int {
		if n := strings.Compare(a.Product, b.Product); n != 0 {
			return n
		}
		return int(a.Run) - int(b.Run)
	})
}
