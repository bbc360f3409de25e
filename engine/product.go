package engine

import "fmt"

// Product is the rule: the state of one product's current run, what it answers
// to a command, and how an event changes it. It is pure. It has no clock, no
// input or output and no goroutine, so a replay of its events gives the same
// state, and the shard that sells and the recovery that repairs run the same
// code. It is not safe for concurrent use: its shard owns it.
//
// Decide asks the state and writes down events; Apply is the only code that
// changes the state. After each event
//
//	stock = remaining + held + sold, none of them negative,
//
// which Apply checks, in production too: a state that breaks it must never reach
// the journal.
//
// The precedence of refusals, tested as a table, is: idempotency key (replayed
// or mismatch), not started, ended, paused, buyer's limit, sold out. A quantity
// is all or nothing.
type Product struct {
	settings *Settings
	run      uint32 // from 1; 0: not created yet
	begun    uint64 // sequence of the event that began the run; 0 where this process began it

	stock, remaining, held, sold int64
	paused, opened, closed       bool
	version                      uint64

	buyers names         // who bought in this run
	units  column[int32] // by buyer: units held and bought
	status column[Status]
	holds  holds

	keys   names          // buyer, separator, idempotency key
	bought column[bought] // by key
	past   []pastKeys
	joined [MaxID + 1 + MaxKey]byte

	refunded map[orderPlace]struct{} // of all runs, since this process started
}

// bought is what an idempotency key decided.
type bought struct {
	number   uint32
	quantity int32
}

// pastKeys are the idempotency keys of a run that a reset ended. They are
// honoured until the given time.
type pastKeys struct {
	run    uint32
	begun  uint64
	until  int64
	keys   names
	bought column[bought]
}

type orderPlace struct{ run, number uint32 }

// KeepKeys is how long idempotency keys are honoured after their run ended.
const KeepKeys = 24 * 3600 * 1000 // milliseconds

// NewProduct returns a product that does not exist yet: OpCreate makes it.
func NewProduct(id string) *Product {
	return &Product{settings: &Settings{ID: id}}
}

// View returns the product's counters.
func (p *Product) View() *View {
	return &View{
		Settings: p.settings, Run: p.run,
		Stock: p.stock, Remaining: p.remaining, Held: p.held, Sold: p.sold,
		Paused: p.paused, Opened: p.opened, Closed: p.closed, Version: p.version,
	}
}

// Decide answers the command as of now, in Unix milliseconds, and appends the
// events of what it changed, which are applied already. The answer's Seq and
// View are the shard's to fill in.
func (p *Product) Decide(c *Command, now int64, events []Event) []Event {
	c.Answer.At = now
	c.Answer.Run = p.run
	switch c.Op {
	case OpPlace:
		return p.place(c, now, events)
	case OpConfirm, OpCancel, OpRefund:
		return p.changeOrder(c, now, events)
	case OpCreate, OpChange, OpRestock, OpPause, OpResume, OpReset:
		return p.administer(c, now, events)
	}
	panic(fmt.Sprintf("engine: command with operation %d", c.Op))
}

func (p *Product) place(c *Command, now int64, events []Event) []Event {
	a := &c.Answer
	if len(c.key) > 0 {
		if run, before, ok := p.boughtBefore(c, now); ok {
			a.Outcome, a.Run, a.Number = Replayed, run, before.number
			if int64(before.quantity) != c.Quantity {
				a.Outcome = KeyMismatch
			}
			return events
		}
	}
	s := p.settings
	switch {
	case !p.opened && now < s.StartsAt:
		a.Outcome = NotStarted
		return events
	case p.closed || s.EndsAt != 0 && now >= s.EndsAt:
		if !p.closed {
			events = p.emit(events, Event{Kind: SaleClosed, At: now})
		}
		a.Outcome = Ended
		return events
	case !p.opened && s.StartsAt != 0:
		events = p.emit(events, Event{Kind: SaleOpened, At: now})
	}
	if p.paused {
		a.Outcome = Paused
		return events
	}
	if s.LimitPerBuyer > 0 && len(c.buyer) > 0 {
		a.Units, a.Limit = p.unitsOf(c.hash, c.buyer), s.LimitPerBuyer
		if a.Units+c.Quantity > s.LimitPerBuyer {
			a.Outcome = OverLimit
			return events
		}
	}
	if c.Quantity > p.remaining {
		a.Outcome, a.Remaining = SoldOut, p.remaining
		return events
	}
	a.Outcome, a.Number, a.Price, a.Currency, a.Changed = Accepted, uint32(p.status.len()), s.Price, s.Currency, true
	if s.HoldSeconds > 0 {
		a.Deadline = now + s.HoldSeconds*1000
	}
	a.Status = acceptedStatus(a.Deadline)
	return p.emit(events, Event{
		Kind: OrderAccepted, At: now, Number: a.Number, Quantity: c.Quantity, Buyer: c.buyer, Key: c.key,
		Price: s.Price, Currency: s.Currency, Deadline: a.Deadline, command: c, hash: c.hash,
	})
}

