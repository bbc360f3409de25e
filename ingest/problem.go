package ingest

import (
	"math/rand/v2"
	"strconv"

	"github.com/valyala/fasthttp"
)

// problem is a kind of refusal, as RFC 9457 means it. There are few, so they
// can be counted by kind without a client choosing how many there are.
type problem uint8

const (
	noProblem problem = iota
	soldOut
	buyerLimit
	saleNotStarted
	saleEnded
	productPaused
	unknownProduct
	unknownOrder
	idempotencyMismatch
	orderNotHeld
	holdExpired
	orderFinal
	orderNotConfirmed
	orderForgotten
	stockCommitted
	stockExceeded
	productExists
	tooManyProducts
	invalidRequest
	unauthorizedRequest
	forbiddenRequest
	notFound
	methodNotAllowed
	requestTimeout
	bodyTooLarge
	uriTooLong
	unsupportedMediaType
	headTooLarge
	versionNotSupported
	rateLimited
	inProgress
	overloaded
	unavailable
	notReady
	tooManyConnections
	outcomeUnknown
	internalError
	problemCount
)

// problems is the one list of names, titles and status codes.
var problems = [problemCount]struct {
	name, title string
	status      int
}{
	noProblem:            {"none", "No problem", 200},
	soldOut:              {"sold-out", "Sold out", 409},
	buyerLimit:           {"buyer-limit", "The buyer's limit is reached", 409},
	saleNotStarted:       {"sale-not-started", "The sale has not started", 409},
	saleEnded:            {"sale-ended", "The sale has ended", 410},
	productPaused:        {"product-paused", "The sale is paused", 503},
	unknownProduct:       {"unknown-product", "Unknown product", 404},
	unknownOrder:         {"unknown-order", "Unknown order", 404},
	idempotencyMismatch:  {"idempotency-mismatch", "The idempotency key was used for another request", 422},
	orderNotHeld:         {"order-not-held", "The order is not held", 409},
	holdExpired:          {"hold-expired", "The hold has expired", 410},
	orderFinal:           {"order-final", "The order is final", 409},
	orderNotConfirmed:    {"order-not-confirmed", "The order is not confirmed", 409},
	orderForgotten:       {"order-forgotten", "The order was pruned", 410},
	stockCommitted:       {"stock-committed", "The stock is sold or held", 409},
	stockExceeded:        {"stock-exceeded", "The stock would be too large", 409},
	productExists:        {"product-exists", "The product exists with another stock", 409},
	tooManyProducts:      {"too-many-products", "Too many products", 409},
	invalidRequest:       {"invalid-request", "Invalid request", 400},
	unauthorizedRequest:  {"unauthorized", "Unauthorized", 401},
	forbiddenRequest:     {"forbidden", "Forbidden", 403},
	notFound:             {"not-found", "Not found", 404},
	methodNotAllowed:     {"method-not-allowed", "Method not allowed", 405},
	requestTimeout:       {"request-timeout", "The request took too long", 408},
	bodyTooLarge:         {"body-too-large", "The body is too large", 413},
	uriTooLong:           {"uri-too-long", "The URI is too long", 414},
	unsupportedMediaType: {"unsupported-media-type", "Unsupported media type", 415},
	headTooLarge:         {"headers-too-large", "The headers are too large", 431},
	versionNotSupported:  {"version-not-supported", "HTTP version not supported", 505},
	rateLimited:          {"rate-limited", "Too many requests", 429},
	inProgress:           {"in-progress", "The same request is in progress", 503},
	overloaded:           {"overloaded", "Overloaded", 503},
	unavailable:          {"unavailable", "Unavailable", 503},
	notReady:             {"not-ready", "Not ready to sell", 503},
	tooManyConnections:   {"too-many-connections", "Too many connections", 503},
	outcomeUnknown:       {"outcome-unknown", "The outcome is unknown", 504},
	internalError:        {"internal", "Internal error", 500},
}

