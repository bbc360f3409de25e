package engine_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"floodgate/engine"
	"floodgate/engine/enginetest"
)

// Concurrent clients of the real engine, on a disk that sometimes stalls, write
// down what they asked and what they were told. A checker then looks for an
// order, within each operation's begin and end, in which a plain shelf would
// have answered the same. Promises 1 and 3, and that sold out means sold out.
//
// A command whose outcome is unknown has no end: it may take effect at any time
// after it was asked, also after everything else, which is the same as never.
// One that was withdrawn is left out: if it took effect, no order is found.
func TestTheEngineIsLinearizable(t *testing.T) {
	operations, unknown := 0, 0
	for seed := range uint64(300) {
		bubble(t, func(t *testing.T) {
			history := recordHistory(t, seed)
			operations += len(history)
			for _, o := range history {
				if o.Return == math.MaxInt64 {
					unknown++
				}
			}
			if !porcupine.CheckOperations(shelfModel, history) {
				t.Errorf("seed %d: no order explains what %d operations were told", seed, len(history))
			}
		})
	}
	t.Logf("%d operations, of %d the outcome was unknown", operations, unknown)
	if operations < 10_000 || unknown < 100 {
		t.Error("that is too few to tell anything")
	}
}

// The checker itself must be able to fail.
func TestTheLinearizabilityCheckerHasTeeth(t *testing.T) {
	place := func(call int64, quantity int64, key int, told shelfAnswer) porcupine.Operation {
		return porcupine.Operation{Call: call, Return: call + 1, Input: shelfAsk{op: engine.OpPlace, quantity: quantity, key: key}, Output: told}
	}
	stock := porcupine.Operation{Call: 0, Return: 1, Input: shelfAsk{op: engine.OpRestock, quantity: 2}, Output: shelfAnswer{outcome: engine.Accepted}}
	never := func(o porcupine.Operation) porcupine.Operation { o.Return = math.MaxInt64; return o }
	accepted := func(number uint32) shelfAnswer { return shelfAnswer{outcome: engine.Accepted, number: number} }
	soldOut := func(remaining int64) shelfAnswer {
		return shelfAnswer{outcome: engine.SoldOut, remaining: remaining}
	}
	for _, row := range []struct {
		name    string
		history []porcupine.Operation
		want    bool
	}{
		{"sold out after all was sold", []porcupine.Operation{stock, place(2, 2, 0, accepted(0)), place(4, 1, 0, soldOut(0))}, true},
		{"sold out before all was sold", []porcupine.Operation{stock, place(2, 1, 0, soldOut(0)), place(4, 2, 0, accepted(0))}, false},
		{"oversold", []porcupine.Operation{stock, place(2, 2, 0, accepted(0)), place(4, 1, 0, accepted(1))}, false},
		{"an unknown order explains sold out", []porcupine.Operation{stock, never(place(2, 2, 0, shelfAnswer{unknown: true})), place(4, 1, 0, soldOut(0))}, true},
		{"an unknown order that never was", []porcupine.Operation{stock, never(place(2, 2, 0, shelfAnswer{unknown: true})), place(4, 2, 0, accepted(0))}, true},
		{"a key that bought twice", []porcupine.Operation{stock, place(2, 1, 1, accepted(0)), place(4, 1, 1, accepted(1))}, false},
		{"a key that was replayed", []porcupine.Operation{stock, place(2, 1, 1, accepted(0)), place(4, 1, 1, shelfAnswer{outcome: engine.Replayed})}, true},
		{"a view of the past", []porcupine.Operation{stock, place(2, 1, 0, accepted(0)),
			{Call: 4, Return: 5, Input: shelfAsk{}, Output: shelfAnswer{view: [3]int64{2, 2, 0}}}}, false},
	} {
		if got := porcupine.CheckOperations(shelfModel, row.history); got != row.want {
			t.Errorf("%s: linearizable is %v", row.name, got)
		}
	}
}

const shelfProducts = 3

func recordHistory(t *testing.T, seed uint64) []porcupine.Operation {
	const clients, each = 5, 24
	disk := rand.New(rand.NewPCG(seed, 1))
	j := enginetest.NewMemoryJournal()
	j.BeforeAppend = func([]engine.Event) error {
		switch n := disk.IntN(40); {
		case n == 0:
			<-time.After(1500 * time.Millisecond) // past StallAfter
		case n < 20:
			<-time.After(time.Millisecond) // until all clients wait: the largest batches
		}
		return nil
	}
	e := start(t, j, engine.Options{Shards: 2, StallAfter: time.Second, IDs: j.IDs()})
	for p := range shelfProducts {
		for {
			_, err := e.Create(&engine.Settings{ID: fmt.Sprintf("p-%d", p), HoldSeconds: 24 * 3600}, 0)
			if err == nil {
				break // a create that was unknown is found by the next
			}
		}
	}
	var clock atomic.Int64
	var mu sync.Mutex
	var history []porcupine.Operation
	var wg sync.WaitGroup
	for client := range clients {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(client)+2))
			var mine []shelfAsk // orders to cancel
			for range each {
				ask := shelfAsk{product: rng.IntN(shelfProducts)}
				switch n := rng.IntN(10); {
				case n < 5:
					ask.op, ask.quantity, ask.key = engine.OpPlace, 1+rng.Int64N(3), max(0, rng.IntN(8)-3)
				case n < 7 && len(mine) > 0:
					ask = mine[rng.IntN(len(mine))]
				case n < 8:
					ask.op, ask.quantity = engine.OpRestock, rng.Int64N(8)-2
				}
				call := clock.Add(1)
				told, happened := ask.do(e)
				end := clock.Add(1)
				if !happened {
					continue
				}
				if told.unknown {
					end = math.MaxInt64
				}
				if ask.op == engine.OpPlace && told.outcome == engine.Accepted && !told.unknown {
					mine = append(mine, shelfAsk{op: engine.OpCancel, product: ask.product, quantity: ask.quantity, number: told.number})
				}
				mu.Lock()
				history = append(history, porcupine.Operation{ClientId: client, Input: ask, Call: call, Output: told, Return: end})
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return history
}

