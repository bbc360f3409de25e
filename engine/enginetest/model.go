package enginetest

import (
	"fmt"

	"floodgate/engine"
)

// Model is the rule of engine.Product once more, written to be obviously right
// and not to be fast: it remembers every order of every run and counts them
// whenever it is asked. Where the two disagree, one of them is wrong.
//
// Its Ledger is the truth about each order at any moment, so it also plays the
// ledger that tells an order's status before a confirm, a cancel or a refund.
type Model struct {
	Settings       engine.Settings
	Run            uint32 // 0: not created
	Stock          int64
	Paused         bool
	Opened, Closed bool

	Ledger []*ModelOrder
	ended  map[uint32]int64 // when each earlier run ended
}

// ModelOrder is an order as the model remembers it.
type ModelOrder struct {
	engine.Order
	Restocked bool  // the refund gave the units back
	Grace     int64 // the hold does not run out before this time
}

// NewModel returns a product that does not exist yet.
func NewModel(id string) *Model {
	return &Model{Settings: engine.Settings{ID: id}, ended: make(map[uint32]int64)}
}

// Units says where the units of the present run are.
func (m *Model) Units() (remaining, held, sold int64) {
	for _, o := range m.Ledger {
		if o.Run != m.Run {
			continue
		}
		switch {
		case o.Status == engine.Held:
			held += o.Quantity
		case o.Status == engine.Confirmed, o.Status == engine.Refunded && !o.Restocked:
			sold += o.Quantity
		}
	}
	return m.Stock - held - sold, held, sold
}

// UnitsOf returns what counts towards the buyer's limit.
func (m *Model) UnitsOf(buyer string) (units int64) {
	for _, o := range m.Ledger {
		if o.Run == m.Run && o.Buyer == buyer && (o.Status == engine.Held || o.Status == engine.Confirmed) {
			units += o.Quantity
		}
	}
	return units
}

// Do answers the step as engine.Product has to, save for the answer's At.
func (m *Model) Do(s Step, now int64) (a engine.Answer) {
	a.Run = m.Run
	switch s.Op {
	case engine.OpPlace:
		m.place(s, now, &a)
	case engine.OpConfirm, engine.OpCancel, engine.OpRefund:
		m.changeOrder(s, now, &a)
	default:
		m.administer(s, now, &a)
	}
	return a
}

// Expire returns the units of the holds that ran out.
func (m *Model) Expire(now int64) {
	for _, o := range m.Ledger {
		if o.Run == m.Run && m.overdue(o, now) {
			o.Status = engine.Expired
		}
	}
}

func (m *Model) overdue(o *ModelOrder, now int64) bool {
	return o.Status == engine.Held && now >= max(o.Deadline, o.Grace)
}

// Restart is what a restart means to the holds that are there.
func (m *Model) Restart(grace int64) {
	for _, o := range m.Ledger {
		o.Grace = grace
	}
}

func (m *Model) place(s Step, now int64, a *engine.Answer) {
	if before := m.boughtBefore(s, now); before != nil {
		a.Outcome, a.Run, a.Number = engine.Replayed, before.Run, before.Number
		if before.Quantity != s.Quantity {
			a.Outcome = engine.KeyMismatch
		}
		return
	}
	if !m.Opened && now < m.Settings.StartsAt {
		a.Outcome = engine.NotStarted
		return
	}
	if m.Settings.EndsAt != 0 && now >= m.Settings.EndsAt {
		m.Closed = true
	}
	if m.Closed {
		a.Outcome = engine.Ended
		return
	}
	if m.Settings.StartsAt != 0 {
		m.Opened = true
	}
	if m.Paused {
		a.Outcome = engine.Paused
		return
	}
	if m.Settings.LimitPerBuyer > 0 && s.Buyer != "" {
		a.Units, a.Limit = m.UnitsOf(s.Buyer), m.Settings.LimitPerBuyer
		if a.Units+s.Quantity > a.Limit {
			a.Outcome = engine.OverLimit
			return
		}
	}
	remaining, _, _ := m.Units()
	if s.Quantity > remaining {
		a.Outcome, a.Remaining = engine.SoldOut, remaining
		return
	}
	o := &ModelOrder{Order: engine.Order{
		Product: m.Settings.ID, Run: m.Run, Number: m.orders(), Buyer: s.Buyer, Key: s.Key, Quantity: s.Quantity,
		Price: m.Settings.Price, Currency: m.Settings.Currency, AcceptedAt: now, Status: engine.Confirmed,
	}}
	if m.Settings.HoldSeconds > 0 {
		o.Deadline, o.Status = now+m.Settings.HoldSeconds*1000, engine.Held
	}
	m.Ledger = append(m.Ledger, o)
	a.Outcome, a.Number, a.Price, a.Currency, a.Deadline, a.Status, a.Changed =
		engine.Accepted, o.Number, o.Price, o.Currency, o.Deadline, o.Status, true
}

// orders counts the orders of the present run.
func (m *Model) orders() (n uint32) {
	for _, o := range m.Ledger {
		if o.Run == m.Run {
			n++
		}
	}
	return n
}

