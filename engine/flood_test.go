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

// Promise 5 must not cost another product its sale: a shard whose refusals never
// leave the answering goroutines without work must not keep the committer from
// the next batch of another shard.
func TestAFloodOfRefusalsDoesNotHoldUpAnotherShardsOrders(t *testing.T) {
	j := enginetest.NewMemoryJournal()
	e := start(t, j, engine.Options{Shards: 2, IDs: j.IDs()})
	var names [2]string // one for each shard
	for i := 0; names[0] == "" || names[1] == ""; i++ {
		name := fmt.Sprintf("p-%d", i)
		h := fnv.New32a()
		h.Write([]byte(name))
		names[h.Sum32()%2] = name
	}
	flooded := create(t, e, &engine.Settings{ID: names[0]}, 0)
	sold := create(t, e, &engine.Settings{ID: names[1]}, 1000)
	flood := &echo{engine: e, listing: flooded}
	defer flood.stop()
	for i := range 4000 {
		flood.flying.Add(1)
		if err := send(e, flooded, fmt.Sprintf("refused-%d", i), "key", flood); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	slowest := time.Duration(0)
	for i := range 20 {
		t0 := time.Now()
		if r := place(e, sold, fmt.Sprintf("buyer-%d", i), "", 1); r.err != nil || r.Outcome != engine.Accepted {
			t.Fatalf("order %d, after %v: %v, %v", i, time.Since(began), r.Outcome, r.err)
		}
		slowest = max(slowest, time.Since(t0))
	}
	t.Log("slowest", slowest)
}
