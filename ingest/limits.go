package ingest

import (
	"time"

	"floodgate/engine"
)

// Limits of what one client can make us hold or wait for. Every one of them is
// answered with a problem that names it.
const (
	MaxBody = 16 << 10 // bytes of a request's body: 413
	MaxHead = 8 << 10  // bytes of the request line and all headers: 431
	MaxURI  = 4 << 10  // bytes of the request target: 414

	DefaultMaxConnections = 65536
	DefaultReadTimeout    = 10 * time.Second // first byte to last byte of a request
	DefaultWriteTimeout   = 10 * time.Second // for the client to take what we write
	DefaultIdleTimeout    = 60 * time.Second // between requests

	defaultPage = 20
	maxPage     = 100

	maxLogged = 1 << 10 // bytes of anything a client sent that reach the log
)

// validProduct reports whether b can name a product: an id that is not "." or
// "..", which are steps in a path.
func validProduct(b []byte) bool {
	return validBuyer(b) && string(b) != "." && string(b) != ".."
}

// validBuyer reports whether b is an id: 1 to 64 of A-Z a-z 0-9 . _ -.
func validBuyer(b []byte) bool {
	if len(b) == 0 || len(b) > engine.MaxID {
		return false
	}
	for _, c := range b {
		if !idBytes[c] {
			return false
		}
	}
	return true
}

var idBytes = func() (table [256]bool) {
	for c := range table {
		table[c] = 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '_' || c == '-'
	}
	return table
}()

// validKey reports whether b can be an idempotency key: 1 to 64 of printable
// ASCII. HTTP has taken the spaces around it away.
func validKey(b []byte) bool {
	if len(b) == 0 || len(b) > engine.MaxKey {
		return false
	}
	for _, c := range b {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return true
}
