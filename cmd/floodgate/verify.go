package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/rs/zerolog"

	"floodgate/engine"
	"floodgate/wal"
)

// verifyCommand is the audit of a data directory. It counts every unit with
// books of its own, which share no code with the engine that sold them.
type verifyCommand struct {
	dataFlag
	JSON bool `name:"json" help:"Print the report as JSON."`
}

// audit is what verify found.
type audit struct {
	DataDir  string       `json:"data_dir"`
	OK       bool         `json:"ok"`
	Damaged  bool         `json:"damaged"`
	First    uint64       `json:"first_event"`
	Last     uint64       `json:"last_event"`
	Snapshot uint64       `json:"snapshot_event"`
	Orders   uint64       `json:"orders"`
	Keys     uint64       `json:"idempotency_keys"`
	Products []productRow `json:"products"`
	Findings []string     `json:"findings"`
}

// productRow is what the books say of a product's present run.
type productRow struct {
	ID        string `json:"id"`
	Run       uint32 `json:"run"`
	Stock     int64  `json:"stock"`
	Remaining int64  `json:"remaining"`
	Held      int64  `json:"held"`
	Sold      int64  `json:"sold"`
	Orders    int    `json:"orders"`
}

func (c *verifyCommand) run(ctx context.Context, m *Main) error {
	a := &audit{DataDir: c.DataDir, Findings: []string{}, Products: []productRow{}}
	err := a.check(ctx)
	if err != nil {
		a.Damaged = errors.Is(err, engine.ErrDamaged)
		if !a.Damaged {
			return err // in use, or not there: that says nothing about the data
		}
		a.Findings = append(a.Findings, err.Error())
	}
	a.OK = len(a.Findings) == 0
	if c.JSON {
		encoder := json.NewEncoder(m.Stdout)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(a); err != nil {
			return err
		}
	} else if err := a.print(m.Stdout); err != nil {
		return err
	}
	switch {
	case a.Damaged:
		return damaged{errReported}
	case !a.OK:
		return errReported
	}
	return nil
}

