// Package enginetest holds the suites every adapter of an engine port must
// pass, and the fakes that pass them. Only tests import it.
package enginetest

import (
	"bytes"
	"fmt"
	"slices"
	"sort"
	"sync"

	"floodgate/engine"
)

var (
	_ engine.Journal       = (*MemoryJournal)(nil)
	_ engine.SnapshotStore = (*MemoryJournal)(nil)
)

// MemoryJournal is a journal, a snapshot store and a ledger in memory. Nothing
// of it survives the process; within the process it behaves as the one on disk.
//
// One goroutine at a time may append; any number may read meanwhile. A reader
// sees whole batches only, and only those whose Append has stored them.
type MemoryJournal struct {
	// BeforeAppend, where set, is called before events are stored. It may
	// block; an error of it is returned and nothing is stored. AfterAppend is
	// called when they are stored and readable; an error of it is returned
	// although the events are there, as when an fsync fails. Both are set
	// before the first Append.
	BeforeAppend func(events []engine.Event) error
	AfterAppend  func(events []engine.Event) error

	ids *engine.IDs

	mu        sync.RWMutex
	events    []engine.Event // events[i].Seq == i+1
	orders    map[engine.OrderID]*engine.Order
	places    map[orderPlace]engine.OrderID
	buyers    map[string][]engine.OrderID // oldest first
	snapSeq   uint64
	snapshots map[string][][]byte
}

// orderPlace names an order as its later events do.
type orderPlace struct {
	product     string
	run, number uint32
}

// NewMemoryJournal returns an empty journal. Its ids are the same in every run.
func NewMemoryJournal() *MemoryJournal {
	return &MemoryJournal{
		ids:       engine.NewIDs([16]byte{'m', 'e', 'm', 'o', 'r', 'y'}),
		orders:    make(map[engine.OrderID]*engine.Order),
		places:    make(map[orderPlace]engine.OrderID),
		buyers:    make(map[string][]engine.OrderID),
		snapshots: make(map[string][][]byte),
	}
}

// CloneEvent returns a copy of the event that owns its bytes.
func CloneEvent(e *engine.Event) engine.Event {
	c := engine.Event{
		Seq: e.Seq, At: e.At, Kind: e.Kind, Product: e.Product, Run: e.Run, Number: e.Number,
		Quantity: e.Quantity, Price: e.Price, Currency: e.Currency, Deadline: e.Deadline, Restock: e.Restock,
	}
	if len(e.Buyer) > 0 {
		c.Buyer = bytes.Clone(e.Buyer)
	}
	if len(e.Key) > 0 {
		c.Key = bytes.Clone(e.Key)
	}
	if e.Settings != nil {
		s := *e.Settings
		c.Settings = &s
	}
	return c
}

// Append implements engine.Journal.
func (m *MemoryJournal) Append(events []engine.Event) error {
	if m.BeforeAppend != nil {
		if err := m.BeforeAppend(events); err != nil {
			return fmt.Errorf("append %d events: %w", len(events), err)
		}
	}
	if err := m.store(events); err != nil {
		return err
	}
	if m.AfterAppend != nil {
		if err := m.AfterAppend(events); err != nil {
			return fmt.Errorf("append %d events: %w", len(events), err)
		}
	}
	return nil
}

func (m *MemoryJournal) store(events []engine.Event) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range events {
		if want := uint64(len(m.events)+i) + 1; events[i].Seq != want {
			return fmt.Errorf("append: event %d has sequence %d, want %d", i, events[i].Seq, want)
		}
	}
	for i := range events {
		e := CloneEvent(&events[i])
		m.events = append(m.events, e)
		m.enter(&e)
	}
	return nil
}

// enter keeps the ledger in step with one event.
func (m *MemoryJournal) enter(e *engine.Event) {
	place := orderPlace{e.Product, e.Run, e.Number}
	if e.Kind == engine.OrderAccepted {
		o := &engine.Order{
			ID: m.ids.Sequential(e.Seq, e.At, nil), Seq: e.Seq, Product: e.Product, Run: e.Run, Number: e.Number,
			Buyer: string(e.Buyer), Key: string(e.Key), Quantity: e.Quantity, Price: e.Price, Currency: e.Currency,
			AcceptedAt: e.At, Deadline: e.Deadline, Status: e.Status(),
		}
		if len(e.Key) > 0 {
			o.ID = engine.KeyedID(e.Product, e.Run, e.Buyer, e.Key)
		}
		m.orders[o.ID] = o
		m.places[place] = o.ID
		if o.Buyer != "" {
			m.buyers[o.Buyer] = append(m.buyers[o.Buyer], o.ID)
		}
		return
	}
	if e.Kind.Order() {
		if o := m.orders[m.places[place]]; o != nil {
			o.Status = e.Status()
		}
	}
}

