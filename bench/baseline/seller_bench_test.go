package baseline_test

import (
	"fmt"
	"math"
	"strconv"
	"sync/atomic"
	"testing"

	"floodgate/bench/baseline"
	"floodgate/bench/drive"
)

// BenchmarkSell sells one unit to each of b.N buyers: every request wins.
func BenchmarkSell(b *testing.B) { benchmarkSellers(b, func(n int64) int64 { return n }) }

// BenchmarkRefuse asks b.N times for what is sold out: every request loses.
func BenchmarkRefuse(b *testing.B) { benchmarkSellers(b, func(int64) int64 { return 0 }) }

func benchmarkSellers(b *testing.B, stockFor func(n int64) int64) {
	for _, k := range baseline.Kinds() {
		for _, producers := range []int{1, 64, 1024} {
			b.Run(fmt.Sprintf("seller=%s/producers=%d", k.Name, producers), func(b *testing.B) {
				benchmarkSeller(b, k, producers, stockFor(int64(b.N)))
			})
		}
	}
}

func benchmarkSeller(b *testing.B, k baseline.Kind, producers int, stock int64) {
	s, err := k.Open(b.TempDir(), baseline.Terms{Stock: stock})
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	}()
	rooms := make([][24]byte, producers)
	var accepted atomic.Int64
	b.ReportAllocs()
	b.ResetTimer()
	r, err := drive.Run(producers, b.N, func(p, i int) error {
		buyer := strconv.AppendInt(append(rooms[p][:0], "u-"...), int64(i), 10)
		ok, err := s.Sell(buyer, 1)
		if ok && stock == 0 {
			accepted.Add(1) // where all win, the stock tells; a counter would be measured too
		}
		if !ok && stock > 0 && err == nil {
			return fmt.Errorf("buyer %d of %d was refused a unit", i, b.N)
		}
		return err
	})
	b.StopTimer()
	if err != nil {
		b.Fatal(err)
	}
	if left := s.Remaining(); left != 0 || accepted.Load() != 0 {
		b.Fatalf("books: stock %d, %d requests, %d remain, %d accepted after the sell-out", stock, b.N, left, accepted.Load())
	}
	b.ReportMetric(float64(b.N)/r.Elapsed.Seconds(), "decisions/s")
	b.ReportMetric(math.Round(float64(r.P99.Nanoseconds())), "p99-ns")
	if e, ok := s.(interface {
		Batch() (commands, events float64)
	}); ok && stock > 0 {
		commands, events := e.Batch()
		b.ReportMetric(commands, "commands/batch")
		b.ReportMetric(events, "events/commit")
	}
}
