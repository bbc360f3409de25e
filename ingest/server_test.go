package ingest_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/valyala/fasthttp"

	"floodgate/engine"
	"floodgate/ingest"
)

func TestServer_keep_alive_and_pipelining_answer_in_order(t *testing.T) {
	n := sale(t, nil)
	c := n.dial()
	defer c.Close()
	r := bufio.NewReader(c)
	read := func(want int) string {
		t.Helper()
		response, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(response.Body)
		if err != nil || response.StatusCode != want {
			t.Fatal(response.StatusCode, err, string(b))
		}
		return string(b)
	}
	buy := func(quantity int) string {
		body := fmt.Sprintf(`{"quantity":%d}`, quantity)
		return fmt.Sprintf("POST /buy HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	}
	for i := 1; i <= 3; i++ { // one after the other
		io.WriteString(c, buy(i))
		if b := read(201); !strings.Contains(b, fmt.Sprintf(`"quantity":%d`, i)) {
			t.Error(b)
		}
	}
	// All at once, more than one read takes, with refusals and a chunked body between.
	var all strings.Builder
	for i := 1; i <= 60; i++ {
		all.WriteString(buy(i%3 + 1))
		all.WriteString("GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")
		all.WriteString("POST /buy HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"qua\r\n9\r\nntity\":1}\r\n0\r\n\r\n")
	}
	go io.WriteString(c, all.String())
	for i := 1; i <= 60; i++ {
		if b := read(201); !strings.Contains(b, fmt.Sprintf(`"quantity":%d`, i%3+1)) {
			t.Error(b)
		}
		read(404)
		read(201)
	}
	// In pieces, cut everywhere.
	request := buy(2)
	for cut := 1; cut < len(request); cut += 7 {
		io.WriteString(c, request[:cut])
		io.WriteString(c, request[cut:])
		read(201)
	}
	// A client that asks first.
	io.WriteString(c, "POST /buy HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n")
	read(100)
	io.WriteString(c, "{}")
	read(201)
	if v := n.counters("demo"); v[1]+v[3] != 1000 {
		t.Errorf("counters %v", v)
	}
}

func TestServer_HTTP_1_0_is_answered_and_closed(t *testing.T) {
	n := sale(t, nil)
	wantRaw(t, n.raw("POST /buy HTTP/1.0\r\n\r\n"), 201, "")
}

func TestServer_a_panic_costs_one_request(t *testing.T) {
	var log lockedBuffer
	n := sale(t, func(o *ingest.Options) {
		o.Logger = zerolog.New(&log)
		o.Mounts = []ingest.Mount{{Path: "/boom", Methods: []string{"GET"}, Handle: func(ctx *fasthttp.RequestCtx) {
			ctx.WriteString("half an answer")
			panic("the mount broke")
		}}}
	})
	a := n.ask("GET", "/boom", "").is(500, "internal")
	if strings.Contains(a.body, "mount broke") || strings.Contains(a.body, "half") {
		t.Errorf("the client is told too much: %s", a.body)
	}
	if got := log.String(); !strings.Contains(got, "the mount broke") || !strings.Contains(got, "server_test.go") {
		t.Errorf("the log does not tell where: %s", got)
	}
	n.ask("POST", "/buy", "").is(201, "")
}

func TestServer_S21_S22_the_log_holds_no_secret_and_no_control_character(t *testing.T) {
	var log lockedBuffer
	broken := &brokenEngine{do: func(*engine.Listing, *engine.Command) error { return errors.New("broken") }}
	n := sale(t, func(o *ingest.Options) {
		broken.Engine = o.Engine.(*engine.Engine)
		o.Engine, o.Logger = broken, zerolog.New(&log)
		o.Mounts = []ingest.Mount{{Path: "/deep/", Methods: []string{"GET"}, Handle: func(*fasthttp.RequestCtx) { panic("x\r\n\x1b[31m") }}}
	})
	secret := "s3cr3t-that-must-not-be-written"
	n.ask("POST", "/buy?token="+secret, `{"buyer":"`+secret+`"}`, "Authorization: Bearer "+secret, "Idempotency-Key: "+secret, "Cookie: "+secret, "User-Agent: "+secret).is(504, "outcome-unknown")
	n.ask("GET", "/deep/"+strings.Repeat("a/", 1500)+"b?"+secret, "").is(500, "internal")
	got := log.String()
	if strings.Contains(got, secret) {
		t.Errorf("the log holds a secret: %s", got)
	}
	lines := strings.Split(strings.TrimSuffix(got, "\n"), "\n")
	if len(lines) != 3 { // the 504, the panic and its 500
		t.Errorf("%d lines: %s", len(lines), got)
	}
	for _, line := range lines {
		if strings.ContainsAny(line, "\r\x1b") || !strings.HasPrefix(line, "{") {
			t.Errorf("not one JSON line: %q", line)
		}
		if strings.Contains(line, strings.Repeat("a/", 600)) {
			t.Error("a path is not cut short")
		}
	}
}

// lockedBuffer takes log lines from several goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestServer_one_connection_too_many_is_told_so(t *testing.T) {
	n := sale(t, func(o *ingest.Options) { o.MaxConnections = 2 })
	var inside []net.Conn
	for range 2 {
		c := n.dial()
		inside = append(inside, c)
		io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
		if response, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || response.StatusCode != 200 {
			t.Fatal(err)
		}
	}
	got := n.raw("")
	wantRaw(t, got, 503, "too-many-connections")
	if !strings.Contains(got, "\r\nRetry-After: ") {
		t.Errorf("no Retry-After: %q", got)
	}
	inside[0].Close()
	for {
		got := n.raw("GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		if strings.HasPrefix(got, "HTTP/1.1 200 ") {
			break
		}
	}
	inside[1].Close()
}

// scarce is a listener that fails before it works, as where descriptors run out.
type scarce struct {
	net.Listener
	mu     sync.Mutex
	errors []error
}

func (s *scarce) Accept() (net.Conn, error) {
	s.mu.Lock()
	if len(s.errors) > 0 {
		err := s.errors[0]
		s.errors = s.errors[1:]
		s.mu.Unlock()
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: err}
	}
	s.mu.Unlock()
	return s.Listener.Accept()
}

