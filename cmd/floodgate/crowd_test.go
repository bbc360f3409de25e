package main

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestCrowd holds promise 1 and the numbers people see against the real program
// over real sockets: a crowd never gets more than there is, nor less, whoever
// buys, holds, pays, changes their mind or is too late. At the end the node is
// restarted and audited.
func TestCrowd(t *testing.T) {
	seed := uint64(number(t, "FLOODGATE_CROWD_SEED", time.Now().UnixNano()))
	t.Logf("FLOODGATE_CROWD_SEED=%d", seed)
	dir := t.TempDir()
	s := &site{node: startReal(t, dir), seed: seed, orders: make(map[string]string)}
	t.Run("a thousand buyers share a hundred units", func(t *testing.T) { s.rush(t, "hundred", 1_000, 1_000, 100) })
	t.Run("ten thousand buyers share twenty units", func(t *testing.T) { s.rush(t, "twenty", 10_000, 2_000, 20) })
	t.Run("a buyer gets no more than the limit however they ask", s.limit)
	t.Run("every hold ends once and every unit comes to rest", s.holds)
	t.Run("the last units that come back are sold", s.returns)
	t.Run("an admin moves the stock while it is sold", s.restock)
	if t.Failed() {
		return
	}

	s.node.signal(syscall.SIGTERM)
	s.node.wantExit(exitFine)
	if code, stdout, stderr := run(t, environ(), "verify", "--data-dir="+dir); code != exitFine {
		t.Fatalf("verify: exit code %d:\n%s%s", code, stdout, stderr)
	}
	again := startReal(t, dir)
	l := dial(t, again.url, 1)[0]
	for id, body := range s.orders {
		if a, err := l.ask("GET", "/v1/orders/"+id, ""); err != nil || a.body != body {
			t.Errorf("order was %s, and after a restart it is %d %s %v", body, a.status, a.body, err)
		}
	}
	t.Logf("%d orders are what they were", len(s.orders))
}

// site is a node that crowds come to.
type site struct {
	node   *realNode
	seed   uint64
	mu     sync.Mutex
	orders map[string]string // by id, as last read
}

// sell makes a product, and tells where it is bought.
func (s *site) sell(t *testing.T, id string, stock, limit, hold int) (path string) {
	t.Helper()
	body := fmt.Sprintf(`{"name":"Crowd","price_minor":1250,"currency":"EUR","stock":%d,"limit_per_buyer":%d,"hold_seconds":%d}`, stock, limit, hold)
	s.node.ask(http.StatusCreated, "PUT", "/v1/products/"+id, body, "Authorization: Bearer "+testToken)
	return "/v1/products/" + id + "/orders"
}

func (s *site) product(t *testing.T, id string) productJSON {
	t.Helper()
	return decode[productJSON](t, s.node.ask(http.StatusOK, "GET", "/v1/products/"+id, "").body)
}

// keep notes an order under its id, which nobody else may have.
func (s *site) keep(t *testing.T, a answer) orderJSON {
	o := decode[orderJSON](t, a.body)
	s.mu.Lock()
	defer s.mu.Unlock()
	if other, taken := s.orders[o.ID]; taken {
		t.Errorf("two orders have one id: %s and %s", other, a.body)
	}
	if o.ID == "" || a.header.Get("Location") != "/v1/orders/"+o.ID {
		t.Errorf("order %s is at %q", a.body, a.header.Get("Location"))
	}
	s.orders[o.ID] = a.body
	return o
}

// watch reads a product until the returned function ends it: whatever goes on,
// every unit is in one place.
func (s *site) watch(t *testing.T, id string) (stop func()) {
	t.Helper()
	done := make(chan struct{})
	var readers sync.WaitGroup
	var reads atomic.Int64
	for _, l := range dial(t, s.node.url, 4) {
		readers.Go(func() {
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for {
				a, err := l.ask("GET", "/v1/products/"+id, "")
				if err != nil || a.status != http.StatusOK {
					t.Errorf("read %s: %d %s %v", id, a.status, a.body, err)
					return
				}
				if p := decode[productJSON](t, a.body); p.Stock != p.Remaining+p.Held+p.Sold || min(p.Remaining, p.Held, p.Sold) < 0 {
					t.Errorf("a reading does not add up: %s", a.body)
				}
				reads.Add(1)
				select {
				case <-done:
					return
				case <-tick.C:
				}
			}
		})
	}
	return func() {
		close(done)
		readers.Wait()
		t.Logf("%d readings", reads.Load())
	}
}

