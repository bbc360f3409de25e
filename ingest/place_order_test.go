package ingest_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"floodgate/engine"
	"floodgate/ingest"
)

func TestPlaceOrder_answers_201_with_the_order_on_every_route(t *testing.T) {
	n := start(t, nil)
	n.product(engine.Settings{ID: "demo", Price: 4900}, 100)
	for _, path := range []string{"/v1/products/demo/orders", "/buy/demo", "/reserve/demo", "/buy", "/reserve", "/buy/demo?from=mail"} {
		a := n.ask("POST", path, `{"buyer":"u-1","quantity":2}`).is(201, "")
		id := a.text("id")
		want := `{"id":"` + id + `","product":"demo","buyer":"u-1","quantity":2,"status":"confirmed","price_minor":4900,"currency":"EUR","accepted_at":"2030-01-02T03:04:05.000Z","settled":false}`
		if a.body != want || a.header.Get("Location") != "/v1/orders/"+id || a.header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %s with %v, want %s", path, a.body, a.header, want)
		}
		if server := a.header.Get("Server"); server != "" {
			t.Errorf("the server says who it is: %s", server)
		}
		if got := n.ask("GET", a.header.Get("Location"), "").is(200, ""); got.body != a.body {
			t.Errorf("reading the order gives %s, want %s", got.body, a.body)
		}
	}
	if got := n.counters("demo"); got != [4]int64{100, 88, 0, 12} {
		t.Errorf("counters %v", got)
	}
}

func TestPlaceOrder_without_a_body_is_one_unit_for_nobody(t *testing.T) {
	n := start(t, nil)
	n.product(engine.Settings{ID: "demo", LimitPerBuyer: 1}, 10)
	for _, body := range []string{"", "{}", ""} {
		if a := n.ask("POST", "/buy", body).is(201, ""); a.text("buyer") != "" || a.text("quantity") != "1" {
			t.Error(a.body)
		}
	}
}

func TestPlaceOrder_holds_where_the_product_does(t *testing.T) {
	n := start(t, nil)
	n.product(engine.Settings{ID: "demo", HoldSeconds: 60}, 10)
	a := n.ask("POST", "/buy", "").is(201, "")
	if a.text("status") != "held" || a.text("expires_at") != "2030-01-02T03:05:05.000Z" {
		t.Error(a.body)
	}
}

func TestPlaceOrder_sells_the_default_product(t *testing.T) {
	t.Run("the only one there is", func(t *testing.T) {
		n := start(t, nil)
		n.product(engine.Settings{ID: "lamp"}, 10)
		if a := n.ask("POST", "/buy", "").is(201, ""); a.text("product") != "lamp" {
			t.Error(a.body)
		}
		n.admin("PUT", "/v1/products/demo", `{"stock":5}`).is(201, "")
		if a := n.ask("POST", "/buy", "").is(201, ""); a.text("product") != "demo" {
			t.Error(a.body)
		}
	})
	t.Run("the configured one", func(t *testing.T) {
		n := start(t, func(o *ingest.Options) { o.DefaultProduct = "chair" })
		n.product(engine.Settings{ID: "lamp"}, 10)
		n.ask("POST", "/buy", "").is(404, "unknown-product")
		n.product(engine.Settings{ID: "chair"}, 10)
		if a := n.ask("POST", "/reserve", "").is(201, ""); a.text("product") != "chair" {
			t.Error(a.body)
		}
	})
	t.Run("none", func(t *testing.T) {
		start(t, nil).ask("POST", "/buy", "").is(404, "unknown-product")
	})
}

func TestPlaceOrder_refusals_say_what_a_client_needs(t *testing.T) {
	n := start(t, nil)
	n.product(engine.Settings{ID: "demo"}, 3)
	n.product(engine.Settings{ID: "limited", LimitPerBuyer: 2}, 10)
	n.product(engine.Settings{ID: "soon", StartsAt: n.now.Load() + 89_500}, 10)
	n.product(engine.Settings{ID: "past", EndsAt: n.now.Load() - 1}, 10)
	n.product(engine.Settings{ID: "paused"}, 10)
	n.admin("POST", "/v1/products/paused/pause", "").is(200, "")

	n.ask("POST", "/buy/nothing", "").is(404, "unknown-product")
	if a := n.ask("POST", "/buy/demo", `{"quantity":4}`).is(409, "sold-out"); a.text("remaining") != "3" {
		t.Error(a.body)
	}
	n.ask("POST", "/buy/demo", `{"quantity":3}`).is(201, "")
	for range 2 { // by the shard or by the listing, it is the same answer
		if a := n.ask("POST", "/buy/demo", "").is(409, "sold-out"); a.text("remaining") != "0" {
			t.Error(a.body)
		}
	}
	if a := n.ask("POST", "/buy/demo", "", "Idempotency-Key: k").is(409, "sold-out"); a.text("remaining") != "0" {
		t.Error(a.body)
	}
	n.ask("POST", "/buy/limited", `{"buyer":"u-1"}`).is(201, "")
	if a := n.ask("POST", "/buy/limited", `{"buyer":"u-1","quantity":2}`).is(409, "buyer-limit"); a.text("limit") != "2" || a.text("units") != "1" {
		t.Error(a.body)
	}
	for _, key := range []string{"", "k"} {
		headers := []string{"Idempotency-Key: " + key}
		if key == "" {
			headers = nil
		}
		a := n.ask("POST", "/buy/soon", "", headers...).is(409, "sale-not-started")
		if a.text("starts_at") != "2030-01-02T03:05:34.500Z" || a.header.Get("Retry-After") != "90" {
			t.Error(a.body, a.header)
		}
		n.ask("POST", "/buy/past", "", headers...).is(410, "sale-ended")
		n.ask("POST", "/buy/paused", "", headers...).is(503, "product-paused")
	}
}

