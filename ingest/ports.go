package ingest

import (
	"errors"

	"floodgate/engine"
)

// Engine is what this package asks of the engine. It is an interface so that
// tests can make it fail in ways the real one must be broken for.
type Engine interface {
	// Listing returns the product as the outside sees it, nil where there is none.
	Listing(id []byte) *engine.Listing
	// Listings returns all of them.
	Listings() []*engine.Listing
	// Do returns once what was decided is durable; the command's Answer is valid
	// where it returns nil.
	Do(l *engine.Listing, c *engine.Command) error
	// Send returns at once, and the answerer is told what Do would return. An
	// error says that nothing happened, and that the answerer hears nothing.
	Send(l *engine.Listing, c *engine.Command, to engine.Answerer) error
	// Create makes a product.
	Create(settings *engine.Settings, stock int64) (engine.Answer, error)
	// Failed is closed once the journal failed: nothing is decided any more.
	Failed() <-chan struct{}
	// Stats tells how busy the shards are.
	Stats() engine.Stats
}

// ErrStorageFull is what Do and Send return of an order that was not even begun because
// the disk has no room to keep it.
var ErrStorageFull = errors.New("ingest: storage full")

var _ Engine = (*engine.Engine)(nil)

// Ledger finds the orders that the journal keeps. It tells of nothing that is
// not durable.
type Ledger interface {
	// Order returns the order with the given id, and whether there is one.
	Order(id engine.OrderID) (engine.Order, bool, error)
	// OrdersByBuyer returns at most limit orders accepted before the given
	// sequence (0: no bound), newest first, and the bound of the next page, 0 at
	// the end.
	OrdersByBuyer(buyer string, limit int, before uint64) ([]engine.Order, uint64, error)
}
