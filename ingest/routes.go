package ingest

import (
	"bytes"
	"strings"

	"github.com/valyala/fasthttp"
)

// route is one row of the contract. Requests are counted by it, so it never
// holds anything a client chose.
type route uint8

const (
	noRoute route = iota
	placeRoute
	productsRoute
	productRoute
	restockRoute
	pauseRoute
	resumeRoute
	resetRoute
	ordersRoute
	orderRoute
	confirmRoute
	cancelRoute
	refundRoute
	timeRoute
	statsRoute
	healthRoute
	readyRoute
	metricsRoute
	openAPIRoute
	startRoute
	mountedRoute
	malformedRoute // what never became a request
	routeCount
)

// methods are what a route allows, in the order Allow lists them.
type methods uint8

const (
	allowGet methods = 1 << iota // and HEAD
	allowPost
	allowPut
)

func (m methods) String() string {
	var names []string
	if m&allowGet != 0 {
		names = append(names, "GET", "HEAD")
	}
	if m&allowPost != 0 {
		names = append(names, "POST")
	}
	if m&allowPut != 0 {
		names = append(names, "PUT")
	}
	return strings.Join(append(names, "OPTIONS"), ", ")
}

// routes names every route as metrics and the OpenAPI document do, and says what
// it allows. Aliases share a row.
var routes = [routeCount]struct {
	name    string
	methods methods
	aliases []string
}{
	noRoute:        {name: "none"},
	placeRoute:     {name: "/v1/products/{product}/orders", methods: allowPost, aliases: []string{"/buy", "/buy/{product}", "/reserve", "/reserve/{product}"}},
	productsRoute:  {name: "/v1/products", methods: allowGet},
	productRoute:   {name: "/v1/products/{product}", methods: allowGet | allowPut},
	restockRoute:   {name: "/v1/products/{product}/restock", methods: allowPost},
	pauseRoute:     {name: "/v1/products/{product}/pause", methods: allowPost},
	resumeRoute:    {name: "/v1/products/{product}/resume", methods: allowPost},
	resetRoute:     {name: "/v1/products/{product}/reset", methods: allowPost},
	ordersRoute:    {name: "/v1/orders", methods: allowGet},
	orderRoute:     {name: "/v1/orders/{id}", methods: allowGet},
	confirmRoute:   {name: "/v1/orders/{id}/confirm", methods: allowPost},
	cancelRoute:    {name: "/v1/orders/{id}/cancel", methods: allowPost},
	refundRoute:    {name: "/v1/orders/{id}/refund", methods: allowPost},
	timeRoute:      {name: "/v1/time", methods: allowGet},
	statsRoute:     {name: "/v1/stats", methods: allowGet},
	healthRoute:    {name: "/healthz", methods: allowGet, aliases: []string{"/livez"}},
	readyRoute:     {name: "/readyz", methods: allowGet},
	metricsRoute:   {name: "/metrics", methods: allowGet},
	openAPIRoute:   {name: "/openapi.yaml", methods: allowGet},
	startRoute:     {name: "/", methods: allowGet},
	mountedRoute:   {name: "mounted"},
	malformedRoute: {name: "malformed"},
}

// match finds the route of a path, as the bytes came. A path is compared exactly
// and never made tidy first: what is written with a percent sign, two slashes, a
// step up, a semicolon or another case is some other path, and there is none.
// The second result is the product or the order that the path names.
func match(path []byte) (route, []byte) {
	switch {
	case bytes.HasPrefix(path, []byte("/v1/products/")):
		id, tail := segment(path[len("/v1/products/"):])
		if !validProduct(id) {
			return noRoute, nil
		}
		switch string(tail) {
		case "/orders":
			return placeRoute, id
		case "":
			return productRoute, id
		case "/restock":
			return restockRoute, id
		case "/pause":
			return pauseRoute, id
		case "/resume":
			return resumeRoute, id
		case "/reset":
			return resetRoute, id
		}
		return noRoute, nil
	case bytes.HasPrefix(path, []byte("/buy/")):
		if id := path[len("/buy/"):]; validProduct(id) {
			return placeRoute, id
		}
		return noRoute, nil
	case bytes.HasPrefix(path, []byte("/reserve/")):
		if id := path[len("/reserve/"):]; validProduct(id) {
			return placeRoute, id
		}
		return noRoute, nil
	case bytes.HasPrefix(path, []byte("/v1/orders/")):
		id, tail := segment(path[len("/v1/orders/"):])
		if !validProduct(id) {
			return noRoute, nil
		}
		switch string(tail) {
		case "":
			return orderRoute, id
		case "/confirm":
			return confirmRoute, id
		case "/cancel":
			return cancelRoute, id
		case "/refund":
			return refundRoute, id
		}
		return noRoute, nil
	}
	switch string(path) {
	case "/buy", "/reserve":
		return placeRoute, nil
	case "/v1/products":
		return productsRoute, nil
	case "/v1/orders":
		return ordersRoute, nil
	case "/v1/time":
		return timeRoute, nil
	case "/v1/stats":
		return statsRoute, nil
	case "/healthz", "/livez":
		return healthRoute, nil
	case "/readyz":
		return readyRoute, nil
	case "/metrics":
		return metricsRoute, nil
	case "/openapi.yaml":
		return openAPIRoute, nil
	case "/":
		return startRoute, nil
	}
	return noRoute, nil
}

// segment cuts a path's first segment off; the tail keeps its slash.
func segment(rest []byte) (id, tail []byte) {
	if i := bytes.IndexByte(rest, '/'); i >= 0 {
		return rest[:i], rest[i:]
	}
	return rest, nil
}

// pathOf returns the path of a request target as it was sent. The absolute form
// that proxies use (RFC 9112, 3.2.2) loses its scheme and authority.
func pathOf(uri []byte) []byte {
	if len(uri) > 0 && uri[0] != '/' {
		if i := bytes.Index(uri, []byte("://")); i > 0 {
			uri = uri[i+len("://"):]
			if i = bytes.IndexAny(uri, "/?"); i < 0 {
				return []byte("/")
			}
			if uri = uri[i:]; uri[0] == '?' {
				return []byte("/")
			}
		}
	}
	if i := bytes.IndexByte(uri, '?'); i >= 0 {
		uri = uri[:i]
	}
	return uri
}

// Mount is a route of another package: the live view, the pages, the attacks.
type Mount struct {
	// Path is compared exactly, or, where it ends in "/" and is longer, with the
	// beginning of a request's path. "/" replaces the start page.
	Path string
	// Methods that are allowed. GET allows HEAD as well.
	Methods []string
	// Admin lets in only whoever may administrate.
	Admin  bool
	Handle fasthttp.RequestHandler
}

func (m *Mount) matches(path []byte) bool {
	if len(m.Path) > 1 && strings.HasSuffix(m.Path, "/") {
		return len(path) > len(m.Path) && string(path[:len(m.Path)]) == m.Path && clean(path)
	}
	return string(path) == m.Path
}

// clean reports whether the path says what it means: no escapes, no steps, no
// empty segments. A mount below a prefix may then trust its bytes.
func clean(path []byte) bool {
	for rest := path; len(rest) > 0; {
		id, tail := segment(rest[1:])
		if !validProduct(id) {
			return false
		}
		rest = tail
	}
	return true
}

func (m *Mount) allowed() methods {
	var all methods
	for _, name := range m.Methods {
		switch name {
		case "GET":
			all |= allowGet
		case "POST":
			all |= allowPost
		case "PUT":
			all |= allowPut
		}
	}
	return all
}
