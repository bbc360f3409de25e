package wal

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"floodgate/engine"
)

// The ledger is the journal read by order. An order is the event that accepted
// it, found by its sequence, and its last transition, found by its place. A
// version 7 id carries the sequence; for version 5 ids and for buyers the index
// has it.

// transition is where an order went after it was accepted. It is written in the
// batch of the event, so it is there exactly when the event is. Its value:
// status 1 byte, sequence uvarint, time varint.
type transition struct {
	status engine.Status
	seq    uint64
	at     int64
}

func (j *Journal) setTransition(b *pebble.Batch, e *engine.Event) error {
	j.keyRoom = appendTransitionKey(j.keyRoom[:0], e.Product, e.Run, e.Number)
	key := len(j.keyRoom)
	j.keyRoom = append(j.keyRoom, byte(e.Status()))
	j.keyRoom = binary.AppendUvarint(j.keyRoom, e.Seq)
	j.keyRoom = binary.AppendVarint(j.keyRoom, e.At)
	return b.Set(j.keyRoom[:key], j.keyRoom[key:], nil)
}

func decodeTransition(value []byte) (t transition, err error) {
	d := decoder{in: value}
	t.status, t.seq, t.at = engine.Status(d.byte()), d.uvarint(), d.varint()
	if d.failure == nil && len(d.in) != 0 {
		d.failure = fmt.Errorf("transition has %d bytes too many", len(d.in))
	}
	return t, d.failure
}

// Order returns the order with the given id, as of the last durable event.
func (j *Journal) Order(id engine.OrderID) (engine.Order, bool, error) {
	if err := j.enter(); err != nil {
		return engine.Order{}, false, err
	}
	defer j.leave()
	order, err := j.order(id)
	if order == nil || err != nil {
		return engine.Order{}, false, readError("read an order of", j.layout.journal(), err)
	}
	return *order, true, nil
}

// order returns nil where there is no such order.
func (j *Journal) order(id engine.OrderID) (*engine.Order, error) {
	var seq uint64
	switch id.Version() {
	case 7:
		seq = id.Sequence()
	case 5:
		if err := j.awaitIndex(); err != nil {
			return nil, err
		}
		value, closer, err := j.index.db.Get(appendIDKey(nil, id))
		if errors.Is(err, pebble.ErrNotFound) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		d := decoder{in: value}
		seq = d.uvarint()
		if err := errors.Join(d.failure, closer.Close()); err != nil {
			return nil, fmt.Errorf("%w: index entry of %s: %w", ErrDamaged, id, err)
		}
	}
	// Nobody was told an id before its order was durable.
	if seq == 0 || seq > j.durable.get() || seq < j.first.Load() {
		return nil, nil
	}
	r, err := j.newOrderReader()
	if err != nil {
		return nil, err
	}
	defer r.close()
	order, err := r.at(seq)
	if err != nil || order == nil || order.ID != id {
		return nil, err
	}
	if there, err := r.finish(order); err != nil || !there {
		return nil, err
	}
	return order, nil
}

// OrdersByBuyer returns at most limit orders of the buyer accepted before the
// given sequence (0: no bound), newest first, and the bound of the next page, 0
// at the end. An anonymous buyer has no orders to list.
func (j *Journal) OrdersByBuyer(buyer string, limit int, before uint64) (orders []engine.Order, next uint64, err error) {
	if buyer == "" || limit < 1 {
		return nil, 0, nil
	}
	if err := j.enter(); err != nil {
		return nil, 0, err
	}
	defer j.leave()
	orders, next, err = j.ordersByBuyer(buyer, limit, before)
	if err != nil {
		return nil, 0, readError("read a buyer's orders of", j.layout.journal(), err)
	}
	return orders, next, nil
}

