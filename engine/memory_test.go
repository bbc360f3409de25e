//go:build !race

package engine_test

import (
	"fmt"
	"runtime"
	"strconv"
	"testing"

	"floodgate/engine"
)

// fill sells one unit to each of n buyers, named by what is about the length of
// a UUID without its dashes, and returns how many bytes the product takes.
func fill(tb testing.TB, n int) (p *engine.Product, bytes uint64) {
	tb.Helper()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	p = engine.NewProduct("p")
	c := engine.AcquireCommand()
	c.Op, c.Quantity, c.Settings = engine.OpCreate, int64(n), &engine.Settings{ID: "p", LimitPerBuyer: 1}
	events := p.Decide(c, 1, nil)
	var room [32]byte
	for i := range n {
		c := engine.AcquireCommand()
		c.Op, c.Quantity = engine.OpPlace, 1
		c.SetBuyer(strconv.AppendInt(append(room[:0], "buyer-0123456789-abcdef-"...), int64(i), 10))
		events = p.Decide(c, 2, events[:0])
		if c.Answer.Outcome != engine.Accepted {
			tb.Fatalf("buyer %d: %v", i, c.Answer.Outcome)
		}
		engine.ReleaseCommand(c)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if v := p.View(); v.Sold != int64(n) || v.Remaining != 0 {
		tb.Fatalf("books: %d sold, %d remaining of %d", v.Sold, v.Remaining, n)
	}
	return p, after.HeapAlloc - before.HeapAlloc
}

func TestABuyerTakesLittleMemory(t *testing.T) {
	const n = 1_000_000
	p, bytes := fill(t, n)
	per := float64(bytes) / n
	t.Logf("%.1f bytes a buyer with a limit and without a key, its name of about 30 bytes included", per)
	if per > 120 {
		t.Errorf("%.1f bytes a buyer", per)
	}
	runtime.KeepAlive(p)
}

// BenchmarkMemory reports what a buyer with a limit and without a key takes.
func BenchmarkMemory(b *testing.B) {
	for _, millions := range []int{1, 10} {
		b.Run(fmt.Sprintf("buyers=%dM", millions), func(b *testing.B) {
			for b.Loop() {
				p, bytes := fill(b, millions*1_000_000)
				b.ReportMetric(float64(bytes)/float64(millions*1_000_000), "bytes/buyer")

				runtime.KeepAlive(p)
			}
		})
	}
}