// IDs returns the maker of the orders' ids.
func (m *MemoryJournal) IDs() *engine.IDs { return m.ids }

// DurableSeq returns the last stored sequence.
func (m *MemoryJournal) DurableSeq() uint64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return uint64(len(m.events))
}

// Order returns the order with the given id.
func (m *MemoryJournal) Order(id engine.OrderID) (engine.Order, bool, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if o := m.orders[id]; o != nil {
		return *o, true, nil
	}
	return engine.Order{}, false, nil
}

// OrdersByBuyer returns at most limit orders of the buyer accepted before the
// given sequence (0: no bound), newest first, and the bound of the next page, 0
// at the end. An anonymous buyer has no orders to list.
func (m *MemoryJournal) OrdersByBuyer(buyer string, limit int, before uint64) (orders []engine.Order, next uint64, err error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	ids := m.buyers[buyer]
	for i := len(ids) - 1; i >= 0; i-- {
		o := m.orders[ids[i]]
		if before != 0 && o.Seq >= before {
			continue
		}
		if len(orders) == limit {
			if limit > 0 {
				next = orders[limit-1].Seq
			}
			return orders, next, nil
		}
		orders = append(orders, *o)
	}
	return orders, 0, nil
}

// SnapshotSeq implements engine.History.
func (m *MemoryJournal) SnapshotSeq() uint64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.snapSeq
}

// Snapshots implements engine.History. Products come in the order of their ids.
func (m *MemoryJournal) Snapshots(load func(product string, next func() ([]byte, error)) error) error {
	m.mu.RLock()
	products := make([]string, 0, len(m.snapshots))
	for p := range m.snapshots {
		products = append(products, p)
	}
	m.mu.RUnlock()
	sort.Strings(products)
	for _, p := range products {
		if _, err := m.Snapshot(p, func(next func() ([]byte, error)) error { return load(p, next) }); err != nil {
			return err
		}
	}
	return nil
}

// Snapshot implements engine.History.
func (m *MemoryJournal) Snapshot(product string, load func(next func() ([]byte, error)) error) (bool, error) {
	m.mu.RLock()
	chunks, ok := m.snapshots[product]
	m.mu.RUnlock()
	if !ok {
		return false, nil
	}
	return true, load(func() ([]byte, error) {
		if len(chunks) == 0 {
			return nil, nil
		}
		c := chunks[0]
		chunks = chunks[1:]
		return c, nil
	})
}

// Events implements engine.History.
func (m *MemoryJournal) Events(after uint64, apply func(*engine.Event) error) error {
	m.mu.RLock()
	events := m.events // entries are never changed once they are there
	m.mu.RUnlock()
	for i := after; i < uint64(len(events)); i++ {
		e := events[i]
		if err := apply(&e); err != nil {
			return err
		}
	}
	return nil
}

// WriteSnapshots implements engine.SnapshotStore.
func (m *MemoryJournal) WriteSnapshots(seq uint64, products []string, write func(product string, chunk func([]byte) error) error) error {
	if durable, old := m.DurableSeq(), m.SnapshotSeq(); seq > durable || seq < old {
		return fmt.Errorf("write snapshots: sequence %d is not between the last snapshot's %d and the durable %d", seq, old, durable)
	}
	fresh := make(map[string][][]byte, len(products))
	for _, p := range products {
		chunks := [][]byte{}
		err := write(p, func(c []byte) error {
			chunks = append(chunks, slices.Clone(c))
			return nil
		})
		if err != nil {
			return fmt.Errorf("write snapshot of %s: %w", p, err)
		}
		fresh[p] = chunks
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for p, chunks := range fresh {
		m.snapshots[p] = chunks
	}
	m.snapSeq = seq
	return nil
}
