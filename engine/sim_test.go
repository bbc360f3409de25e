package engine_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"floodgate/engine"
	"floodgate/engine/enginetest"
)

// TestCrashes lets a node crash again and again at a random append, before or
// after its events were stored, and demands of the history that all its lives
// wrote together that promises 1 to 3 were kept. A seed decides the workload and
// the crashes; what runs when among the clients is the scheduler's.
func TestCrashes(t *testing.T) {
	crashes, acked, kept := 0, 0, 0
	for seed := range uint64(1000) {
		s := newSimulation(t, seed)
		for range 1 + s.rng.IntN(4) {
			if s.live(1 + s.rng.IntN(14)); s.crashed.Load() {
				crashes++
			}
		}
		s.live(0)
		acked += len(s.acked)
		kept += len(s.keys)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Logf("%d crashes, %d orders acknowledged, %d of them with a key", crashes, acked, kept)
	if crashes < 500 || acked < 2000 {
		t.Error("that is too few to tell anything")
	}
}

const (
	simProducts = 2
	simBuyers   = 4
	simLimit    = 6
)

// simulation is one node's disk, and what its clients remember over its lives.
type simulation struct {
	t       *testing.T
	seed    uint64
	rng     *rand.Rand
	now     atomic.Int64
	journal *enginetest.MemoryJournal

	appends atomic.Int64 // until the crash
	stored  atomic.Bool  // the crash comes after its events were stored
	crashed atomic.Bool

	mu     sync.Mutex
	acked  map[engine.OrderID]simOrder
	keys   map[simKey]engine.OrderID // what each key was told to have bought
	asked  map[simKey]int64          // keys that may have bought: the quantity asked for
	status map[engine.OrderID]engine.Status
}

type simOrder struct {
	product, buyer, key string
	quantity            int64
}

type simKey struct{ product, buyer, key string }

func newSimulation(t *testing.T, seed uint64) *simulation {
	s := &simulation{
		t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 99)), journal: enginetest.NewMemoryJournal(),
		acked: make(map[engine.OrderID]simOrder), keys: make(map[simKey]engine.OrderID), asked: make(map[simKey]int64),
		status: make(map[engine.OrderID]engine.Status),
	}
	s.now.Store(sceneEpoch)
	crash := func(after bool) func([]engine.Event) error {
		return func([]engine.Event) error {
			if s.crashed.Load() {
				t.Errorf("seed %d: the journal was called after it had failed", seed)
			}
			if s.stored.Load() == after && s.appends.Add(-1) == 0 {
				s.crashed.Store(true)
				return errDisk
			}
			return nil
		}
	}
	s.journal.BeforeAppend, s.journal.AfterAppend = crash(false), crash(true)
	return s
}

// live runs the node until it crashes at the given append; 0: it does not, is
// asked for every key again and sells what is left.
func (s *simulation) live(crashAt int) {
	s.t.Helper()
	s.crashed.Store(false)
	s.stored.Store(s.rng.IntN(2) == 0)
	s.appends.Store(int64(crashAt))
	s.now.Add(s.rng.Int64N(3) * 700)
	if s.rng.IntN(3) == 0 {
		if _, _, err := engine.Snapshot(s.journal); err != nil {
			s.t.Errorf("seed %d: %v", s.seed, err)
		}
	}
	r := recoverFrom(s.t, s.journal)
	s.checkRecovered(r)
	e := startFrom(s.t, s.journal, engine.Options{Shards: 1 + s.rng.IntN(2), IDs: s.journal.IDs(), Now: s.now.Load}, r)
	for p := range simProducts {
		settings := &engine.Settings{ID: fmt.Sprintf("p-%d", p), LimitPerBuyer: simLimit, HoldSeconds: int64(p), Currency: "EUR"}
		if _, err := e.Create(settings, 10); err != nil && !errors.Is(err, engine.ErrJournalFailed) {
			s.t.Errorf("seed %d: create: %v", s.seed, err)
		}
	}
	var clients sync.WaitGroup
	for buyer := range simBuyers {
		rng := rand.New(rand.NewPCG(s.rng.Uint64(), uint64(buyer)))
		clients.Go(func() {
			for range 12 {
				if !s.act(e, rng, fmt.Sprintf("buyer-%d", buyer)) {
					return
				}
			}
		})
	}
	clients.Wait()
	if crashAt == 0 {
		s.settle(e)
	}
	if err := e.Close(); (err != nil) != s.crashed.Load() {
		s.t.Errorf("seed %d: crashed is %v, close: %v", s.seed, s.crashed.Load(), err)
	}
	s.checkJournal()
	if crashAt == 0 {
		for _, l := range e.Listings() {
			if v := recoverFrom(s.t, s.journal).Products[l.ID()].View(); withoutVersion(v) != withoutVersion(l.View()) {
				s.t.Errorf("seed %d: a restart comes to %+v, the engine has %+v", s.seed, *v, *l.View())
			}
		}
	}
}

