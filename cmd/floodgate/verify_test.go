package main

import (
	"strings"
	"testing"

	"floodgate/engine"
)

// Ensure the books find each way in which units could go astray. An audit that
// cannot fail proves nothing.
func TestBooks(t *testing.T) {
	created := engine.Event{Kind: engine.ProductChanged, Run: 1, Quantity: 3, Settings: &engine.Settings{ID: "p", LimitPerBuyer: 2}}
	order := func(number uint32, quantity int64, buyer, key string) engine.Event {
		return engine.Event{Kind: engine.OrderAccepted, Run: 1, Number: number, Quantity: quantity, Buyer: []byte(buyer), Key: []byte(key)}
	}
	held := func(number uint32, quantity int64) engine.Event {
		e := order(number, quantity, "", "")
		e.Deadline = 1
		return e
	}
	change := func(kind engine.Kind, number uint32, quantity int64) engine.Event {
		return engine.Event{Kind: kind, Run: 1, Number: number, Quantity: quantity, Buyer: []byte("b")}
	}
	restocked := change(engine.OrderRefunded, 0, 1)
	restocked.Restock = true

	for _, row := range []struct {
		name    string
		events  []engine.Event
		finding string // empty: none
	}{
		{"sold to the last unit", []engine.Event{created, order(0, 2, "a", "k"), order(1, 1, "b", "k")}, ""},
		{"sold again after a refund", []engine.Event{created, order(0, 1, "b", "k"), restocked, order(1, 2, "b", "l"), order(2, 1, "a", "k")}, ""},
		{"confirmed, cancelled, expired", []engine.Event{created, held(0, 1), held(1, 1), held(2, 1),
			change(engine.OrderConfirmed, 0, 1), change(engine.OrderCancelled, 1, 1), change(engine.OrderExpired, 2, 1)}, ""},
		{"stock taken away", []engine.Event{created, {Kind: engine.StockChanged, Run: 1, Quantity: -3}}, ""},
		{"a new run forgets", []engine.Event{created, order(0, 2, "a", ""), {Kind: engine.RunStarted, Run: 2, Quantity: 1},
			{Kind: engine.OrderAccepted, Run: 2, Number: 0, Quantity: 1, Buyer: []byte("a")}}, ""},

		{"oversold", []engine.Event{created, order(0, 2, "a", ""), order(1, 2, "b", "")}, "remaining -1"},
		{"more taken away than there is", []engine.Event{created, {Kind: engine.StockChanged, Run: 1, Quantity: -4}}, "remaining -1"},
		{"a key bought twice", []engine.Event{created, order(0, 1, "a", "k"), order(1, 1, "a", "k")}, "bought twice"},
		{"limit passed", []engine.Event{created, order(0, 1, "a", ""), order(1, 2, "a", "")}, "the limit is 2"},
		{"an order without units", []engine.Event{created, order(0, 0, "a", "")}, "an order of 0 units"},
		{"a number left out", []engine.Event{created, order(1, 1, "a", "")}, "order number 1 follows 0 orders"},
		{"confirmed twice", []engine.Event{created, held(0, 1), change(engine.OrderConfirmed, 0, 1), change(engine.OrderConfirmed, 0, 1)}, "and it was confirmed"},
		{"cancelled and expired", []engine.Event{created, held(0, 1), change(engine.OrderCancelled, 0, 1), change(engine.OrderExpired, 0, 1)}, "and it was cancelled"},
		{"refunded while held", []engine.Event{created, held(0, 1), restocked}, "and it was held"},
		{"more given back than was bought", []engine.Event{created, held(0, 1), change(engine.OrderCancelled, 0, 2)}, "resolved with 2"},
		{"never accepted", []engine.Event{created, change(engine.OrderCancelled, 0, 1)}, "never accepted"},
		{"no such run", []engine.Event{created, {Kind: engine.StockChanged, Run: 7, Quantity: 1}}, "no such run"},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := &books{products: make(map[string]*book), ids: make(map[engine.OrderID]struct{}), whole: true}
			for i := range row.events {
				e := row.events[i]
				e.Seq, e.Product = uint64(i+1), "p"
				b.enter(&e)
			}
			found := strings.Join(b.findings, "\n")
			if row.finding == "" && found != "" || !strings.Contains(found, row.finding) {
				t.Errorf("found %q, want %q", found, row.finding)
			}
		})
	}
}
