//go:build !race

package ingest_test

import (
	"bufio"
	"strings"
	"testing"

	"github.com/valyala/fasthttp"

	"floodgate/engine"
)

// After sell-out nearly all requests are refusals, so one may allocate nothing.
func TestAllocations_a_refusal_has_none(t *testing.T) {
	n := start(t, nil)
	n.product(engine.Settings{ID: "demo"}, 0)
	n.product(engine.Settings{ID: "open"}, 1000)
	for name, request := range map[string]string{
		"sold out":               "POST /v1/products/demo/orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 28\r\n\r\n{\"buyer\":\"u-1\",\"quantity\":1}",
		"sold out, escaped":      "POST /buy/demo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 33\r\n\r\n{\"buyer\":\"\\u0075-1\",\"quantity\":1}",
		"sold out, without body": "POST /buy/demo HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			var ctx fasthttp.RequestCtx
			var parsed fasthttp.Request
			ctx.Init(&parsed, nil, nil)
			if err := ctx.Request.Read(bufio.NewReader(strings.NewReader(request))); err != nil {
				t.Fatal(err)
			}
			allocations := testing.AllocsPerRun(1000, func() {
				ctx.Response.Reset()
				n.server.Handle(&ctx)
			})
			if ctx.Response.StatusCode() != 409 || allocations != 0 {
				t.Errorf("%d with %v allocations: %s", ctx.Response.StatusCode(), allocations, ctx.Response.Body())
			}
		})
	}
}
