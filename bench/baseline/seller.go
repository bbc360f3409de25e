// Package baseline holds the usual ways to sell scarce units inside one process,
// and the engine among them, behind one small interface. All of them pass one
// suite before one benchmark measures them.
//
// Only the last of them keeps anything on disk. What the others cost is the
// price of an answer that a crash forgets.
package baseline

// Seller sells units of one product. It is safe for concurrent use.
type Seller interface {
	// Sell gives the buyer all the units or none. The buyer's bytes are the
	// caller's again on return. An error means that we do not know.
	Sell(buyer []byte, quantity int64) (accepted bool, err error)
	// Remaining returns the units that nobody has.
	Remaining() int64
	// Close ends the seller. Nobody may be selling.
	Close() error
}

// Terms are what is sold.
type Terms struct {
	Stock         int64
	LimitPerBuyer int64 // 0: none
}

// Kind is one way to sell.
type Kind struct {
	Name   string
	Limits bool // knows a limit per buyer
	Open   func(dir string, t Terms) (Seller, error)
}

// Kinds returns all of them. The directory that Open takes is for those that
// keep something; the others leave it alone.
func Kinds() []Kind {
	inMemory := func(open func(Terms) Seller) func(string, Terms) (Seller, error) {
		return func(_ string, t Terms) (Seller, error) { return open(t), nil }
	}
	return []Kind{
		{"mutex", true, inMemory(openMutex)},
		{"atomic", false, inMemory(openAtomic)},
		{"channel", true, inMemory(openChannel)},
		{"goroutine", true, inMemory(openGoroutine)},
		{"engine", true, openEngine},
		{"journaled", true, openJournaled},
	}
}

// counter is the rule in its plainest form. It remembers who bought what, as any
// sale must that has a limit or answers to its buyers.
type counter struct {
	terms     Terms
	remaining int64
	units     map[string]int64
}

func newCounter(t Terms) counter {
	return counter{terms: t, remaining: t.Stock, units: make(map[string]int64)}
}

func (c *counter) sell(buyer []byte, quantity int64) bool {
	if quantity > c.remaining {
		return false
	}
	has := c.units[string(buyer)]
	if c.terms.LimitPerBuyer > 0 && has+quantity > c.terms.LimitPerBuyer {
		return false
	}
	c.remaining -= quantity
	c.units[string(buyer)] = has + quantity
	return true
}
