package ingest

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"strings"

	"github.com/valyala/fasthttp"
)

//go:embed start_page.html
var startHTML []byte

// startPage is what a node shows at / where no storefront does. It has no script
// and loads nothing; its one style is allowed by its hash.
type startPage struct{ policy string }

func newStartPage() startPage {
	_, style, _ := strings.Cut(string(startHTML), "<style>")
	style, _, _ = strings.Cut(style, "</style>")
	sum := sha256.Sum256([]byte(style))
	return startPage{"default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"}
}

func (p startPage) write(ctx *fasthttp.RequestCtx) {
	h := &ctx.Response.Header
	h.SetContentType("text/html; charset=utf-8")
	h.Set("Content-Security-Policy", p.policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-cache")
	// The address the client reached, as the socket knows it: what a client says of
	// it does not get into a line that people paste into a shell.
	ctx.Response.SetBodyRaw(bytes.ReplaceAll(startHTML, []byte("127.0.0.1:3000"), []byte(ctx.LocalAddr().String())))
}
