package ingest_test

import (
	"bufio"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/rs/zerolog"
	"github.com/valyala/fasthttp"

	"floodgate/engine"
	"floodgate/engine/enginetest"
	"floodgate/ingest"
)

// BenchmarkHandler is our share of a refusal: all between fasthttp having read
// the request and fasthttp writing the answer, and the answer's bytes.
func BenchmarkHandler(b *testing.B) {
	journal := enginetest.NewMemoryJournal()
	recovered, err := engine.Recover(journal)
	if err != nil {
		b.Fatal(err)
	}
	e, err := engine.New(engine.Options{IDs: journal.IDs()}, journal, recovered)
	if err != nil {
		b.Fatal(err)
	}
	defer e.Close()
	if _, err := e.Create(&engine.Settings{ID: "demo", Name: "Demo", Currency: "EUR"}, 0); err != nil {
		b.Fatal(err)
	}
	auth, err := ingest.NewAuth(ingest.AuthOptions{})
	if err != nil {
		b.Fatal(err)
	}
	server, err := ingest.New(ingest.Options{Engine: e, Ledger: journal, Auth: auth, Logger: zerolog.Nop(), Now: func() int64 { return 1 }})
	if err != nil {
		b.Fatal(err)
	}
	defer server.Shutdown(b.Context())

	for name, request := range map[string]string{
		"refusal=sold-out":    "POST /buy/demo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 28\r\n\r\n{\"buyer\":\"u-1\",\"quantity\":1}",
		"refusal=unknown":     "POST /buy/nothing HTTP/1.1\r\nHost: x\r\n\r\n",
		"refusal=bad-request": "POST /buy/demo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n{\"quantity\":0}",
	} {
		b.Run(name, func(b *testing.B) {
			var ctx fasthttp.RequestCtx
			var empty fasthttp.Request
			ctx.Init(&empty, &net.TCPAddr{}, nil)
			if err := ctx.Request.Read(bufio.NewReader(strings.NewReader(request))); err != nil {
				b.Fatal(err)
			}
			w := bufio.NewWriter(io.Discard)
			b.ReportAllocs()
			for b.Loop() {
				ctx.Response.Reset()
				server.Handle(&ctx)
				if err := ctx.Response.Write(w); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
