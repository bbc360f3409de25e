package bench_test

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"floodgate/bench/drive"
	"floodgate/engine"
	"floodgate/wal"
)

const productID = "sale"

// millis is the time that the benchmarks of the pure parts take place at.
const millis = 1_750_000_000_000

// ruleCase is one answer of the rule. The command that prepare leaves behind is
// decided b.N times, by the b.N different buyers where each is new.
type ruleCase struct {
	name     string
	settings engine.Settings
	stock    func(n int64) int64
	keyed    bool // a new idempotency key with every request
	same     bool // the same buyer, and the same key, with every request
	outcome  engine.Outcome
}

// BenchmarkRule measures Product.Decide alone: no goroutine, no journal. What
// an accepted order costs beyond a refused one is the memory of who bought.
func BenchmarkRule(b *testing.B) {
	enough := func(n int64) int64 { return n + 1 }
	none := func(int64) int64 { return 0 }
	one := func(int64) int64 { return 1 }
	for _, c := range []ruleCase{
		{name: "accepted", stock: enough, outcome: engine.Accepted},
		{name: "accepted-limit", stock: enough, settings: engine.Settings{LimitPerBuyer: 2}, outcome: engine.Accepted},
		{name: "accepted-keyed", stock: enough, keyed: true, outcome: engine.Accepted},
		{name: "accepted-held", stock: enough, settings: engine.Settings{HoldSeconds: 60}, outcome: engine.Accepted},
		{name: "sold-out", stock: none, outcome: engine.SoldOut},
		{name: "sold-out-keyed", stock: none, keyed: true, outcome: engine.SoldOut},
		{name: "over-limit", stock: enough, settings: engine.Settings{LimitPerBuyer: 1}, same: true, outcome: engine.OverLimit},
		{name: "replayed", stock: one, keyed: true, same: true, outcome: engine.Replayed},
	} {
		b.Run("answer="+c.name, func(b *testing.B) { benchmarkRule(b, c) })
	}
}

func benchmarkRule(b *testing.B, c ruleCase) {
	p := engine.NewProduct(productID)
	settings := c.settings
	settings.ID, settings.Currency = productID, "EUR"
	stock := c.stock(int64(b.N))
	create := engine.AcquireCommand()
	create.Op, create.Settings, create.Quantity = engine.OpCreate, &settings, stock
	events := p.Decide(create, millis, nil)

	cmd := engine.AcquireCommand()
	cmd.Op, cmd.Quantity = engine.OpPlace, 1
	var sold int64
	if c.same { // who bought before
		cmd.SetBuyer([]byte("u-1"))
		if c.keyed {
			cmd.SetKey([]byte("k-1"))
		}
		events = p.Decide(cmd, millis, events[:0])
		sold++
	}
	var room [24]byte
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if !c.same {
			name := strconv.AppendInt(append(room[:0], "u-"...), int64(i), 10)
			cmd.SetBuyer(name)
			if c.keyed {
				cmd.SetKey(name)
			}
		}
		cmd.Answer = engine.Answer{}
		events = p.Decide(cmd, millis, events[:0])
		if cmd.Answer.Outcome != c.outcome {
			b.Fatalf("request %d: %v, want %v", i, cmd.Answer.Outcome, c.outcome)
		}
	}
	b.StopTimer()
	if c.outcome == engine.Accepted {
		sold += int64(b.N)
	}
	if v := p.View(); v.Sold+v.Held != sold || v.Remaining != stock-sold || v.Stock != stock {
		b.Fatalf("books: %d sold, %d held, %d remaining of %d; want %d sold or held", v.Sold, v.Held, v.Remaining, v.Stock, sold)
	}
}

