package ingest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/valyala/fasthttp"
)

// Options are what a server needs and how much it takes. Zero means the default.
type Options struct {
	Engine Engine // required
	Ledger Ledger // required
	Auth   *Auth  // required

	// DefaultProduct is what /buy and /reserve sell without a product. Empty:
	// the only product there is, else "demo".
	DefaultProduct string

	MaxConnections int           // held at once; default 65,536
	ReadTimeout    time.Duration // for one request; default 10 s
	WriteTimeout   time.Duration // for the client to take what is written; default 10 s
	IdleTimeout    time.Duration // between requests; default 60 s

	// Now tells the time in Unix milliseconds; default: the system's clock.
	Now func() int64
	// Logger is where the log goes. The zero value discards it.
	Logger zerolog.Logger
	// Ready tells the state of what the node needs in order to sell; may be nil.
	Ready func() []Check
	// Collectors are shown on /metrics besides the server's and the engine's.
	Collectors []prometheus.Collector
	// Mounts are routes of other packages.
	Mounts []Mount
}

// EnsureDefaults fills in what is zero.
func (o *Options) EnsureDefaults() {
	if o.MaxConnections == 0 {
		o.MaxConnections = DefaultMaxConnections
	}
	if o.ReadTimeout == 0 {
		o.ReadTimeout = DefaultReadTimeout
	}
	if o.WriteTimeout == 0 {
		o.WriteTimeout = DefaultWriteTimeout
	}
	if o.IdleTimeout == 0 {
		o.IdleTimeout = DefaultIdleTimeout
	}
	if o.Ready == nil {
		o.Ready = func() []Check { return nil }
	}
}

// Validate reports every fault at once.
func (o *Options) Validate() error {
	var faults []error
	fault := func(field, format string, args ...any) {
		faults = append(faults, &OptionFault{Field: field, Reason: fmt.Sprintf(format, args...)})
	}
	if o.Engine == nil {
		fault("Engine", "is missing")
	}
	if o.Ledger == nil {
		fault("Ledger", "is missing")
	}
	if o.Auth == nil {
		fault("Auth", "is missing")
	}
	if o.DefaultProduct != "" && !validProduct([]byte(o.DefaultProduct)) {
		fault("DefaultProduct", "is %q, %s", o.DefaultProduct, mustBeID)
	}
	if o.MaxConnections < 1 || o.MaxConnections > 10_000_000 {
		fault("MaxConnections", "is %d, must be from 1 to 10000000", o.MaxConnections)
	}
	for _, t := range []struct {
		field string
		value time.Duration
	}{{"ReadTimeout", o.ReadTimeout}, {"WriteTimeout", o.WriteTimeout}, {"IdleTimeout", o.IdleTimeout}} {
		if t.value < time.Millisecond || t.value > time.Hour {
			fault(t.field, "is %v, must be from 1ms to 1h", t.value)
		}
	}
	for i, m := range o.Mounts {
		if !strings.HasPrefix(m.Path, "/") || m.Handle == nil || m.allowed() == 0 {
			fault(fmt.Sprintf("Mounts[%d]", i), "path %q needs a leading slash, a handler and GET, POST or PUT among its methods", m.Path)
			continue
		}
		if r, _ := match([]byte(m.Path)); r != noRoute && r != startRoute {
			fault(fmt.Sprintf("Mounts[%d]", i), "path %q is the server's own", m.Path)
		}
	}
	return errors.Join(faults...)
}

// ErrClosed is returned by Serve once the server was shut down.
var ErrClosed = errors.New("ingest: server closed")

// Server accepts connections and bounds them, finds the route of each request
// and lets no handler's panic end the process. It knows routes and knows no
// stock. Its methods may be called at once.
type Server struct {
	opts   Options
	engine Engine
	ledger Ledger
	auth   *Auth
	log    eventLog
	meters *meters
	http   fasthttp.Server
	start  startPage

	fallback []byte // Options.DefaultProduct
	only     atomic.Pointer[onlyProduct]

	administering sync.Mutex // a product is read and changed by one admin at a time

	mu       sync.Mutex
	doors    []*door
	draining atomic.Bool
	sampling sync.WaitGroup
	stop     chan struct{}
}

// New returns a server that does not listen yet.
func New(o Options) (*Server, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("ingest: %w", err)
	}
	s := &Server{
		opts: o, engine: o.Engine, ledger: o.Ledger, auth: o.Auth,
		log: newEventLog(o.Logger), start: newStartPage(), fallback: []byte(o.DefaultProduct), stop: make(chan struct{}),
	}
	meters, err := newMeters(s, o.Collectors)
	if err != nil {
		return nil, fmt.Errorf("ingest: %w", err)
	}
	s.meters = meters
	s.http = fasthttp.Server{
		Handler:      s.handle,
		ErrorHandler: s.handleError,
		// The door counts; fasthttp must only never be stricter than it.
		Concurrency:    2*o.MaxConnections + 1024,
		ReadBufferSize: MaxHead,
		// The connection type makes giving buffers back between requests cheap,
		// and keeps the timeouts, so fasthttp has none.
		ReduceMemoryUsage:            true,
		MaxRequestBodySize:           MaxBody,
		DisablePreParseMultipartForm: true,
		NoDefaultServerHeader:        true,
		NoDefaultContentType:         true,
		CloseOnShutdown:              true,
		SecureErrorLogMessage:        true, // requests hold tokens
		Logger:                       s.log,
	}
	s.sampling.Go(s.sample)
	return s, nil
}

