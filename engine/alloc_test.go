//go:build !race

package engine_test

import (
	"fmt"
	"runtime"
	"sync"
	"testing"

	"floodgate/engine"
)

// What is refused without a hand-off costs no allocation at all.
func TestLookingUpAndRefusingDoesNotAllocate(t *testing.T) {
	e := startEngine(t, discard{})
	create(t, e, &engine.Settings{ID: "p"}, 0)
	id, now := []byte("p"), int64(50)
	var sum int64
	allocations := testing.AllocsPerRun(1000, func() {
		l := e.Listing(id)
		if o := l.Refusal(now, 1); o != engine.SoldOut {
			t.Errorf("refused with %v", o)
		}
		sum += l.View().Remaining
	})
	if allocations != 0 {
		t.Errorf("%v allocations", allocations)
	}
}

func TestIDsDoNotAllocate(t *testing.T) {
	ids := engine.NewIDs([16]byte{1})
	var scratch [32]byte
	text := make([]byte, 0, 36)
	buyer, key := []byte("buyer"), []byte("key")
	allocations := testing.AllocsPerRun(1000, func() {
		id := ids.Sequential(5, 1_700_000_000_000, &scratch)
		text, _ = id.AppendText(text[:0])
		if back, ok := engine.ParseOrderID(text); !ok || back != id {
			t.Errorf("%s is not %v", text, id)
		}
		engine.KeyedID("p", 1, buyer, key)
	})
	if allocations != 0 {
		t.Errorf("%v allocations", allocations)
	}
}

// Many wait at a time, so that the batch's own allocations are shared.
func TestAnOrderCostsLessThanOneAllocation(t *testing.T) {
	const producers, each = 64, 2000
	for _, outcome := range []engine.Outcome{engine.Accepted, engine.SoldOut} {
		t.Run(outcome.String(), func(t *testing.T) {
			e := startEngine(t, discard{})
			stock := int64(0)
			if outcome == engine.Accepted {
				stock = producers * each * 2
			}
			l := create(t, e, &engine.Settings{ID: "p", LimitPerBuyer: each * 2}, stock)
			round := func() {
				var wg sync.WaitGroup
				for i := range producers {
					wg.Go(func() {
						buyer := fmt.Appendf(nil, "buyer-%d", i)
						for range each {
							c := engine.AcquireCommand()
							c.Op, c.Quantity = engine.OpPlace, 1
							c.SetBuyer(buyer)
							if err := e.Do(l, c); err != nil || c.Answer.Outcome != outcome {
								t.Errorf("%v, %v", c.Answer.Outcome, err)
							}
							engine.ReleaseCommand(c)
						}
					})
				}
				wg.Wait()
			}
			round() // pools and slices reach their size
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			round()
			runtime.ReadMemStats(&after)
			per := float64(after.Mallocs-before.Mallocs) / (producers * each)
			t.Logf("%.3f allocations and %.0f bytes an order", per, float64(after.TotalAlloc-before.TotalAlloc)/(producers*each))
			if per > 1 {
				t.Errorf("%.2f allocations an order", per)
			}
		})
	}
}

func TestDecidingDoesNotAllocate(t *testing.T) {
	p := engine.NewProduct("p")
	c := engine.AcquireCommand()
	c.Op, c.Quantity, c.Settings = engine.OpCreate, 1_000_000, &engine.Settings{ID: "p", LimitPerBuyer: 1 << 30}
	p.Decide(c, 1, nil)
	events := make([]engine.Event, 0, 4)
	buyer := []byte("buyer")
	allocations := testing.AllocsPerRun(20_000, func() {
		c := engine.AcquireCommand()
		c.Op, c.Quantity = engine.OpPlace, 1
		c.SetBuyer(buyer)
		events = p.Decide(c, 2, events[:0])
		engine.ReleaseCommand(c)
	})
	if allocations != 0 {
		t.Errorf("%v allocations", allocations)
	}
}