func (p *Product) unitsOf(hash uint64, buyer []byte) int64 {
	number := p.buyers.find(hash, buyer)
	if number == noName {
		return 0
	}
	return int64(*p.units.at(int(number)))
}

func (p *Product) boughtBefore(c *Command, now int64) (run uint32, before bought, ok bool) {
	joined := p.join(c.buyer, c.key)
	hash := nameHash(joined)
	if number := p.keys.find(hash, joined); number != noName {
		return p.run, *p.bought.at(int(number)), true
	}
	for i := len(p.past) - 1; i >= 0; i-- {
		past := &p.past[i]
		if number := past.keys.find(hash, joined); number != noName && now < past.until {
			return past.run, *past.bought.at(int(number)), true
		}
	}
	return 0, bought{}, false
}

// join returns the buyer and the key as one name, valid until the next call.
func (p *Product) join(buyer, key []byte) []byte {
	return append(append(append(p.joined[:0], buyer...), keySeparator), key...)
}

// changeOrder confirms, cancels or refunds. The same command twice gets the same
// answer twice; one that comes too late is told where the order stands.
func (p *Product) changeOrder(c *Command, now int64, events []Event) []Event {
	a := &c.Answer
	a.Run, a.Number, a.Outcome = c.Run, c.Number, Accepted
	a.Status = p.statusOf(c)
	if a.Status == Held && now >= p.holds.deadline(c.Number, c.Deadline) {
		events = p.emit(events, Event{Kind: OrderExpired, At: now, Number: c.Number, Quantity: c.Quantity, Buyer: c.buyer})
		a.Status = Expired
	}
	change := Event{At: now, Run: c.Run, Number: c.Number, Quantity: c.Quantity, Buyer: c.buyer, Restock: c.Restock, command: c}
	switch {
	case c.Op == OpConfirm && a.Status == Held:
		change.Kind = OrderConfirmed
	case c.Op == OpCancel && a.Status == Held:
		change.Kind = OrderCancelled
	case c.Op == OpRefund && a.Status == Confirmed:
		change.Kind = OrderRefunded
	case c.Op == OpConfirm && a.Status == Confirmed, c.Op == OpCancel && a.Status == Cancelled, c.Op == OpRefund && a.Status == Refunded:
		return events
	case c.Op == OpConfirm && a.Status == Expired:
		a.Outcome = HoldExpired
		return events
	case c.Op == OpConfirm:
		a.Outcome = NotHeld
		return events
	case c.Op == OpRefund && a.Status == Held:
		a.Outcome = NotConfirmed
		return events
	default:
		a.Outcome = OrderFinal
		return events
	}
	a.Status, a.Changed = change.Status(), true
	return p.emit(events, change)
}

// statusOf returns where the command's order stands. Of an earlier run only the
// ledger knows, and what this process refunded since the ledger was asked.
func (p *Product) statusOf(c *Command) Status {
	if c.Run == p.run {
		if int(c.Number) >= p.status.len() {
			panic(fmt.Sprintf("engine: %s: the ledger told of order %d in run %d, which has %d", p.settings.ID, c.Number, p.run, p.status.len()))
		}
		return *p.status.at(int(c.Number))
	}
	if _, ok := p.refunded[orderPlace{c.Run, c.Number}]; ok {
		return Refunded
	}
	if c.Status == Held {
		return Expired // the reset that ended its run gave it back
	}
	return c.Status
}

