package ingest_test

import (
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"floodgate/engine"
	"floodgate/ingest"
)

func TestOrders_confirm_and_cancel(t *testing.T) {
	n := start(t, nil)
	n.product(engine.Settings{ID: "demo", HoldSeconds: 60}, 10)
	buy := func() string { return n.ask("POST", "/buy", `{"buyer":"u-1"}`).is(201, "").header.Get("Location") }

	confirmed := buy()
	for range 2 { // twice is the same as once
		if a := n.ask("POST", confirmed+"/confirm", "").is(200, ""); a.text("status") != "confirmed" || a.text("expires_at") != "" {
			t.Error(a.body)
		}
	}
	if a := n.ask("POST", confirmed+"/cancel", "{}").is(409, "order-final"); a.text("order_status") != "confirmed" {
		t.Error(a.body)
	}

	cancelled := buy()
	for range 2 {
		if a := n.ask("POST", cancelled+"/cancel", "").is(200, ""); a.text("status") != "cancelled" {
			t.Error(a.body)
		}
	}
	n.ask("POST", cancelled+"/confirm", "").is(409, "order-not-held")

	expired := buy()
	n.now.Add(60_000)
	n.ask("POST", expired+"/confirm", "").is(410, "hold-expired")
	n.ask("POST", expired+"/cancel", "").is(409, "order-final")
	if a := n.ask("GET", expired, "").is(200, ""); a.text("status") != "expired" {
		t.Error(a.body)
	}
	if got := n.counters("demo"); got != [4]int64{10, 9, 0, 1} {
		t.Errorf("counters %v", got)
	}
	n.ask("POST", confirmed+"/confirm", `{"force":true}`).is(400, "invalid-request").names("force")
}

func TestOrders_an_unknown_order_is_a_404(t *testing.T) {
	n := start(t, nil)
	for _, id := range []string{"01890000-0000-7000-8000-000000000001", "x", "01890000-0000-7000-8000-00000000000g"} {
		n.ask("GET", "/v1/orders/"+id, "").is(404, "unknown-order")
		n.ask("POST", "/v1/orders/"+id+"/confirm", "").is(404, "unknown-order")
		n.ask("POST", "/v1/orders/"+id+"/cancel", "").is(404, "unknown-order")
		n.admin("POST", "/v1/orders/"+id+"/refund", "").is(404, "unknown-order")
	}
}

func TestOrders_list_pages_newest_first(t *testing.T) {
	n := start(t, nil)
	n.product(engine.Settings{ID: "demo"}, 100)
	var placed []string
	for range 5 {
		placed = append(placed, n.ask("POST", "/buy", `{"buyer":"u-1"}`).is(201, "").text("id"))
		n.ask("POST", "/buy", `{"buyer":"u-2"}`).is(201, "")
	}
	var listed []string
	for after := ""; ; {
		a := n.ask("GET", "/v1/orders?buyer=u-1&limit=2"+after, "").is(200, "").json()
		for _, o := range a["orders"].([]any) {
			listed = append(listed, o.(map[string]any)["id"].(string))
		}
		next, more := a["next"].(string)
		if !more {
			break
		}
		after = "&after=" + next
	}
	for i, id := range listed {
		if id != placed[len(placed)-1-i] {
			t.Errorf("listed %v, placed %v", listed, placed)
		}
	}
	if len(listed) != 5 {
		t.Errorf("listed %d orders, want 5", len(listed))
	}
	if a := n.ask("GET", "/v1/orders?buyer=nobody", "").is(200, ""); a.body != `{"orders":[],"next":null}` {
		t.Error(a.body)
	}
	for query, field := range map[string]string{
		"": "buyer", "?buyer=": "buyer", "?buyer=a%20b": "buyer", "?buyer=a&buyer=b": "buyer",
		"?buyer=a&limit=0": "limit", "?buyer=a&limit=101": "limit", "?buyer=a&limit=x": "limit", "?buyer=a&limit=-1": "limit",
		"?buyer=a&after=0": "after", "?buyer=a&after=x": "after", "?buyer=a&after=18446744073709551616": "after",
	} {
		n.ask("GET", "/v1/orders"+query, "").is(400, "invalid-request").names(field)
	}
}

