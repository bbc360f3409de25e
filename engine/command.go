package engine

import (
	"sync"
	"time"
)

// Op is what a command asks for.
type Op uint8

const (
	OpPlace   Op = 1 // buy Quantity units for Buyer
	OpConfirm Op = 2 // make held order Run/Number final
	OpCancel  Op = 3 // give held order Run/Number back
	OpRefund  Op = 4 // undo confirmed order Run/Number; Restock returns its units
	OpCreate  Op = 5 // make the product of Settings with a stock of Quantity
	OpChange  Op = 6 // replace the product's Settings
	OpRestock Op = 7 // add Quantity units, or take them away where negative
	OpPause   Op = 8
	OpResume  Op = 9
	OpReset   Op = 10 // start a new run with a stock of Quantity
)

// Command is what is asked of one product, and its answer. It owns all its
// bytes. Get one from AcquireCommand and give it back with ReleaseCommand.
type Command struct {
	Op       Op
	Quantity int64
	Restock  bool
	Settings *Settings

	// Of the order that OpConfirm, OpCancel and OpRefund name, as the ledger
	// told it before the command was sent. Buyer and Quantity belong to it too.
	// SetOrder fills them.
	Run      uint32
	Number   uint32
	Status   Status
	Deadline int64

	// Answer is valid once Engine.Do returned nil.
	Answer Answer

	listing    *Listing
	answerer   Answerer // who is told; nil where somebody waits in Engine.Do
	buyer, key []byte   // point into the rooms
	hash       uint64   // of the buyer
	buyerRoom  [MaxID]byte
	keyRoom    [MaxKey]byte
	scratch    [32]byte
	abandoned  bool
}

// Answer is what a shard answered.
type Answer struct {
	Outcome   Outcome
	ID        OrderID // OpPlace, where Outcome is Accepted or Replayed
	Seq       uint64  // of the accepting event, where Outcome is Accepted
	At        int64   // Unix milliseconds: when it was decided
	Run       uint32
	Number    uint32
	Remaining int64 // SoldOut: units nobody has
	Price     int64
	Currency  string
	Deadline  int64  // OpPlace: of the hold, 0 for none. Unix milliseconds
	Status    Status // order commands: where the order stands now
	Units     int64  // OverLimit: what the buyer holds and bought already
	Limit     int64  // OverLimit
	View      *View  // admin's commands: the product at that moment
	Changed   bool   // false where the command found its effect already there
}

// Answerer is told the answer of a command that Engine.Send took.
type Answerer interface {
	// Answered is called once, on a goroutine that many answers share: it must
	// not block. At is when the answer was known. Err is as from Engine.Do; only
	// where it is nil is c.Answer valid. The command is the answerer's again.
	Answered(c *Command, at time.Time, err error)
}

var commands = sync.Pool{New: func() any { return new(Command) }}

// AcquireCommand returns an empty command.
func AcquireCommand() *Command { return commands.Get().(*Command) }

// ReleaseCommand takes the command back. Its bytes may not be used afterwards.
func ReleaseCommand(c *Command) {
	if c.abandoned {
		return // a shard may still write to it
	}
	c.Op, c.Quantity, c.Restock, c.Settings = 0, 0, false, nil
	c.Run, c.Number, c.Status, c.Deadline = 0, 0, 0, 0
	c.listing, c.answerer, c.hash = nil, nil, 0
	c.Answer = Answer{}
	c.buyer, c.key = nil, nil
	commands.Put(c)
}

// SetBuyer copies the buyer's id, MaxID bytes at most; longer is a programmer's error.
func (c *Command) SetBuyer(id []byte) {
	c.buyer = c.buyerRoom[:copyAll(c.buyerRoom[:], id)]
	c.hash = nameHash(c.buyer)
}

// SetKey copies the idempotency key, MaxKey bytes at most.
func (c *Command) SetKey(key []byte) { c.key = c.keyRoom[:copyAll(c.keyRoom[:], key)] }

// SetOrder says which order a confirm, cancel or refund is about: one that the
// ledger told, of the product the command will be sent to.
func (c *Command) SetOrder(o *Order) {
	c.Run, c.Number, c.Status, c.Deadline, c.Quantity = o.Run, o.Number, o.Status, o.Deadline, o.Quantity
	c.SetBuyer([]byte(o.Buyer))
}

// Buyer returns the buyer's id, empty for an anonymous one.
func (c *Command) Buyer() []byte { return c.buyer }

// Key returns the idempotency key, empty for none.
func (c *Command) Key() []byte { return c.key }

func copyAll(dst, src []byte) int {
	if len(src) > len(dst) {
		panic("engine: id or key longer than its limit")
	}
	return copy(dst, src)
}
