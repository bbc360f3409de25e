package baseline

import (
	"errors"
	"fmt"
	"time"

	"floodgate/engine"
	"floodgate/wal"
)

// engineSeller is Floodgate's engine as the HTTP side uses it: refused by the
// listing where that is enough, else decided by the shard.
type engineSeller struct {
	engine  *engine.Engine
	listing *engine.Listing
	now     func() int64
	close   func() error // of what is below the engine
}

// stallAfter keeps a busy machine from turning a measurement into an error.
const stallAfter = time.Minute

const productID = "sale"

// discard is a journal without a disk: what the engine costs by itself.
type discard struct{}

func (discard) Append([]engine.Event) error { return nil }

func openEngine(_ string, t Terms) (Seller, error) {
	opts := engine.Options{IDs: engine.NewIDs([16]byte{1}), StallAfter: stallAfter}
	return startEngine(opts, discard{}, &engine.Recovered{}, t, func() error { return nil })
}

// openJournaled is the engine on the real journal: no answer before its fsync.
func openJournaled(dir string, t Terms) (Seller, error) {
	journal, err := wal.Open(wal.Options{Dir: dir, Fatal: func(err error) { panic(err) }})
	if err != nil {
		return nil, err
	}
	found, err := engine.Recover(journal)
	if err != nil {
		return nil, errors.Join(err, journal.Close())
	}
	opts := engine.Options{IDs: journal.IDs(), Snapshots: journal, StallAfter: stallAfter}
	s, err := startEngine(opts, journal, found, t, journal.Close)
	if err != nil {
		return nil, errors.Join(err, journal.Close())
	}
	return s, nil
}

func startEngine(opts engine.Options, journal engine.Journal, found *engine.Recovered, t Terms, below func() error) (Seller, error) {
	opts.EnsureDefaults()
	e, err := engine.New(opts, journal, found)
	if err != nil {
		return nil, err
	}
	a, err := e.Create(&engine.Settings{ID: productID, Name: productID, Currency: "EUR", LimitPerBuyer: t.LimitPerBuyer}, t.Stock)
	if err == nil && a.Outcome != engine.Accepted {
		err = fmt.Errorf("create %s: %v", productID, a.Outcome)
	}
	if err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return &engineSeller{engine: e, listing: e.Listing([]byte(productID)), now: opts.Now, close: below}, nil
}

func (s *engineSeller) Sell(buyer []byte, quantity int64) (bool, error) {
	if s.listing.Refusal(s.now(), quantity) != 0 {
		return false, nil
	}
	c := engine.AcquireCommand()
	defer engine.ReleaseCommand(c)
	c.Op, c.Quantity = engine.OpPlace, quantity
	c.SetBuyer(buyer)
	if err := s.engine.Do(s.listing, c); err != nil {
		return false, err
	}
	return c.Answer.Outcome == engine.Accepted, nil
}

func (s *engineSeller) Remaining() int64 { return s.listing.View().Remaining }

func (s *engineSeller) Close() error { return errors.Join(s.engine.Close(), s.close()) }

// Batch returns how many commands a shard decided at once, and how many events
// went to the journal at once, on average.
func (s *engineSeller) Batch() (commands, events float64) {
	st := s.engine.Stats()
	return mean(st.Batches), mean(st.CommitSize)
}

func mean(h engine.Histogram) float64 { return float64(h.Sum) / float64(max(h.Count, 1)) }
