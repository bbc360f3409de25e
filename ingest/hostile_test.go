package ingest_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"floodgate/engine"
	"floodgate/ingest"
)

// unmoved runs what a hostile client does and requires that no product's
// counters moved.
func unmoved(t *testing.T, n *node, f func()) {
	t.Helper()
	before := n.counters("demo")
	f()
	if after := n.counters("demo"); after != before {
		t.Errorf("counters went from %v to %v", before, after)
	}
}

func sale(t *testing.T, change func(*ingest.Options)) *node {
	t.Helper()
	n := start(t, change)
	n.product(engine.Settings{ID: "demo"}, 1000)
	return n
}

func TestHostile_S5_authorization(t *testing.T) {
	n := sale(t, func(o *ingest.Options) { o.Auth = closedAuth(t) })
	good := tokenOf(t, "u-1", "")
	unmoved(t, n, func() {
		n.ask("POST", "/buy", "", "Authorization: "+good, "Authorization: "+good).is(400, "invalid-request").names("Authorization")
		n.ask("POST", "/buy?token="+good[len("Bearer "):], "").is(401, "unauthorized")
		n.ask("POST", "/buy", "", "Authorization: Bearer "+strings.Repeat(".", 7000)).is(401, "unauthorized")
		wantRaw(t, n.raw("POST /buy HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+strings.Repeat("a", 9<<10)+"\r\n\r\n"), 431, "headers-too-large")
		wantRaw(t, n.raw("POST /buy HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+strings.Repeat(".", 100_000)+"\r\n\r\n"), 431, "headers-too-large")
	})
}

func TestHostile_S9_a_path_means_what_its_bytes_say(t *testing.T) {
	n := sale(t, nil)
	for _, path := range []string{
		"/v1/products/../../v1/stats", "/v1/products/../stats", "/v1/products/..", "/v1/products/.", "/v1/products/../orders",
		"/v1/products/%2e%2e/orders", "/v1/products/demo/%2e%2e/demo/pause", "//v1/products/demo/orders", "/v1//products/demo/orders",
		"/v1/products//orders", "/v1/products/demo//orders", "/v1/products/demo;x=1/orders", "/v1/products/demo/orders;x=1",
		"/v1/products/demo%00/orders", "/v1/products/demo%2forders", "/v1/products/demo%2Fpause", "/v1/products/d%65mo/orders",
		"/V1/products/demo/orders", "/v1/Products/demo/orders", "/v1/products/demo/Orders", "/v1/products/demo/PAUSE", "/BUY/demo", "/Buy",
		"/buy/", "/buy/demo/", "/buy/..", "/buy//demo", "/v1/products/demo/orders/", "/v1/products/", "/v1/orders/", "/v1/", "/v1",
		"/v1/products/" + strings.Repeat("x", 65), "/v1/products/" + strings.Repeat("x", 65) + "/orders", "/healthz/", "/Metrics", "/admin", "/.env",
	} {
		unmoved(t, n, func() {
			for _, method := range []string{"GET", "POST", "PUT"} {
				wantRaw(t, n.raw(method+" "+path+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer "+adminToken+"\r\n\r\n"), 404, "not-found")
			}
		})
	}
	unmoved(t, n, func() {
		for _, header := range []string{"X-HTTP-Method-Override: PUT", "X-Method-Override: PUT", "X-Original-URL: /v1/stats"} {
			n.ask("POST", "/v1/products/demo", `{"stock":1}`, header).is(405, "method-not-allowed")
		}
	})
}

func TestHostile_S10_S11_S12_bodies(t *testing.T) {
	n := sale(t, nil)
	for body, field := range map[string]string{
		`{"buyer_id":"x"}`: "buyer_id", `{"price_minor":0}`: "price_minor", `{"state":"open"}`: "state", `{"role":"admin"}`: "role",
		`{"quantity":0}`: "quantity", `{"quantity":-1}`: "quantity", `{"quantity":1.5}`: "quantity", `{"quantity":1e3}`: "quantity",
		`{"quantity":"1"}`: "quantity", `{"quantity":2147483648}`: "quantity", `{"quantity":9223372036854775808}`: "quantity",
		`{"quantity":1` + strings.Repeat("0", 30) + `}`: "quantity", `{"quantity":null}`: "quantity", `{"quantity":1,"quantity":2}`: "quantity",
		`{"quantity":1000001}`: "quantity", `{"quantity":NaN}`: "quantity",
		`{"buyer":"a","buyer":"b"}`: "buyer", `{"buyer":"` + strings.Repeat("x", 15_000) + `"}`: "buyer", "{\"buyer\":\"\xff\"}": "body",
		`{"a":` + strings.Repeat("[", 10_000) + strings.Repeat("]", 5_000): "a", `{}{}`: "body", "\ufeff{}": "body", `[]`: "body", ` `: "body",
	} {
		unmoved(t, n, func() { n.ask("POST", "/buy", body).is(400, "invalid-request").names(field) })
	}
	unmoved(t, n, func() {
		n.ask("POST", "/buy", `{"buyer":"`+strings.Repeat("x", 1<<20)+`"}`).is(413, "body-too-large")
		for _, contentType := range []string{"text/plain", "application/x-www-form-urlencoded", "application/jsonx", "application/json-seq", "multipart/form-data; boundary=x", ""} {
			n.ask("POST", "/buy", `{}`, "Content-Type: "+contentType).is(415, "unsupported-media-type").names("Content-Type")
		}
		n.ask("POST", "/buy", `{}`, "Content-Encoding: gzip").is(415, "unsupported-media-type").names("Content-Encoding")
		wantRaw(t, n.raw("POST /buy HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"), 415, "unsupported-media-type")
		wantRaw(t, n.raw("POST /buy HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}"), 400, "invalid-request")
	})
	for _, contentType := range []string{"application/json", "Application/JSON", "application/json; charset=utf-8", "application/json;charset=x"} {
		n.ask("POST", "/buy", `{}`, "Content-Type: "+contentType).is(201, "")
	}
}

func TestHostile_S13_sizes(t *testing.T) {
	n := sale(t, nil)
	unmoved(t, n, func() {
		n.ask("POST", "/buy", strings.Repeat(" ", 16<<10+1)).is(413, "body-too-large")
		n.ask("POST", "/buy", strings.Repeat(" ", 16<<10)).is(400, "invalid-request")
		chunked := "POST /buy HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
		wantRaw(t, n.raw(chunked+"4001\r\n"+strings.Repeat(" ", 0x4001)+"\r\n0\r\n\r\n"), 413, "body-too-large")
		wantRaw(t, n.raw("POST /buy HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000000\r\n\r\n"), 413, "body-too-large")
		wantRaw(t, n.raw("GET /v1/time HTTP/1.1\r\nHost: x\r\nX-Long: "+strings.Repeat("x", 8<<10)+"\r\n\r\n"), 431, "headers-too-large")
		wantRaw(t, n.raw("GET /v1/time HTTP/1.1\r\nHost: x\r\n"+strings.Repeat("A: b\r\n", 10_000)+"\r\n"), 431, "headers-too-large")
		wantRaw(t, n.raw("GET /"+strings.Repeat("a", 100_000)+" HTTP/1.1\r\nHost: x\r\n\r\n"), 414, "uri-too-long")
		wantRaw(t, n.raw("GET /"+strings.Repeat("a", 5_000)+" HTTP/1.1\r\nHost: x\r\n\r\n"), 414, "uri-too-long")
	})
	wantRaw(t, n.raw("GET /v1/time HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Long: "+strings.Repeat("x", 7<<10)+"\r\n\r\n"), 200, "")
}

func TestHostile_S14_a_request_has_one_meaning(t *testing.T) {
	n := sale(t, nil)
	inner := "POST /buy HTTP/1.1\r\nHost: x\r\n\r\n"
	for name, c := range map[string]struct {
		request string
		status  int
		problem string
	}{
		"length and chunked":       {"POST /buy HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + inner, 400, "invalid-request"},
		"chunked and length":       {"POST /buy HTTP/1.1\r\nHost: x\r\ntransfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n" + inner, 400, "invalid-request"},
		"identity and length":      {"POST /buy HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\nContent-Length: 0\r\n\r\n" + inner, 400, "invalid-request"},
		"two lengths":              {"POST /buy HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n" + inner, 400, "invalid-request"},
		"two equal lengths":        {"POST /buy HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n" + inner, 400, "invalid-request"},
		"a signed length":          {"POST /buy HTTP/1.1\r\nHost: x\r\nContent-Length: +0\r\n\r\n" + inner, 400, "invalid-request"},
		"a negative length":        {"POST /buy HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n" + inner, 400, "invalid-request"},
		"a huge length":            {"POST /buy HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000000000000000\r\n\r\n" + inner, 400, "invalid-request"},
		"another coding":           {"POST /buy HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + inner, 400, "invalid-request"},
		"a space before the colon": {"POST /buy HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + inner, 400, "invalid-request"},
		"two codings":              {"POST /buy HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + inner, 400, "invalid-request"},
		"chunked in 1.0":           {"POST /buy HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + inner, 400, "invalid-request"},
		"a folded header":          {"POST /buy HTTP/1.1\r\nHost: x\r\nX-A: 1\r\n  2\r\n\r\n" + inner, 400, "invalid-request"},
		"a folded coding":          {"POST /buy HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + inner, 400, "invalid-request"},
		"a bare line feed":         {"POST /buy HTTP/1.1\r\nHost: x\nX-A: 1\r\n\r\n" + inner, 400, "invalid-request"},
		"no host":                  {"POST /buy HTTP/1.1\r\nX-A: 1\r\n\r\n" + inner, 400, "invalid-request"},
		"two hosts":                {"POST /buy HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n" + inner, 400, "invalid-request"},
		"a NUL in a header":        {"POST /buy HTTP/1.1\r\nHost: x\r\nX-A: a\x00b\r\n\r\n" + inner, 400, "invalid-request"},
		"a NUL in the path":        {"POST /buy\x00 HTTP/1.1\r\nHost: x\r\n\r\n" + inner, 400, "invalid-request"},
		"a space in the path":      {"POST /buy /demo HTTP/1.1\r\nHost: x\r\n\r\n" + inner, 400, "invalid-request"},
		"version 9.9":              {"POST /buy HTTP/9.9\r\nHost: x\r\n\r\n" + inner, 505, "version-not-supported"},
		"version 2.0":              {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + inner, 505, "version-not-supported"},
		"version 1.2":              {"POST /buy HTTP/1.2\r\nHost: x\r\n\r\n" + inner, 505, "version-not-supported"},
		"no version":               {"POST /buy\r\nHost: x\r\n\r\n" + inner, 400, "invalid-request"},
		"another protocol":         {"POST /buy ICY/1.1\r\nHost: x\r\n\r\n" + inner, 400, "invalid-request"},
		"a chunk too long":         {"POST /buy HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\n{}\r\n0\r\n\r\n" + inner, 400, "invalid-request"},
		"a chunk without end":      {"POST /buy HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}XX0\r\n\r\n" + inner, 400, "invalid-request"},
		"not HTTP":                 {"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400, "invalid-request"},
	} {
		t.Run(name, func(t *testing.T) {
			unmoved(t, n, func() { wantRaw(t, n.raw(c.request), c.status, c.problem) })
		})
	}
}

var statusLine = regexp.MustCompile(`HTTP/1\.1 [0-9]{3} `)

// wantRaw requires exactly one response, which ends the connection, of that
// status and, where it is a refusal, of that problem.
func wantRaw(t *testing.T, got string, status int, problem string) {
	t.Helper()
	if !strings.HasPrefix(got, fmt.Sprintf("HTTP/1.1 %d ", status)) {
		t.Errorf("want %d %s, got %.300q", status, problem, got)
		return
	}
	if responses := len(statusLine.FindAllString(got, -1)); responses != 1 {
		t.Errorf("%d responses: %q", responses, got)
	}
	if !strings.Contains(got, "\r\nConnection: close\r\n") {
		t.Errorf("the connection is not said to end: %q", got)
	}
	if problem != "" && !strings.Contains(got, `"type":"urn:floodgate:problem:`+problem+`"`) {
		t.Errorf("want problem %s, got %q", problem, got)
	}
}

func TestHostile_S15_slowloris_is_cut_off(t *testing.T) {
	n := sale(t, func(o *ingest.Options) { o.ReadTimeout, o.IdleTimeout = 100*time.Millisecond, 100*time.Millisecond })
	head := "POST /buy HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n"
	for name, c := range map[string]struct {
		sent   string
		answer string
	}{
		"says nothing":                      {"", ""},
		"half a request line":               {"POST /b", "HTTP/1.1 408 "},
		"headers that do not end":           {"POST /buy HTTP/1.1\r\nHost: x\r\nX-A: 1\r\n", "HTTP/1.1 408 "},
		"a body that does not end":          {head + "{", "HTTP/1.1 408 "},
		"a chunk that does not end":         {"POST /buy HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{", "HTTP/1.1 408 "},
		"nothing more after a good request": {"GET /v1/time HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 "},
	} {
		t.Run(name, func(t *testing.T) {
			unmoved(t, n, func() {
				// The read returns because the server closes.
				if got := n.raw(c.sent); !strings.HasPrefix(got, c.answer) || c.answer == "" && got != "" {
					t.Errorf("got %q, want %q", got, c.answer)
				}
			})
		})
	}
	t.Run("never reads", func(t *testing.T) {
		n := sale(t, func(o *ingest.Options) { o.WriteTimeout = 100 * time.Millisecond })
		c := n.dial()
		defer c.Close()
		for { // ends because the server closes
			if _, err := io.WriteString(c, strings.Repeat("GET /openapi.yaml HTTP/1.1\r\nHost: x\r\n\r\n", 100)); err != nil {
				if errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error("the server went on waiting")
				}
				return
			}
		}
	})
	t.Run("a byte at a time does not help", func(t *testing.T) {
		c := n.dial()
		defer c.Close()
		closed := make(chan struct{})
		go func() {
			io.Copy(io.Discard, c)
			close(closed)
		}()
		unmoved(t, n, func() {
			for i := 0; ; i++ {
				select {
				case <-closed:
					return
				default:
				}
				if _, err := c.Write([]byte("POST /buy HTTP/1.1\r\nHost: xxxxxxxxxxxxxxxxxxxxx"[i%20 : i%20+1])); err != nil {
					return
				}
			}
		})
	})
}

func TestHostile_S19_idempotency_keys(t *testing.T) {
	n := sale(t, nil)
	unmoved(t, n, func() {
		for _, key := range []string{"", strings.Repeat("k", 65), strings.Repeat("k", 300), "ü", "a\tb", "a\x80"} {
			got := n.raw("POST /buy HTTP/1.1\r\nHost: x\r\nConnection: close\r\nIdempotency-Key: " + key + "\r\n\r\n")
			wantRaw(t, got, 400, "invalid-request")
			if !strings.Contains(got, `"field":"Idempotency-Key"`) {
				t.Errorf("%q: %q", key, got)
			}
		}
		for _, key := range []string{"a\x1fb", "a\x00b", "a\x7fb"} { // no header may hold these
			wantRaw(t, n.raw("POST /buy HTTP/1.1\r\nHost: x\r\nConnection: close\r\nIdempotency-Key: "+key+"\r\n\r\n"), 400, "invalid-request")
		}
		n.ask("POST", "/buy", "", "Idempotency-Key: a", "Idempotency-Key: a").is(400, "invalid-request").names("Idempotency-Key")
	})
	for _, key := range []string{"a", strings.Repeat("k", 64), `~!@#$%^&*()_+{}|:"<>? '`, "a b"} {
		n.ask("POST", "/buy", "", "Idempotency-Key: "+key).is(201, "")
		n.ask("POST", "/buy", "", "idempotency-key: "+key).is(201, "")
	}
	if got := n.counters("demo"); got != [4]int64{1000, 996, 0, 4} {
		t.Errorf("counters %v", got)
	}
}

func TestHostile_S20_methods(t *testing.T) {
	n := sale(t, nil)
	for path, allowed := range ingest.RouteTable() {
		path = strings.NewReplacer("{product}", "demo", "{id}", "01890000-0000-7000-8000-000000000001").Replace(path)
		unmoved(t, n, func() {
			if a := n.ask("OPTIONS", path, ""); a.status != 204 || a.header.Get("Allow") != allowed || a.body != "" {
				t.Errorf("OPTIONS %s: %d %v", path, a.status, a.header)
			}
			for _, method := range []string{"GET", "POST", "PUT", "DELETE", "PATCH", "TRACE", "BREW", "post"} {
				if strings.Contains(allowed, method) {
					continue
				}
				got := n.raw(method + " " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
				wantRaw(t, got, 405, "method-not-allowed")
				if !strings.Contains(got, "\r\nAllow: "+allowed+"\r\n") {
					t.Errorf("%s %s: %q", method, path, got)
				}
			}
			if strings.Contains(allowed, "HEAD") {
				get, head := n.ask("GET", path, ""), n.ask("HEAD", path, "")
				if head.status != get.status || head.body != "" || head.header.Get("Content-Type") != get.header.Get("Content-Type") {
					t.Errorf("HEAD %s: %d %v, GET %d", path, head.status, head.header, get.status)
				}
			}
		})
	}
	wantRaw(t, n.raw("CONNECT demo:443 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), 404, "not-found")
	wantRaw(t, n.raw("GET http://elsewhere/v1/time HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), 200, "")
	wantRaw(t, n.raw("GET http://elsewhere/v1/../v1/time HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), 404, "not-found")
}

func TestHostile_F44_a_client_that_leaves_buys_all_or_nothing(t *testing.T) {
	n := sale(t, nil)
	unmoved(t, n, func() {
		for range 200 { // leaves in the middle of the body
			c := n.dial()
			fmt.Fprint(c, "POST /buy HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n{\"quantity\":")
			c.Close()
		}
		n.ask("GET", "/healthz", "").is(200, "")
	})
	for range 200 { // leaves right after sending
		c := n.dial()
		fmt.Fprint(c, "POST /buy HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n{\"quantity\":3}")
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
	n.ask("POST", "/buy", `{"quantity":3}`).is(201, "")
	if got := n.counters("demo"); got[0] != 1000 || got[1]+got[3] != 1000 || got[3]%3 != 0 || got[3] == 0 {
		t.Errorf("counters %v", got)
	}
}
