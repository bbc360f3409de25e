package engine

// Kind says what an event changed. The numbers are on disk: append only.
type Kind uint8

const (
	ProductChanged Kind = 1  // created or given new Settings; a first one carries the stock
	StockChanged   Kind = 2  // restocked; Quantity may be negative
	SalePaused     Kind = 3  //
	SaleResumed    Kind = 4  //
	RunStarted     Kind = 5  // reset: Run is the new run, Quantity its stock
	SaleOpened     Kind = 6  // the window's start was seen; a clock set back does not close it
	SaleClosed     Kind = 7  // the window's end was seen; a clock set back does not reopen it
	OrderAccepted  Kind = 16 // held if Deadline is set, else confirmed
	OrderConfirmed Kind = 17
	OrderCancelled Kind = 18
	OrderExpired   Kind = 19
	OrderRefunded  Kind = 20 // Restock says whether the units went back
)

// Event is what an accepted command changed: all that a replay needs, and
// nothing that must be looked up elsewhere. Byte slices belong to whoever made
// the event and are valid only until the call they were passed to returns.
type Event struct {
	Seq      uint64 // place in the node's journal, from 1
	At       int64  // Unix milliseconds, never before the shard's event before it
	Kind     Kind
	Product  string
	Run      uint32
	Number   uint32 // order events: the order's place in its run
	Quantity int64  // units of the order, or of the stock change
	Buyer    []byte // order events; empty: anonymous
	Key      []byte // OrderAccepted; empty: none
	Price    int64  // OrderAccepted: minor units
	Currency string // OrderAccepted: ISO 4217
	Deadline int64  // OrderAccepted: Unix milliseconds, 0 for none
	Restock  bool   // OrderRefunded
	Settings *Settings

	command *Command // who waits for it; nil for the shard's own events and in a replay
	hash    uint64   // of Buyer; 0: to be computed
}

// buyerHash returns the hash of the buyer's name. Who sent the command computed
// it, so that the shard need not; a replay does.
func (e *Event) buyerHash() uint64 {
	if e.hash != 0 {
		return e.hash
	}
	return nameHash(e.Buyer)
}

// Order reports whether the event is about an order.
func (k Kind) Order() bool { return k >= OrderAccepted && k <= OrderRefunded }

// Status returns the status an order event leaves its order in.
func (e *Event) Status() Status {
	switch e.Kind {
	case OrderAccepted:
		return acceptedStatus(e.Deadline)
	case OrderConfirmed:
		return Confirmed
	case OrderCancelled:
		return Cancelled
	case OrderExpired:
		return Expired
	case OrderRefunded:
		return Refunded
	}
	return 0
}

// Settings are what an admin chose for a product. A *Settings is immutable once
// it was handed over. Times are Unix milliseconds, 0 for none.
type Settings struct {
	ID            string
	Name          string
	Price         int64 // minor units
	Currency      string
	LimitPerBuyer int64 // units held and bought in one run; 0: none
	HoldSeconds   int64 // 0: an accepted order is confirmed at once
	StartsAt      int64
	EndsAt        int64
}

// Limits of what a product can be asked. They keep every sum far from overflow.
const (
	MaxID          = 64                  // bytes of a product's or a buyer's id
	MaxKey         = 64                  // bytes of an idempotency key
	MaxName        = 256                 // bytes of a product's name
	MaxQuantity    = 1_000_000           // units of one order
	MaxStock       = 1_000_000_000       // units of one run
	MaxPrice       = 1_000_000_000_000   // minor units
	MaxHoldSeconds = 30 * 24 * 3600      // a month
	MaxTime        = 253_402_300_799_999 // the last millisecond of the year 9999
)