func (j *Journal) ordersByBuyer(buyer string, limit int, before uint64) (orders []engine.Order, next uint64, err error) {
	if err := j.awaitIndex(); err != nil {
		return nil, 0, err
	}
	if before == 0 {
		before = maxSequence
	}
	hash := buyerHash([]byte(buyer))
	end := keyAfter(appendBuyerKey(nil, hash, 0)) // ^0 sorts last
	it, err := j.index.db.NewIter(&pebble.IterOptions{LowerBound: appendBuyerKey(nil, hash, before-1), UpperBound: end})
	if err != nil {
		return nil, 0, err
	}
	defer it.Close()
	r, err := j.newOrderReader()
	if err != nil {
		return nil, 0, err
	}
	defer r.close()
	for ok := it.First(); ok; ok = it.Next() {
		seq := ^binary.BigEndian.Uint64(it.Key()[1+8:])
		if seq < j.first.Load() {
			break
		}
		order, err := r.at(seq)
		if err != nil {
			return nil, 0, err
		}
		if order == nil {
			return nil, 0, fmt.Errorf("%w: the index has an order at %d, the journal does not", ErrDamaged, seq)
		}
		if order.Buyer != buyer {
			continue // another buyer with the same hash
		}
		if len(orders) == limit {
			return orders, orders[limit-1].Seq, nil
		}
		there, err := r.finish(order)
		if err != nil {
			return nil, 0, err
		}
		if !there {
			break
		}
		orders = append(orders, *order)
	}
	return orders, 0, it.Error()
}

// orderReader reads orders by sequence, with one iterator for many.
type orderReader struct {
	j  *Journal
	it *pebble.Iterator
	d  decoder
}

func (j *Journal) newOrderReader() (*orderReader, error) {
	lower, upper := prefixBounds(recordPrefix)
	it, err := j.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return nil, err
	}
	return &orderReader{j: j, it: it}, nil
}

func (r *orderReader) close() { r.it.Close() }

// at returns the order that the event seq accepted, nil where that event
// accepted none or was pruned. Its status is that of the acceptance.
func (r *orderReader) at(seq uint64) (*engine.Order, error) {
	if !r.it.SeekLT(appendRecordKey(nil, seq+1)) {
		if err := r.it.Error(); err != nil {
			return nil, err
		}
		return nil, r.missing(seq)
	}
	if err := readRecord(r.it, &r.d); err != nil {
		return nil, err
	}
	if r.d.last() < seq {
		return nil, r.missing(seq)
	}
	e, err := r.d.seek(seq)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if e.Kind != engine.OrderAccepted {
		return nil, nil
	}
	return r.j.orderOf(e), nil
}

func (r *orderReader) missing(seq uint64) error {
	if seq < r.j.first.Load() {
		return nil // pruned meanwhile
	}
	return fmt.Errorf("%w: event %d is missing", ErrDamaged, seq)
}

// orderOf returns the order that the event accepted.
func (j *Journal) orderOf(e *engine.Event) *engine.Order {
	o := &engine.Order{
		Seq: e.Seq, Product: e.Product, Run: e.Run, Number: e.Number,
		Buyer: string(e.Buyer), Key: string(e.Key), Quantity: e.Quantity, Price: e.Price, Currency: e.Currency,
		AcceptedAt: e.At, Deadline: e.Deadline, Status: e.Status(),
	}
	if len(e.Key) > 0 {
		o.ID = engine.KeyedID(e.Product, e.Run, e.Buyer, e.Key)
	} else {
		o.ID = j.ids.Sequential(e.Seq, e.At, nil)
	}
	return o
}

// finish brings the order up to date. It reports false where the order was pruned
// meanwhile: the journal is then without the transition that it may have had.
func (r *orderReader) finish(o *engine.Order) (bool, error) {
	j := r.j
	o.Settled = o.Seq <= j.cursors.settled.Load()
	value, closer, err := j.db.Get(appendTransitionKey(nil, o.Product, o.Run, o.Number))
	if errors.Is(err, pebble.ErrNotFound) {
		return o.Seq >= j.first.Load(), nil
	}
	if err != nil {
		return false, err
	}
	t, err := decodeTransition(value)
	if err := errors.Join(err, closer.Close()); err != nil {
		return false, fmt.Errorf("%w: order at %d: %w", ErrDamaged, o.Seq, err)
	}
	if t.seq <= o.Seq {
		return false, fmt.Errorf("%w: order at %d was %v at %d", ErrDamaged, o.Seq, t.status, t.seq)
	}
	// Pebble shows a batch before it is synced. What it replaced is gone, so
	// there is nothing to tell until it is durable.
	if !j.durable.wait(t.seq, j.failed, j.closing, j.options.ReadTimeout) {
		return false, fmt.Errorf("%w: event %d is not durable", ErrBehind, t.seq)
	}
	o.Status = t.status
	return true, nil
}
