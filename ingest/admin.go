package ingest

import (
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"floodgate/engine"
)

// admin returns who administrates, or refuses.
func (s *Server) admin(ctx *fasthttp.RequestCtx, h *head) (actor string, ok bool) {
	actor, err := s.auth.Admin(h.authorization)
	if err != nil {
		s.refuseIdentity(ctx, err)
		return "", false
	}
	return actor, true
}

// fields are what an admin sent. An absent field is nil.
type fields struct {
	name, currency                    *string
	price, stock, limit, hold, starts *int64
	ends, quantity                    *int64
	restock                           *bool
}

// faults are all that is wrong with a request, and which problem that is.
type faults struct {
	problem problem
	all     []fault
}

func (f *faults) add(field, reason string) { f.all = append(f.all, fault{field, reason}) }

// refuseFaults answers with all faults at once; the first one is the field.
func (s *Server) refuseFaults(ctx *fasthttp.RequestCtx, f *faults) {
	if len(f.all) == 1 {
		s.refuseFor(ctx, f.problem, f.all[0])
		return
	}
	details := make([]string, len(f.all))
	list := []byte{'['}
	for i, one := range f.all {
		details[i] = one.String()
		if i > 0 {
			list = append(list, ',')
		}
		list = appendString(append(list, `{"field":`...), one.field)
		list = append(appendString(append(list, `,"detail":`...), one.String()), '}')
	}
	s.refuse(ctx, f.problem, strings.Join(details, "; "), text("field", f.all[0].field), raw("faults", append(list, ']')))
}

// fields reads the body as an object of the allowed fields. Every fault is found
// at once, as far as the JSON can be read. Nil faults mean that all is well.
func (s *Server) fields(ctx *fasthttp.RequestCtx, h *head, allowed ...string) (*fields, *faults) {
	body := ctx.Request.Body()
	if p, f := checkBodyHead(h, len(body) > 0); !f.none() {
		return nil, &faults{p, []fault{f}}
	}
	got, wrong := &fields{}, &faults{problem: invalidRequest}
	if len(body) > 0 {
		got.read(body, allowed, wrong)
	}
	if len(wrong.all) > 0 {
		return nil, wrong
	}
	return got, nil
}

func (got *fields) read(body []byte, allowed []string, wrong *faults) {
	o, f := openObject(body)
	if !f.none() {
		wrong.all = append(wrong.all, f)
		return
	}
	seen := make(map[string]bool, len(allowed))
	for first := true; ; first = false {
		name, v, ok, f := o.next(first)
		if !f.none() {
			wrong.all = append(wrong.all, f)
		}
		if !ok {
			return
		}
		known := false
		for _, a := range allowed {
			known = known || a == string(name)
		}
		switch field := fieldName(name); {
		case !known:
			wrong.add(field, "is not a field of this request")
		case seen[field]:
			wrong.add(field, "is there twice")
		default:
			seen[field] = true
			if f := got.set(field, v); !f.none() {
				wrong.all = append(wrong.all, f)
			}
		}
		if v.kind == isNested {
			return
		}
	}
}

// set takes one field's value.
func (got *fields) set(field string, v value) (f fault) {
	integer := func(to **int64, low, high int64) {
		var n int64
		if n, f = v.integer(field, low, high); f.none() {
			*to = &n
		}
	}
	switch field {
	case "name":
		name := string(v.bytes)
		if v.kind != isText || len(name) == 0 || len(name) > engine.MaxName || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return fault{field, "must be a string of 1 to 256 bytes without control characters"}
		}
		got.name = &name
	case "currency":
		code := string(v.bytes)
		if v.kind != isText || len(code) != 3 || strings.Trim(code, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
			return fault{field, "must be an ISO 4217 code of three capital letters"}
		}
		got.currency = &code
	case "price_minor":
		integer(&got.price, 0, engine.MaxPrice)
	case "stock":
		integer(&got.stock, 0, engine.MaxStock)
	case "limit_per_buyer":
		integer(&got.limit, 0, engine.MaxStock)
	case "hold_seconds":
		integer(&got.hold, 0, engine.MaxHoldSeconds)
	case "quantity":
		if integer(&got.quantity, -engine.MaxStock, engine.MaxStock); f.none() && *got.quantity == 0 {
			return fault{field, "must not be 0"}
		}
	case "starts_at":
		got.starts, f = v.time(field)
	case "ends_at":
		got.ends, f = v.time(field)
	case "restock":
		if v.kind != isBool {
			return fault{field, "must be true or false"}
		}
		got.restock = &v.truth
	}
	return f
}

