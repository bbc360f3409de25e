package bench_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"floodgate/engine"
	"floodgate/wal"
)

// BenchmarkRecovery measures what a restart does before its port opens: wal.Open
// and engine.Recover.
//
//   - tail=1M: a million orders after the last snapshot, nothing before it.
//   - ledger=10M: ten million orders, a snapshot every two million as a node makes
//     them, and one million after the last: the mean case of a large sale. It
//     takes a minute to fill and runs only where FLOODGATE_BENCH_LARGE is set.
//
// bytes/order is what the journal and its index take on the disk after a full
// compaction, the snapshots included; ordinary operation has somewhat more.
func BenchmarkRecovery(b *testing.B) {
	b.Run("tail=1M", func(b *testing.B) { benchmarkRecovery(b, 1_000_000, 1_000_000) })
	b.Run("ledger=10M", func(b *testing.B) {
		if os.Getenv("FLOODGATE_BENCH_LARGE") == "" {
			b.Skip("ten million orders; set FLOODGATE_BENCH_LARGE=1 to measure them")
		}
		benchmarkRecovery(b, 10_000_000, 1_000_000)
	})
}

// snapshotEvery is the engine's default.
const snapshotEvery = 2_000_000

func benchmarkRecovery(b *testing.B, orders, tail int64) {
	options := wal.Options{Dir: b.TempDir(), NoSync: true, ReadTimeout: time.Minute, Fatal: func(err error) { panic(err) }}
	fill(b, options, orders, tail)
	options.NoSync = false
	full := options.Dir
	var found *engine.Recovered
	for b.Loop() {
		// Opening moves the log's tail into tables, so each restart needs a
		// directory that was not opened since the node stopped.
		b.StopTimer()
		options.Dir = filepath.Join(b.TempDir(), "data")
		if err := os.CopyFS(options.Dir, os.DirFS(full)); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		j, err := wal.Open(options)
		if err != nil {
			b.Fatal(err)
		}
		if found, err = engine.Recover(j); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := errors.Join(j.Close(), os.RemoveAll(options.Dir)); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(found.Replayed)*float64(b.N)/b.Elapsed().Seconds(), "replayed/s")
	v := found.Products[productID].View()
	if v.Sold != orders || v.Remaining != 0 || int64(found.Replayed) != tail {
		b.Fatalf("books: %d orders were stored; %d recovered, %d remain, %d replayed instead of %d", orders, v.Sold, v.Remaining, found.Replayed, tail)
	}
	b.ReportMetric(float64(compactedBytes(b, full))/float64(orders), "bytes/order")
}

// fill sells that many units, each to a buyer of its own, and makes snapshots so
// that tail orders come after the last one. It goes past the engine's goroutines:
// the rule decides, the journal stores.
func fill(b *testing.B, options wal.Options, orders, tail int64) {
	j, err := wal.Open(options)
	if err != nil {
		b.Fatal(err)
	}
	p := engine.NewProduct(productID)
	var seq uint64
	store := func(events []engine.Event) {
		for i := range events {
			seq++
			events[i].Seq = seq
		}
		if err := j.Append(events); err != nil {
			b.Fatal(err)
		}
	}
	snapshot := func() {
		if _, _, err := engine.Snapshot(j); err != nil {
			b.Fatal(err)
		}
	}
	create := engine.AcquireCommand()
	create.Op, create.Quantity = engine.OpCreate, orders
	create.Settings = &engine.Settings{ID: productID, Name: "Sale", Currency: "EUR", Price: 1999}
	at := time.Now().UnixMilli()
	store(p.Decide(create, at, nil))

	const batch = 1000 // divides every number above
	var room [24]byte
	var events []engine.Event
	commands := make([]engine.Command, batch) // events borrow their buyer's name
	for sold := int64(0); sold < orders; sold += batch {
		if left := orders - sold; left == tail || left > tail && (left-tail)%snapshotEvery == 0 {
			snapshot()
		}
		events = events[:0]
		for i := range commands {
			c := &commands[i]
			c.Op, c.Quantity = engine.OpPlace, 1
			c.SetBuyer(buyerName(room[:0], sold+int64(i)))
			events = p.Decide(c, at+sold/100, events) // 100,000 orders a second
		}
		store(events)
	}
	// The index follows the journal. A question about the last buyer waits for it.
	last := buyerName(nil, orders-1)
	if found, _, err := j.OrdersByBuyer(string(last), 1, 0); err != nil || len(found) != 1 {
		b.Fatalf("the ledger has %d orders of the last buyer, %v", len(found), err)
	}
	if err := j.Close(); err != nil {
		b.Fatal(err)
	}
}

// buyerName gives each buyer a name of eighteen letters that compresses no better
// than people's do.
func buyerName(dst []byte, n int64) []byte {
	dst = append(dst, "u-"...)
	return strconv.AppendUint(dst, uint64(n+1)*0x9e3779b97f4a7c15, 16) // odd, so no two are the same
}

// compactedBytes compacts the closed journal's database and returns the size of
// its tables.
func compactedBytes(b *testing.B, dir string) (size int64) {
	path := filepath.Join(dir, "journal")
	db, err := pebble.Open(path, &pebble.Options{FormatMajorVersion: pebble.FormatNewest, Logger: silent{}})
	if err != nil {
		b.Fatal(err)
	}
	if err := db.Flush(); err != nil {
		b.Fatal(err)
	}
	if err := db.Compact(context.Background(), []byte{0}, []byte{0xff}, true); err != nil {
		b.Fatal(err)
	}
	if err := db.Close(); err != nil {
		b.Fatal(err)
	}
	err = filepath.WalkDir(path, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(name, ".sst") {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			size += info.Size()
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return size
}

// silent keeps Pebble's own log out of the benchmark's output.
type silent struct{}

func (silent) Infof(string, ...any)  {}
func (silent) Errorf(string, ...any) {}
func (silent) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf(format, args...))
}