func (p *Product) administer(c *Command, now int64, events []Event) []Event {
	a := &c.Answer
	a.Outcome = Accepted
	change := Event{At: now, Run: p.run, Quantity: c.Quantity, Settings: c.Settings, command: c}
	switch c.Op {
	case OpCreate:
		if p.run != 0 {
			a.Outcome = ProductExists
			return events
		}
		change.Kind, change.Run = ProductChanged, 1
	case OpChange:
		if *c.Settings == *p.settings {
			return events
		}
		change.Kind, change.Quantity = ProductChanged, 0
	case OpRestock:
		switch {
		case c.Quantity > MaxStock-p.stock:
			a.Outcome = StockExceeded
			return events
		case c.Quantity < -p.remaining:
			a.Outcome, a.Remaining = StockCommitted, p.remaining
			return events
		}
		change.Kind = StockChanged
	case OpPause:
		if p.paused {
			return events
		}
		change.Kind, change.Quantity = SalePaused, 0
	case OpResume:
		if !p.paused {
			return events
		}
		change.Kind, change.Quantity = SaleResumed, 0
	case OpReset:
		events = p.expire(now, 1<<62, len(p.holds.heap), events)
		change.Kind, change.Run = RunStarted, p.run+1
	}
	a.Changed, a.Run = true, change.Run
	return p.emit(events, change)
}

// Expire returns the units of up to limit holds that ran out, as events.
func (p *Product) Expire(now int64, limit int, events []Event) []Event {
	return p.expire(now, now, limit, events)
}

// NextDeadline returns when the earliest hold runs out; false where there is none.
// The hold may have been resolved since.
func (p *Product) NextDeadline() (int64, bool) { return p.holds.next() }

// GraceHolds lets no hold that is there run out before the given time: its buyer
// could not confirm while the node was down.
func (p *Product) GraceHolds(until int64) { p.holds.allow(until, uint32(p.status.len())) }

func (p *Product) expire(now, due int64, limit int, events []Event) []Event {
	for ; limit > 0; limit-- {
		h, ok := p.holds.pop(due)
		if !ok {
			break
		}
		if *p.status.at(int(h.number)) != Held {
			continue
		}
		var buyer []byte
		if h.buyer != noName {
			buyer = p.buyers.get(h.buyer)
		}
		events = p.emit(events, Event{Kind: OrderExpired, At: now, Number: h.number, Quantity: int64(h.quantity), Buyer: buyer})
	}
	return events
}

// emit completes the event, applies it and appends it.
func (p *Product) emit(events []Event, ev Event) []Event {
	ev.Product = p.settings.ID
	if ev.Run == 0 {
		ev.Run = p.run
	}
	events = append(events, ev)
	if err := p.Apply(&events[len(events)-1]); err != nil {
		panic("engine: a decision contradicts its own state: " + err.Error())
	}
	return events
}

// Apply changes the state as the event says. An error, which is an ErrDamaged,
// means that the event cannot follow what came before it.
func (p *Product) Apply(ev *Event) error {
	if ev.Product != p.settings.ID {
		return p.damaged(ev, "belongs to another product")
	}
	if p.run == 0 && (ev.Kind != ProductChanged || ev.Run != 1) {
		return p.damaged(ev, "comes before the product was created")
	}
	if ev.Kind.Order() && ev.Run != p.run {
		return p.applyToEarlierRun(ev)
	}
	switch ev.Kind {
	case ProductChanged:
		p.applySettings(ev)
	case StockChanged:
		p.stock += ev.Quantity
		p.remaining += ev.Quantity
	case SalePaused:
		p.paused = true
	case SaleResumed:
		p.paused = false
	case SaleOpened:
		p.opened = true
	case SaleClosed:
		p.closed = true
	case RunStarted:
		if ev.Run != p.run+1 {
			return p.damaged(ev, fmt.Sprintf("does not follow run %d", p.run))
		}
		p.startRun(ev)
	case OrderAccepted:
		if int(ev.Number) != p.status.len() {
			return p.damaged(ev, fmt.Sprintf("is not the next order, %d", p.status.len()))
		}
		if ev.Quantity < 1 || ev.Quantity > p.remaining {
			return p.damaged(ev, fmt.Sprintf("takes more than the %d units that remain", p.remaining))
		}
		p.accept(ev)
	case OrderConfirmed, OrderCancelled, OrderExpired, OrderRefunded:
		if int(ev.Number) >= p.status.len() {
			return p.damaged(ev, "is about an order that was never accepted")
		}
		from := *p.status.at(int(ev.Number))
		if from != Held && (ev.Kind != OrderRefunded || from != Confirmed) {
			return p.damaged(ev, "is about an order that is "+from.String())
		}
		p.resolve(ev)
	default:
		return p.damaged(ev, "is of an unknown kind")
	}
	p.version++
	if p.stock != p.remaining+p.held+p.sold || p.remaining < 0 || p.held < 0 || p.sold < 0 {
		return p.damaged(ev, fmt.Sprintf("leaves stock %d, remaining %d, held %d, sold %d", p.stock, p.remaining, p.held, p.sold))
	}
	return nil
}