func TestOrders_S8_another_buyers_order_looks_like_none(t *testing.T) {
	n := start(t, func(o *ingest.Options) { o.Auth = closedAuth(t) })
	n.product(engine.Settings{ID: "demo", HoldSeconds: 60}, 10)
	u1, u2 := "Authorization: "+tokenOf(t, "u-1", ""), "Authorization: "+tokenOf(t, "u-2", "")
	admins := []string{"Authorization: " + tokenOf(t, "boss", "admin"), "Authorization: Bearer " + adminToken}
	order := n.ask("POST", "/buy", "", u1).is(201, "").header.Get("Location")
	unknown := "/v1/orders/01890000-0000-7000-8000-000000000001"

	before := n.counters("demo")
	for _, do := range []struct{ method, tail string }{{"GET", ""}, {"POST", "/confirm"}, {"POST", "/cancel"}} {
		n.ask(do.method, order+do.tail, "").is(401, "unauthorized")
		theirs := n.ask(do.method, order+do.tail, "", u2).is(404, "unknown-order")
		none := n.ask(do.method, unknown+do.tail, "", u2).is(404, "unknown-order")
		if theirs.body != none.body {
			t.Errorf("another buyer's order is told from none: %s and %s", theirs.body, none.body)
		}
	}
	n.ask("POST", order+"/refund", "", u1).is(403, "forbidden")
	n.ask("GET", "/v1/orders?buyer=u-1", "", u2).is(403, "forbidden")
	n.ask("GET", "/v1/orders", "").is(401, "unauthorized")
	if after := n.counters("demo"); after != before {
		t.Errorf("counters went from %v to %v", before, after)
	}

	n.ask("GET", order, "", u1).is(200, "")
	if a := n.ask("GET", "/v1/orders", "", u1).is(200, ""); !strings.Contains(a.body, order[len("/v1/orders/"):]) {
		t.Error(a.body)
	}
	for _, admin := range admins {
		n.ask("GET", order, "", admin).is(200, "")
		if a := n.ask("GET", "/v1/orders?buyer=u-1", "", admin).is(200, ""); !strings.Contains(a.body, order[len("/v1/orders/"):]) {
			t.Error(a.body)
		}
	}
	n.ask("GET", "/v1/orders", "", admins[1]).is(400, "invalid-request").names("buyer")
	n.ask("POST", order+"/confirm", "", u1).is(200, "")
}

func TestOrders_refund_is_once_and_returns_stock_if_asked(t *testing.T) {
	n := start(t, nil)
	n.product(engine.Settings{ID: "demo"}, 10)
	n.product(engine.Settings{ID: "held", HoldSeconds: 60}, 10)
	kept := n.ask("POST", "/buy/demo", "").is(201, "").header.Get("Location")
	back := n.ask("POST", "/buy/demo", "").is(201, "").header.Get("Location")
	held := n.ask("POST", "/buy/held", "").is(201, "").header.Get("Location")
	n.ask("POST", back+"/refund", "").is(401, "unauthorized")
	n.admin("POST", back+"/refund", `{"restock":1}`).is(400, "invalid-request").names("restock")
	for range 2 {
		if a := n.admin("POST", back+"/refund", `{"restock":true}`).is(200, ""); a.text("status") != "refunded" {
			t.Error(a.body)
		}
	}
	n.admin("POST", kept+"/refund", "").is(200, "")
	if a := n.admin("POST", held+"/refund", "").is(409, "order-not-confirmed"); a.text("order_status") != "held" {
		t.Error(a.body)
	}
	if got := n.counters("demo"); got != [4]int64{10, 9, 0, 1} {
		t.Errorf("counters %v", got)
	}
}

// Fault list, S30: the audit tells what was done, and not what was asked for twice.
func TestOrders_S30_a_refund_is_audited_once(t *testing.T) {
	var log lockedBuffer
	n := sale(t, func(o *ingest.Options) { o.Logger = zerolog.New(&log) })
	order := n.ask("POST", "/buy", "").is(201, "").header.Get("Location")
	n.admin("POST", order+"/refund", "").is(200, "")
	n.admin("POST", order+"/refund", `{"restock":true}`).is(200, "")
	if got := n.counters("demo"); got != [4]int64{1000, 999, 0, 1} {
		t.Errorf("counters %v", got)
	}
	if lines := strings.Count(log.String(), `"order refunded"`); lines != 1 || strings.Contains(log.String(), `"restock":true`) {
		t.Errorf("%d audit lines:\n%s", lines, log.String())
	}
}