// shelfAsk is what a client asks; with no op it reads the view.
type shelfAsk struct {
	op       engine.Op
	product  int
	quantity int64
	key      int // 0: none
	number   uint32
}

// shelfAnswer is what a client was told.
type shelfAnswer struct {
	unknown   bool
	outcome   engine.Outcome
	number    uint32
	remaining int64
	view      [3]int64 // stock, remaining, held
}

// do asks the engine. It reports false where nothing happened for certain.
func (s shelfAsk) do(e *engine.Engine) (told shelfAnswer, happened bool) {
	l := e.Listing(fmt.Appendf(nil, "p-%d", s.product))
	if s.op == 0 {
		v := l.View()
		return shelfAnswer{view: [3]int64{v.Stock, v.Remaining, v.Held}}, true
	}
	if s.op == engine.OpPlace && s.key == 0 {
		if o := l.Refusal(time.Now().UnixMilli(), s.quantity); o != 0 {
			return shelfAnswer{outcome: o}, true
		}
	}
	r := ask(e, l, func(c *engine.Command) {
		switch s.op {
		case engine.OpCancel:
			c.SetOrder(&engine.Order{Run: 1, Number: s.number, Quantity: s.quantity, Status: engine.Held, Deadline: math.MaxInt64})
		case engine.OpPlace:
			if s.key != 0 {
				c.SetKey(fmt.Appendf(nil, "key-%d", s.key))
			}
		}
		c.Op, c.Quantity = s.op, s.quantity
	})
	switch r.err {
	case nil:
		return shelfAnswer{outcome: r.Outcome, number: r.Number, remaining: r.Answer.Remaining}, true
	case engine.ErrUnknown:
		return shelfAnswer{unknown: true}, true
	}
	return shelfAnswer{}, false
}

// shelf is a product as the checker knows it. Strings, so that two are compared
// with ==.
type shelf struct {
	stock  int64
	orders string // a byte an order: its quantity, or 0 where it was cancelled
	keys   string // a byte a key: its order's number + 1
	bought string // a byte a key: the quantity
}

func (s shelf) remaining() int64 {
	left := s.stock
	for _, quantity := range []byte(s.orders) {
		left -= int64(quantity)
	}
	return left
}

var shelfModel = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		parts := make([][]porcupine.Operation, shelfProducts)
		for _, o := range history {
			p := o.Input.(shelfAsk).product
			parts[p] = append(parts[p], o)
		}
		return parts
	},
	Init: func() any { return shelf{keys: "\x00\x00\x00\x00\x00", bought: "\x00\x00\x00\x00\x00"} },
	Step: func(state, input, output any) (bool, any) {
		before, told := state.(shelf), output.(shelfAnswer)
		answer, after := before.answer(input.(shelfAsk))
		return told.unknown || told == answer, after
	},
}

func (s shelf) answer(ask shelfAsk) (shelfAnswer, shelf) {
	left := s.remaining()
	switch ask.op {
	case engine.OpPlace:
		if n := s.keys[ask.key]; ask.key != 0 && n != 0 {
			if int64(s.bought[ask.key]) != ask.quantity {
				return shelfAnswer{outcome: engine.KeyMismatch, number: uint32(n - 1)}, s
			}
			return shelfAnswer{outcome: engine.Replayed, number: uint32(n - 1)}, s
		}
		if ask.quantity > left {
			return shelfAnswer{outcome: engine.SoldOut, remaining: left}, s
		}
		number := uint32(len(s.orders))
		s.orders += string([]byte{byte(ask.quantity)})
		if ask.key != 0 {
			s.keys = s.keys[:ask.key] + string([]byte{byte(number + 1)}) + s.keys[ask.key+1:]
			s.bought = s.bought[:ask.key] + string([]byte{byte(ask.quantity)}) + s.bought[ask.key+1:]
		}
		return shelfAnswer{outcome: engine.Accepted, number: number}, s
	case engine.OpCancel:
		if int(ask.number) < len(s.orders) {
			s.orders = s.orders[:ask.number] + "\x00" + s.orders[ask.number+1:]
		}
		return shelfAnswer{outcome: engine.Accepted, number: ask.number}, s
	case engine.OpRestock:
		if left+ask.quantity < 0 {
			return shelfAnswer{outcome: engine.StockCommitted, remaining: left}, s
		}
		s.stock += ask.quantity
		return shelfAnswer{outcome: engine.Accepted}, s
	}
	return shelfAnswer{view: [3]int64{s.stock, left, s.stock - left}}, s
}