// act does one thing as one buyer. It reports false once the node is down.
func (s *simulation) act(e *engine.Engine, rng *rand.Rand, buyer string) bool {
	s.now.Add(rng.Int64N(200))
	product := fmt.Sprintf("p-%d", rng.IntN(simProducts))
	l := e.Listing([]byte(product))
	if l == nil {
		return false // it crashed before it was created
	}
	switch n := rng.IntN(10); {
	case n < 6:
		key := ""
		if rng.IntN(3) > 0 {
			key = fmt.Sprintf("key-%d", rng.IntN(4))
		}
		return s.place(e, l, buyer, key, 1+rng.Int64N(2))
	case n < 9:
		orders, _, _ := s.journal.OrdersByBuyer(buyer, 8, 0)
		if len(orders) == 0 {
			return true
		}
		o := orders[rng.IntN(len(orders))]
		op := []engine.Op{engine.OpConfirm, engine.OpCancel, engine.OpRefund}[rng.IntN(3)]
		r := ask(e, e.Listing([]byte(o.Product)), func(c *engine.Command) {
			c.Op, c.Restock = op, rng.IntN(2) == 0
			c.SetOrder(&o)
		})
		if r.err == nil {
			s.mu.Lock()
			s.status[o.ID] = r.Status
			s.mu.Unlock()
		}
		return s.up(r.err)
	default:
		return s.up(admin(e, l, engine.OpRestock, rng.Int64N(5)-2).err)
	}
}