func TestPlaceOrder_answers_a_retry_with_the_same_bytes(t *testing.T) {
	for name, hold := range map[string]int64{"confirmed": 0, "held": 60} {
		t.Run(name, func(t *testing.T) {
			n := start(t, nil)
			n.product(engine.Settings{ID: "demo", HoldSeconds: hold, Price: 5}, 2)
			body := `{"buyer":"u-1","quantity":2}`
			first := n.ask("POST", "/buy", body, "Idempotency-Key: my key 1").is(201, "")
			if first.header.Get("Idempotent-Replayed") != "" {
				t.Error("the first answer says it is a replay")
			}
			n.now.Add(1000)
			if hold > 0 {
				n.ask("POST", first.header.Get("Location")+"/confirm", "").is(200, "")
			}
			for range 3 { // sold out by now, and confirmed where it was held
				again := n.ask("POST", "/v1/products/demo/orders", body, "Idempotency-Key: my key 1").is(201, "")
				if again.body != first.body || again.header.Get("Location") != first.header.Get("Location") {
					t.Errorf("the retry is answered %s, the first was %s", again.body, first.body)
				}
				if again.header.Get("Idempotent-Replayed") != "true" {
					t.Error("the retry's answer does not say so")
				}
			}
			// F43: the same key for something else.
			n.ask("POST", "/buy", `{"buyer":"u-1","quantity":1}`, "Idempotency-Key: my key 1").is(422, "idempotency-mismatch")
			// S19: another buyer's key is another key.
			n.ask("POST", "/buy", `{"buyer":"u-2","quantity":2}`, "Idempotency-Key: my key 1").is(409, "sold-out")
			if got := n.counters("demo"); got != [4]int64{2, 0, 0, 2} {
				t.Errorf("counters %v", got)
			}
		})
	}
}

func TestPlaceOrder_tells_what_is_refused_from_what_is_unknown(t *testing.T) {
	broken := &brokenEngine{}
	n := start(t, func(o *ingest.Options) {
		broken.Engine = o.Engine.(*engine.Engine)
		o.Engine = broken
	})
	n.product(engine.Settings{ID: "demo"}, 10)
	for _, c := range []struct {
		err     error
		status  int
		problem string
	}{
		{engine.ErrOverloaded, 503, "overloaded"},
		{engine.ErrStalled, 503, "unavailable"},
		{engine.ErrClosed, 503, "unavailable"},
		{engine.ErrUnknown, 504, "outcome-unknown"},
		{engine.ErrJournalFailed, 504, "outcome-unknown"},
		{errors.New("anything"), 504, "outcome-unknown"},
	} {
		broken.do = func(*engine.Listing, *engine.Command) error { return c.err }
		n.ask("POST", "/buy", "").is(c.status, c.problem)
	}
	broken.do = nil
	broken.failed = make(chan struct{})
	close(broken.failed)
	n.ask("POST", "/buy", "").is(503, "unavailable")
	n.admin("POST", "/v1/products/demo/pause", "").is(503, "unavailable")
	n.admin("PUT", "/v1/products/lamp", `{"stock":1}`).is(503, "unavailable")
}

func TestPlaceOrder_with_tokens_sells_to_whom_the_token_names(t *testing.T) {
	n := start(t, func(o *ingest.Options) { o.Auth = closedAuth(t) })
	n.product(engine.Settings{ID: "demo"}, 10)
	u1 := "Authorization: " + tokenOf(t, "u-1", "")
	if a := n.ask("POST", "/buy", "").is(401, "unauthorized"); !strings.HasPrefix(a.header.Get("WWW-Authenticate"), "Bearer") {
		t.Error(a.header)
	}
	n.ask("POST", "/buy?access_token="+strings.TrimPrefix(tokenOf(t, "u-1", ""), "Bearer "), "").is(401, "unauthorized")
	n.ask("POST", "/buy", "", "Authorization: Bearer a.b.c").is(401, "unauthorized")
	n.ask("POST", "/buy", `{"buyer":"u-2"}`, u1).is(403, "forbidden").names("buyer")
	if got := n.counters("demo"); got != [4]int64{10, 10, 0, 0} {
		t.Errorf("counters %v", got)
	}
	for _, body := range []string{"", `{}`, `{"buyer":"u-1"}`} {
		if a := n.ask("POST", "/buy", body, u1).is(201, ""); a.text("buyer") != "u-1" {
			t.Error(a.body)
		}
	}
}

func TestPlaceOrder_a_stalled_journal_is_answered_and_nothing_is_lost(t *testing.T) {
	n := start(t, nil)
	n.product(engine.Settings{ID: "demo"}, 10)
	entered, release := make(chan struct{}), make(chan struct{})
	first := true
	n.journal.BeforeAppend = func([]engine.Event) error {
		if first {
			first = false
			close(entered)
			<-release
		}
		return nil
	}
	done := make(chan answer)
	go func() { done <- n.ask("POST", "/buy", "", "Idempotency-Key: k") }()
	<-entered
	a := <-done // F22: an answer comes although the disk gives none
	a.is(504, "outcome-unknown")
	close(release)
	deadline := time.Now().Add(patience)
	for n.counters("demo")[1] != 9 {
		if time.Now().After(deadline) {
			t.Fatal("the order was never stored")
		}
		n.ask("GET", "/healthz", "").is(200, "")
	}
	// F41: the retry is told what was decided.
	n.ask("POST", "/buy", "", "Idempotency-Key: k").is(201, "")
	if got := n.counters("demo"); got != [4]int64{10, 9, 0, 1} {
		t.Errorf("counters %v", got)
	}
}
