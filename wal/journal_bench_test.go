package wal_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"floodgate/engine"
	"floodgate/wal"
)

// The benchmarks append as the engine's committer does: one batch after the
// other, each waited for. They end with the books: every order is in the
// journal once, and in the index.
//
// A raw file appended to with the same encoded bytes and fdatasync runs in the
// same process, by turns with the journal, so a noisy machine disturbs both.

// orders fills the batch with orders that follow first.
func orders(batch []engine.Event, first uint64, keyed bool) {
	for i := range batch {
		seq := first + uint64(i)
		e := &batch[i]
		buyer := e.Buyer[:0]
		*e = engine.Event{
			Seq: seq, At: 1_700_000_000_000 + int64(seq/1000), Kind: engine.OrderAccepted, Product: "demo",
			Run: 1, Number: uint32(seq - 1), Quantity: 1, Price: 1999, Currency: "EUR",
			Buyer: fmt.Appendf(buyer, "u%09d", seq*2654435761%1_000_000_000), Key: e.Key[:0],
		}
		if keyed {
			e.Key = fmt.Appendf(e.Key, "key-%016x", seq)
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, noSync := range []bool{false, true} {
		for _, size := range []int{1, 64, 256, 1024} {
			name := fmt.Sprintf("batch=%d", size)
			if noSync {
				name += "/nosync"
			}
			b.Run(name, func(b *testing.B) { benchmarkAppend(b, size, noSync, false) })
		}
	}
	b.Run("batch=256/keyed", func(b *testing.B) { benchmarkAppend(b, 256, false, true) })
}

// benchmarkAppend appends b.N orders.
func benchmarkAppend(b *testing.B, size int, noSync, keyed bool) {
	dir := b.TempDir()
	j, err := wal.Open(wal.Options{Dir: dir, NoSync: noSync, Logger: zerolog.Nop()})
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	raw, err := os.Create(filepath.Join(b.TempDir(), "raw"))
	if err != nil {
		b.Fatal(err)
	}
	defer raw.Close()

	batch := make([]engine.Event, size)
	var room []byte
	var spent, rawSpent, cpu time.Duration
	for seq := uint64(1); seq <= uint64(b.N); {
		// A turn of the journal, then a turn of the raw file.
		turn := seq
		for n := 0; n < 500 && seq <= uint64(b.N); n++ {
			batch = batch[:min(size, b.N-int(seq)+1)]
			orders(batch, seq, keyed)
			c, t := cpuTime(), time.Now()
			if err := j.Append(batch); err != nil {
				b.Fatal(err)
			}
			spent += time.Since(t)
			cpu += cpuTime() - c
			seq += uint64(len(batch))
		}
		for turn < seq && !noSync {
			batch = batch[:min(size, int(seq-turn))]
			orders(batch, turn, keyed)
			t := time.Now()
			if room, err = wal.EncodeRecord(room[:0], turn, batch); err != nil {
				b.Fatal(err)
			}
			if _, err := raw.Write(room); err != nil {
				b.Fatal(err)
			}
			if err := syscall.Fdatasync(int(raw.Fd())); err != nil {
				b.Fatal(err)
			}
			rawSpent += time.Since(t)
			turn += uint64(len(batch))
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(b.N)/spent.Seconds(), "orders/s")
	b.ReportMetric(float64(cpu.Nanoseconds())/float64(b.N), "cpu-ns/order")
	if !noSync {
		b.ReportMetric(float64(b.N)/rawSpent.Seconds(), "raw-orders/s")
		b.ReportMetric(rawSpent.Seconds()/spent.Seconds(), "of-raw")
	}
	b.ReportMetric(float64(j.Stats().Bytes)/float64(b.N), "bytes/order")
	checkBooks(b, j, uint64(b.N))
}

// checkBooks fails unless the journal and its index hold n orders.
func checkBooks(tb testing.TB, j *wal.Journal, n uint64) {
	tb.Helper()
	report, err := j.Check(context.Background())
	if err != nil {
		tb.Fatal(err)
	}
	if report.Orders != n || report.Last != n || len(report.Runs) != 1 || report.Runs[0].Orders[engine.Confirmed] != n {
		tb.Fatalf("the journal has %d orders, %d events, %d runs; want %d orders", report.Orders, report.Last, len(report.Runs), n)
	}
}

// cpuTime returns what this process has used.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkAllIn measures all the CPU that orders cost, appended in batches of
// 256, indexed and compacted in the background, less the making of the orders.
func BenchmarkAllIn(b *testing.B) {
	for _, keyed := range []bool{false, true} {
		b.Run(fmt.Sprintf("keyed=%v", keyed), func(b *testing.B) {
			j, err := wal.Open(wal.Options{Dir: b.TempDir(), Logger: zerolog.Nop()})
			if err != nil {
				b.Fatal(err)
			}
			defer j.Close()
			batch := make([]engine.Event, 256)
			run := func(use func()) time.Duration {
				start := cpuTime()
				for seq := uint64(1); seq <= uint64(b.N); seq += uint64(len(batch)) {
					batch = batch[:min(256, b.N-int(seq)+1)]
					orders(batch, seq, keyed)
					use()
				}
				batch = batch[:cap(batch)]
				return cpuTime() - start
			}
			making := run(func() {})
			all := run(func() {
				if err := j.Append(batch); err != nil {
					b.Fatal(err)
				}
			})
			start := cpuTime()
			if _, _, err := j.OrdersByBuyer("nobody", 1, 0); err != nil { // waits for the index
				b.Fatal(err)
			}
			all += cpuTime() - start
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64((all-making).Nanoseconds())/float64(b.N), "cpu-ns/order")
			checkBooks(b, j, uint64(b.N))
		})
	}
}
