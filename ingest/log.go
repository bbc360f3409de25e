package ingest

import (
	"fmt"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"github.com/valyala/fasthttp"

	"floodgate/engine"
)

// eventLog writes one JSON line per event worth reading. Refusals are counted on
// /metrics and not written: there are 100,000 of them in a second. Nothing a
// client sent gets in but its method and its path, escaped and cut short; never
// a query, a header or a body, for these hold tokens.
type eventLog struct {
	zerolog.Logger
	faults  *budget // 500 and 504
	refused *budget // 503
}

func newEventLog(l zerolog.Logger) eventLog {
	return eventLog{Logger: l, faults: &budget{perSecond: 1000}, refused: &budget{perSecond: 10}}
}

// budget bounds how many lines are written in a second, and counts the rest.
type budget struct {
	perSecond int

	mu         sync.Mutex
	second     int64
	written    int
	suppressed uint64
}

// spend reports whether the line may be written, and how many were not since the
// last one that was.
func (b *budget) spend(second int64) (suppressed uint64, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if second != b.second {
		b.second, b.written = second, 0
	}
	if b.written == b.perSecond {
		b.suppressed++
		return 0, false
	}
	b.written++
	suppressed, b.suppressed = b.suppressed, 0
	return suppressed, true
}

// failed tells of a request, begun at that time, that was answered with a status
// of 500 or more.
func (l eventLog) failed(ctx *fasthttp.RequestCtx, r route, status int, since time.Time) {
	b, level := l.faults, zerolog.ErrorLevel
	if status == fasthttp.StatusServiceUnavailable || status == fasthttp.StatusHTTPVersionNotSupported {
		b, level = l.refused, zerolog.WarnLevel
	}
	if l.GetLevel() > level {
		return
	}
	suppressed, ok := b.spend(since.Unix())
	if !ok {
		return
	}
	e := l.WithLevel(level)
	if suppressed > 0 {
		e = e.Uint64("suppressed", suppressed)
	}
	e.Str("method", cut(ctx.Method())).Str("path", cut(pathOf(ctx.Request.Header.RequestURI()))).
		Str("route", routes[r].name).Int("status", status).Str("client", ctx.RemoteAddr().String()).
		Dur("took_ms", time.Since(since)).Msg("request failed")
}

// panicked tells of a fault of ours, with all that finds it.
func (l eventLog) panicked(ctx *fasthttp.RequestCtx, value any, stack []byte) {
	l.Error().Str("method", cut(ctx.Method())).Str("path", cut(pathOf(ctx.Request.Header.RequestURI()))).
		Str("panic", cut([]byte(fmt.Sprint(value)))).Bytes("stack", stack).Msg("handler panicked")
}

func (l eventLog) ledger(err error, id engine.OrderID) {
	suppressed, ok := l.faults.spend(time.Now().Unix())
	if !ok {
		return
	}
	e := l.Error().Err(err).Str("order", id.String())
	if suppressed > 0 {
		e = e.Uint64("suppressed", suppressed)
	}
	e.Msg("cannot read the ledger")
}

// administered is the audit line of a change to a product.
func (l eventLog) administered(actor, action string, before, after *engine.View) {
	l.Info().Str("actor", cut([]byte(actor))).Str("action", action).Str("product", after.Settings.ID).
		Object("before", viewFields{before}).Object("after", viewFields{after}).Msg("product administered")
}

func (l eventLog) refunded(actor string, o *engine.Order, restock bool) {
	l.Info().Str("actor", cut([]byte(actor))).Str("action", "refund").Str("product", o.Product).
		Str("order", o.ID.String()).Bool("restock", restock).Str("status", o.Status.String()).Msg("order refunded")
}

// viewFields are what an audit wants to know of a product.
type viewFields struct{ *engine.View }

func (v viewFields) MarshalZerologObject(e *zerolog.Event) {
	if v.View == nil {
		return
	}
	s := v.Settings
	e.Str("name", s.Name).Int64("price_minor", s.Price).Str("currency", s.Currency).
		Int64("limit_per_buyer", s.LimitPerBuyer).Int64("hold_seconds", s.HoldSeconds).
		Int64("starts_at", s.StartsAt).Int64("ends_at", s.EndsAt).
		Uint32("run", v.Run).Int64("stock", v.Stock).Int64("remaining", v.Remaining).
		Int64("held", v.Held).Int64("sold", v.Sold).Bool("paused", v.Paused)
}

// Printf is how fasthttp tells of connections that broke. It is rarely worth
// reading, and everything a client sent is left out.
func (l eventLog) Printf(format string, args ...any) {
	if e := l.Debug(); e.Enabled() {
		e.Msg(cut(fmt.Appendf(nil, format, args...)))
	}
}

// cut returns what a client sent, short enough for the log.
func cut(b []byte) string {
	if len(b) > maxLogged {
		b = b[:maxLogged]
	}
	return string(b)
}
