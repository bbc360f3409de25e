// Command bare is the speed of light of the path: fasthttp with its default
// options and a handler that reads nothing and answers every request with the
// same 201, of the size of an order. What Floodgate costs beyond it is what the
// engine, the journal and reading the request cost.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/valyala/fasthttp"
)

const order = `{"id":"019abe2c-7d1f-7c3a-8f00-00000000002a","product":"sale","buyer":"u-00-1-0000001","quantity":1,"status":"confirmed","price_minor":1999,"currency":"EUR","accepted_at":"2026-01-01T12:00:00.000Z","settled":false}`

func main() {
	addr := flag.String("addr", "127.0.0.1:0", "HTTP listen address")
	flag.Parse()
	body := []byte(order)
	err := fasthttp.ListenAndServe(*addr, func(ctx *fasthttp.RequestCtx) {
		ctx.SetStatusCode(fasthttp.StatusCreated)
		ctx.SetContentType("application/json")
		ctx.SetBody(body)
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "bare:", err)
		os.Exit(1)
	}
}
