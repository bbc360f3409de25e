package wal_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"floodgate/engine"
	"floodgate/wal"
)

// BenchmarkOpen opens what kill -9 left of a million orders, half of them with a
// key, and replays them; then it compacts them and measures the disk.
func BenchmarkOpen(b *testing.B) {
	const n = 1_000_000
	live, killed := filepath.Join(b.TempDir(), "live"), filepath.Join(b.TempDir(), "killed")
	j := open(b, wal.Options{Dir: live, Logger: zerolog.Nop()})
	batch := make([]engine.Event, 250)
	for seq := uint64(1); seq <= n; seq += uint64(len(batch)) {
		orders(batch, seq, seq%500 == 1)
		if err := j.Append(batch); err != nil {
			b.Fatal(err)
		}
	}
	if err := os.CopyFS(killed, os.DirFS(live)); err != nil {
		b.Fatal(err)
	}
	var opened, replayed time.Duration
	for range b.N {
		dir := filepath.Join(b.TempDir(), "copy")
		if err := os.RemoveAll(dir); err != nil {
			b.Fatal(err)
		}
		if err := os.CopyFS(dir, os.DirFS(killed)); err != nil {
			b.Fatal(err)
		}
		start := time.Now()
		c, err := wal.Open(wal.Options{Dir: dir, Logger: zerolog.Nop()})
		if err != nil {
			b.Fatal(err)
		}
		opened += time.Since(start)
		start, count := time.Now(), 0
		if err := c.Events(0, func(*engine.Event) error { count++; return nil }); err != nil || count != n {
			b.Fatalf("%d events, error %v", count, err)
		}
		replayed += time.Since(start)
		checkBooks(b, c, n)
		if err := c.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(opened.Milliseconds())/float64(b.N), "open-ms")
	b.ReportMetric(float64(replayed.Milliseconds())/float64(b.N), "replay-ms")
	if err := j.Flush(); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(j.TableBytes())/n, "disk-bytes/order")

	start := time.Now()
	if err := j.Close(); err != nil {
		b.Fatal(err)
	}
	c, err := wal.Open(wal.Options{Dir: live, Logger: zerolog.Nop()})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(time.Since(start).Milliseconds()), "close-and-open-ms")
	const reads = 20_000
	start = time.Now()
	for i := uint64(1); i <= reads; i++ {
		seq := i * 7919 % n
		at := 1_700_000_000_000 + int64(seq/1000)
		id := c.IDs().Sequential(seq, at, nil)
		if _, ok, err := c.Order(id); err != nil || !ok && (seq-1)%500 >= 250 {
			b.Fatalf("order %d: found %v, error %v", seq, ok, err)
		}
	}
	b.ReportMetric(float64(time.Since(start).Microseconds())/reads, "read-us")
	if err := c.Close(); err != nil {
		b.Fatal(err)
	}
}
