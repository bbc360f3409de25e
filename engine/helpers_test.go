package engine_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"floodgate/engine"
	"floodgate/engine/enginetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start starts an engine on a journal that may have a history.
func start(tb testing.TB, j *enginetest.MemoryJournal, opts engine.Options) *engine.Engine {
	tb.Helper()
	return startFrom(tb, j, opts, recoverFrom(tb, j))
}

func startFrom(tb testing.TB, j engine.Journal, opts engine.Options, from *engine.Recovered) *engine.Engine {
	tb.Helper()
	if opts.IDs == nil {
		opts.IDs = enginetest.NewMemoryJournal().IDs()
	}
	e, err := engine.New(opts, j, from)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { e.Close() })
	return e
}

// reply is what came of a command.
type reply struct {
	engine.Answer
	err error
}

// ask sends a copy of what the function fills in, and waits.
func ask(e *engine.Engine, l *engine.Listing, fill func(*engine.Command)) reply {
	c := engine.AcquireCommand()
	defer engine.ReleaseCommand(c)
	fill(c)
	err := e.Do(l, c)
	if err != nil {
		return reply{err: err}
	}
	return reply{Answer: c.Answer}
}

func place(e *engine.Engine, l *engine.Listing, buyer, key string, quantity int64) reply {
	return ask(e, l, func(c *engine.Command) {
		c.Op, c.Quantity = engine.OpPlace, quantity
		c.SetBuyer([]byte(buyer))
		c.SetKey([]byte(key))
	})
}

func admin(e *engine.Engine, l *engine.Listing, op engine.Op, quantity int64) reply {
	return ask(e, l, func(c *engine.Command) { c.Op, c.Quantity = op, quantity })
}

// change confirms, cancels or refunds the order as the ledger tells it.
func change(e *engine.Engine, l *engine.Listing, j *enginetest.MemoryJournal, op engine.Op, id engine.OrderID) reply {
	o, ok, err := j.Order(id)
	if err != nil || !ok {
		return reply{err: fmt.Errorf("the ledger does not know order %v: %w", id, err)}
	}
	return ask(e, l, func(c *engine.Command) {
		c.Op = op
		c.SetOrder(&o)
	})
}

// later runs f and hands over what it returns.
func later[T any](f func() T) <-chan T {
	result := make(chan T, 1)
	go func() { result <- f() }()
	return result
}

// pass lets time pass inside a bubble of package synctest, where it costs none.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// bubble runs the test on a clock of its own that moves when all wait.
func bubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, test)
}

// brake makes a disk stop, fail and go on.
type brake struct {
	mu      sync.Mutex
	stopped chan struct{} // nil: it runs
	failure error
}

// hook is a MemoryJournal's BeforeAppend or AfterAppend.
func (b *brake) hook([]engine.Event) error {
	b.mu.Lock()
	stopped := b.stopped
	b.mu.Unlock()
	if stopped != nil {
		<-stopped
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failure
}

func (b *brake) stop(tb testing.TB) {
	b.mu.Lock()
	b.stopped = make(chan struct{})
	b.mu.Unlock()
	tb.Cleanup(func() { b.release(nil) })
}

// release lets the disk go on, or fail for good.
func (b *brake) release(failure error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopped != nil {
		close(b.stopped)
		b.stopped = nil
	}
	if failure != nil {
		b.failure = failure
	}
}

// watchBooks reads a product's views until the returned function is called, and
// demands of each that the books balance and that no version comes back.
func watchBooks(tb testing.TB, l *engine.Listing) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		var version uint64
		for {
			v := l.View()
			if v.Stock != v.Remaining+v.Held+v.Sold || v.Remaining < 0 || v.Held < 0 || v.Sold < 0 || v.Version < version {
				tb.Errorf("a view has stock %d, remaining %d, held %d, sold %d, version %d after %d",
					v.Stock, v.Remaining, v.Held, v.Sold, v.Version, version)
				return
			}
			version = v.Version
			select {
			case <-quit:
				return
			default:
			}
		}
	}()
	return func() { close(quit); <-done }
}

func wantView(tb testing.TB, l *engine.Listing, remaining, held, sold int64) {
	tb.Helper()
	v := l.View()
	if v.Remaining != remaining || v.Held != held || v.Sold != sold || v.Stock != remaining+held+sold {
		tb.Errorf("stock %d, remaining %d, held %d, sold %d, want %d, %d, %d", v.Stock, v.Remaining, v.Held, v.Sold, remaining, held, sold)
	}
}