// Serve accepts connections from the listener, which it owns from now on, until
// Shutdown. It may be called with several listeners at once.
func (s *Server) Serve(l net.Listener) error {
	d := newDoor(l, &s.opts)
	s.mu.Lock()
	if s.draining.Load() {
		s.mu.Unlock()
		l.Close()
		return ErrClosed
	}
	s.doors = append(s.doors, d)
	d.turnings.Go(d.runClock)
	s.mu.Unlock()
	if err := s.http.Serve(d); err != nil {
		return fmt.Errorf("ingest: accept connections: %w", err)
	}
	return nil
}

// Shutdown stops accepting, lets what is in flight be answered, tells every
// client that the connection ends, and returns when the last one is gone or the
// context is done. Connections that other packages took over are theirs to end.
// The engine must still answer when it is called, and may be closed after it.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	first := !s.draining.Swap(true)
	doors := slices.Clone(s.doors)
	s.mu.Unlock()
	if first {
		close(s.stop)
	}
	var err error
	for _, d := range doors {
		err = errors.Join(err, d.Close())
	}
	// It closes idle connections, and closing waits for what they owe.
	down := make(chan error, 1)
	go func() { down <- s.http.ShutdownWithContext(ctx) }()
	var late error
	select {
	case late = <-down:
	case <-ctx.Done():
		late = ctx.Err()
	}
	err = errors.Join(err, late)
	for _, d := range doors {
		if late != nil {
			d.abandon()
		}
		d.end()
	}
	s.sampling.Wait()
	if err != nil {
		return fmt.Errorf("ingest: shut down: %w", err)
	}
	return nil
}

// connections returns how many clients are connected, and how many were turned
// away since the start.
func (s *Server) connections() (inside int64, turned uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.doors {
		inside += d.inside.Load()
		turned += d.turned.Load()
	}
	return inside, turned
}

// now returns the time of the request in Unix milliseconds.
func (s *Server) now(ctx *fasthttp.RequestCtx) int64 {
	if s.opts.Now != nil {
		return s.opts.Now()
	}
	return ctx.Time().UnixMilli()
}

// handle answers one request. A panic of a handler costs its own request and
// nothing else; what the handler had written is thrown away.
func (s *Server) handle(ctx *fasthttp.RequestCtx) {
	r, id := noRoute, []byte(nil)
	owed := false
	h := readHead(ctx.Request.Header.RawHeaders())
	defer func() {
		if owed {
			return // counted when it is paid
		}
		if p := recover(); p != nil {
			ctx.Response.Reset()
			s.closeWith(ctx, internalError, "The request met a fault of the server.")
			s.log.panicked(ctx, p, debug.Stack())
		}
		// fasthttp closes only where it reads "close" and no more, or once its own
		// shutdown began.
		if h.close || s.draining.Load() {
			ctx.SetConnectionClose()
		}
		status := ctx.Response.StatusCode()
		s.meters.of(ctx).requests[r][statusIndex(status)].Add(1)
		if status >= 500 {
			s.log.failed(ctx, r, status, ctx.Time())
		}
	}()

	if !s.admissible(ctx, &h) {
		return
	}
	path := pathOf(ctx.Request.Header.RequestURI())
	r, id = match(path)
	if r == placeRoute && ctx.IsPost() {
		owed = s.placeOrder(ctx, &h, id)
		return
	}
	settled(ctx)
	if r == noRoute || r == startRoute {
		for i := range s.opts.Mounts {
			if m := &s.opts.Mounts[i]; m.matches(path) {
				r = mountedRoute
				s.serveMount(ctx, &h, m)
				return
			}
		}
	}
	if r == noRoute {
		s.refuse(ctx, notFound, "There is nothing at this path.")
		return
	}
	if s.allows(ctx, routes[r].methods) {
		s.dispatch(ctx, &h, r, id)
	}
}

