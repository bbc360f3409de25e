package ingest

import (
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"floodgate/engine"
)

// owing lets a connection owe the answer to an order. The handler hands the
// order to the shard and returns; fasthttp writes an empty answer, which the
// connection swallows, and goes on to wait for the next request, as it would
// have anyway. Once the order is durable, one of the engine's answering
// goroutines writes the real answer. So nobody is put to sleep and woken for an
// order, and one goroutine writes many answers in a row.
//
// The order of answers on a connection stays that of the requests: whoever
// writes or closes waits for the turn, and the turn is taken when the debt is
// made and given back when it is paid. An answering goroutine never waits for a
// client: it offers the bytes once without blocking, and what a client does not
// take is left to a goroutine of its own, under the write timeout.
type owing struct {
	turn sync.Mutex

	swallow   bool      // the next write of fasthttp is its empty answer
	swallowed time.Time // when that request began

	// Of the debt, while the turn is taken for one.
	server  *Server
	listing *engine.Listing
	since   time.Time
	bill    *bill
	wrote   int
	pass    func(fd uintptr) // passBill
}

// bill is an answer being made and written.
type bill struct {
	ctx   fasthttp.RequestCtx
	bytes []byte
}

var bills = sync.Pool{New: func() any {
	b := new(bill)
	b.ctx.Init2(nil, nil, false) // gives it a number, so that it has a meter
	return b
}}

// debtor returns the request's connection if it may owe the answer. It may not
// where the connection is to be closed after the answer: that is fasthttp's to
// do, and it does it at once.
func (s *Server) debtor(ctx *fasthttp.RequestCtx, h *head) *connection {
	conn, ok := ctx.Conn().(*connection)
	if !ok || conn.raw == nil || s.draining.Load() || h.close || !ctx.Request.Header.IsHTTP11() || ctx.Request.Header.ConnectionClose() {
		return nil
	}
	return conn
}

// settled returns when the connection owes nothing. A client may send requests
// without waiting for answers, and each must find what the one before it did
// (RFC 9112, 9.3.2).
func settled(ctx *fasthttp.RequestCtx) {
	if conn, ok := ctx.Conn().(*connection); ok {
		conn.turn.Lock()
		conn.turn.Unlock() //nolint:staticcheck // nothing is to be done in between
	}
}

// owe sends the command. An error says that nothing was sent and nothing is owed.
func (c *connection) owe(s *Server, ctx *fasthttp.RequestCtx, l *engine.Listing, command *engine.Command) error {
	c.turn.Lock()
	c.server, c.listing, c.since = s, l, ctx.Time()
	c.swallow, c.swallowed = true, c.since
	sent := false
	defer func() {
		if !sent { // or it panicked
			c.swallow = false
			c.turn.Unlock()
		}
	}()
	err := s.engine.Send(l, command, c)
	sent = err == nil
	return err
}

// Answered implements engine.Answerer.
func (c *connection) Answered(command *engine.Command, at time.Time, err error) {
	if err == nil && command.Answer.Outcome == engine.Replayed {
		go c.pay(command, at, err) // it reads the ledger, which may wait
		return
	}
	c.pay(command, at, err)
}

// pay writes the answer and gives the turn back.
func (c *connection) pay(command *engine.Command, at time.Time, err error) {
	b := bills.Get().(*bill)
	c.conclude(b, command, at, err)
	engine.ReleaseCommand(command)

	c.bill, c.wrote = b, 0
	if c.pass == nil {
		c.pass = c.passBill
	}
	if c.raw.Control(c.pass) != nil || c.wrote == len(b.bytes) {
		c.paid()
		return
	}
	go func() {
		if _, err := c.write(b.bytes[c.wrote:], time.Now()); err != nil {
			c.Conn.Close() // so that fasthttp's read ends and it closes the connection
		}
		c.paid()
	}()
}

func (c *connection) paid() {
	bills.Put(c.bill)
	c.bill, c.listing = nil, nil
	c.turn.Unlock()
}

// passBill offers the bill to the socket, once.
func (c *connection) passBill(fd uintptr) {
	c.wrote = writeDescriptor(fd, c.bill.bytes)
}

// conclude makes the answer. A panic costs this answer and nothing else.
func (c *connection) conclude(b *bill, command *engine.Command, at time.Time, err error) {
	s := c.server
	defer func() {
		if p := recover(); p != nil {
			b.ctx.Response.Reset()
			s.refuse(&b.ctx, internalError, "The request met a fault of the server.")
			s.log.panicked(&b.ctx, p, debug.Stack())
			c.take(b)
		}
	}()
	if err == nil && command.Answer.Outcome == engine.Accepted && !s.draining.Load() {
		c.accept(b, command, at)
		return
	}
	b.ctx.Response.Header.SetNoDefaultContentType(true)
	s.concludeOrder(&b.ctx, c.listing, command, at.Sub(c.since), err)
	c.take(b)
}

// accept makes the answer to an accepted order, byte for byte what fasthttp
// would make of it, without a response in between.
func (c *connection) accept(b *bill, command *engine.Command, at time.Time) {
	meter := c.server.meters.of(&b.ctx)
	meter.took(command, at.Sub(c.since), nil)
	meter.requests[placeRoute][createdIndex].Add(1)
	order := acceptedOrder(c.listing, command)
	var room [512]byte
	body := appendOrder(room[:0], &order, order.Accepted(), false)
	h := append(b.bytes[:0], "HTTP/1.1 201 Created\r\nDate: "...)
	h = appendDate(h, at.Unix())
	h = append(h, "\r\nContent-Type: application/json\r\nContent-Length: "...)
	h = strconv.AppendInt(h, int64(len(body)), 10)
	h = append(h, "\r\nCache-Control: no-store\r\nLocation: "...)
	h = appendLocation(h, &order)
	h = append(h, "\r\n\r\n"...)
	b.bytes = append(h, body...)
}

var createdIndex = statusIndex(fasthttp.StatusCreated)

// take turns the response of b's context into bytes and counts it.
func (c *connection) take(b *bill) {
	ctx, s := &b.ctx, c.server
	status := ctx.Response.StatusCode()
	s.meters.of(ctx).requests[placeRoute][statusIndex(status)].Add(1)
	if status >= 500 {
		ctx.Init2(c, nil, false)
		ctx.Request.Header.SetMethod(fasthttp.MethodPost)
		ctx.Request.SetRequestURI("/v1/products/" + c.listing.ID() + "/orders")
		s.log.failed(ctx, placeRoute, status, c.since)
		ctx.Request.Reset()
		ctx.Init2(nil, nil, false)
	}
	response := &ctx.Response
	response.Header.SetContentLength(len(response.Body()))
	b.bytes = append(response.Header.AppendBytes(b.bytes[:0]), response.Body()...)
	response.Reset()
}

var _ engine.Answerer = (*connection)(nil)