func (s *simulation) place(e *engine.Engine, l *engine.Listing, buyer, key string, quantity int64) bool {
	k := simKey{l.ID(), buyer, key}
	s.mu.Lock()
	if first, known := s.asked[k]; known && key != "" {
		quantity = first // a retry is the same request
	} else if key != "" {
		s.asked[k] = quantity
	}
	s.mu.Unlock()
	r := place(e, l, buyer, key, quantity)
	if r.err != nil {
		return s.up(r.err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	bought, known := s.keys[k]
	known = known && key != ""
	switch {
	case r.Outcome == engine.KeyMismatch:
		s.t.Errorf("seed %d: %v: the same request is told that it was another", s.seed, k)
	case known && (r.Outcome != engine.Replayed || r.ID != bought):
		s.t.Errorf("seed %d: %v bought %v and is told %v, %v", s.seed, k, bought, r.Outcome, r.ID)
	case r.Outcome == engine.Accepted || r.Outcome == engine.Replayed:
		s.acked[r.ID] = simOrder{l.ID(), buyer, key, quantity}
		if key != "" {
			s.keys[k] = r.ID
		}
	}
	return true
}

// up reports whether the node still answers. The only error that may be is that
// of the crash.
func (s *simulation) up(err error) bool {
	if err == nil {
		return true
	}
	if !errors.Is(err, engine.ErrJournalFailed) || !s.crashed.Load() {
		s.t.Errorf("seed %d: %v", s.seed, err)
	}
	return false
}

// settle asks for every key again, and then sells the last unit: nothing is lost.
func (s *simulation) settle(e *engine.Engine) {
	for k, quantity := range s.asked {
		if !s.place(e, e.Listing([]byte(k.product)), k.buyer, k.key, quantity) {
			s.t.Errorf("seed %d: a healthy node does not answer", s.seed)
		}
	}
	for _, l := range e.Listings() {
		for left := l.View().Remaining; left > 0; left-- {
			if r := place(e, l, "", "", 1); r.Outcome != engine.Accepted {
				s.t.Errorf("seed %d: %d units are left and a buyer is told %v, %v", s.seed, left, r.Outcome, r.err)
			}
		}
		if r := place(e, l, "", "", 1); r.Outcome != engine.SoldOut {
			s.t.Errorf("seed %d: no unit is left and a buyer is told %v, %v", s.seed, r.Outcome, r.err)
		}
	}
}

// checkRecovered demands that a restart finds what a plain count of the journal
// finds.
func (s *simulation) checkRecovered(r *engine.Recovered) {
	s.t.Helper()
	books := s.checkJournal()
	for id, p := range r.Products {
		v, b := p.View(), books[id]
		if v.Stock != b.stock || v.Held != b.held || v.Sold != b.sold || v.Remaining != b.stock-b.held-b.sold {
			s.t.Errorf("seed %d: %s: recovered %+v, counted %+v", s.seed, id, *v, *b)
		}
	}
}

// book is what a plain count of a product's events comes to.
type book struct {
	stock, held, sold int64
	units             map[string]int64
	orders            map[uint32]*engine.Event
	status            map[uint32]engine.Status
	keys              map[string]bool
}

func (s *simulation) checkJournal() map[string]*book {
	s.t.Helper()
	books := make(map[string]*book)
	seq := uint64(0)
	wrong := func(ev *engine.Event, what string, args ...any) {
		s.t.Helper()
		s.t.Errorf("seed %d: event %d of %s: %s", s.seed, ev.Seq, ev.Product, fmt.Sprintf(what, args...))
	}
	err := s.journal.Events(0, func(ev *engine.Event) error {
		if seq++; ev.Seq != seq {
			wrong(ev, "it should be event %d", seq)
		}
		b := books[ev.Product]
		if b == nil {
			b = &book{units: map[string]int64{}, orders: map[uint32]*engine.Event{}, status: map[uint32]engine.Status{}, keys: map[string]bool{}}
			books[ev.Product] = b
			if ev.Kind != engine.ProductChanged {
				wrong(ev, "kind %d before it was created", ev.Kind)
			}
		}
		o, before := b.orders[ev.Number], b.status[ev.Number]
		if ev.Kind.Order() {
			b.status[ev.Number] = ev.Status()
		}
		switch ev.Kind {
		case engine.ProductChanged, engine.StockChanged:
			b.stock += ev.Quantity
		case engine.OrderAccepted:
			if o != nil || int(ev.Number) != len(b.orders) {
				wrong(ev, "order %d of %d", ev.Number, len(b.orders))
			}
			stored := enginetest.CloneEvent(ev)
			b.orders[ev.Number] = &stored
			if key := string(ev.Buyer) + " " + string(ev.Key); len(ev.Key) > 0 {
				if b.keys[key] {
					wrong(ev, "%s bought twice", key)
				}
				b.keys[key] = true
			}
			if b.units[string(ev.Buyer)] += ev.Quantity; len(ev.Buyer) > 0 && b.units[string(ev.Buyer)] > simLimit {
				wrong(ev, "%s has %d units", ev.Buyer, b.units[string(ev.Buyer)])
			}
			if ev.Deadline != 0 {
				b.held += ev.Quantity
			} else {
				b.sold += ev.Quantity
			}
		case engine.OrderConfirmed, engine.OrderCancelled, engine.OrderExpired:
			if before != engine.Held || o.Quantity != ev.Quantity {
				wrong(ev, "kind %d of an order of %d that is %v", ev.Kind, o.Quantity, before)
			}
			b.held -= ev.Quantity
			if ev.Kind == engine.OrderConfirmed {
				b.sold += ev.Quantity
			} else {
				b.units[string(ev.Buyer)] -= ev.Quantity
			}
		case engine.OrderRefunded:
			if before != engine.Confirmed || o.Quantity != ev.Quantity {
				wrong(ev, "a refund of an order of %d that is %v", o.Quantity, before)
			}
			b.units[string(ev.Buyer)] -= ev.Quantity
			if ev.Restock {
				b.sold -= ev.Quantity
			}
		}
		if b.held+b.sold > b.stock || b.held < 0 || b.sold < 0 {
			wrong(ev, "stock %d, held %d, sold %d", b.stock, b.held, b.sold)
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	for id, want := range s.acked {
		o, ok, _ := s.journal.Order(id)
		if got := (simOrder{o.Product, o.Buyer, o.Key, o.Quantity}); !ok || got != want {
			s.t.Errorf("seed %d: order %v was acknowledged as %+v, the journal has %+v, %v", s.seed, id, want, got, ok)
		}
	}
	for id, told := range s.status {
		o, _, _ := s.journal.Order(id)
		moved := told == engine.Held || told == engine.Confirmed && o.Status == engine.Refunded
		if o.Status != told && !moved {
			s.t.Errorf("seed %d: order %v was said to be %v, the journal has %v", s.seed, id, told, o.Status)
		}
	}
	return books
}
