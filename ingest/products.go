package ingest

import (
	"github.com/valyala/fasthttp"
)

func (s *Server) getProduct(ctx *fasthttp.RequestCtx, id []byte) {
	l := s.engine.Listing(id)
	if l == nil {
		s.refuse(ctx, unknownProduct, "There is no such product.")
		return
	}
	var room [768]byte
	s.answer(ctx, fasthttp.StatusOK, AppendProduct(room[:0], l.View(), s.now(ctx)))
}

func (s *Server) listProducts(ctx *fasthttp.RequestCtx) {
	listings := s.engine.Listings()
	now := s.now(ctx)
	b := append(make([]byte, 0, 64+384*len(listings)), `{"products":[`...)
	for i, l := range listings {
		if i > 0 {
			b = append(b, ',')
		}
		b = AppendProduct(b, l.View(), now)
	}
	s.answer(ctx, fasthttp.StatusOK, append(b, "]}"...))
}

// DemoProduct is sold where a request names no product and nothing says better.
const DemoProduct = "demo"

// onlyProduct is the default product's rule where none was configured: the only
// one there is, else the demo. Products are never taken away, so the answer
// changes only when one is made. Those made through this server are seen at
// once, others within a second.
func (s *Server) onlyProduct(now int64) []byte {
	if only := s.only.Load(); only != nil && now-only.at < 1000 && now >= only.at {
		return only.id
	}
	id := []byte(DemoProduct)
	if listings := s.engine.Listings(); len(listings) == 1 {
		id = []byte(listings[0].ID())
	}
	s.only.Store(&onlyProduct{id: id, at: now})
	return id
}

// onlyProduct is what the rule found, and when, in Unix milliseconds.
type onlyProduct struct {
	id []byte
	at int64
}