// admissible refuses what is not plain HTTP/1.0 or 1.1, and what two readers
// could read differently. After most of these nobody knows where the next
// request begins, so the connection ends.
func (s *Server) admissible(ctx *fasthttp.RequestCtx, h *head) bool {
	header := &ctx.Request.Header
	switch {
	case !header.IsHTTP11() && string(header.Protocol()) != "HTTP/1.0":
		s.closeWith(ctx, versionNotSupported, "Only HTTP/1.1 and HTTP/1.0 are spoken here.")
	case h.malformed:
		s.closeWith(ctx, invalidRequest, "A header is folded onto another line, or a line does not end in CR LF.", text("field", "headers"))
	case h.transferEncoding && h.contentLength:
		s.closeWith(ctx, invalidRequest, "Content-Length and Transfer-Encoding exclude each other.", text("field", "Content-Length"))
	case len(header.RequestURI()) > MaxURI:
		s.closeWith(ctx, uriTooLong, "The URI is longer than 4096 bytes.")
	case h.authorizations > 1:
		s.refuseFor(ctx, invalidRequest, fault{"Authorization", "is there twice"})
	default:
		return true
	}
	return false
}

// allows reports whether the handler is to run. OPTIONS and methods that the
// route does not allow are answered here.
func (s *Server) allows(ctx *fasthttp.RequestCtx, m methods) bool {
	switch {
	case ctx.IsPost():
		if m&allowPost != 0 {
			return true
		}
	case ctx.IsGet(), ctx.IsHead():
		if m&allowGet != 0 {
			return true
		}
	case ctx.IsPut():
		if m&allowPut != 0 {
			return true
		}
	case ctx.IsOptions():
		ctx.Response.SetStatusCode(fasthttp.StatusNoContent)
		ctx.Response.Header.Set("Allow", m.String())
		return false
	}
	s.refuse(ctx, methodNotAllowed, "This path allows "+m.String()+".")
	ctx.Response.Header.Set("Allow", m.String())
	return false
}

func (s *Server) serveMount(ctx *fasthttp.RequestCtx, h *head, m *Mount) {
	if !s.allows(ctx, m.allowed()) {
		return
	}
	if m.Admin {
		if _, ok := s.admin(ctx, h); !ok {
			return
		}
	}
	m.Handle(ctx)
}

func (s *Server) dispatch(ctx *fasthttp.RequestCtx, h *head, r route, id []byte) {
	switch r {
	case productsRoute:
		s.listProducts(ctx)
	case productRoute:
		if ctx.IsPut() {
			s.putProduct(ctx, h, id)
		} else {
			s.getProduct(ctx, id)
		}
	case restockRoute:
		s.restockProduct(ctx, h, id)
	case pauseRoute:
		s.pauseProduct(ctx, h, id)
	case resumeRoute:
		s.resumeProduct(ctx, h, id)
	case resetRoute:
		s.resetProduct(ctx, h, id)
	case ordersRoute:
		s.listOrders(ctx, h)
	case orderRoute:
		s.getOrder(ctx, h, id)
	case confirmRoute:
		s.confirmOrder(ctx, h, id)
	case cancelRoute:
		s.cancelOrder(ctx, h, id)
	case refundRoute:
		s.refundOrder(ctx, h, id)
	case timeRoute:
		s.getTime(ctx)
	case statsRoute:
		s.getStats(ctx, h)
	case healthRoute:
		s.getHealth(ctx)
	case readyRoute:
		s.getReady(ctx)
	case metricsRoute:
		s.getMetrics(ctx)
	case openAPIRoute:
		s.getOpenAPI(ctx)
	case startRoute:
		s.start.write(ctx)
	default:
		panic(fmt.Sprintf("ingest: route %d has no handler", r))
	}
}

// handleError answers what fasthttp could not read as a request, and fasthttp
// closes the connection. Its errors say which limit was met; where the request
// line itself did not end, the connection knows.
func (s *Server) handleError(ctx *fasthttp.RequestCtx, err error) {
	var small *fasthttp.ErrSmallBuffer
	var network net.Error
	switch conn, _ := ctx.Conn().(*connection); {
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		s.closeWith(ctx, bodyTooLarge, "The body is larger than 16384 bytes.")
	case errors.As(err, &small) && conn != nil && !conn.line:
		s.closeWith(ctx, uriTooLong, "The URI is longer than 4096 bytes.")
	case errors.As(err, &small):
		s.closeWith(ctx, headTooLarge, "The headers are larger than 8192 bytes.")
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &network) && network.Timeout():
		s.closeWith(ctx, requestTimeout, "The request did not arrive in time.")
	default:
		s.closeWith(ctx, invalidRequest, "This is not an HTTP request that can be read.")
	}
	s.meters.of(ctx).requests[malformedRoute][statusIndex(ctx.Response.StatusCode())].Add(1)
}

// answer answers with JSON.
func (s *Server) answer(ctx *fasthttp.RequestCtx, status int, body []byte) {
	ctx.Response.SetStatusCode(status)
	ctx.Response.Header.SetContentTypeBytes(plainJSON)
	ctx.Response.Header.SetCanonical(cacheControl, noStore)
	ctx.Response.SetBody(body)
}
