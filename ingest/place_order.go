package ingest

import (
	"time"

	"github.com/valyala/fasthttp"

	"floodgate/engine"
)

// placeOrder is the whole path of one request to buy: authorise, decode, find
// the listing, refuse at once or ask the shard, encode. Where it can it does not
// wait for the shard, and reports that the connection owes the answer.
func (s *Server) placeOrder(ctx *fasthttp.RequestCtx, h *head, product []byte) (owed bool) {
	var buyer []byte
	if !s.auth.Open() {
		identity, err := s.auth.Buyer(h.authorization)
		if err != nil {
			s.refuseIdentity(ctx, err)
			return false
		}
		var room [engine.MaxID]byte
		buyer = append(room[:0], identity.Buyer...)
	}

	body := ctx.Request.Body()
	if p, f := checkOrderHead(h, len(body) > 0); !f.none() {
		s.refuseFor(ctx, p, f)
		return false
	}
	order, f := decodeOrder(body)
	if !f.none() {
		s.refuseFor(ctx, invalidRequest, f)
		return false
	}
	switch {
	case s.auth.Open():
		buyer = order.buyer
	case len(order.buyer) > 0 && string(order.buyer) != string(buyer):
		s.refuseFor(ctx, forbiddenRequest, fault{"buyer", "is not who the token names"})
		return false
	}

	if len(product) == 0 {
		product = s.defaultProduct(ctx)
	}
	l := s.engine.Listing(product)
	if l == nil {
		s.refuse(ctx, unknownProduct, "There is no such product.")
		return false
	}
	if h.keys == 0 {
		if o := l.Refusal(s.now(ctx), order.quantity); o != 0 {
			s.refuseOrder(ctx, l, o, &engine.Answer{Outcome: o})
			return false
		}
	}
	if s.failed() {
		s.refuse(ctx, unavailable, "The journal failed and the node sells nothing more. Nothing was decided; try another node.")
		return false
	}

	c := engine.AcquireCommand()
	c.Op, c.Quantity = engine.OpPlace, order.quantity
	c.SetBuyer(buyer)
	c.SetKey(h.key)
	if conn := s.debtor(ctx, h); conn != nil {
		err := conn.owe(s, ctx, l, c)
		if err == nil {
			return true
		}
		s.concludeOrder(ctx, l, c, time.Since(ctx.Time()), err)
	} else {
		settled(ctx)
		err := s.engine.Do(l, c)
		s.concludeOrder(ctx, l, c, time.Since(ctx.Time()), err)
	}
	engine.ReleaseCommand(c)
	return false
}

// concludeOrder answers with what became of the order, which was known after
// that time.
func (s *Server) concludeOrder(ctx *fasthttp.RequestCtx, l *engine.Listing, c *engine.Command, took time.Duration, err error) {
	s.meters.of(ctx).took(c, took, err)
	if s.draining.Load() {
		ctx.SetConnectionClose()
	}
	switch {
	case err != nil:
		p, detail := problemOf(err)
		s.refuse(ctx, p, detail)
	case c.Answer.Outcome == engine.Accepted:
		order := acceptedOrder(l, c)
		s.answerOrder(ctx, &order)
	case c.Answer.Outcome == engine.Replayed:
		s.replayOrder(ctx, c.Answer.ID)
	default:
		s.refuseOrder(ctx, l, c.Answer.Outcome, &c.Answer)
	}
}

// acceptedOrder returns the order that the command became.
func acceptedOrder(l *engine.Listing, c *engine.Command) engine.Order {
	a := &c.Answer
	return engine.Order{
		ID: a.ID, Product: l.ID(), Buyer: string(c.Buyer()), Quantity: c.Quantity,
		Price: a.Price, Currency: a.Currency, AcceptedAt: a.At, Deadline: a.Deadline,
	}
}

// checkOrderHead returns what is wrong with the headers that this request may
// have, and which problem that is.
func checkOrderHead(h *head, body bool) (problem, fault) {
	switch {
	case h.keys > 1:
		return invalidRequest, fault{"Idempotency-Key", "is there twice"}
	case h.keys == 1 && !validKey(h.key):
		return invalidRequest, fault{"Idempotency-Key", "must be 1 to 64 printable ASCII characters"}
	}
	return checkBodyHead(h, body)
}