// problemHeads are the bodies' beginnings, up to the detail's first quote.
var problemHeads = func() (heads [problemCount]string) {
	for p, k := range problems {
		heads[p] = `{"type":"urn:floodgate:problem:` + k.name + `","title":"` + k.title +
			`","status":` + strconv.Itoa(k.status) + `,"detail":`
	}
	return heads
}()

func (p problem) String() string { return problems[p].name }
func (p problem) status() int    { return problems[p].status }

// retry reports whether the problem's answer says when to try again.
func (p problem) retry() bool {
	return p.status() == 503 || p.status() == 429 || p == saleNotStarted
}

// member is one field of a problem beyond the standard ones. Exactly one of text
// and raw is written: raw is JSON already.
type member struct{ name, text, raw string }

func number(name string, n int64) member   { return member{name: name, raw: strconv.FormatInt(n, 10)} }
func text(name, value string) member       { return member{name: name, text: value} }
func raw(name string, json []byte) member  { return member{name: name, raw: string(json)} }
func instant(name string, ms int64) member { return raw(name, appendTime(nil, ms)) }
func appendMember(dst []byte, name string) []byte {
	dst = append(dst, ',', '"')
	dst = append(dst, name...)
	return append(dst, '"', ':')
}

// appendProblem appends the body of a problem.
func appendProblem(dst []byte, p problem, detail string, members ...member) []byte {
	dst = append(dst, problemHeads[p]...)
	dst = appendString(dst, detail)
	for _, m := range members {
		dst = appendMember(dst, m.name)
		if m.raw != "" {
			dst = append(dst, m.raw...)
		} else {
			dst = appendString(dst, m.text)
		}
	}
	return append(dst, '}')
}

// refuse answers with a problem.
func (s *Server) refuse(ctx *fasthttp.RequestCtx, p problem, detail string, members ...member) {
	var room [1024]byte
	s.writeProblem(ctx, p, appendProblem(room[:0], p, detail, members...))
	if p.retry() {
		setRetryAfter(ctx, retrySoon())
	}
}

// refuseFor answers with a problem that names where the fault lies.
func (s *Server) refuseFor(ctx *fasthttp.RequestCtx, p problem, f fault) {
	s.refuse(ctx, p, f.String(), text("field", f.field))
}

// writeProblem answers with a problem whose body is made already. The hottest
// refusals come here directly.
func (s *Server) writeProblem(ctx *fasthttp.RequestCtx, p problem, body []byte) {
	s.meters.of(ctx).problems[p].Add(1)
	ctx.Response.SetStatusCode(p.status())
	ctx.Response.Header.SetContentTypeBytes(problemJSON)
	ctx.Response.Header.SetCanonical(cacheControl, noStore)
	ctx.Response.SetBody(body)
}

// closeWith answers with a problem and ends the connection: after it nobody
// knows where the next request begins, or the client does not keep to HTTP.
func (s *Server) closeWith(ctx *fasthttp.RequestCtx, p problem, detail string, members ...member) {
	s.refuse(ctx, p, detail, members...)
	ctx.SetConnectionClose()
	if c, ok := ctx.Conn().(*connection); ok {
		c.linger.Store(true)
	}
}

// retrySoon returns 1 or 2 seconds, so that those refused together do not come
// back together.
func retrySoon() int64 { return 1 + int64(rand.Uint32()&1) }

// retryAt returns the seconds from now until the given time, at least 1.
func retryAt(now, at int64) int64 { return max(1, (at-now+999)/1000) }

func setRetryAfter(ctx *fasthttp.RequestCtx, seconds int64) {
	var room [20]byte
	ctx.Response.Header.SetCanonical(retryAfter, strconv.AppendInt(room[:0], seconds, 10))
}

var (
	problemJSON  = []byte("application/problem+json")
	plainJSON    = []byte("application/json")
	cacheControl = []byte("Cache-Control")
	noStore      = []byte("no-store")
	retryAfter   = []byte("Retry-After")
	location     = []byte("Location")
)
