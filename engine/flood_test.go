package engine_test

import (
	"fmt"
	"hash/fnv"
	"sync"
	"testing"
	"time"

	"floodgate/engine"
	"floodgate/engine/enginetest"
)

// echo is an Answerer that sends what it was told of again, until it is stopped.
type echo struct {
	engine  *engine.Engine
	listing *engine.Listing

	mu      sync.Mutex
	stopped bool
	flying  sync.WaitGroup
}

func (x *echo) Answered(c *engine.Command, _ time.Time, _ error) {
	for began := time.Now(); time.Since(began) < 5*time.Microsecond; { // what writing to a socket takes
	}
	x.mu.Lock()
	stopped := x.stopped
	x.mu.Unlock()
	if stopped || x.engine.Send(x.listing, c, x) != nil {
		engine.ReleaseCommand(c)
		x.flying.Done()
	}
}

func (x *echo) stop() {
	x.mu.Lock()
	x.stopped = true
	x.mu.Unlock()
	x.flying.Wait()
}

// Ensure that shards whose refusals never leave the answering goroutines without
// work do not keep the committer from the orders of another shard: it waits for
// no answers that came after its own.
func TestAFloodOfRefusalsDoesNotHoldUpAnotherShardsOrders(t *testing.T) {
	const shards, inFlight, orders = 4, 3000, 20
	j := enginetest.NewMemoryJournal()
	e := start(t, j, engine.Options{Shards: shards, IDs: j.IDs()})
	var listings [shards]*engine.Listing // one a shard; all but the first are sold out
	for i, found := 0, 0; found < shards; i++ {
		id := fmt.Sprintf("p-%d", i)
		h := fnv.New32a()
		h.Write([]byte(id))
		if at := h.Sum32() % shards; listings[at] == nil {
			stock := int64(0)
			if at == 0 {
				stock = orders
			}
			listings[at] = create(t, e, &engine.Settings{ID: id}, stock)
			found++
		}
	}
	for _, l := range listings[1:] {
		flood := &echo{engine: e, listing: l}
		t.Cleanup(flood.stop)
		for i := range inFlight {
			flood.flying.Add(1)
			if err := send(e, l, fmt.Sprintf("refused-%d", i), "key", flood); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i := range orders {
		if r := place(e, listings[0], fmt.Sprintf("buyer-%d", i), "", 1); r.err != nil || r.Outcome != engine.Accepted {
			t.Fatalf("order %d: %v, %v", i, r.Outcome, r.err)
		}
	}
}

// Ensure that a shard that keeps the journal busy without a pause does not keep
// the few orders of another in their inbox until they are given up.
func TestWhatGathersIsPassedOverTwiceAtMost(t *testing.T) {
	if times := engine.PassedOver(); times != 2 {
		t.Errorf("one command was passed over %d times, want 2", times)
	}
}
