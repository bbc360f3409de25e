package ingest

import (
	_ "embed"
	"encoding/json"

	"github.com/valyala/fasthttp"
)

//go:embed openapi.yaml
var openAPI []byte

// Check is one thing a node needs in order to sell, and how it is.
type Check struct {
	Name   string `json:"name"`   // such as journal, inbox, disk, sync
	Ready  bool   `json:"ready"`  // it does not keep the node from selling
	State  string `json:"state"`  // in a word or two
	Detail string `json:"detail"` // in a sentence; may be empty
}

// getHealth says that the process is alive, and no more.
func (s *Server) getHealth(ctx *fasthttp.RequestCtx) {
	s.answer(ctx, fasthttp.StatusOK, []byte(`{"status":"ok"}`))
}

// getReady says whether the node may sell, with the state of each thing it
// needs for that.
func (s *Server) getReady(ctx *fasthttp.RequestCtx) {
	checks := []Check{{Name: "http", Ready: !s.draining.Load(), State: "accepting"}}
	if !checks[0].Ready {
		checks[0].State = "draining"
	}
	checks = append(checks, s.opts.Ready()...)
	ready := true
	for _, c := range checks {
		ready = ready && c.Ready
	}
	list, err := json.Marshal(checks)
	if err != nil {
		panic("ingest: checks are not JSON: " + err.Error())
	}
	if !ready {
		s.refuse(ctx, notReady, "Something the node needs in order to sell is not ready.", raw("checks", list))
		return
	}
	b := append([]byte(`{"status":"ready","checks":`), list...)
	s.answer(ctx, fasthttp.StatusOK, append(b, '}'))
}

// getTime tells the server's clock, for countdowns.
func (s *Server) getTime(ctx *fasthttp.RequestCtx) {
	b := appendTime([]byte(`{"now":`), s.now(ctx))
	s.answer(ctx, fasthttp.StatusOK, append(b, '}'))
}

func (s *Server) getOpenAPI(ctx *fasthttp.RequestCtx) {
	ctx.Response.Header.SetContentType("application/yaml; charset=utf-8")
	ctx.Response.Header.Set("X-Content-Type-Options", "nosniff")
	ctx.Response.SetBodyRaw(openAPI)
}