// connections returns how many a test may open, where it wants so many.
func connections(want int) int {
	if limit, ok := descriptorLimit(); ok {
		return min(want, int(min(limit, 1<<20))/4)
	}
	return want
}

// rush lets buyers who each want one unit come at once.
func (s *site) rush(t *testing.T, id string, buyers, lines, stock int) {
	path := s.sell(t, id, stock, 1, 0)
	open := dial(t, s.node.url, connections(lines))
	t.Logf("%d buyers over %d connections", buyers, len(open))
	type purchase struct {
		answer
		err          error
		began, ended time.Time
	}
	purchases := make([]purchase, buyers)
	stop := s.watch(t, id)
	gate := make(chan struct{})
	var crowd sync.WaitGroup
	for i, l := range open {
		crowd.Go(func() {
			<-gate
			for b := i; b < buyers; b += len(open) {
				p := &purchases[b]
				p.began = time.Now()
				p.answer, p.err = l.ask("POST", path, fmt.Sprintf(`{"buyer":"b-%d"}`, b))
				p.ended = time.Now()
			}
		})
	}
	close(gate)
	crowd.Wait()
	stop()

	accepted, refused := 0, 0
	soldOut := time.Now() // when the first buyer had heard of it
	var began []time.Time // of the orders
	for b, p := range purchases {
		switch {
		case p.err != nil:
			t.Errorf("buyer %d: %v", b, p.err)
		case p.status == http.StatusCreated:
			accepted++
			began = append(began, p.began)
			o := s.keep(t, p.answer)
			want := orderJSON{ID: o.ID, Product: id, Buyer: fmt.Sprintf("b-%d", b), Quantity: 1, Status: "confirmed",
				PriceMinor: 1250, Currency: "EUR", AcceptedAt: o.AcceptedAt}
			if o != want {
				t.Errorf("buyer %d has order %+v, want %+v", b, o, want)
			}
			if a, err := open[0].ask("GET", "/v1/orders/"+o.ID, ""); err != nil || a.status != http.StatusOK || a.body != p.body {
				t.Errorf("order %s is read as %d %s %v", p.body, a.status, a.body, err)
			}
		case p.is(http.StatusConflict, "sold-out"):
			refused++
			if p.ended.Before(soldOut) {
				soldOut = p.ended
			}
		default:
			t.Errorf("buyer %d: %d %s", b, p.status, p.body)
		}
	}
	if accepted != stock || refused != buyers-stock {
		t.Errorf("%d buyers of %d units: %d have one, %d were told that there is none", buyers, stock, accepted, refused)
	}
	if slices.ContainsFunc(began, soldOut.Before) {
		t.Error("a buyer was told that it is sold out before all who got the units had asked")
	}
	want := productJSON{ID: id, State: "sold-out", Stock: int64(stock), Sold: int64(stock), Run: 1}
	if p := s.product(t, id); p != want {
		t.Errorf("got %+v, want %+v", p, want)
	}
}

// limit has one buyer ask for one or two units from many connections.
func (s *site) limit(t *testing.T) {
	const limit, each = 2, 8
	path := s.sell(t, "limited", 100, limit, 0)
	stop := s.watch(t, "limited")
	var units atomic.Int64
	var asking sync.WaitGroup
	gate := make(chan struct{})
	for i, l := range dial(t, s.node.url, 50) {
		random := rand.New(rand.NewPCG(s.seed, uint64(i)))
		asking.Go(func() {
			<-gate
			for n := range each {
				quantity := 1 + random.Int64N(2)
				if n == each-1 {
					quantity = 1 // what is left of the limit
				}
				a, err := l.ask("POST", path, fmt.Sprintf(`{"buyer":"greedy","quantity":%d}`, quantity))
				switch {
				case err == nil && a.status == http.StatusCreated:
					units.Add(s.keep(t, a).Quantity)
				case err != nil || !a.is(http.StatusConflict, "buyer-limit"):
					t.Errorf("%d %s %v", a.status, a.body, err)
				}
			}
		})
	}
	close(gate)
	asking.Wait()
	stop()
	if got := units.Load(); got != limit {
		t.Errorf("the buyer has %d units, the limit is %d", got, limit)
	}
	s.node.ask(http.StatusCreated, "POST", path, `{"buyer":"modest","quantity":2}`)
	if p := s.product(t, "limited"); p.Sold != 2*limit || p.Remaining != 100-2*limit {
		t.Errorf("got %+v", p)
	}
}