func (p *Product) applySettings(ev *Event) {
	if p.run == 0 {
		p.run, p.begun = 1, ev.Seq
		p.stock, p.remaining = ev.Quantity, ev.Quantity
	}
	if ev.Settings.StartsAt != p.settings.StartsAt {
		p.opened = false
	}
	if ev.Settings.EndsAt != p.settings.EndsAt {
		p.closed = false
	}
	p.settings = ev.Settings
}

func (p *Product) startRun(ev *Event) {
	kept := p.past[:0]
	for _, past := range p.past {
		if past.until > ev.At {
			kept = append(kept, past)
		}
	}
	clear(p.past[len(kept):])
	if p.status.len() > 0 { // without keys too: OldestNeeded asks until when its orders are needed
		kept = append(kept, pastKeys{run: p.run, begun: p.begun, until: ev.At + KeepKeys, keys: p.keys, bought: p.bought})
	}
	p.past = kept
	p.run, p.begun = ev.Run, ev.Seq
	p.stock, p.remaining, p.held, p.sold = ev.Quantity, ev.Quantity, 0, 0
	p.opened, p.closed = false, false
	p.buyers, p.units, p.status, p.keys, p.bought = names{}, column[int32]{}, column[Status]{}, names{}, column[bought]{}
	p.holds = holds{}
}

func (p *Product) accept(ev *Event) {
	buyer := noName
	if len(ev.Buyer) > 0 {
		buyer = p.buyers.add(ev.buyerHash(), ev.Buyer)
		if int(buyer) == p.units.len() {
			p.units.push(0)
		}
		*p.units.at(int(buyer)) += int32(ev.Quantity)
	}
	if len(ev.Key) > 0 {
		joined := p.join(ev.Buyer, ev.Key)
		p.keys.add(nameHash(joined), joined)
		p.bought.push(bought{number: ev.Number, quantity: int32(ev.Quantity)})
	}
	p.remaining -= ev.Quantity
	if ev.Deadline == 0 {
		p.sold += ev.Quantity
		p.status.push(Confirmed)
		return
	}
	p.held += ev.Quantity
	p.status.push(Held)
	p.holds.heap.push(hold{deadline: ev.Deadline, journaled: ev.Deadline, number: ev.Number, buyer: buyer, quantity: int32(ev.Quantity)})
}

func (p *Product) resolve(ev *Event) {
	*p.status.at(int(ev.Number)) = ev.Status()
	switch ev.Kind {
	case OrderConfirmed:
		p.held -= ev.Quantity
		p.sold += ev.Quantity
		return // the buyer keeps the units
	case OrderCancelled, OrderExpired:
		p.held -= ev.Quantity
		p.remaining += ev.Quantity
	case OrderRefunded:
		p.rememberRefund(ev) // a reset may come before who asked the ledger before this
		if ev.Restock {
			p.sold -= ev.Quantity
			p.remaining += ev.Quantity
		}
	}
	if buyer := p.buyers.find(nameHash(ev.Buyer), ev.Buyer); len(ev.Buyer) > 0 && buyer != noName {
		*p.units.at(int(buyer)) -= int32(ev.Quantity)
	}
}

// applyToEarlierRun remembers a refund. The units of a run that is over do not
// enter the present one.
func (p *Product) applyToEarlierRun(ev *Event) error {
	if ev.Kind != OrderRefunded || ev.Run > p.run {
		return p.damaged(ev, fmt.Sprintf("is not of the present run, %d", p.run))
	}
	p.rememberRefund(ev)
	return nil
}

func (p *Product) rememberRefund(ev *Event) {
	if p.refunded == nil {
		p.refunded = make(map[orderPlace]struct{})
	}
	p.refunded[orderPlace{ev.Run, ev.Number}] = struct{}{}
}

func (p *Product) damaged(ev *Event, what string) error {
	return fmt.Errorf("%w: product %q: event %d (kind %d, run %d, order %d, quantity %d) %s",
		ErrDamaged, p.settings.ID, ev.Seq, ev.Kind, ev.Run, ev.Number, ev.Quantity, what)
}
