package baseline_test

import (
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"floodgate/bench/baseline"
)

// demand is one promise that every seller must keep before it is measured. It
// returns an error where the promise is broken.
type demand struct {
	name   string
	limits bool // only for sellers that know a limit per buyer
	terms  baseline.Terms
	hold   func(s baseline.Seller, t baseline.Terms) error
}

// crowd is how many goroutines buy at once.
const crowd = 1000

var suite = []demand{
	{name: "never oversells", terms: baseline.Terms{Stock: 1237}, hold: func(s baseline.Seller, t baseline.Terms) error {
		accepted, err := rush(s, 5, func(g, i int) (string, int64) { return name(g, i), 1 })
		return books(s, t, accepted, t.Stock, err)
	}},
	{name: "counts every unit while there are enough", terms: baseline.Terms{Stock: 1_000_000}, hold: func(s baseline.Seller, t baseline.Terms) error {
		accepted, err := rush(s, 5, func(g, i int) (string, int64) { return name(g, i), 1 })
		return books(s, t, accepted, 5*crowd, err)
	}},
	{name: "gives all of a quantity or nothing", terms: baseline.Terms{Stock: 5}, hold: func(s baseline.Seller, t baseline.Terms) error {
		for i, step := range []struct {
			quantity int64
			accepted bool
			after    int64
		}{{6, false, 5}, {3, true, 2}, {3, false, 2}, {2, true, 0}, {1, false, 0}} {
			accepted, err := s.Sell([]byte(name(0, i)), step.quantity)
			if err != nil {
				return err
			}
			if accepted != step.accepted || s.Remaining() != step.after {
				return fmt.Errorf("step %d, %d units: accepted %v with %d remaining after it, want %v with %d",
					i, step.quantity, accepted, s.Remaining(), step.accepted, step.after)
			}
		}
		return nil
	}},
	{name: "never oversells mixed quantities", terms: baseline.Terms{Stock: 3001}, hold: func(s baseline.Seller, t baseline.Terms) error {
		accepted, err := rush(s, 5, func(g, i int) (string, int64) { return name(g, i), int64(1 + (g+i)%3) })
		return books(s, t, accepted, t.Stock-s.Remaining(), err)
	}},
	{name: "keeps a limit per buyer", limits: true, terms: baseline.Terms{Stock: 1_000_000, LimitPerBuyer: 3}, hold: func(s baseline.Seller, t baseline.Terms) error {
		const buyers = 10
		accepted, err := rush(s, 5, func(g, _ int) (string, int64) { return name(g%buyers, 0), 1 })
		return books(s, t, accepted, buyers*t.LimitPerBuyer, err)
	}},
}

// Ensure every seller keeps every promise it makes.
func TestSellers(t *testing.T) {
	for _, k := range baseline.Kinds() {
		for _, d := range suite {
			if d.limits && !k.Limits {
				continue
			}
			t.Run(k.Name+"/"+d.name, func(t *testing.T) {
				s, err := k.Open(t.TempDir(), d.terms)
				if err != nil {
					t.Fatal(err)
				}
				if err := d.hold(s, d.terms); err != nil {
					t.Error(err)
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// Ensure the suite can fail: a seller that looks and then takes must not pass.
func TestSuiteFindsOversell(t *testing.T) {
	d := suite[0]
	s := &hasty{}
	s.remaining.Store(d.terms.Stock)
	if err := d.hold(s, d.terms); err == nil {
		t.Errorf("a seller that oversells passed %q", d.name)
	}
}

// hasty checks the stock and takes from it in two steps.
type hasty struct{ remaining atomic.Int64 }

func (h *hasty) Sell(_ []byte, quantity int64) (bool, error) {
	left := h.remaining.Load()
	runtime.Gosched()
	if quantity > left {
		return false, nil
	}
	h.remaining.Store(left - quantity)
	return true, nil
}

func (h *hasty) Remaining() int64 { return h.remaining.Load() }
func (h *hasty) Close() error     { return nil }

// rush buys from a crowd of goroutines, each so many times, and returns the units
// that were given.
func rush(s baseline.Seller, times int, ask func(g, i int) (buyer string, quantity int64)) (int64, error) {
	var units atomic.Int64
	var fault atomic.Pointer[error]
	var wg sync.WaitGroup
	start := make(chan struct{})
	for g := range crowd {
		wg.Go(func() {
			<-start
			for i := range times {
				buyer, quantity := ask(g, i)
				accepted, err := s.Sell([]byte(buyer), quantity)
				if err != nil {
					fault.Store(&err)
					return
				}
				if accepted {
					units.Add(quantity)
				}
			}
		})
	}
	close(start)
	wg.Wait()
	if err := fault.Load(); err != nil {
		return 0, *err
	}
	return units.Load(), nil
}

func books(s baseline.Seller, t baseline.Terms, given, want int64, err error) error {
	if err != nil {
		return err
	}
	if left := s.Remaining(); given != want || given+left != t.Stock || left < 0 {
		return fmt.Errorf("books: %d units were given, want %d; %d remain of %d", given, want, left, t.Stock)
	}
	return nil
}

func name(g, i int) string { return "u" + strconv.Itoa(g) + "-" + strconv.Itoa(i) }