// verdict is what was asked of a held order, and the answer.
type verdict struct {
	action string
	answer
}

// fits reports whether the answer is true of an order that ended with this status.
func (v verdict) fits(status string) bool {
	switch {
	case v.status == http.StatusOK:
		return status == map[string]string{"confirm": "confirmed", "cancel": "cancelled"}[v.action]
	case v.action == "confirm" && v.is(http.StatusGone, "hold-expired"):
		return status == "expired"
	case v.action == "confirm":
		return v.is(http.StatusConflict, "order-not-held") && status == "cancelled"
	}
	return v.is(http.StatusConflict, "order-final") && (status == "confirmed" || status == "expired")
}

// holds has buyers confirm, cancel, do both, or leave, at once or at the moment
// the hold runs out.
func (s *site) holds(t *testing.T) {
	const stock, buyers, each = 150, 16, 30
	path := s.sell(t, "held", stock, 0, 1)
	stop := s.watch(t, "held")
	var mu sync.Mutex
	var held []orderJSON
	verdicts := make(map[string][]verdict)
	ask := func(o *orderJSON, action string, at time.Duration) {
		expires, err := time.Parse(time.RFC3339Nano, o.ExpiresAt)
		if err != nil {
			t.Errorf("held order %+v: %v", o, err)
			return
		}
		if at != 0 {
			<-time.After(time.Until(expires) + at)
		}
		a, err := request(t.Context(), "POST", s.node.url+"/v1/orders/"+o.ID+"/"+action, "")
		if err != nil {
			t.Errorf("%s: %v", action, err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		verdicts[o.ID] = append(verdicts[o.ID], verdict{action, a})
	}
	var crowd sync.WaitGroup
	for i, l := range dial(t, s.node.url, buyers) {
		random := rand.New(rand.NewPCG(s.seed, uint64(i)))
		crowd.Go(func() {
			for range each {
				a, err := l.ask("POST", path, fmt.Sprintf(`{"buyer":"b-%d","quantity":%d}`, i, 1+random.IntN(3)))
				if err != nil || a.status != http.StatusCreated {
					if err != nil || !a.is(http.StatusConflict, "sold-out") {
						t.Errorf("%d %s %v", a.status, a.body, err)
					}
					continue
				}
				o := s.keep(t, a)
				mu.Lock()
				held = append(held, o)
				mu.Unlock()
				end := time.Duration(random.IntN(5)-2) * time.Millisecond
				if end == 0 {
					end = 1
				}
				switch random.IntN(6) {
				case 0, 1:
					ask(&o, "cancel", 0)
				case 2:
					ask(&o, "confirm", 0)
				case 3:
					crowd.Go(func() { ask(&o, "confirm", end) })
				case 4:
					crowd.Go(func() { ask(&o, "confirm", end) })
					crowd.Go(func() { ask(&o, "cancel", end) })
				}
			}
		})
	}
	crowd.Wait()
	until(t, "no unit is held", func() bool { return s.product(t, "held").Held == 0 })
	stop()

	ended := make(map[string]int64)
	for _, o := range held {
		a := s.node.ask(http.StatusOK, "GET", "/v1/orders/"+o.ID, "")
		s.orders[o.ID] = a.body
		status := decode[orderJSON](t, a.body).Status
		ended[status] += o.Quantity
		for _, v := range verdicts[o.ID] {
			if !v.fits(status) {
				t.Errorf("order %s is %s, and its %s was answered %d %s", o.ID, status, v.action, v.status, v.body)
			}
		}
	}
	t.Logf("units of %d orders by how they ended: %v", len(held), ended)
	sold := ended["confirmed"]
	if p := s.product(t, "held"); p.Sold != sold || p.Remaining != stock-sold || p.Stock != stock {
		t.Errorf("%d units are confirmed, and the product is %+v", sold, p)
	}
	for range stock - sold {
		a := s.node.ask(http.StatusCreated, "POST", path, `{"buyer":"late"}`)
		id := s.keep(t, a).ID
		s.orders[id] = s.node.ask(http.StatusOK, "POST", "/v1/orders/"+id+"/confirm", "").body
	}
	s.soldOut(t, "held", stock)
}

// soldOut holds that there is nothing left of a product, and that all was sold.
func (s *site) soldOut(t *testing.T, id string, stock int64) {
	t.Helper()
	for range 3 {
		if a := s.node.ask(http.StatusConflict, "POST", "/v1/products/"+id+"/orders", ""); !a.is(http.StatusConflict, "sold-out") {
			t.Errorf("got %s", a.body)
		}
	}
	want := productJSON{ID: id, State: "sold-out", Stock: stock, Sold: stock, Run: 1}
	if p := s.product(t, id); p != want {
		t.Errorf("got %+v, want %+v", p, want)
	}
}

// returns has holds cancelled while a crowd asks in vain.
func (s *site) returns(t *testing.T) {
	const stock, back = 10, 4
	path := s.sell(t, "returned", stock, 0, 600)
	var first []string
	for range stock {
		first = append(first, s.keep(t, s.node.ask(http.StatusCreated, "POST", path, "")).ID)
	}
	stop := s.watch(t, "returned")
	var won atomic.Int64
	var mu sync.Mutex
	second := first[back:]
	var crowd sync.WaitGroup
	waiting := make(chan struct{}, 32)
	for _, l := range dial(t, s.node.url, cap(waiting)) {
		crowd.Go(func() {
			for more, end := 3, time.Now().Add(patience); more > 0; {
				if won.Load() >= back {
					more-- // there is none left, and they ask all the same
				}
				a, err := l.ask("POST", path, "")
				switch {
				case err == nil && a.status == http.StatusCreated:
					o := s.keep(t, a)
					mu.Lock()
					second = append(second, o.ID)
					mu.Unlock()
					won.Add(1)
				case err != nil || !a.is(http.StatusConflict, "sold-out") || time.Now().After(end):
					t.Errorf("%d units were bought again; %d %s %v", won.Load(), a.status, a.body, err)
					return
				}
				select {
				case waiting <- struct{}{}:
				default:
				}
			}
		})
	}
	for range cap(waiting) {
		<-waiting
	}
	for _, id := range first[:back] {
		s.node.ask(http.StatusOK, "POST", "/v1/orders/"+id+"/cancel", "")
	}
	crowd.Wait()
	stop()
	if got := won.Load(); got != back {
		t.Errorf("%d units came back, %d were bought again", back, got)
	}
	for _, id := range first[:back] {
		s.orders[id] = s.node.ask(http.StatusOK, "GET", "/v1/orders/"+id, "").body
	}
	for _, id := range second {
		s.orders[id] = s.node.ask(http.StatusOK, "POST", "/v1/orders/"+id+"/confirm", "").body
	}
	s.soldOut(t, "returned", stock)
}

// restock has an admin add and take away while buyers buy (fault list, F82).
func (s *site) restock(t *testing.T) {
	stock := int64(20)
	path := s.sell(t, "moved", int(stock), 0, 0)
	stop := s.watch(t, "moved")
	var sold atomic.Int64
	var over atomic.Bool
	var crowd sync.WaitGroup
	for i, l := range dial(t, s.node.url, 8) {
		random := rand.New(rand.NewPCG(s.seed, uint64(i)))
		crowd.Go(func() {
			for !over.Load() {
				a, err := l.ask("POST", path, fmt.Sprintf(`{"quantity":%d}`, 1+random.IntN(2)))
				switch {
				case err == nil && a.status == http.StatusCreated:
					sold.Add(s.keep(t, a).Quantity)
				case err != nil || !a.is(http.StatusConflict, "sold-out"):
					t.Errorf("%d %s %v", a.status, a.body, err)
					return
				}
			}
		})
	}
	random := rand.New(rand.NewPCG(s.seed, 1<<32))
	moves := map[int]int{}
	for range 80 {
		by := random.Int64N(60) - 30
		if by == 0 {
			continue
		}
		a, err := request(t.Context(), "POST", s.node.url+"/v1/products/moved/restock", fmt.Sprintf(`{"quantity":%d}`, by), "Authorization: Bearer "+testToken)
		switch {
		case err == nil && a.status == http.StatusOK:
			stock += by
			if p := decode[productJSON](t, a.body); p.Stock != stock {
				t.Errorf("moved by %d, and it is %s; want a stock of %d", by, a.body, stock)
			}
		case err != nil || by > 0 || !a.is(http.StatusConflict, "stock-committed"):
			t.Errorf("moved by %d: %d %s %v", by, a.status, a.body, err)
		}
		moves[a.status]++
	}
	over.Store(true)
	crowd.Wait()
	stop()
	t.Logf("moves by answer: %v", moves)
	for range stock - sold.Load() {
		s.keep(t, s.node.ask(http.StatusCreated, "POST", path, ""))
	}
	s.soldOut(t, "moved", stock)
}
