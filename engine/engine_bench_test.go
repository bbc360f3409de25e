package engine_test

import (
	"fmt"
	"strconv"
	"sync"
	"testing"

	"floodgate/engine"
)

// discard is a journal without a disk: what the engine costs by itself.
type discard struct{}

func (discard) Append([]engine.Event) error { return nil }

// BenchmarkDecide measures one shard deciding for producers that each wait for
// their answer, without a journal. The books are checked at the end.
func BenchmarkDecide(b *testing.B) {
	for _, producers := range []int{1, 64, 1024} {
		for _, outcome := range []string{"accepted", "sold-out"} {
			b.Run(fmt.Sprintf("producers=%d/%s", producers, outcome), func(b *testing.B) {
				stock := int64(b.N)
				if outcome == "sold-out" {
					stock = 0
				}
				e := startEngine(b, discard{})
				l := create(b, e, &engine.Settings{ID: "p", Currency: "EUR"}, min(stock, engine.MaxStock))
				b.ReportAllocs()
				b.ResetTimer()
				var wg sync.WaitGroup
				for i := range producers {
					n := b.N / producers
					if i < b.N%producers {
						n++
					}
					wg.Go(func() {
						for j := range n {
							c := engine.AcquireCommand()
							c.Op, c.Quantity = engine.OpPlace, 1
							var room [24]byte
							buyer := strconv.AppendInt(append(room[:0], 'u'), int64(i), 10)
							c.SetBuyer(strconv.AppendInt(append(buyer, '-'), int64(j), 10))
							if err := e.Do(l, c); err != nil {
								b.Error(err)
							}
							engine.ReleaseCommand(c)
						}
					})
				}
				wg.Wait()
				b.StopTimer()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "decisions/s")
				st := e.Stats()
				b.ReportMetric(float64(st.Batches.Sum)/float64(max(st.Batches.Count, 1)), "commands/batch")
				if v := l.View(); v.Sold != stock || v.Remaining != 0 {
					b.Fatalf("books: %d sold, %d remaining of %d", v.Sold, v.Remaining, stock)
				}
			})
		}
	}
}

func startEngine(tb testing.TB, j engine.Journal) *engine.Engine {
	tb.Helper()
	e, err := engine.New(engine.Options{IDs: engine.NewIDs([16]byte{1})}, j, &engine.Recovered{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { e.Close() })
	return e
}

func create(tb testing.TB, e *engine.Engine, s *engine.Settings, stock int64) *engine.Listing {
	tb.Helper()
	a, err := e.Create(s, stock)
	if err != nil || a.Outcome != engine.Accepted {
		tb.Fatalf("create %s: %v, %v", s.ID, a.Outcome, err)
	}
	return e.Listing([]byte(s.ID))
}