// boughtBefore finds the newest order that the buyer's key made, in the present
// run or in one that ended less than KeepKeys ago.
func (m *Model) boughtBefore(s Step, now int64) *ModelOrder {
	if s.Key == "" {
		return nil
	}
	for i := len(m.Ledger) - 1; i >= 0; i-- {
		o := m.Ledger[i]
		if o.Buyer == s.Buyer && o.Key == s.Key && (o.Run == m.Run || now < m.ended[o.Run]+engine.KeepKeys) {
			return o
		}
	}
	return nil
}

func (m *Model) changeOrder(s Step, now int64, a *engine.Answer) {
	o := m.Ledger[s.Order]
	if o.Run == m.Run && m.overdue(o, now) {
		o.Status = engine.Expired
	}
	a.Run, a.Number = o.Run, o.Number
	type asked struct {
		op     engine.Op
		status engine.Status
	}
	answers := map[asked]struct {
		outcome engine.Outcome
		status  engine.Status
	}{
		{engine.OpConfirm, engine.Held}:      {engine.Accepted, engine.Confirmed},
		{engine.OpConfirm, engine.Confirmed}: {engine.Accepted, engine.Confirmed},
		{engine.OpConfirm, engine.Cancelled}: {engine.NotHeld, engine.Cancelled},
		{engine.OpConfirm, engine.Expired}:   {engine.HoldExpired, engine.Expired},
		{engine.OpConfirm, engine.Refunded}:  {engine.NotHeld, engine.Refunded},
		{engine.OpCancel, engine.Held}:       {engine.Accepted, engine.Cancelled},
		{engine.OpCancel, engine.Confirmed}:  {engine.OrderFinal, engine.Confirmed},
		{engine.OpCancel, engine.Cancelled}:  {engine.Accepted, engine.Cancelled},
		{engine.OpCancel, engine.Expired}:    {engine.OrderFinal, engine.Expired},
		{engine.OpCancel, engine.Refunded}:   {engine.OrderFinal, engine.Refunded},
		{engine.OpRefund, engine.Held}:       {engine.NotConfirmed, engine.Held},
		{engine.OpRefund, engine.Confirmed}:  {engine.Accepted, engine.Refunded},
		{engine.OpRefund, engine.Cancelled}:  {engine.OrderFinal, engine.Cancelled},
		{engine.OpRefund, engine.Expired}:    {engine.OrderFinal, engine.Expired},
		{engine.OpRefund, engine.Refunded}:   {engine.Accepted, engine.Refunded},
	}
	answer := answers[asked{s.Op, o.Status}]
	a.Outcome, a.Status, a.Changed = answer.outcome, answer.status, o.Status != answer.status
	if a.Changed && a.Status == engine.Refunded {
		o.Restocked = s.Restock
	}
	o.Status = answer.status
}

func (m *Model) administer(s Step, now int64, a *engine.Answer) {
	remaining, _, _ := m.Units()
	a.Outcome, a.Changed = engine.Accepted, true
	switch s.Op {
	case engine.OpCreate:
		if m.Run != 0 {
			a.Outcome, a.Changed = engine.ProductExists, false
			return
		}
		m.Run, m.Stock, m.Settings = 1, s.Quantity, s.Settings
	case engine.OpChange:
		a.Changed = m.Settings != s.Settings
		if m.Settings.StartsAt != s.Settings.StartsAt {
			m.Opened = false
		}
		if m.Settings.EndsAt != s.Settings.EndsAt {
			m.Closed = false
		}
		m.Settings = s.Settings
	case engine.OpRestock:
		switch {
		case m.Stock+s.Quantity > engine.MaxStock:
			a.Outcome, a.Changed = engine.StockExceeded, false
		case remaining+s.Quantity < 0:
			a.Outcome, a.Remaining, a.Changed = engine.StockCommitted, remaining, false
		default:
			m.Stock += s.Quantity
		}
	case engine.OpPause:
		a.Changed, m.Paused = !m.Paused, true
	case engine.OpResume:
		a.Changed, m.Paused = m.Paused, false
	case engine.OpReset:
		for _, o := range m.Ledger {
			if o.Run == m.Run && o.Status == engine.Held {
				o.Status = engine.Expired
			}
		}
		m.ended[m.Run] = now
		m.Run, m.Stock, m.Opened, m.Closed = m.Run+1, s.Quantity, false, false
	}
	a.Run = m.Run
}

// Differ says how the view is not what the model expects; empty where it is.
func (m *Model) Differ(v *engine.View) string {
	remaining, held, sold := m.Units()
	want := fmt.Sprintf("run %d, stock %d = %d + %d + %d, paused %v, opened %v, closed %v, settings %v",
		m.Run, m.Stock, remaining, held, sold, m.Paused, m.Opened, m.Closed, m.Settings)
	got := fmt.Sprintf("run %d, stock %d = %d + %d + %d, paused %v, opened %v, closed %v, settings %v",
		v.Run, v.Stock, v.Remaining, v.Held, v.Sold, v.Paused, v.Opened, v.Closed, *v.Settings)
	if got == want {
		return ""
	}
	return fmt.Sprintf("view %s\nwant %s", got, want)
}
