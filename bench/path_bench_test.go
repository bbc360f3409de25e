package bench_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"floodgate/bench/drive"
	"floodgate/engine"
	"floodgate/ingest"
	"floodgate/wal"
)

// pathCase is one answer of the whole path.
type pathCase struct {
	name   string
	stock  func(n int64) int64
	limit  int64
	keyed  bool
	status int
	noSync bool
	bare   bool // fasthttp alone
}

// BenchmarkPath measures an order over HTTP on loopback, client and server in
// this process: request, decision, fsync, answer. Client and server share the
// cores and the CPU figure is of both; what one request costs the server alone
// is what the command in bench/path measures, with processes of their own. This
// one is for comparing two commits, and for its allocations: the client makes
// none.
func BenchmarkPath(b *testing.B) {
	enough := func(n int64) int64 { return n }
	none := func(int64) int64 { return 0 }
	for _, c := range []pathCase{
		{name: "bare", bare: true, stock: none, status: fasthttp.StatusCreated},
		{name: "sold-out", stock: none, status: fasthttp.StatusConflict},
		{name: "accepted", stock: enough, status: fasthttp.StatusCreated},
		{name: "accepted-limit", stock: enough, limit: 2, status: fasthttp.StatusCreated},
		{name: "accepted-keyed", stock: enough, keyed: true, status: fasthttp.StatusCreated},
		{name: "accepted-nosync", stock: enough, noSync: true, status: fasthttp.StatusCreated},
	} {
		b.Run(fmt.Sprintf("answer=%s/connections=128", c.name), func(b *testing.B) { benchmarkPath(b, c, 128) })
	}
}

func benchmarkPath(b *testing.B, c pathCase, connections int) {
	connections = min(connections, b.N)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	stock := c.stock(int64(b.N))
	books := func() error { return nil }
	if c.bare {
		startBare(b, l)
	} else {
		books = startNode(b, l, c, stock)
	}
	clients := make([]*client, connections)
	for i := range clients {
		if clients[i], err = dial(l.Addr().String()); err != nil {
			b.Fatal(err)
		}
		defer clients[i].conn.Close()
	}
	b.ReportAllocs()
	b.ResetTimer()
	r, err := drive.Run(connections, b.N, func(p, i int) error {
		status, err := clients[p].buy(i, c.keyed)
		if err == nil && status != c.status {
			err = fmt.Errorf("request %d: status %d, want %d", i, status, c.status)
		}
		return err
	})
	b.StopTimer()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/r.Elapsed.Seconds(), "requests/s")
	b.ReportMetric(float64(r.CPU.Nanoseconds())/float64(b.N), "cpu-ns/request")
	b.ReportMetric(float64(r.P50.Microseconds()), "p50-us")
	b.ReportMetric(float64(r.P99.Microseconds()), "p99-us")
	if err := books(); err != nil {
		b.Fatal(err)
	}
}

// startBare serves a constant answer.
func startBare(b *testing.B, l net.Listener) {
	body := []byte(`{"id":"019abe2c-7d1f-7c3a-8f00-00000000002a","product":"sale","buyer":"u-0000001","quantity":1,"status":"confirmed","price_minor":1999,"currency":"EUR","accepted_at":"2026-01-01T12:00:00.000Z","settled":false}`)
	s := &fasthttp.Server{Handler: func(ctx *fasthttp.RequestCtx) {
		ctx.SetStatusCode(fasthttp.StatusCreated)
		ctx.SetContentType("application/json")
		ctx.SetBody(body)
	}}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	b.Cleanup(func() {
		if err := errors.Join(s.Shutdown(), <-served); err != nil {
			b.Error(err)
		}
	})
}

// startNode serves a product with the stock. The function it returns checks the
// books: what the engine says and what is in the journal, which is read again.
func startNode(b *testing.B, l net.Listener, c pathCase, stock int64) (books func() error) {
	journal, err := wal.Open(wal.Options{Dir: b.TempDir(), NoSync: c.noSync, Fatal: func(err error) { panic(err) }})
	if err != nil {
		b.Fatal(err)
	}
	e, err := engine.New(engine.Options{IDs: journal.IDs(), Snapshots: journal, StallAfter: time.Minute}, journal, &engine.Recovered{})
	if err != nil {
		b.Fatal(err)
	}
	settings := &engine.Settings{ID: productID, Name: "Sale", Currency: "EUR", Price: 1999, LimitPerBuyer: c.limit}
	if a, err := e.Create(settings, stock); err != nil || a.Outcome != engine.Accepted {
		b.Fatal(a.Outcome, err)
	}
	auth, err := ingest.NewAuth(ingest.AuthOptions{AdminToken: "bench-admin-token"})
	if err != nil {
		b.Fatal(err)
	}
	s, err := ingest.New(ingest.Options{Engine: e, Ledger: journal, Auth: auth})
	if err != nil {
		b.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	b.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		err := s.Shutdown(ctx)
		if err := errors.Join(err, <-served, e.Close(), journal.Close()); err != nil {
			b.Error(err)
		}
	})
	return func() error {
		found, err := engine.Recover(journal)
		if err != nil {
			return err
		}
		v, kept := e.Listing([]byte(productID)).View(), found.Products[productID].View()
		if v.Sold != stock || v.Remaining != 0 || kept.Sold != stock || kept.Remaining != 0 {
			return fmt.Errorf("books: of %d units the engine sold %d and has %d left, the journal has %d sold and %d left",
				stock, v.Sold, v.Remaining, kept.Sold, kept.Remaining)
		}
		return nil
	}
}

// client is one connection. It writes each request and reads each answer without
// an allocation.
type client struct {
	conn    net.Conn
	in      *bufio.Reader
	request []byte
	body    []byte
}

func dial(addr string) (*client, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return &client{conn: conn, in: bufio.NewReaderSize(conn, 4096)}, nil
}

// buy asks for one unit for buyer i and returns the answer's status.
func (c *client) buy(i int, keyed bool) (status int, err error) {
	c.body = append(strconv.AppendInt(append(c.body[:0], `{"buyer":"u-`...), int64(i), 10), `","quantity":1}`...)
	r := append(c.request[:0], "POST /v1/products/"+productID+"/orders HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"...)
	if keyed {
		r = append(strconv.AppendInt(append(r, "Idempotency-Key: k-"...), int64(i), 10), "\r\n"...)
	}
	r = append(strconv.AppendInt(append(r, "Content-Length: "...), int64(len(c.body)), 10), "\r\n\r\n"...)
	c.request = append(r, c.body...)
	if _, err := c.conn.Write(c.request); err != nil {
		return 0, err
	}
	return c.answer()
}

var contentLength = []byte("Content-Length: ")

func (c *client) answer() (status int, err error) {
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if len(line) < len("HTTP/1.1 200") {
		return 0, fmt.Errorf("answer begins with %q", line)
	}
	status = number(line[len("HTTP/1.1 "):])
	length := 0
	for {
		if line, err = c.in.ReadSlice('\n'); err != nil {
			return 0, err
		}
		if len(line) == len("\r\n") {
			break
		}
		if value, ok := bytes.CutPrefix(line, contentLength); ok {
			length = number(value)
		}
	}
	n, err := c.in.Discard(length)
	if err == nil && n != length {
		err = io.ErrUnexpectedEOF
	}
	return status, err
}

// number reads the digits that b begins with.
func number(b []byte) (n int) {
	for _, c := range b {
		if c < '0' || c > '9' {
			break
		}
		n = 10*n + int(c-'0')
	}
	return n
}