// BenchmarkJournal measures the engine on a journal, for producers that each
// wait until their order is durable. wal-sync is what a node does; wal-nosync is
// --sync=none; file is an append and an fdatasync with nothing around it, the
// least that keeps promise 2; none keeps nothing.
//
// The books are counted three times: by the engine, by the journal that is read
// back after it was closed, and by the requests.
func BenchmarkJournal(b *testing.B) {
	for _, journal := range []string{"none", "file", "wal-nosync", "wal-sync"} {
		for _, producers := range []int{1, 64, 1024} {
			b.Run(fmt.Sprintf("journal=%s/producers=%d", journal, producers), func(b *testing.B) {
				benchmarkJournal(b, journal, producers)
			})
		}
	}
}

// closableJournal is a journal that can say, once it is closed, how many orders
// it holds.
type closableJournal interface {
	engine.Journal
	// Close ends the journal and counts its orders on the disk, -1 where it has none.
	Close() (orders int64, err error)
}

func openJournal(name, dir string) (closableJournal, error) {
	switch name {
	case "none":
		return discard{}, nil
	case "file":
		return openFileJournal(dir)
	}
	options := wal.Options{Dir: dir, NoSync: name == "wal-nosync", Fatal: func(err error) { panic(err) }}
	j, err := wal.Open(options)
	return &walJournal{j, options}, err
}

type discard struct{}

func (discard) Append([]engine.Event) error { return nil }
func (discard) Close() (int64, error)       { return -1, nil }

// walJournal reads back, after it was closed, what a restart would find.
type walJournal struct {
	*wal.Journal
	options wal.Options
}

func (j *walJournal) Close() (int64, error) {
	if err := j.Journal.Close(); err != nil {
		return 0, err
	}
	again, err := wal.Open(j.options)
	if err != nil {
		return 0, err
	}
	found, err := engine.Recover(again)
	if err != nil {
		return 0, err
	}
	return found.Products[productID].View().Sold, again.Close()
}

func benchmarkJournal(b *testing.B, name string, producers int) {
	journal, err := openJournal(name, b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	ids := engine.NewIDs([16]byte{1})
	e, err := engine.New(engine.Options{IDs: ids, StallAfter: time.Minute}, journal, &engine.Recovered{})
	if err != nil {
		b.Fatal(err)
	}
	if a, err := e.Create(&engine.Settings{ID: productID, Currency: "EUR", Price: 1999}, int64(b.N)); err != nil || a.Outcome != engine.Accepted {
		b.Fatal(a.Outcome, err)
	}
	l := e.Listing([]byte(productID))
	rooms := make([][24]byte, producers)
	b.ReportAllocs()
	b.ResetTimer()
	r, err := drive.Run(producers, b.N, func(p, i int) error {
		c := engine.AcquireCommand()
		defer engine.ReleaseCommand(c)
		c.Op, c.Quantity = engine.OpPlace, 1
		c.SetBuyer(strconv.AppendInt(append(rooms[p][:0], "u-"...), int64(i), 10))
		if err := e.Do(l, c); err != nil {
			return err
		}
		if c.Answer.Outcome != engine.Accepted {
			return fmt.Errorf("buyer %d: %v", i, c.Answer.Outcome)
		}
		return nil
	})
	b.StopTimer()
	if err != nil {
		b.Fatal(err)
	}
	st := e.Stats()
	b.ReportMetric(float64(b.N)/r.Elapsed.Seconds(), "orders/s")
	b.ReportMetric(float64(r.CPU.Nanoseconds())/float64(b.N), "cpu-ns/order")
	b.ReportMetric(float64(r.P99.Microseconds()), "p99-us")
	b.ReportMetric(float64(st.CommitSize.Sum)/float64(max(st.CommitSize.Count, 1)), "events/commit")

	v := l.View()
	if err := e.Close(); err != nil {
		b.Fatal(err)
	}
	kept, err := journal.Close()
	if err != nil {
		b.Fatal(err)
	}
	if n := int64(b.N); v.Sold != n || v.Remaining != 0 || kept != n && kept != -1 {
		b.Fatalf("books: %d requests were accepted, the engine sold %d and has %d left, the journal holds %d", n, v.Sold, v.Remaining, kept)
	}
}