// checkBodyHead is the same for what any body needs.
func checkBodyHead(h *head, body bool) (problem, fault) {
	switch {
	case !body:
	case h.contentTypes > 1:
		return invalidRequest, fault{"Content-Type", "is there twice"}
	case !isJSON(h.contentType):
		return unsupportedMediaType, fault{"Content-Type", "must be application/json where there is a body"}
	case h.encoded:
		return unsupportedMediaType, fault{"Content-Encoding", "must be absent: bodies are read as they are"}
	}
	return noProblem, fault{}
}

// defaultProduct returns the product of a request that names none.
func (s *Server) defaultProduct(ctx *fasthttp.RequestCtx) []byte {
	if len(s.fallback) > 0 {
		return s.fallback
	}
	return s.onlyProduct(ctx.Time().UnixMilli())
}

// failed reports whether the journal failed before this request was sent on, so
// that it can be told for certain that nothing was decided.
func (s *Server) failed() bool {
	select {
	case <-s.engine.Failed():
		return true
	default:
		return false
	}
}

// answerOrder answers with an order as it was accepted. What it writes follows
// from the record of the acceptance alone, so a retry gets the same bytes.
func (s *Server) answerOrder(ctx *fasthttp.RequestCtx, o *engine.Order) {
	var room [512]byte
	s.answer(ctx, fasthttp.StatusCreated, appendOrder(room[:0], o, o.Accepted(), false))
	ctx.Response.Header.SetCanonical(location, appendLocation(room[:0], o))
}

func appendLocation(dst []byte, o *engine.Order) []byte {
	dst, _ = o.ID.AppendText(append(dst, "/v1/orders/"...))
	return dst
}

// replayOrder answers a retry with the order that its key bought.
func (s *Server) replayOrder(ctx *fasthttp.RequestCtx, id engine.OrderID) {
	o, ok, err := s.ledger.Order(id)
	if err == nil && !ok {
		s.refuse(ctx, orderForgotten, "The key bought before, in a sale that ended more than a day ago, and that order was pruned since. No second one was made.")
		return
	}
	if err != nil {
		s.log.ledger(err, id)
		s.refuse(ctx, unavailable, "The key bought before, and the order cannot be read now. Nothing was changed; try again with the same Idempotency-Key.")
		return
	}
	s.answerOrder(ctx, &o)
	ctx.Response.Header.SetCanonical(idempotentReplayed, yes)
}

var (
	idempotentReplayed = []byte("Idempotent-Replayed")
	yes                = []byte("true")
)

// refuseOrder answers with the outcome's problem. Sold out is by far the most
// frequent one and comes without a hand-off, so it is made of parts that lie
// ready.
func (s *Server) refuseOrder(ctx *fasthttp.RequestCtx, l *engine.Listing, o engine.Outcome, a *engine.Answer) {
	switch o {
	case engine.SoldOut:
		if a.Remaining == 0 {
			s.writeProblem(ctx, soldOut, nil)
			ctx.Response.SetBodyRaw(soldOutBody)
			return
		}
		s.refuse(ctx, soldOut, "Fewer units are left than were asked for.", number("remaining", a.Remaining))
	case engine.NotStarted:
		at := l.View().Settings.StartsAt
		s.refuse(ctx, saleNotStarted, "The sale has not started yet.", instant("starts_at", at))
		setRetryAfter(ctx, retryAt(s.now(ctx), at))
	case engine.OverLimit:
		s.refuse(ctx, buyerLimit, "The buyer would have more units than one buyer may have.",
			number("limit", a.Limit), number("units", a.Units))
	default:
		s.refuse(ctx, outcomeProblems[o], outcomeDetails[o])
	}
}

var soldOutBody = appendProblem(nil, soldOut, "No unit is left.", number("remaining", 0))

var outcomeDetails = map[engine.Outcome]string{
	engine.Ended:       "The sale is over.",
	engine.Paused:      "The sale is paused. It goes on when an admin resumes it.",
	engine.KeyMismatch: "The buyer used this Idempotency-Key for another quantity of this product.",
}
