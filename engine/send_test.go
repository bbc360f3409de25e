package engine_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"floodgate/engine"
	"floodgate/engine/enginetest"
)

// mailbox is an Answerer that keeps what it is told, by the buyer.
type mailbox struct {
	mu   sync.Mutex
	told map[string][]reply
}

func (m *mailbox) Answered(c *engine.Command, _ time.Time, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.told == nil {
		m.told = make(map[string][]reply)
	}
	r := reply{err: err}
	if err == nil {
		r.Answer = c.Answer
	}
	buyer := string(c.Buyer())
	m.told[buyer] = append(m.told[buyer], r)
	engine.ReleaseCommand(c)
}

func (m *mailbox) len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.told)
}

// once returns what the buyer was told, and demands that it was told once.
func (m *mailbox) once(tb testing.TB, buyer string) reply {
	tb.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.told[buyer]) != 1 {
		tb.Errorf("%s was told %d times", buyer, len(m.told[buyer]))
		return reply{}
	}
	return m.told[buyer][0]
}

// send places an order for the buyer without waiting.
func send(e *engine.Engine, l *engine.Listing, buyer, key string, to engine.Answerer) error {
	c := engine.AcquireCommand()
	c.Op, c.Quantity = engine.OpPlace, 1
	c.SetBuyer([]byte(buyer))
	c.SetKey([]byte(key))
	err := e.Send(l, c, to)
	if err != nil {
		engine.ReleaseCommand(c)
	}
	return err
}

func TestWhatIsSentIsAnsweredOnceBesideThoseWhoWait(t *testing.T) {
	const clients, each, stock = 16, 300, 1000
	j := enginetest.NewMemoryJournal()
	e := start(t, j, engine.Options{IDs: j.IDs()})
	l := create(t, e, &engine.Settings{ID: "p"}, stock)
	stop := watchBooks(t, l)
	var box mailbox
	var wg sync.WaitGroup
	var mu sync.Mutex
	accepted := 0
	for client := range clients {
		wg.Go(func() {
			for i := range each {
				buyer := fmt.Sprintf("buyer-%d-%d", client, i)
				if i%3 > 0 {
					if err := send(e, l, buyer, "", &box); err != nil {
						t.Error(err)
					}
					continue
				}
				r := place(e, l, buyer, "", 1)
				if r.err != nil {
					t.Error(r.err)
				}
				mu.Lock()
				if r.Outcome == engine.Accepted {
					accepted++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	stop()
	if err := e.Close(); err != nil { // answers what waits
		t.Fatal(err)
	}
	ids := make(map[engine.OrderID]string)
	for client := range clients {
		for i := range each {
			if i%3 == 0 {
				continue
			}
			buyer := fmt.Sprintf("buyer-%d-%d", client, i)
			r := box.once(t, buyer)
			if r.err != nil || r.Outcome != engine.Accepted && r.Outcome != engine.SoldOut {
				t.Errorf("%s: %v, %v", buyer, r.Outcome, r.err)
			}
			if r.Outcome != engine.Accepted {
				continue
			}
			accepted++
			if other := ids[r.ID]; other != "" {
				t.Errorf("%s and %s have one order", buyer, other)
			}
			ids[r.ID] = buyer
			if o, ok, _ := j.Order(r.ID); !ok || o.Buyer != buyer {
				t.Errorf("%s was told of order %v, the ledger has %+v, %v", buyer, r.ID, o, ok)
			}
		}
	}
	if accepted != stock {
		t.Errorf("%d orders, want %d", accepted, stock)
	}
}

func TestWhatIsSentIsNotAnsweredBeforeTheJournalReturned(t *testing.T) {
	for _, failure := range []error{nil, errDisk} {
		t.Run(fmt.Sprintf("failure=%v", failure), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var disk brake
				j := enginetest.NewMemoryJournal()
				j.AfterAppend = disk.hook
				e := start(t, j, engine.Options{Shards: 1, IDs: j.IDs()})
				l := create(t, e, &engine.Settings{ID: "p"}, 2)
				disk.stop(t)
				var box mailbox
				for i := range 4 {
					if err := send(e, l, fmt.Sprintf("buyer-%d", i), "", &box); err != nil {
						t.Fatal(err)
					}
					synctest.Wait()
				}
				if box.len() != 0 {
					t.Errorf("%d buyers were told before the journal returned", box.len())
				}
				disk.release(failure)
				synctest.Wait()
				for i := range 4 {
					r := box.once(t, fmt.Sprintf("buyer-%d", i))
					switch {
					case failure != nil && !errors.Is(r.err, engine.ErrJournalFailed):
						t.Errorf("buyer %d: %v, %v", i, r.Outcome, r.err)
					case failure == nil && (r.err != nil || (r.Outcome == engine.Accepted) != (i < 2)):
						t.Errorf("buyer %d: %v, %v", i, r.Outcome, r.err)
					}
				}
			})
		})
	}
}

func TestWhatIsSentAndGivenUpIsAnsweredOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const limit = engine.GatherUpTo
		j := jam(t, engine.Options{StallAfter: 200 * time.Millisecond, InboxLimit: limit})
		var box mailbox
		for i := range limit {
			if err := send(j.engine, j.listing, fmt.Sprintf("withdrawn-%d", i), "k", &box); err != nil {
				t.Fatal(err)
			}
		}
		if err := send(j.engine, j.listing, "refused", "", &box); err != engine.ErrOverloaded {
			t.Errorf("a full inbox answers %v", err)
		}
		pass(300 * time.Millisecond)
		for i := range limit {
			if r := box.once(t, fmt.Sprintf("withdrawn-%d", i)); r.err != engine.ErrStalled {
				t.Errorf("in the inbox: %v, %v", r.Outcome, r.err)
			}
		}
		j.disk.release(nil)
		synctest.Wait()
		if box.len() != limit {
			t.Errorf("%d were told", box.len())
		}
		wantView(t, j.listing, 5, 0, 0)

		j.disk.stop(t)
		if err := send(j.engine, j.listing, "unknown", "k", &box); err != nil {
			t.Fatal(err)
		}
		pass(300 * time.Millisecond)
		j.disk.release(nil)
		synctest.Wait()
		if r := box.once(t, "unknown"); r.err != engine.ErrUnknown {
			t.Errorf("decided: %v, %v", r.Outcome, r.err)
		}
		if r := place(j.engine, j.listing, "unknown", "k", 1); r.Outcome != engine.Replayed {
			t.Errorf("a retry: %v, %v", r.Outcome, r.err)
		}
		if err := j.engine.Close(); err != nil {
			t.Error(err)
		}
		if err := send(j.engine, j.listing, "late", "", &box); err != engine.ErrClosed {
			t.Errorf("after Close: %v", err)
		}
	})
}
