package ingest_test

import (
	"strings"
	"testing"

	"floodgate/engine"
	"floodgate/ingest"
)

func TestPutProduct_makes_and_changes(t *testing.T) {
	n := start(t, nil)
	n.ask("PUT", "/v1/products/lamp", `{"stock":10}`).is(401, "unauthorized")
	a := n.admin("PUT", "/v1/products/lamp", `{"name":"Lämp \"1\"","price_minor":4900,"currency":"CHF","stock":10,"limit_per_buyer":2,"hold_seconds":30,"starts_at":"2030-01-02T03:04:05Z","ends_at":"2030-01-03T04:04:05.5+01:00"}`).is(201, "")
	want := `{"id":"lamp","name":"Lämp \"1\"","price_minor":4900,"currency":"CHF","stock":10,"remaining":10,"held":0,"sold":0,"limit_per_buyer":2,"hold_seconds":30,"starts_at":"2030-01-02T03:04:05.000Z","ends_at":"2030-01-03T03:04:05.500Z","state":"open","run":1}`
	if a.body != want || a.header.Get("Location") != "/v1/products/lamp" {
		t.Errorf("%s, want %s", a.body, want)
	}
	if got := n.ask("GET", "/v1/products/lamp", "").is(200, ""); got.body != want {
		t.Error(got.body)
	}
	if got := n.ask("GET", "/v1/products", "").is(200, ""); got.body != `{"products":[`+want+`]}` {
		t.Error(got.body)
	}
	// What is absent stays; null takes a time away.
	changed := n.admin("PUT", "/v1/products/lamp", `{"price_minor":1,"ends_at":null}`).is(200, "")
	want = strings.Replace(strings.Replace(want, "4900", "1", 1), `,"ends_at":"2030-01-03T03:04:05.500Z"`, "", 1)
	if changed.body != want {
		t.Errorf("%s, want %s", changed.body, want)
	}
	n.admin("PUT", "/v1/products/lamp", `{}`).is(200, "")
	n.admin("PUT", "/v1/products/lamp", `{"stock":10}`).is(200, "")
	if a := n.admin("PUT", "/v1/products/lamp", `{"stock":11}`).is(409, "product-exists"); a.text("stock") != "10" {
		t.Error(a.body)
	}
	n.admin("PUT", "/v1/products/lamp", `{"ends_at":"2030-01-02T03:04:05Z"}`).is(400, "invalid-request").names("ends_at")
	if a := n.admin("PUT", "/v1/products/plain", `{"stock":0}`).is(201, ""); a.text("name") != "plain" || a.text("currency") != "EUR" || a.text("state") != "sold-out" {
		t.Error(a.body)
	}
}

func TestPutProduct_names_every_fault_at_once(t *testing.T) {
	n := start(t, nil)
	a := n.admin("PUT", "/v1/products/lamp", `{"name":"","price_minor":-1,"currency":"eur","limit_per_buyer":1.5,"hold_seconds":"1","starts_at":7,"ends_at":"soon","colour":"red","price_minor":2}`)
	a.is(400, "invalid-request").names("name")
	for _, field := range []string{"name", "price_minor", "currency", "limit_per_buyer", "hold_seconds", "starts_at", "ends_at", "colour"} {
		if !strings.Contains(a.text("detail"), field) || !strings.Contains(a.text("faults"), `"field":"`+field+`"`) {
			t.Errorf("%s is not named: %s", field, a.body)
		}
	}
	for body, field := range map[string]string{
		``: "stock", `{}`: "stock", `{"stock":-1}`: "stock", `{"stock":1000000001}`: "stock", `{"stock":null}`: "stock",
		`{"stock":1,"remaining":1}`: "remaining", `{"stock":1,"name":"a\u0000b"}`: "name",
		`{"stock":1,"name":"` + strings.Repeat("x", 257) + `"}`: "name", `{"stock":1,"currency":"EURO"}`: "currency",
		`{"stock":1,"price_minor":1000000000001}`: "price_minor", `{"stock":1,"hold_seconds":2592001}`: "hold_seconds",
		`{"stock":1,"starts_at":"1969-12-31T23:59:59Z"}`: "starts_at", `{"stock":1,"ends_at":"2030-02-30T00:00:00Z"}`: "ends_at",
		`{"stock":{}}`: "stock", `[1]`: "body", `{"stock":1}{}`: "body",
	} {
		n.admin("PUT", "/v1/products/lamp", body).is(400, "invalid-request").names(field)
	}
	n.ask("GET", "/v1/products/lamp", "").is(404, "unknown-product")
	n.ask("PUT", "/v1/products/lamp", `{"stock":1}`, "Authorization: Bearer "+adminToken, "Content-Type: text/plain").is(415, "unsupported-media-type").names("Content-Type")
}

