package ingest

import (
	"errors"
	"strconv"

	"github.com/valyala/fasthttp"

	"floodgate/engine"
)

// reader is who asks about orders.
type reader struct {
	buyer string // empty where any admin or, in open mode, anybody asks
	any   bool   // may see every buyer's orders
}

// mayRead returns who asks, or refuses. In open mode an order's id is the only
// secret there is, and whoever has it may use it.
func (s *Server) mayRead(ctx *fasthttp.RequestCtx, h *head) (reader, bool) {
	if s.auth.Open() {
		return reader{any: true}, true
	}
	identity, err := s.auth.Buyer(h.authorization)
	if err == nil {
		return reader{buyer: identity.Buyer, any: identity.Role == RoleAdmin}, true
	}
	if _, adminErr := s.auth.Admin(h.authorization); adminErr == nil {
		return reader{any: true}, true
	}
	s.refuseIdentity(ctx, err)
	return reader{}, false
}

// refuseIdentity answers an error of Auth.
func (s *Server) refuseIdentity(ctx *fasthttp.RequestCtx, err error) {
	if errors.Is(err, ErrForbidden) {
		s.refuse(ctx, forbiddenRequest, err.Error())
		return
	}
	s.refuse(ctx, unauthorizedRequest, err.Error())
	ctx.Response.Header.Set("WWW-Authenticate", `Bearer realm="floodgate"`)
}

// findOrder reads the order a path names, or refuses. Another buyer's order and
// one that does not exist are the same answer, byte for byte.
func (s *Server) findOrder(ctx *fasthttp.RequestCtx, id []byte, who reader) (engine.Order, bool) {
	parsed, ok := engine.ParseOrderID(id)
	if ok {
		o, found, err := s.ledger.Order(parsed)
		if err != nil {
			s.log.ledger(err, parsed)
			s.refuse(ctx, unavailable, "The ledger cannot be read now. Nothing was changed; try again.")
			return engine.Order{}, false
		}
		if found && (who.any || o.Buyer == who.buyer) {
			return o, true
		}
	}
	s.refuse(ctx, unknownOrder, "There is no such order.")
	return engine.Order{}, false
}

func (s *Server) getOrder(ctx *fasthttp.RequestCtx, h *head, id []byte) {
	who, ok := s.mayRead(ctx, h)
	if !ok {
		return
	}
	if o, ok := s.findOrder(ctx, id, who); ok {
		s.writeOrder(ctx, &o)
	}
}

// writeOrder answers with an order as it stands.
func (s *Server) writeOrder(ctx *fasthttp.RequestCtx, o *engine.Order) {
	var room [512]byte
	s.answer(ctx, fasthttp.StatusOK, appendOrder(room[:0], o, o.Status, o.Settled))
}

// listOrders answers with one page of a buyer's orders, newest first.
func (s *Server) listOrders(ctx *fasthttp.RequestCtx, h *head) {
	who, ok := s.mayRead(ctx, h)
	if !ok {
		return
	}
	query := ctx.QueryArgs()
	one := func(name string) (string, bool, fault) {
		values := query.PeekMulti(name)
		switch len(values) {
		case 0:
			return "", false, fault{}
		case 1:
			return string(values[0]), true, fault{}
		}
		return "", false, fault{name, "is there twice"}
	}
	buyer, named, f := one("buyer")
	switch {
	case !f.none():
	case named && !validBuyer([]byte(buyer)):
		f = fault{"buyer", mustBeID}
	case !named && who.buyer != "":
		buyer = who.buyer
	case !named:
		f = fault{"buyer", "must be named: whose orders?"}
	case !who.any && buyer != who.buyer:
		s.refuseFor(ctx, forbiddenRequest, fault{"buyer", "is not who the token names"})
		return
	}
	limit := defaultPage
	if f.none() {
		var given string
		if given, named, f = one("limit"); f.none() && named {
			n, err := strconv.ParseUint(given, 10, 16)
			if limit = int(n); err != nil || n < 1 || n > maxPage {
				f = fault{"limit", "must be an integer from 1 to 100"}
			}
		}
	}
	after := uint64(0)
	if f.none() {
		var given string
		if given, named, f = one("after"); f.none() && named {
			n, err := strconv.ParseUint(given, 10, 63)
			if after = n; err != nil || n == 0 {
				f = fault{"after", "must be what the page before gave as next"}
			}
		}
	}
	if !f.none() {
		s.refuseFor(ctx, invalidRequest, f)
		return
	}

	orders, next, err := s.ledger.OrdersByBuyer(buyer, limit, after)
	if err != nil {
		s.log.ledger(err, engine.OrderID{})
		s.refuse(ctx, unavailable, "The ledger cannot be read now; try again.")
		return
	}
	b := append(make([]byte, 0, 64+320*len(orders)), `{"orders":[`...)
	for i := range orders {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendOrder(b, &orders[i], orders[i].Status, orders[i].Settled)
	}
	b = append(b, `],"next":`...)
	if next == 0 {
		b = append(b, "null}"...)
	} else {
		b = append(b, '"')
		b = strconv.AppendUint(b, next, 10)
		b = append(b, `"}`...)
	}
	s.answer(ctx, fasthttp.StatusOK, b)
}

func (s *Server) confirmOrder(ctx *fasthttp.RequestCtx, h *head, id []byte) {
	s.changeOrder(ctx, h, id, engine.OpConfirm)
}

func (s *Server) cancelOrder(ctx *fasthttp.RequestCtx, h *head, id []byte) {
	s.changeOrder(ctx, h, id, engine.OpCancel)
}

// changeOrder confirms or cancels an order for its buyer.
func (s *Server) changeOrder(ctx *fasthttp.RequestCtx, h *head, id []byte, op engine.Op) {
	who, ok := s.mayRead(ctx, h)
	if !ok {
		return
	}
	if _, f := s.fields(ctx, h); f != nil {
		s.refuseFaults(ctx, f)
		return
	}
	if o, ok := s.findOrder(ctx, id, who); ok {
		s.askOrder(ctx, &o, op, false)
	}
}

// askOrder sends a command about an order and answers with the order as it
// stands then. It reports whether that changed it: twice is the same as once.
func (s *Server) askOrder(ctx *fasthttp.RequestCtx, o *engine.Order, op engine.Op, restock bool) (changed bool) {
	l := s.engine.Listing([]byte(o.Product))
	if l == nil || s.failed() {
		s.refuse(ctx, unavailable, "The node sells nothing more. Nothing was changed; try again.")
		return false
	}
	c := engine.AcquireCommand()
	defer engine.ReleaseCommand(c)
	c.Op, c.Restock = op, restock
	c.SetOrder(o)
	if err := s.engine.Do(l, c); err != nil {
		p, detail := problemOf(err)
		s.refuse(ctx, p, detail)
		return false
	}
	o.Status = c.Answer.Status
	if c.Answer.Outcome != engine.Accepted {
		s.refuse(ctx, outcomeProblems[c.Answer.Outcome], orderDetails[c.Answer.Outcome], text("order_status", o.Status.String()))
		return false
	}
	s.writeOrder(ctx, o)
	return c.Answer.Changed
}

var orderDetails = map[engine.Outcome]string{
	engine.NotHeld:      "Only a held order can be confirmed.",
	engine.HoldExpired:  "The hold ran out and its units went back.",
	engine.OrderFinal:   "The order has come to its end.",
	engine.NotConfirmed: "Only a confirmed order can be refunded; cancel a held one.",
}