// time returns a time in Unix milliseconds; null means none.
func (v value) time(field string) (*int64, fault) {
	none := int64(0)
	if v.kind == isNull {
		return &none, fault{}
	}
	if v.kind == isText {
		if t, err := time.Parse(time.RFC3339, string(v.bytes)); err == nil {
			if ms := t.UnixMilli(); ms > 0 && ms <= engine.MaxTime {
				return &ms, fault{}
			}
		}
	}
	return nil, fault{field, "must be an RFC 3339 time such as 2030-01-02T15:04:05Z, or null"}
}

// DefaultCurrency is a product's where the admin names none.
const DefaultCurrency = "EUR"

// putProduct makes a product or changes one. Fields that are absent from a
// change keep their values.
func (s *Server) putProduct(ctx *fasthttp.RequestCtx, h *head, id []byte) {
	actor, ok := s.admin(ctx, h)
	if !ok {
		return
	}
	got, wrong := s.fields(ctx, h, "name", "price_minor", "currency", "stock", "limit_per_buyer", "hold_seconds", "starts_at", "ends_at")
	if wrong != nil {
		s.refuseFaults(ctx, wrong)
		return
	}
	// What is absent is taken from the present settings, so nobody may change
	// them between the reading and the writing.
	s.administering.Lock()
	defer s.administering.Unlock()
	if s.failed() {
		s.refuse(ctx, unavailable, "The journal failed. Nothing was changed.")
		return
	}
	l := s.engine.Listing(id)
	if l == nil {
		s.createProduct(ctx, actor, string(id), got)
		return
	}
	before := l.View()
	if got.stock != nil && *got.stock != before.Stock {
		s.refuse(ctx, productExists, "The product has another stock. Use restock to change it, or reset to begin a new run.",
			text("field", "stock"), number("stock", before.Stock))
		return
	}
	settings := *before.Settings
	if wrong := got.merge(&settings); wrong != nil {
		s.refuseFaults(ctx, wrong)
		return
	}
	c := engine.AcquireCommand()
	defer engine.ReleaseCommand(c)
	c.Op, c.Settings = engine.OpChange, &settings
	s.askProduct(ctx, actor, "change", l, c)
}

func (s *Server) createProduct(ctx *fasthttp.RequestCtx, actor, id string, got *fields) {
	settings := engine.Settings{ID: id, Name: id, Currency: DefaultCurrency}
	wrong := got.merge(&settings)
	if got.stock == nil {
		if wrong == nil {
			wrong = &faults{problem: invalidRequest}
		}
		wrong.add("stock", "must be given where a product is made")
	}
	if wrong != nil {
		s.refuseFaults(ctx, wrong)
		return
	}
	a, err := s.engine.Create(&settings, *got.stock)
	if err != nil {
		p, detail := problemOf(err)
		s.refuse(ctx, p, detail)
		return
	}
	if a.Outcome != engine.Accepted {
		s.refuse(ctx, outcomeProblems[a.Outcome], "The product was made by somebody else meanwhile.")
		return
	}
	s.only.Store(nil)
	s.log.administered(actor, "create", nil, a.View)
	s.answer(ctx, fasthttp.StatusCreated, AppendProduct(nil, a.View, s.now(ctx)))
	ctx.Response.Header.Set("Location", "/v1/products/"+id)
}

