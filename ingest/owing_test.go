package ingest_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"floodgate/engine"
	"floodgate/ingest"
)

// post is a request to buy that many units, as bytes.
func post(path string, quantity int, headers ...string) string {
	body := fmt.Sprintf(`{"quantity":%d}`, quantity)
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\n%sContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		path, strings.Join(append(headers, ""), "\r\n"), len(body), body)
}

// answers reads answers from a connection, one after the other.
type answers struct {
	t *testing.T
	r *bufio.Reader
}

func answersOf(t *testing.T, c net.Conn) answers { return answers{t, bufio.NewReader(c)} }

func (a answers) next(status int) answer {
	a.t.Helper()
	response, err := http.ReadResponse(a.r, nil)
	if err != nil {
		a.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	return answer{a.t, response.StatusCode, response.Header, string(body)}.is(status, "")
}

// end requires that the server closed and sent nothing more.
func (a answers) end() {
	a.t.Helper()
	if rest, err := io.ReadAll(a.r); err != nil || len(rest) > 0 {
		a.t.Errorf("instead of the end: %q, %v", rest, err)
	}
}

func TestOwing_a_hundred_pipelined_orders_are_answered_in_order(t *testing.T) {
	n := sale(t, nil)
	n.product(engine.Settings{ID: "none"}, 0)
	n.product(engine.Settings{ID: "few"}, 1)
	c := n.dial()
	defer c.Close()
	var all strings.Builder
	for i := range 100 {
		all.WriteString(post("/buy/demo", i%7+1))
		switch i % 6 {
		case 0: // refused by the listing, without a debt
			all.WriteString(post("/buy/none", 1))
		case 1: // refused by the shard
			all.WriteString(post("/buy/few", 2))
		case 2:
			all.WriteString("GET /v1/time HTTP/1.1\r\nHost: x\r\n\r\n")
		case 3: // refused unread
			all.WriteString(post("/buy/demo", 0))
		case 4: // a replay: the ledger is read for it
			all.WriteString(post("/buy/demo", 1, "Idempotency-Key: k"))
		case 5:
			all.WriteString("HEAD /v1/products/demo HTTP/1.1\r\nHost: x\r\n\r\n")
		}
	}
	all.WriteString(post("/buy/demo", 9, "Connection: close"))
	go io.WriteString(c, all.String())
	r := answersOf(t, c)
	sold := 9
	for i := range 100 {
		quantity := i%7 + 1
		sold += quantity
		if a := r.next(201); a.text("quantity") != fmt.Sprint(quantity) {
			t.Fatalf("answer %d: %s", i, a.body)
		}
		switch i % 6 {
		case 0, 1:
			r.next(409).is(409, "sold-out")
		case 2:
			r.next(200)
		case 3:
			r.next(400).is(400, "invalid-request")
		case 4:
			if a := r.next(201); (a.header.Get("Idempotent-Replayed") == "true") != (i > 4) {
				t.Errorf("answer %d: %v", i, a.header)
			}
		case 5:
			response, err := http.ReadResponse(r.r, &http.Request{Method: "HEAD"})
			if err != nil || response.StatusCode != 200 {
				t.Fatal(err, response)
			}
		}
	}
	if a := r.next(201); a.text("quantity") != "9" {
		t.Error(a.body)
	}
	r.end()
	if got := n.counters("demo"); got[3] != int64(sold+1) {
		t.Errorf("counters %v, want %d sold", got, sold+1)
	}
}

// RFC 9112, 9.3.2: only requests with safe methods may be processed side by side.
func TestOwing_a_request_sees_what_the_one_before_it_did(t *testing.T) {
	n := sale(t, nil)
	c := n.dial()
	defer c.Close()
	r := answersOf(t, c)
	for i := 1; i <= 200; i++ {
		io.WriteString(c, post("/buy", 1)+"GET /v1/products/demo HTTP/1.1\r\nHost: x\r\n\r\n")
		r.next(201)
		if a := r.next(200); a.text("sold") != fmt.Sprint(i) {
			t.Fatalf("after %d orders: %s", i, a.body)
		}
	}
}

// RFC 9110, 7.6.1: Connection is a list, and its members have no case.
func TestOwing_a_connection_closes_when_it_is_told_to(t *testing.T) {
	n := sale(t, nil)
	for _, value := range []string{"close", "Close", "CLOSE", "close, x-hop", "x-hop,close", "x-hop , Close"} {
		for _, request := range []string{"POST /buy", "GET /v1/time"} {
			got := n.raw(request + " HTTP/1.1\r\nHost: x\r\nConnection: " + value + "\r\n\r\n")
			if !strings.HasPrefix(got, "HTTP/1.1 20") || !strings.Contains(got, "\r\nConnection: close\r\n") {
				t.Errorf("%s with %q: %q", request, value, got)
			}
		}
	}
	for _, value := range []string{"closed", "keep-alive", "x-close"} {
		c := n.dial()
		r := answersOf(t, c)
		for range 2 {
			io.WriteString(c, post("/buy", 1, "Connection: "+value))
			r.next(201)
		}
		c.Close()
	}
	// HTTP/1.0 stays only where it is asked to.
	for _, value := range []string{"keep-alive", "Keep-Alive"} {
		c := n.dial()
		r := answersOf(t, c)
		for range 2 {
			io.WriteString(c, "POST /buy HTTP/1.0\r\nConnection: "+value+"\r\n\r\n")
			if a := r.next(201); !strings.EqualFold(a.header.Get("Connection"), "keep-alive") {
				t.Errorf("%q: %v", value, a.header)
			}
		}
		c.Close()
	}
}

func TestOwing_a_client_that_has_said_all_still_gets_every_answer(t *testing.T) {
	n := sale(t, nil)
	for range 20 {
		c := n.dial()
		io.WriteString(c, strings.Repeat(post("/buy", 2), 5))
		c.(*net.TCPConn).CloseWrite()
		r := answersOf(t, c)
		for range 5 {
			r.next(201)
		}
		r.end()
		c.Close()
	}
	if got := n.counters("demo"); got[3] != 200 {
		t.Errorf("counters %v", got)
	}
}

// narrowListener accepts connections that take little at once.
type narrowListener struct{ net.Listener }

func (l narrowListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return c, c.(*net.UnixConn).SetWriteBuffer(4096)
}

// narrow lets the node listen where little fits between server and client, and
// returns who makes such clients. On a socket of this kind what fits is up to
// the server alone.
func narrow(t *testing.T, n *node) (dial func() net.Conn) {
	t.Helper()
	dir, err := os.MkdirTemp("", "narrow") // a test's own is too long for a socket's name
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- n.server.Serve(narrowListener{l}) }()
	t.Cleanup(func() { // before the node's own, which would wait for nothing then
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := n.server.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return func() net.Conn {
		t.Helper()
		c, err := net.Dial("unix", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(patience))
		return c
	}
}

// stuff sends orders, one after the other, until an answer stays owed because
// the client took none.
func stuff(t *testing.T, n *node, c net.Conn) {
	t.Helper()
	for began := time.Now(); time.Since(began) < patience; {
		sold := n.counters("demo")[3]
		if _, err := io.WriteString(c, post("/buy", 1)); err != nil {
			t.Fatal(err)
		}
		for n.counters("demo")[3] == sold {
			runtime.Gosched()
		}
		for stuck := time.Now(); ingest.Owing(n.server) > 0; runtime.Gosched() {
			if time.Since(stuck) > 100*time.Millisecond {
				return
			}
		}
	}
	t.Fatal("the answers fit")
}

func TestOwing_a_bill_that_is_not_taken_at_once_is_paid_in_full_and_in_order(t *testing.T) {
	n := start(t, nil)
	n.product(engine.Settings{ID: "demo"}, 100_000_000)
	c := narrow(t, n)()
	go func() {
		for i := range 1500 {
			if _, err := io.WriteString(c, post("/buy", i+1)+post("/buy", 0)); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	// A reader that takes a few bytes at a time: answers are cut everywhere.
	r := answers{t, bufio.NewReaderSize(iotestHalf{c}, 16)}
	for i := range 1500 {
		if a := r.next(201); a.text("quantity") != fmt.Sprint(i+1) {
			t.Fatalf("answer %d: %s", i, a.body)
		}
		r.next(400)
	}
}

// iotestHalf reads in odd pieces.
type iotestHalf struct{ io.Reader }

func (h iotestHalf) Read(p []byte) (int, error) { return h.Reader.Read(p[:(len(p)+1)/2]) }

func TestOwing_a_client_that_never_takes_its_bill_harms_nobody(t *testing.T) {
	n := start(t, func(o *ingest.Options) { o.WriteTimeout = 500 * time.Millisecond })
	n.product(engine.Settings{ID: "demo"}, 1_000_000)
	dial := narrow(t, n)
	var greedy []net.Conn
	for range 4 {
		c := dial()
		go io.WriteString(c, strings.Repeat(post("/buy", 1), 2000))
		greedy = append(greedy, c)
	}
	c := dial()
	stuff(t, n, c)
	greedy = append(greedy, c)
	for range 100 { // neither the shard nor an answering goroutine waits for them
		n.ask("POST", "/buy", "").is(201, "")
	}
	for _, c := range greedy { // they are cut off
		for {
			if _, err := io.WriteString(c, post("/buy", 1)); err != nil {
				if errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error("the server went on waiting")
				}
				break
			}
		}
	}
}

func TestOwing_a_shutdown_waits_for_no_bill_longer_than_it_may(t *testing.T) {
	n := start(t, func(o *ingest.Options) { o.WriteTimeout = time.Hour })
	n.product(engine.Settings{ID: "demo"}, 1_000_000)
	c := narrow(t, n)()
	stuff(t, n, c)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	down := make(chan error, 1)
	go func() { down <- n.server.Shutdown(ctx) }()
	select {
	case err := <-down:
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("the shutdown hangs")
	}
}

func TestOwing_a_shutdown_waits_for_no_order_longer_than_it_may(t *testing.T) {
	n := start(t, nil)
	n.product(engine.Settings{ID: "demo"}, 10)
	entered, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	n.journal.BeforeAppend = func([]engine.Event) error {
		once.Do(func() { close(entered) })
		<-release
		return nil
	}
	c := n.dial()
	defer c.Close()
	io.WriteString(c, post("/buy", 1))
	<-entered
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	down := make(chan error, 1)
	go func() { down <- n.server.Shutdown(ctx) }()
	select {
	case err := <-down:
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Error("the shutdown hangs")
	}
	close(release)
}

// Fault list, F12: a panic costs one request, wherever it comes from.
func TestOwing_a_panic_leaves_no_debt(t *testing.T) {
	t.Run("where the order is handed over", func(t *testing.T) {
		var broken atomic.Bool
		b := &brokenEngine{}
		n := sale(t, func(o *ingest.Options) {
			b.Engine = o.Engine.(*engine.Engine)
			b.do = func(l *engine.Listing, c *engine.Command) error {
				if broken.Load() {
					panic("the engine broke")
				}
				return b.Engine.Do(l, c)
			}
			o.Engine = b
		})
		broken.Store(true)
		wantRaw(t, n.raw(post("/buy", 1)), 500, "internal")
		broken.Store(false)
		n.ask("POST", "/buy", "").is(201, "")
	})
	t.Run("where the answer is made", func(t *testing.T) {
		ledger := &brokenLedger{}
		n := sale(t, func(o *ingest.Options) { ledger.Ledger, o.Ledger = o.Ledger, ledger })
		c := n.dial()
		defer c.Close()
		r := answersOf(t, c)
		keyed := post("/buy", 1, "Idempotency-Key: k")
		io.WriteString(c, keyed)
		first := r.next(201)
		ledger.order = func() error { panic("the ledger broke") }
		io.WriteString(c, keyed+post("/buy", 2))
		r.next(500).is(500, "internal")
		r.next(201)
		ledger.order = nil
		io.WriteString(c, keyed)
		if a := r.next(201); a.body != first.body {
			t.Errorf("%s, and the first was %s", a.body, first.body)
		}
	})
}

// brokenLedger is a ledger that cannot be read while order says so.
type brokenLedger struct {
	ingest.Ledger
	order func() error
}

func (l *brokenLedger) Order(id engine.OrderID) (engine.Order, bool, error) {
	if l.order != nil {
		return engine.Order{}, false, l.order()
	}
	return l.Ledger.Order(id)
}

func (l *brokenLedger) OrdersByBuyer(buyer string, limit int, before uint64) ([]engine.Order, uint64, error) {
	if l.order != nil {
		return nil, 0, l.order()
	}
	return l.Ledger.OrdersByBuyer(buyer, limit, before)
}

// A ledger that is behind will have caught up in a moment. Whoever asks is told
// to come back, on every route that reads it.
func TestOrders_a_ledger_that_cannot_be_read_is_a_503(t *testing.T) {
	ledger := &brokenLedger{}
	n := sale(t, func(o *ingest.Options) { ledger.Ledger, o.Ledger = o.Ledger, ledger })
	bought := n.ask("POST", "/buy", `{"buyer":"u-1"}`, "Idempotency-Key: k").is(201, "")
	order := bought.header.Get("Location")
	ledger.order = func() error { return errors.New("journal is behind") }
	n.ask("GET", order, "").is(503, "unavailable")
	n.ask("POST", order+"/confirm", "").is(503, "unavailable")
	n.ask("POST", order+"/cancel", "").is(503, "unavailable")
	n.admin("POST", order+"/refund", "").is(503, "unavailable")
	n.ask("GET", "/v1/orders?buyer=u-1", "").is(503, "unavailable")
	n.ask("POST", "/buy", `{"buyer":"u-1"}`, "Idempotency-Key: k").is(503, "unavailable")
	ledger.order = nil
	if a := n.ask("POST", "/buy", `{"buyer":"u-1"}`, "Idempotency-Key: k").is(201, ""); a.body != bought.body {
		t.Errorf("%s, and the first was %s", a.body, bought.body)
	}
	if got := n.counters("demo"); got[3] != 1 {
		t.Errorf("counters %v", got)
	}
}

// Fault list, F44: a client that goes away leaves an order or none, and nothing else.
func TestOwing_clients_that_go_away_leave_nothing_behind(t *testing.T) {
	n := start(t, nil)
	n.product(engine.Settings{ID: "demo"}, 1_000_000)
	n.ask("POST", "/buy", "").is(201, "")
	n.client.CloseIdleConnections()
	base := runtime.NumGoroutine()
	request := post("/buy", 1)
	for i := range 1000 {
		c := n.dial()
		switch i % 4 {
		case 0: // in the middle of the body
			io.WriteString(c, request[:len(request)-3])
		case 1: // at once
			io.WriteString(c, request)
		case 2: // with more than one debt
			io.WriteString(c, strings.Repeat(request, 10))
		case 3: // in the middle of an answer
			io.WriteString(c, strings.Repeat(request, 10))
			c.Read(make([]byte, 100))
		}
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
	n.ask("POST", "/buy", "").is(201, "")
	n.client.CloseIdleConnections()
	for deadline := time.Now().Add(patience); ; runtime.Gosched() {
		// fasthttp keeps some idle workers for the connections to come.
		if v := n.counters("demo"); runtime.NumGoroutine() <= base+64 && v[0] == v[1]+v[2]+v[3] && connections(n) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines of %d, %d connections, counters %v", runtime.NumGoroutine(), base, connections(n), n.counters("demo"))
		}
	}
}

func connections(n *node) int64 { return ingest.Connections(n.server) }

func TestOwing_a_connection_is_taken_over_only_when_nothing_is_owed(t *testing.T) {
	n := sale(t, func(o *ingest.Options) {
		o.Mounts = []ingest.Mount{{Path: "/echo", Methods: []string{"GET"}, Handle: func(ctx *fasthttp.RequestCtx) {
			ctx.SetStatusCode(fasthttp.StatusSwitchingProtocols)
			ctx.Hijack(func(c net.Conn) { io.Copy(c, c) })
		}}}
	})
	for range 50 {
		c := n.dial()
		io.WriteString(c, post("/buy", 1)+"GET /echo HTTP/1.1\r\nHost: x\r\n\r\nsent along")
		c.(*net.TCPConn).CloseWrite()
		r := answersOf(t, c)
		r.next(201)
		if response, err := http.ReadResponse(r.r, nil); err != nil || response.StatusCode != 101 {
			t.Fatal(err, response)
		}
		if rest, err := io.ReadAll(r.r); err != nil || string(rest) != "sent along" {
			t.Fatalf("%q %v", rest, err)
		}
		c.Close()
	}
}

// Timeouts of less than the slack that deadlines have are kept as well.
func TestConnection_a_busy_client_is_not_cut_off(t *testing.T) {
	const limit = 150 * time.Millisecond
	n := start(t, func(o *ingest.Options) { o.ReadTimeout, o.WriteTimeout, o.IdleTimeout = limit, limit, limit })
	n.product(engine.Settings{ID: "demo"}, 1_000_000)
	c := n.dial()
	defer c.Close()
	r := answersOf(t, c)
	for began := time.Now(); time.Since(began) < 4*limit; {
		io.WriteString(c, post("/buy", 1))
		r.next(201)
		io.WriteString(c, "GET /v1/time HTTP/1.1\r\nHost: x\r\n\r\n")
		r.next(200)
	}
}

// Ensure that an owed 201, which is put together by hand, has the bytes that
// fasthttp gives the same answer: the retry's, but for what only a retry has.
func TestOwing_an_answer_made_by_hand_is_the_one_fasthttp_makes(t *testing.T) {
	n := sale(t, nil)
	first := post("/buy", 2, "Idempotency-Key: k")
	both := n.raw(first + post("/buy", 2, "Idempotency-Key: k", "Connection: close"))
	at := strings.LastIndex(both, "HTTP/1.1 201 Created")
	if at <= 0 {
		t.Fatalf("not two orders: %q", both)
	}
	plain := func(answer string) string {
		var lines []string
		for line := range strings.SplitSeq(answer, "\r\n") {
			if line != "Idempotent-Replayed: true" && line != "Connection: close" && !strings.HasPrefix(line, "Date: ") {
				lines = append(lines, line)
			}
		}
		return strings.Join(lines, "\n")
	}
	owed, retried := plain(both[:at]), plain(both[at:])
	if owed != retried {
		t.Errorf("owed\n%s\nretried\n%s", owed, retried)
	}
	if !strings.Contains(both[:at], "\r\nDate: ") || !strings.Contains(both[at:], "Idempotent-Replayed: true") {
		t.Errorf("%q", both)
	}
}