// check reads everything there is and compares it with everything else. An
// error means that it could not be read to the end.
func (a *audit) check(ctx context.Context) (err error) {
	// Opening makes what is not there, and an audit must not.
	if _, err := os.Stat(filepath.Join(a.DataDir, "FORMAT")); err != nil {
		return fmt.Errorf("no data directory of Floodgate: %w", err)
	}
	journal, err := wal.Open(wal.Options{Dir: a.DataDir, Logger: zerolog.Nop(), Fatal: func(error) {}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, journal.Close()) }()
	a.First, a.Last, a.Snapshot = journal.FirstSeq(), journal.DurableSeq(), journal.SnapshotSeq()

	// Every byte: checksums, sequences without a gap, the index, the snapshots.
	if _, err := journal.Check(ctx); err != nil {
		return err
	}
	// The way a restart goes.
	recovered, err := engine.Recover(journal)
	if err != nil {
		return err
	}
	// The same from the beginning, which the snapshots must agree with.
	if a.First == 1 {
		replayed, err := engine.Recover(fromBeginning{journal})
		if err != nil {
			return err
		}
		a.compare("a restart", recovered, "a replay from the beginning", replayed)
	}
	// And by the books.
	b := &books{products: make(map[string]*book), ids: make(map[engine.OrderID]struct{}), whole: a.First == 1}
	err = journal.Events(a.First-1, func(e *engine.Event) error {
		b.enter(e)
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	a.Findings = append(a.Findings, b.findings...)
	a.Orders, a.Keys = b.orders, uint64(len(b.ids))
	a.compareBooks(b, recovered)
	return a.checkLedger(ctx, journal, b)
}

// fromBeginning is a journal whose snapshots are not looked at.
type fromBeginning struct{ *wal.Journal }

func (fromBeginning) SnapshotSeq() uint64 { return 0 }
func (fromBeginning) Snapshots(func(string, func() ([]byte, error)) error) error {
	return nil
}
func (fromBeginning) Snapshot(string, func(func() ([]byte, error)) error) (bool, error) {
	return false, nil
}

func (a *audit) find(format string, args ...any) {
	const enough = 100
	switch len(a.Findings) {
	case enough:
		a.Findings = append(a.Findings, "and more, which are not listed")
	case enough + 1:
	default:
		a.Findings = append(a.Findings, fmt.Sprintf(format, args...))
	}
}

// compare holds two ways to come to the same state against each other.
func (a *audit) compare(nameA string, one *engine.Recovered, nameB string, other *engine.Recovered) {
	if one.Seq != other.Seq {
		a.find("%s ends at event %d, %s at %d", nameA, one.Seq, nameB, other.Seq)
	}
	for _, id := range slices.Sorted(maps.Keys(other.Products)) {
		p := one.Products[id]
		if p == nil {
			a.find("product %s: %s does not know it", id, nameA)
			continue
		}
		if x, y := countersOf(p.View()), countersOf(other.Products[id].View()); x != y {
			a.find("product %s: %s comes to %+v, %s to %+v", id, nameA, x, nameB, y)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(one.Products)) {
		if other.Products[id] == nil {
			a.find("product %s: %s does not know it", id, nameB)
		}
	}
}

type counters struct {
	Run                          uint32
	Stock, Remaining, Held, Sold int64
	Paused                       bool
	Settings                     engine.Settings
}

func countersOf(v *engine.View) counters {
	return counters{v.Run, v.Stock, v.Remaining, v.Held, v.Sold, v.Paused, *v.Settings}
}

func (a *audit) compareBooks(b *books, recovered *engine.Recovered) {
	for _, id := range slices.Sorted(maps.Keys(recovered.Products)) {
		v := recovered.Products[id].View()
		row := productRow{ID: id, Run: v.Run, Stock: v.Stock, Remaining: v.Remaining, Held: v.Held, Sold: v.Sold}
		r := b.present(id)
		switch {
		case r == nil && b.whole:
			a.find("product %s: the engine knows it, the events do not", id)
		case r == nil:
		case !r.partial:
			row.Orders = len(r.units)
			if r.number != v.Run || r.stock != v.Stock || r.remaining != v.Remaining || r.held != v.Held || r.sold != v.Sold {
				a.find("product %s: by the books run %d has stock %d, remaining %d, held %d, sold %d; the engine says run %d has %d, %d, %d, %d",
					id, r.number, r.stock, r.remaining, r.held, r.sold, v.Run, v.Stock, v.Remaining, v.Held, v.Sold)
			}
		default:
			row.Orders = len(r.units)
		}
		if v.Stock != v.Remaining+v.Held+v.Sold {
			a.find("product %s: stock %d is not remaining %d + held %d + sold %d", id, v.Stock, v.Remaining, v.Held, v.Sold)
		}
		a.Products = append(a.Products, row)
	}
}

// checkLedger looks every order up as a buyer would.
func (a *audit) checkLedger(ctx context.Context, journal *wal.Journal, b *books) error {
	return journal.Events(a.First-1, func(e *engine.Event) error {
		if e.Kind != engine.OrderAccepted {
			return nil
		}
		id := orderID(journal, e)
		o, found, err := journal.Order(id)
		switch {
		case err != nil:
			return err
		case !found:
			a.find("order %s, accepted by event %d, is not found by its id", id, e.Seq)
		case o.Seq != e.Seq || o.Product != e.Product || o.Run != e.Run || o.Number != e.Number || o.Buyer != string(e.Buyer) ||
			o.Key != string(e.Key) || o.Quantity != e.Quantity || o.Price != e.Price || o.Currency != e.Currency ||
			o.AcceptedAt != e.At || o.Deadline != e.Deadline:
			a.find("order %s is not what event %d accepted: %+v", id, e.Seq, o)
		default:
			if want := b.status(e); want != 0 && o.Status != want {
				a.find("order %s is %s, and by the events it is %s", id, o.Status, want)
			}
		}
		return ctx.Err()
	})
}

func orderID(journal *wal.Journal, e *engine.Event) engine.OrderID {
	if len(e.Key) > 0 {
		return engine.KeyedID(e.Product, e.Run, e.Buyer, e.Key)
	}
	return journal.IDs().Sequential(e.Seq, e.At, nil)
}

// books are kept from the events alone.
type books struct {
	products map[string]*book
	ids      map[engine.OrderID]struct{} // of orders with a key
	whole    bool                        // the events begin at the first one
	orders   uint64
	findings []string
}

// book is one product's.
type book struct {
	limit int64
	runs  []*runBook
}

// runBook is one run's. Orders are numbered from 0, so they are kept in slices.
type runBook struct {
	number                       uint32
	partial                      bool // its beginning was forgotten
	stock, remaining, held, sold int64
	firstNumber                  uint32
	units                        []int64
	statuses                     []engine.Status
	buyers                       map[string]int64
}

func (b *books) find(e *engine.Event, format string, args ...any) {
	const enough = 100
	switch {
	case len(b.findings) < enough:
		b.findings = append(b.findings, fmt.Sprintf("event %d, product %s, run %d: %s", e.Seq, e.Product, e.Run, fmt.Sprintf(format, args...)))
	case len(b.findings) == enough:
		b.findings = append(b.findings, "and more, which are not listed")
	}
}

func (b *books) present(product string) *runBook {
	p := b.products[product]
	if p == nil || len(p.runs) == 0 {
		return nil
	}
	return p.runs[len(p.runs)-1]
}

// runOf returns the run that an event is about. Where the journal's beginning
// was forgotten, a run may be met in its middle.
func (b *books) runOf(p *book, e *engine.Event) *runBook {
	for i := len(p.runs) - 1; i >= 0; i-- {
		if p.runs[i].number == e.Run {
			return p.runs[i]
		}
	}
	if b.whole {
		b.find(e, "there was no such run")
	}
	r := &runBook{number: e.Run, partial: true, firstNumber: e.Number, buyers: make(map[string]int64)}
	p.runs = append(p.runs, r)
	slices.SortFunc(p.runs, func(x, y *runBook) int { return int(x.number) - int(y.number) })
	return r
}

// status returns the last status of the order that the event accepted, 0 where
// the books do not know it.
func (b *books) status(e *engine.Event) engine.Status {
	p := b.products[e.Product]
	if p == nil {
		return 0
	}
	r := b.runOf(p, e)
	if i := int(e.Number) - int(r.firstNumber); i >= 0 && i < len(r.statuses) {
		return r.statuses[i]
	}
	return 0
}

// enter books one event, and notes where it cannot follow from what was booked.
func (b *books) enter(e *engine.Event) {
	p := b.products[e.Product]
	if p == nil {
		p = &book{}
		b.products[e.Product] = p
		if e.Kind == engine.ProductChanged && e.Run == 1 && b.whole {
			p.runs = append(p.runs, &runBook{number: 1, stock: e.Quantity, remaining: e.Quantity, buyers: make(map[string]int64)})
		}
	}
	switch e.Kind {
	case engine.ProductChanged:
		p.limit = e.Settings.LimitPerBuyer
	case engine.RunStarted:
		p.runs = append(p.runs, &runBook{number: e.Run, stock: e.Quantity, remaining: e.Quantity, buyers: make(map[string]int64)})
	case engine.StockChanged:
		r := b.runOf(p, e)
		r.stock += e.Quantity
		r.remaining += e.Quantity
	case engine.OrderAccepted:
		b.accept(p, b.runOf(p, e), e)
	case engine.OrderConfirmed, engine.OrderCancelled, engine.OrderExpired, engine.OrderRefunded:
		b.resolve(b.runOf(p, e), e)
	default:
		return // pauses and windows move no unit
	}
	r := b.runOf(p, e)
	if !r.partial && (r.stock != r.remaining+r.held+r.sold || r.remaining < 0 || r.held < 0 || r.sold < 0) {
		b.find(e, "leaves stock %d, remaining %d, held %d, sold %d", r.stock, r.remaining, r.held, r.sold)
	}
}

func (b *books) accept(p *book, r *runBook, e *engine.Event) {
	b.orders++
	if want := int(r.firstNumber) + len(r.units); int(e.Number) != want {
		b.find(e, "order number %d follows %d orders", e.Number, want)
	}
	if e.Quantity < 1 {
		b.find(e, "an order of %d units", e.Quantity)
	}
	status := engine.Confirmed
	r.remaining -= e.Quantity
	if e.Deadline != 0 {
		status = engine.Held
		r.held += e.Quantity
	} else {
		r.sold += e.Quantity
	}
	r.units = append(r.units, e.Quantity)
	r.statuses = append(r.statuses, status)
	if len(e.Key) > 0 {
		id := engine.KeyedID(e.Product, e.Run, e.Buyer, e.Key)
		if _, twice := b.ids[id]; twice {
			b.find(e, "an idempotency key bought twice: order %s", id)
		}
		b.ids[id] = struct{}{}
	}
	if len(e.Buyer) > 0 {
		r.buyers[string(e.Buyer)] += e.Quantity
		if units := r.buyers[string(e.Buyer)]; p.limit > 0 && units > p.limit && !r.partial {
			b.find(e, "buyer %s has %d units, the limit is %d", e.Buyer, units, p.limit)
		}
	}
}

func (b *books) resolve(r *runBook, e *engine.Event) {
	i := int(e.Number) - int(r.firstNumber)
	if i < 0 || i >= len(r.units) {
		if !r.partial {
			b.find(e, "order number %d was never accepted", e.Number)
		}
		return
	}
	from := r.statuses[i]
	if want := map[engine.Kind]engine.Status{
		engine.OrderConfirmed: engine.Held, engine.OrderCancelled: engine.Held,
		engine.OrderExpired: engine.Held, engine.OrderRefunded: engine.Confirmed,
	}[e.Kind]; from != want {
		b.find(e, "order number %d becomes %s, and it was %s", e.Number, e.Status(), from)
	}
	if e.Quantity != r.units[i] {
		b.find(e, "order number %d of %d units is resolved with %d", e.Number, r.units[i], e.Quantity)
	}
	r.statuses[i] = e.Status()
	back := true
	switch e.Kind {
	case engine.OrderConfirmed:
		r.held -= e.Quantity
		r.sold += e.Quantity
		back = false
	case engine.OrderCancelled, engine.OrderExpired:
		r.held -= e.Quantity
		r.remaining += e.Quantity
	case engine.OrderRefunded:
		if e.Restock {
			r.sold -= e.Quantity
			r.remaining += e.Quantity
		}
	}
	if back && len(e.Buyer) > 0 {
		r.buyers[string(e.Buyer)] -= e.Quantity
	}
}

// print writes the report for a person.
func (a *audit) print(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Data directory  %s\n", a.DataDir)
	if a.Last > 0 {
		fmt.Fprintf(&b, "Events          %d to %d, snapshots as of %d\n", a.First, a.Last, a.Snapshot)
		fmt.Fprintf(&b, "Orders          %d, %d of them with an idempotency key\n", a.Orders, a.Keys)
	}
	if len(a.Products) > 0 {
		b.WriteByte('\n')
		table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(table, "product\trun\tstock\tremaining\theld\tsold\torders\t")
		for _, p := range a.Products {
			fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t\n", p.ID, p.Run, p.Stock, p.Remaining, p.Held, p.Sold, p.Orders)
		}
		if err := table.Flush(); err != nil {
			return err
		}
	}
	b.WriteByte('\n')
	switch {
	case a.OK:
		b.WriteString("Every unit is accounted for.\n")
	case a.Damaged:
		b.WriteString("The journal is DAMAGED:\n")
	default:
		b.WriteString("NOT every unit is accounted for:\n")
	}
	for _, f := range a.Findings {
		fmt.Fprintf(&b, "  %s\n", f)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