func TestServer_F08_goes_on_when_descriptors_run_out(t *testing.T) {
	n := sale(t, nil)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() {
		served <- n.server.Serve(&scarce{Listener: l, errors: []error{syscall.EMFILE, syscall.ENFILE, syscall.ECONNABORTED}})
	}()
	n.addr = l.Addr().String()
	n.ask("POST", "/buy", "").is(201, "")
	if err := n.server.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestServer_shutdown_answers_what_is_in_flight(t *testing.T) {
	n := start(t, nil)
	n.product(engine.Settings{ID: "demo"}, 10)
	entered, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	n.journal.BeforeAppend = func([]engine.Event) error {
		once.Do(func() {
			close(entered)
			<-release
		})
		return nil
	}
	c, silent, idle := n.dial(), n.dial(), n.dial()
	defer c.Close()
	defer silent.Close()
	defer idle.Close()
	io.WriteString(idle, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
	if response, err := http.ReadResponse(bufio.NewReader(idle), nil); err != nil || response.StatusCode != 200 {
		t.Fatal(err)
	}
	io.WriteString(c, "POST /buy HTTP/1.1\r\nHost: x\r\n\r\n")
	<-entered
	down := make(chan error, 1)
	go func() { down <- n.server.Shutdown(context.Background()) }()
	// Once nobody gets in any more the shutdown has begun.
	for {
		probe, err := net.Dial("tcp4", n.addr)
		if err != nil {
			break
		}
		probe.Close()
	}
	close(release)
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	wantRaw(t, string(b), 201, "")
	for _, other := range []net.Conn{silent, idle} {
		if b, err := io.ReadAll(other); err != nil || len(b) != 0 {
			t.Errorf("%v %q", err, b)
		}
	}
	if err := <-down; err != nil {
		t.Error(err)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := n.server.Serve(l); !errors.Is(err, ingest.ErrClosed) {
		t.Errorf("serving after the end: %v", err)
	}
}

func TestServer_options_name_every_fault(t *testing.T) {
	_, err := ingest.New(ingest.Options{
		DefaultProduct: "..", MaxConnections: -1, ReadTimeout: -1,
		Mounts: []ingest.Mount{{Path: "x"}, {Path: "/buy", Methods: []string{"GET"}, Handle: func(*fasthttp.RequestCtx) {}}},
	})
	for _, field := range []string{"Engine", "Ledger", "Auth", "DefaultProduct", "MaxConnections", "ReadTimeout", "Mounts[0]", "Mounts[1]"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s is not named: %v", field, err)
		}
	}
}

func TestServer_mounts_are_routes_of_other_packages(t *testing.T) {
	echo := func(ctx *fasthttp.RequestCtx) { fmt.Fprintf(ctx, "%s %s", ctx.Method(), ctx.Path()) }
	n := sale(t, func(o *ingest.Options) {
		o.Mounts = []ingest.Mount{
			{Path: "/", Methods: []string{"GET"}, Handle: echo},
			{Path: "/dashboard", Methods: []string{"GET"}, Admin: true, Handle: echo},
			{Path: "/v1/attacks", Methods: []string{"POST"}, Admin: true, Handle: echo},
			{Path: "/v1/attacks/", Methods: []string{"GET"}, Handle: echo},
		}
	})
	if a := n.ask("GET", "/", "").is(200, ""); a.body != "GET /" {
		t.Error(a.body)
	}
	n.ask("GET", "/dashboard", "").is(401, "unauthorized")
	n.admin("GET", "/dashboard", "").is(200, "")
	n.admin("POST", "/v1/attacks", "{}").is(200, "")
	n.admin("GET", "/v1/attacks", "").is(405, "method-not-allowed")
	if a := n.ask("GET", "/v1/attacks/a-1", "").is(200, ""); a.body != "GET /v1/attacks/a-1" {
		t.Error(a.body)
	}
	for _, path := range []string{"/v1/attacks/", "/v1/attacks/../x", "/v1/attacks/%61", "/v1/attacks//", "/dashboard/"} {
		wantRaw(t, n.raw("GET "+path+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), 404, "not-found")
	}
}

func TestServer_a_connection_can_be_taken_over(t *testing.T) {
	n := sale(t, func(o *ingest.Options) {
		o.Mounts = []ingest.Mount{{Path: "/echo", Methods: []string{"GET"}, Handle: func(ctx *fasthttp.RequestCtx) {
			ctx.SetStatusCode(fasthttp.StatusSwitchingProtocols)
			ctx.Hijack(func(c net.Conn) { io.Copy(c, c) })
		}}}
	})
	c := n.dial()
	defer c.Close()
	io.WriteString(c, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\nsent along,")
	r := bufio.NewReader(c)
	if response, err := http.ReadResponse(r, nil); err != nil || response.StatusCode != 101 {
		t.Fatal(err)
	}
	io.WriteString(c, "sent later")
	c.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(r); err != nil || string(got) != "sent along,sent later" {
		t.Errorf("%q %v", got, err)
	}
}

func TestHealth_says_alive_and_ready_apart(t *testing.T) {
	checks := []ingest.Check{{Name: "journal", Ready: true, State: "open"}}
	n := sale(t, func(o *ingest.Options) { o.Ready = func() []ingest.Check { return checks } })
	n.ask("GET", "/healthz", "").is(200, "")
	n.ask("GET", "/livez", "").is(200, "")
	if a := n.ask("GET", "/readyz", "").is(200, ""); a.text("status") != "ready" || !strings.Contains(a.text("checks"), `"name":"journal"`) {
		t.Error(a.body)
	}
	checks = []ingest.Check{{Name: "journal", State: "failed", Detail: "The disk is full."}}
	if a := n.ask("GET", "/readyz", "").is(503, "not-ready"); !strings.Contains(a.text("checks"), "The disk is full.") {
		t.Error(a.body)
	}
	n.ask("GET", "/healthz", "").is(200, "")
	if a := n.ask("GET", "/v1/time", "").is(200, ""); a.body != `{"now":"2030-01-02T03:04:05.000Z"}` {
		t.Error(a.body)
	}
}

func TestStartPage_runs_no_script(t *testing.T) {
	a := sale(t, nil).ask("GET", "/", "").is(200, "")
	policy := a.header.Get("Content-Security-Policy")
	if !strings.HasPrefix(policy, "default-src 'none'; style-src 'sha256-") || strings.Contains(policy, "unsafe") || a.header.Get("X-Content-Type-Options") != "nosniff" {
		t.Error(a.header)
	}
	if strings.Contains(a.body, "<script") || strings.Contains(a.body, "style=") || !strings.Contains(a.body, "curl") {
		t.Error(a.body)
	}
	if strings.Contains(a.body, "127.0.0.1:3000") || !strings.Contains(a.body, "curl -i -X POST http://127.0.0.1:") {
		t.Error("the page does not name the address it was asked at")
	}
}

func TestMetrics_S23_count_and_never_grow_with_what_clients_choose(t *testing.T) {
	own := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "floodgate_of_the_test"}, func() float64 { return 7 })
	n := sale(t, func(o *ingest.Options) { o.Collectors = []prometheus.Collector{own} })
	n.ask("POST", "/buy", `{"quantity":3}`, "Idempotency-Key: k").is(201, "")
	n.ask("POST", "/buy", `{"quantity":3}`, "Idempotency-Key: k").is(201, "")
	n.ask("POST", "/buy/nothing", "").is(404, "unknown-product")
	n.ask("GET", "/nothing", "").is(404, "not-found")
	n.raw("nonsense\r\n\r\n")
	first := n.ask("GET", "/metrics", "").is(200, "").body
	for _, line := range []string{
		"floodgate_orders_accepted_total 1", "floodgate_units_accepted_total 3", "floodgate_orders_replayed_total 1",
		`floodgate_http_requests_total{route="/v1/products/{product}/orders",status="201"} 2`,
		`floodgate_http_requests_total{route="none",status="404"} 1`, `floodgate_http_requests_total{route="malformed",status="400"} 1`,
		`floodgate_http_problems_total{problem="unknown-product"} 1`, "floodgate_order_latency_seconds_count 2",
		"floodgate_of_the_test 7", "floodgate_journal_failed 0", "go_goroutines ",
	} {
		if !strings.Contains(first, line) {
			t.Errorf("%s is missing in %s", line, first)
		}
	}
	series := func(text string) int {
		return strings.Count(text, "\nfloodgate_")
	}
	n.ask("GET", "/metrics", "").is(200, "")
	before := series(n.ask("GET", "/metrics", "").is(200, "").body)
	c := n.dial()
	defer c.Close()
	r := bufio.NewReader(c)
	for i := range 1000 {
		fmt.Fprintf(c, "POST /buy/p-%d HTTP/1.1\r\nHost: h-%d\r\nUser-Agent: a-%d\r\n\r\n", i, i, i)
		response, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, response.Body)
	}
	if after := series(n.ask("GET", "/metrics", "").is(200, "").body); after != before {
		t.Errorf("series went from %d to %d", before, after)
	}
}

func TestStats_tell_what_the_dashboard_draws(t *testing.T) {
	n := sale(t, nil)
	n.ask("POST", "/buy", "").is(201, "")
	n.ask("POST", "/buy/nothing", "").is(404, "unknown-product")
	a := n.admin("GET", "/v1/stats", "").is(200, "")
	m := a.json()
	totals := m["totals"].(map[string]any)
	if fmt.Sprintf("%v %v %v", totals["accepted"], totals["refused"], totals["failed"]) != "1 1 0" || len(m["shards"].([]any)) != 2 {
		t.Error(a.body)
	}
	for _, name := range []string{"now", "per_second", "latency_ms", "problems", "journal", "connections"} {
		if m[name] == nil {
			t.Errorf("%s is missing: %s", name, a.body)
		}
	}
}
