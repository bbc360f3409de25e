package ingest

import (
	"errors"

	"floodgate/engine"
)

// outcomeProblems is the one table from the engine's answers to HTTP. Accepted
// and Replayed are no problem; a test walks engine.Outcomes so that no other can
// be forgotten here.
var outcomeProblems = map[engine.Outcome]problem{
	engine.KeyMismatch:    idempotencyMismatch,
	engine.NotStarted:     saleNotStarted,
	engine.Ended:          saleEnded,
	engine.Paused:         productPaused,
	engine.OverLimit:      buyerLimit,
	engine.SoldOut:        soldOut,
	engine.NotHeld:        orderNotHeld,
	engine.HoldExpired:    holdExpired,
	engine.OrderFinal:     orderFinal,
	engine.NotConfirmed:   orderNotConfirmed,
	engine.StockCommitted: stockCommitted,
	engine.StockExceeded:  stockExceeded,
	engine.ProductExists:  productExists,
}

// errorProblems is the same for errors. 503 says that nothing was decided, so
// the request may be sent again as it is. 504 says that it may have been: only a
// retry with the same idempotency key tells.
var errorProblems = []struct {
	err     error
	problem problem
	detail  string
}{
	{engine.ErrOverloaded, overloaded, "More orders are waiting than this node takes. Nothing was decided; try again."},
	{engine.ErrStalled, unavailable, "The journal does not keep up. Nothing was decided; try again."},
	{ErrStorageFull, unavailable, "storage-full: the disk has no room to keep an order. Nothing was decided; try another node."},
	{engine.ErrClosed, unavailable, "The node is shutting down. Nothing was decided; try again."},
	{engine.ErrTooManyProducts, tooManyProducts, "The node holds as many products as it may."},
	{engine.ErrUnknown, outcomeUnknown, "The journal did not confirm in time. It may have happened or not; to learn which, ask again, an order with the same Idempotency-Key."},
	{engine.ErrJournalFailed, outcomeUnknown, "The journal failed. It may have happened or not; to learn which, ask again once the node is back, an order with the same Idempotency-Key."},
}

// problemOf returns the problem of an error, and what to say about it. An error
// that nobody foresaw may have come after the decision, so it is unknown too.
func problemOf(err error) (problem, string) {
	for i := range errorProblems {
		if e := &errorProblems[i]; errors.Is(err, e.err) {
			return e.problem, e.detail
		}
	}
	return outcomeUnknown, "Something failed. It may have happened or not; to learn which, ask again, an order with the same Idempotency-Key."
}