// merge puts what was given into the settings, and checks how they relate.
func (got *fields) merge(to *engine.Settings) *faults {
	if got.name != nil {
		to.Name = *got.name
	}
	if got.currency != nil {
		to.Currency = *got.currency
	}
	for _, f := range [...]struct{ from, to *int64 }{
		{got.price, &to.Price}, {got.limit, &to.LimitPerBuyer}, {got.hold, &to.HoldSeconds},
		{got.starts, &to.StartsAt}, {got.ends, &to.EndsAt},
	} {
		if f.from != nil {
			*f.to = *f.from
		}
	}
	if to.EndsAt != 0 && to.EndsAt <= to.StartsAt {
		return &faults{invalidRequest, []fault{{"ends_at", "must be after starts_at"}}}
	}
	return nil
}

func (s *Server) restockProduct(ctx *fasthttp.RequestCtx, h *head, id []byte) {
	s.adminProduct(ctx, h, id, engine.OpRestock, "restock", "quantity")
}

func (s *Server) pauseProduct(ctx *fasthttp.RequestCtx, h *head, id []byte) {
	s.adminProduct(ctx, h, id, engine.OpPause, "pause", "")
}

func (s *Server) resumeProduct(ctx *fasthttp.RequestCtx, h *head, id []byte) {
	s.adminProduct(ctx, h, id, engine.OpResume, "resume", "")
}

func (s *Server) resetProduct(ctx *fasthttp.RequestCtx, h *head, id []byte) {
	s.adminProduct(ctx, h, id, engine.OpReset, "reset", "stock")
}

// adminProduct sends a command that has one number, or none, to a product.
func (s *Server) adminProduct(ctx *fasthttp.RequestCtx, h *head, id []byte, op engine.Op, name, field string) {
	actor, ok := s.admin(ctx, h)
	if !ok {
		return
	}
	var allowed []string
	if field != "" {
		allowed = []string{field}
	}
	got, wrong := s.fields(ctx, h, allowed...)
	if wrong != nil {
		s.refuseFaults(ctx, wrong)
		return
	}
	units := got.quantity
	if field == "stock" {
		units = got.stock
	}
	if field != "" && units == nil {
		s.refuseFor(ctx, invalidRequest, fault{field, "must be given"})
		return
	}
	l := s.engine.Listing(id)
	if l == nil {
		s.refuse(ctx, unknownProduct, "There is no such product.")
		return
	}
	if s.failed() {
		s.refuse(ctx, unavailable, "The journal failed. Nothing was changed.")
		return
	}
	c := engine.AcquireCommand()
	defer engine.ReleaseCommand(c)
	c.Op = op
	if units != nil {
		c.Quantity = *units
	}
	s.askProduct(ctx, actor, name, l, c)
}

// askProduct sends an admin's command and answers with the product as it is then.
func (s *Server) askProduct(ctx *fasthttp.RequestCtx, actor, name string, l *engine.Listing, c *engine.Command) {
	before := l.View()
	if err := s.engine.Do(l, c); err != nil {
		p, detail := problemOf(err)
		s.refuse(ctx, p, detail)
		return
	}
	switch a := &c.Answer; a.Outcome {
	case engine.Accepted:
		s.log.administered(actor, name, before, a.View)
		s.answer(ctx, fasthttp.StatusOK, AppendProduct(nil, a.View, s.now(ctx)))
	case engine.StockCommitted:
		s.refuse(ctx, stockCommitted, "More units would be taken away than are unsold.", number("remaining", a.Remaining))
	case engine.StockExceeded:
		s.refuse(ctx, stockExceeded, "The stock would be larger than a run may have.", number("limit", engine.MaxStock))
	default:
		s.refuse(ctx, outcomeProblems[a.Outcome], "The product is not as it was expected.")
	}
}

// refundOrder undoes a confirmed order.
func (s *Server) refundOrder(ctx *fasthttp.RequestCtx, h *head, id []byte) {
	actor, ok := s.admin(ctx, h)
	if !ok {
		return
	}
	got, wrong := s.fields(ctx, h, "restock")
	if wrong != nil {
		s.refuseFaults(ctx, wrong)
		return
	}
	o, ok := s.findOrder(ctx, id, reader{any: true})
	if !ok {
		return
	}
	restock := got.restock != nil && *got.restock
	if s.askOrder(ctx, &o, engine.OpRefund, restock) {
		s.log.refunded(actor, &o, restock)
	}
}
