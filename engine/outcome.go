package engine

// Outcome is a business answer: a value, never an error. An error means that we
// do not know, or could not; see errors.go. The numbers are append only.
type Outcome uint8

const (
	Accepted       Outcome = 1  // the order, or the change, is made and durable
	Replayed       Outcome = 2  // the idempotency key bought before; that order is the answer
	KeyMismatch    Outcome = 3  // the idempotency key bought something else before
	NotStarted     Outcome = 4  // the sale has not begun
	Ended          Outcome = 5  // the sale is over
	Paused         Outcome = 6  // an admin paused the sale
	OverLimit      Outcome = 7  // the buyer's limit would be passed
	SoldOut        Outcome = 8  // fewer units remain than were asked for
	NotHeld        Outcome = 9  // to confirm: the order is not held any more, see Answer.Status
	HoldExpired    Outcome = 10 // to confirm: the hold ran out before
	OrderFinal     Outcome = 11 // to cancel or refund: the order is past that, see Answer.Status
	NotConfirmed   Outcome = 12 // to refund: the order is still held
	StockCommitted Outcome = 13 // the units to take away are sold or held
	StockExceeded  Outcome = 14 // the stock would pass MaxStock
	ProductExists  Outcome = 15 // to create: the product is there already
	lastOutcome            = ProductExists
)

var outcomeNames = [...]string{
	Accepted: "accepted", Replayed: "replayed", KeyMismatch: "idempotency-mismatch",
	NotStarted: "sale-not-started", Ended: "sale-ended", Paused: "product-paused",
	OverLimit: "buyer-limit", SoldOut: "sold-out", NotHeld: "order-not-held",
	HoldExpired: "hold-expired", OrderFinal: "order-final", NotConfirmed: "order-not-confirmed",
	StockCommitted: "stock-committed", StockExceeded: "stock-exceeded", ProductExists: "product-exists",
}

// String returns the outcome's name, which is also the name of its problem.
func (o Outcome) String() string {
	if int(o) < len(outcomeNames) && outcomeNames[o] != "" {
		return outcomeNames[o]
	}
	return "unknown"
}

// Outcomes returns every outcome there is, in order. Tables that map outcomes
// are tested against it, so that a new one cannot be forgotten.
func Outcomes() []Outcome {
	all := make([]Outcome, 0, lastOutcome)
	for o := Accepted; o <= lastOutcome; o++ {
		all = append(all, o)
	}
	return all
}
