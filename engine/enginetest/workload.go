package enginetest

import (
	"fmt"

	"floodgate/engine"
)

// Step is one thing that happens to a product: Wait milliseconds pass, then a
// command is asked. With no Op, holds run out instead.
type Step struct {
	Wait     int64
	Op       engine.Op
	Buyer    string
	Key      string
	Quantity int64
	Restock  bool
	Order    int // confirm, cancel, refund: place in Model.Ledger
	Settings engine.Settings
}

// Command returns the step as a command for the engine. Ledger is the model's.
func (s Step) Command(ledger []*ModelOrder) *engine.Command {
	c := engine.AcquireCommand()
	c.Op, c.Quantity, c.Restock = s.Op, s.Quantity, s.Restock
	switch s.Op {
	case engine.OpConfirm, engine.OpCancel, engine.OpRefund:
		c.SetOrder(&ledger[s.Order].Order)
	case engine.OpPlace:
		c.SetBuyer([]byte(s.Buyer))
		c.SetKey([]byte(s.Key))
	case engine.OpCreate, engine.OpChange:
		settings := s.Settings
		c.Settings = &settings
	}
	return c
}

// Choose returns a number from 0 to n-1. A random generator, a fuzzer's bytes or
// a property test's shrinking source all are one, so each of them can drive the
// same workload.
type Choose func(n int) int

// Bytes chooses by a fuzzer's bytes. Done reports that they are used up.
func Bytes(input []byte) (choose Choose, done func() bool) {
	choose = func(n int) int {
		if len(input) == 0 {
			return 0
		}
		b := input[0]
		input = input[1:]
		return int(b) % n
	}
	return choose, func() bool { return len(input) == 0 }
}

// ops says how often each operation is chosen.
var ops = [...]engine.Op{
	0, 0,
	engine.OpPlace, engine.OpPlace, engine.OpPlace, engine.OpPlace, engine.OpPlace, engine.OpPlace, engine.OpPlace,
	engine.OpConfirm, engine.OpConfirm,
	engine.OpCancel, engine.OpCancel,
	engine.OpRefund, engine.OpRefund,
	engine.OpRestock, engine.OpRestock,
	engine.OpChange, engine.OpChange,
	engine.OpPause, engine.OpResume, engine.OpResume,
	engine.OpReset,
	engine.OpCreate,
}

// NextStep chooses what happens next to the product of the model. It prefers
// what sits on a boundary: few buyers, few keys, quantities about what remains,
// waits about the length of a hold, of a window and of the life of a key.
func NextStep(choose Choose, m *Model, now int64) Step {
	s := Step{Op: ops[choose(len(ops))]}
	switch choose(12) {
	case 0:
		s.Wait = []int64{1, 999, 1000, 1001}[choose(4)]
	case 1:
		s.Wait = []int64{engine.KeepKeys - 1, engine.KeepKeys, engine.KeepKeys / 2}[choose(3)]
	case 2, 3, 4:
		s.Wait = int64(choose(3000))
	}
	now += s.Wait
	if m.Run == 0 {
		s.Op = engine.OpCreate
	}
	remaining, _, _ := m.Units()
	switch s.Op {
	case engine.OpPlace:
		s.Quantity = []int64{1, 1, 1, 2, 3, remaining, remaining + 1}[choose(7)]
		s.Quantity = min(max(s.Quantity, 1), engine.MaxQuantity)
		if b := choose(4); b > 0 {
			s.Buyer = fmt.Sprintf("buyer-%d", b)
		}
		if k := choose(6); k > 2 {
			s.Key = fmt.Sprintf("key-%d", k)
		}
	case engine.OpConfirm, engine.OpCancel, engine.OpRefund:
		if len(m.Ledger) == 0 {
			s.Op = 0
			break
		}
		s.Order = len(m.Ledger) - 1 - choose(min(len(m.Ledger), 12))
		s.Restock = choose(2) == 1
	case engine.OpCreate:
		s.Quantity = int64(choose(12))
		s.Settings = nextSettings(choose, m, now)
	case engine.OpChange:
		s.Settings = nextSettings(choose, m, now)
	case engine.OpRestock:
		s.Quantity = []int64{0, 1, 5, -1, -remaining, -remaining - 1, engine.MaxStock - m.Stock, engine.MaxStock - m.Stock + 1}[choose(8)]
		if s.Quantity > 1<<20 && choose(4) > 0 {
			s.Quantity = 2 // a full shelf hides all that happens when it is empty
		}
	case engine.OpReset:
		s.Quantity = int64(choose(12))
	}
	return s
}

// nextSettings changes one of the settings.
func nextSettings(choose Choose, m *Model, now int64) engine.Settings {
	s := m.Settings
	s.Currency = "EUR"
	switch choose(8) {
	case 0:
		s.Price = int64(choose(1000))
	case 1, 2:
		s.LimitPerBuyer = int64(choose(4))
	case 3, 4:
		s.HoldSeconds = int64(choose(3))
	case 5:
		s.StartsAt = []int64{0, now - 1, now, now + 1, now + 1500}[choose(5)]
	case 6:
		s.EndsAt = []int64{0, now, now + 1, now + 1500, now + 5000}[choose(5)]
	case 7:
		s.StartsAt, s.EndsAt = 0, 0
	}
	return s
}