func TestAdmin_restock_pause_resume_reset(t *testing.T) {
	n := start(t, nil)
	n.product(engine.Settings{ID: "demo"}, 2)
	n.ask("POST", "/buy", `{"quantity":2}`).is(201, "")
	n.ask("POST", "/buy", "").is(409, "sold-out")
	post := func(tail, body string) answer { return n.admin("POST", "/v1/products/demo/"+tail, body) }

	if a := post("restock", `{"quantity":3}`).is(200, ""); a.text("stock") != "5" || a.text("remaining") != "3" || a.text("state") != "open" {
		t.Error(a.body)
	}
	n.ask("POST", "/buy", "").is(201, "")
	if a := post("restock", `{"quantity":-3}`).is(409, "stock-committed"); a.text("remaining") != "2" {
		t.Error(a.body)
	}
	post("restock", `{"quantity":-2}`).is(200, "")
	post("restock", `{"quantity":999999998}`).is(409, "stock-exceeded")
	for _, body := range []string{``, `{}`, `{"quantity":0}`, `{"quantity":1.5}`, `{"quantity":null}`, `{"quantity":1000000001}`} {
		post("restock", body).is(400, "invalid-request").names("quantity")
	}
	for range 2 {
		if a := post("pause", "").is(200, ""); a.text("state") != "paused" {
			t.Error(a.body)
		}
	}
	n.ask("POST", "/buy", "").is(503, "product-paused")
	post("resume", `{"now":true}`).is(400, "invalid-request").names("now")
	for range 2 {
		post("resume", "{}").is(200, "")
	}
	post("reset", "").is(400, "invalid-request").names("stock")
	if a := post("reset", `{"stock":7}`).is(200, ""); a.text("stock") != "7" || a.text("run") != "2" || a.text("sold") != "0" {
		t.Error(a.body)
	}
	n.admin("POST", "/v1/products/nothing/pause", "").is(404, "unknown-product")
	for _, tail := range []string{"restock", "pause", "resume", "reset"} {
		before := n.counters("demo")
		n.ask("POST", "/v1/products/demo/"+tail, `{"quantity":1}`).is(401, "unauthorized")
		n.ask("POST", "/v1/products/demo/"+tail, `{"stock":1}`, "Authorization: Bearer wrong").is(401, "unauthorized")
		if after := n.counters("demo"); after != before {
			t.Errorf("%s without a token: counters went from %v to %v", tail, before, after)
		}
	}
}

func TestAdmin_S9_a_buyers_token_is_not_an_admins(t *testing.T) {
	n := start(t, func(o *ingest.Options) { o.Auth = closedAuth(t) })
	n.product(engine.Settings{ID: "demo"}, 5)
	buyer, admin := "Authorization: "+tokenOf(t, "u-1", ""), "Authorization: "+tokenOf(t, "boss", "admin")
	for _, r := range []struct{ method, path, body string }{
		{"PUT", "/v1/products/demo", `{"price_minor":1}`}, {"POST", "/v1/products/demo/restock", `{"quantity":1}`},
		{"POST", "/v1/products/demo/pause", ``}, {"POST", "/v1/products/demo/resume", ``},
		{"POST", "/v1/products/demo/reset", `{"stock":5}`}, {"GET", "/v1/stats", ``},
	} {
		n.ask(r.method, r.path, r.body, buyer).is(403, "forbidden")
		n.ask(r.method, r.path, r.body).is(401, "unauthorized")
		n.ask(r.method, r.path, r.body, admin).is(200, "")
	}
}
