package engine_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"floodgate/engine"
	"floodgate/engine/enginetest"
)

var errDisk = errors.New("input/output error")

// Promise 1.
func TestNeverOversold(t *testing.T) {
	for _, row := range []struct{ buyers, units int }{{1_000, 100}, {10_000, 20}} {
		t.Run(fmt.Sprintf("buyers=%d/units=%d", row.buyers, row.units), func(t *testing.T) {
			j := enginetest.NewMemoryJournal()
			e := start(t, j, engine.Options{IDs: j.IDs()})
			l := create(t, e, &engine.Settings{ID: "p", LimitPerBuyer: 1}, int64(row.units))
			stop := watchBooks(t, l)
			var outcomes [32]atomic.Int64
			var ids sync.Map
			var barrier, buyers sync.WaitGroup
			barrier.Add(1)
			for i := range row.buyers {
				buyers.Go(func() {
					barrier.Wait()
					r := place(e, l, fmt.Sprintf("buyer-%d", i), "", 1)
					if r.err != nil {
						t.Errorf("buyer %d: %v", i, r.err)
						return
					}
					outcomes[r.Outcome].Add(1)
					if r.Outcome != engine.Accepted {
						return
					}
					if _, taken := ids.LoadOrStore(r.ID, i); taken {
						t.Errorf("two orders are called %v", r.ID)
					}
					if o, ok, _ := j.Order(r.ID); !ok || o.Buyer != fmt.Sprintf("buyer-%d", i) || o.Seq != r.Seq {
						t.Errorf("order %v was answered and the ledger has %+v, %v", r.ID, o, ok)
					}
				})
			}
			barrier.Done()
			buyers.Wait()
			stop()
			if got := outcomes[engine.Accepted].Load(); got != int64(row.units) {
				t.Errorf("%d orders were accepted", got)
			}
			if got := outcomes[engine.SoldOut].Load(); got != int64(row.buyers-row.units) {
				t.Errorf("%d buyers were told that it is sold out", got)
			}
			wantView(t, l, 0, 0, int64(row.units))
		})
	}
}

// Promise 2.
func TestNoAnswerAndNoViewBeforeTheJournalReturned(t *testing.T) {
	for _, stored := range []bool{false, true} {
		t.Run(fmt.Sprintf("stored=%v", stored), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var disk brake
				j := enginetest.NewMemoryJournal()
				j.BeforeAppend = disk.hook
				if stored {
					j.BeforeAppend, j.AfterAppend = nil, disk.hook
				}
				e := start(t, j, engine.Options{Shards: 1, IDs: j.IDs()})
				l := create(t, e, &engine.Settings{ID: "p"}, 2)
				disk.stop(t)
				var replies []<-chan reply
				for i := range 5 {
					replies = append(replies, later(func() reply { return place(e, l, fmt.Sprintf("buyer-%d", i), "", 1) }))
					synctest.Wait()
				}
				for i, r := range replies {
					if len(r) != 0 {
						t.Errorf("buyer %d was answered before the journal had returned: %+v", i, <-r)
					}
				}
				wantView(t, l, 2, 0, 0)
				if o := l.Refusal(1, 1); o != 0 {
					t.Errorf("a refusal, %v, was answered from memory that is ahead of the disk", o)
				}
				disk.release(nil)
				synctest.Wait()
				for i, r := range replies {
					if want := []engine.Outcome{engine.Accepted, engine.Accepted, engine.SoldOut, engine.SoldOut, engine.SoldOut}[i]; len(r) != 1 {
						t.Errorf("buyer %d was not answered", i)
					} else if got := <-r; got.Outcome != want || got.err != nil {
						t.Errorf("buyer %d: %v, %v, want %v", i, got.Outcome, got.err, want)
					}
				}
				wantView(t, l, 0, 0, 2)
				if o := l.Refusal(1, 1); o != engine.SoldOut {
					t.Errorf("the durable state refuses with %v", o)
				}
			})
		})
	}
}

func TestBatchesAreStoredInTheOrderTheyWereDecided(t *testing.T) {
	j := enginetest.NewMemoryJournal()
	var last uint64
	var at int64
	j.AfterAppend = func(events []engine.Event) error {
		for i := range events {
			if events[i].Seq != last+1 {
				t.Errorf("event %d follows event %d", events[i].Seq, last)
			}
			last = events[i].Seq
			at = max(at, events[i].At)
		}
		return nil
	}
	e := start(t, j, engine.Options{Shards: 4, IDs: j.IDs()})
	var listings []*engine.Listing
	for i := range 8 {
		listings = append(listings, create(t, e, &engine.Settings{ID: fmt.Sprintf("p-%d", i)}, 100_000))
	}
	var clients sync.WaitGroup
	for i := range 32 {
		clients.Go(func() {
			var before uint64
			for n := range 50 {
				r := place(e, listings[i%8], fmt.Sprintf("buyer-%d", i), "", 1)
				if r.err != nil || r.Seq <= before {
					t.Errorf("client %d, order %d: sequence %d after %d, %v", i, n, r.Seq, before, r.err)
				}
				if durable := j.DurableSeq(); r.Seq > durable {
					t.Errorf("order %d was answered, the journal ends at %d", r.Seq, durable)
				}
				before = r.Seq
			}
		})
	}
	clients.Wait()
	if want := uint64(8 + 32*50); last != want || e.Stats().Seq != want {
		t.Errorf("the journal ends at %d, Stats at %d, want %d", last, e.Stats().Seq, want)
	}
}

// F20: memory is ahead of the disk, and only a replay may repair it.
func TestAJournalErrorStopsTheEngineForGood(t *testing.T) {
	for _, stored := range []bool{false, true} {
		t.Run(fmt.Sprintf("stored=%v", stored), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var disk brake
				j := enginetest.NewMemoryJournal()
				if stored {
					j.AfterAppend = disk.hook
				} else {
					j.BeforeAppend = disk.hook
				}
				e := start(t, j, engine.Options{Shards: 1, IDs: j.IDs()})
				l := create(t, e, &engine.Settings{ID: "p"}, 1)
				disk.stop(t)
				var replies []<-chan reply
				for i := range 20 { // the first takes the last unit; the others are told nothing
					replies = append(replies, later(func() reply { return place(e, l, fmt.Sprintf("buyer-%d", i), "", 1) }))
					synctest.Wait()
				}
				select {
				case <-e.Failed():
					t.Fatal("failed before the journal did")
				default:
				}
				disk.release(errDisk)
				synctest.Wait()
				for i, r := range replies {
					if len(r) != 1 {
						t.Errorf("buyer %d still waits", i)
					} else if got := <-r; !errors.Is(got.err, engine.ErrJournalFailed) {
						t.Errorf("buyer %d: %v, %v", i, got.Outcome, got.err)
					}
				}
				select {
				case <-e.Failed():
				default:
					t.Error("Failed is not closed")
				}
				wantView(t, l, 1, 0, 0)
				for range 2 {
					if r := place(e, l, "late", "", 1); !errors.Is(r.err, engine.ErrJournalFailed) {
						t.Errorf("a late buyer: %v, %v", r.Outcome, r.err)
					}
				}
				if _, err := e.Create(&engine.Settings{ID: "q"}, 1); !errors.Is(err, engine.ErrJournalFailed) {
					t.Errorf("a product was created: %v", err)
				}
				if st := e.Stats(); !errors.Is(st.Failed, errDisk) || st.Seq != 1 {
					t.Errorf("Stats tells of the failure %v and of the durable sequence %d", st.Failed, st.Seq)
				}
				for range 2 {
					if err := e.Close(); !errors.Is(err, engine.ErrJournalFailed) || !errors.Is(err, errDisk) {
						t.Errorf("close: %v", err)
					}
				}
			})
		})
	}
}

// The shard may be deciding while the journal fails: that its own batches are all
// done with must not make it believe its memory.
func TestSoldOutIsNotAnsweredFromMemoryThatTheDiskRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var disk, clock brake
		j := enginetest.NewMemoryJournal()
		j.BeforeAppend = disk.hook
		e := start(t, j, engine.Options{Shards: 1, IDs: j.IDs(), Now: func() int64 {
			clock.hook(nil)
			return sceneEpoch
		}})
		l := create(t, e, &engine.Settings{ID: "p"}, 1)
		disk.stop(t)
		first := later(func() reply { return place(e, l, "a", "", 1) })
		synctest.Wait()
		clock.stop(t) // the shard waits just before it decides
		second := later(func() reply { return place(e, l, "b", "", 1) })
		synctest.Wait()
		disk.release(errDisk)
		synctest.Wait()
		if r := <-first; !errors.Is(r.err, engine.ErrJournalFailed) {
			t.Errorf("the last unit: %v, %v", r.Outcome, r.err)
		}
		clock.release(nil)
		if r := <-second; !errors.Is(r.err, engine.ErrJournalFailed) {
			t.Errorf("the disk never sold the last unit, and a buyer is told %v, %v", r.Outcome, r.err)
		}
		wantView(t, l, 1, 0, 0)
	})
}

// jammed is an engine of one shard whose disk stands still and whose queue
// behind the disk is full, so that the shard itself waits.
type jammed struct {
	engine  *engine.Engine
	listing *engine.Listing
	journal *enginetest.MemoryJournal
	disk    *brake
	decided []<-chan reply // the shard took them before it jammed
}

func jam(t *testing.T, opts engine.Options) jammed {
	t.Helper()
	h := newHistory(t)
	now := time.Now().UnixMilli()
	// As many outstanding holds as fit into the queue; a reset returns them all.
	h.step(enginetest.Step{Op: engine.OpCreate, Quantity: engine.MaxUndurable, Settings: engine.Settings{ID: "p", HoldSeconds: 3600}}, now)
	for range engine.MaxUndurable {
		h.step(enginetest.Step{Op: engine.OpPlace, Quantity: 1}, now)
	}
	disk := new(brake)
	h.journal.BeforeAppend = disk.hook
	opts.Shards, opts.IDs = 1, h.journal.IDs()
	e := start(t, h.journal, opts)
	l := e.Listing([]byte("p"))
	disk.stop(t)
	j := jammed{engine: e, listing: l, journal: h.journal, disk: disk}
	ask := func(op engine.Op, times int) {
		for range times {
			j.decided = append(j.decided, later(func() reply { return admin(e, l, op, 5) }))
		}
		synctest.Wait()
	}
	ask(engine.OpPause, 1) // the disk is busy with it, and the next gather
	ask(engine.OpReset, 1)
	ask(engine.OpResume, engine.GatherUpTo-1) // until they are many: the queue is full with them
	ask(engine.OpResume, engine.GatherUpTo)   // the shard decides these and has to wait
	return j
}

// F22: a buyer hears something while the disk does not answer, and what they
// hear is true: ErrStalled, and it never happens; ErrUnknown, and it may.
func TestAStalledJournalGivesUpWhatWaits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := jam(t, engine.Options{StallAfter: 200 * time.Millisecond})
		waiting := later(func() reply { return place(j.engine, j.listing, "withdrawn", "k", 1) })
		pass(190 * time.Millisecond)
		for _, r := range append(j.decided, waiting) {
			if len(r) != 0 {
				t.Errorf("given up before StallAfter: %v", (<-r).err)
			}
		}
		pass(50 * time.Millisecond)
		for i, r := range j.decided {
			if len(r) != 1 {
				t.Fatalf("command %d, which was decided, still waits", i)
			}
			if got := <-r; got.err != engine.ErrUnknown {
				t.Errorf("command %d, which was decided: %v", i, got.err)
			}
		}
		if len(waiting) != 1 {
			t.Fatal("a command in the inbox still waits")
		}
		if got := <-waiting; got.err != engine.ErrStalled {
			t.Errorf("a command in the inbox: %v", got.err)
		}
		if st := j.engine.Stats(); st.GivenUp != uint64(len(j.decided)+1) {
			t.Errorf("%d commands were given up", st.GivenUp)
		}

		j.disk.release(nil)
		synctest.Wait()
		wantView(t, j.listing, 5, 0, 0) // what was decided took place
		r := place(j.engine, j.listing, "withdrawn", "k", 1)
		if r.Outcome != engine.Accepted || r.Number != 0 || r.err != nil {
			t.Errorf("what was withdrawn took place: a retry gets %v, order %d, %v", r.Outcome, r.Number, r.err)
		}
		if err := j.engine.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestARetryTellsWhatBecameOfAnUnknownOutcome(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var disk brake
		j := enginetest.NewMemoryJournal()
		j.BeforeAppend = disk.hook
		e := start(t, j, engine.Options{Shards: 1, IDs: j.IDs()})
		l := create(t, e, &engine.Settings{ID: "p"}, 2)
		disk.stop(t)
		if r := place(e, l, "a", "k", 1); r.err != engine.ErrUnknown {
			t.Fatalf("the disk stands still and the answer is %v, %v", r.Outcome, r.err)
		}
		disk.release(nil)
		r := place(e, l, "a", "k", 1)
		if r.Outcome != engine.Replayed || r.ID != engine.KeyedID("p", 1, []byte("a"), []byte("k")) {
			t.Errorf("a retry gets %v, %v", r.Outcome, r.ID)
		}
		wantView(t, l, 1, 0, 1)
	})
}

// Promise 5.
func TestAFullInboxRefusesAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const limit = engine.GatherUpTo + 10
		j := jam(t, engine.Options{InboxLimit: limit, StallAfter: time.Hour})
		var waiting []<-chan reply
		for range limit {
			waiting = append(waiting, later(func() reply { return admin(j.engine, j.listing, engine.OpRestock, 1) }))
		}
		synctest.Wait()
		before := time.Now()
		for range 3 {
			if r := place(j.engine, j.listing, "b", "", 1); r.err != engine.ErrOverloaded {
				t.Errorf("a full inbox answers %v, %v", r.Outcome, r.err)
			}
		}
		if waited := time.Since(before); waited != 0 {
			t.Errorf("and it took %v", waited)
		}
		st := j.engine.Stats()
		if st.Overloaded != 3 || st.Shards[0].InboxDepth != limit || st.Shards[0].InboxLimit != limit {
			t.Errorf("Stats: %d refused, %d of %d wait", st.Overloaded, st.Shards[0].InboxDepth, st.Shards[0].InboxLimit)
		}
		j.disk.release(nil)
		synctest.Wait()
		for i, r := range waiting {
			if got := <-r; got.err != nil || got.Outcome != engine.Accepted {
				t.Errorf("command %d, which waited: %v, %v", i, got.Outcome, got.err)
			}
		}
		wantView(t, j.listing, 5+limit, 0, 0)
	})
}

// Refusals wait for the disk like all answers, so they count as well.
func TestRefusalsThatWaitForTheDiskAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var disk brake
		j := enginetest.NewMemoryJournal()
		j.BeforeAppend = disk.hook
		e := start(t, j, engine.Options{Shards: 1, InboxLimit: engine.GatherUpTo, StallAfter: time.Hour, IDs: j.IDs()})
		l := create(t, e, &engine.Settings{ID: "p"}, 1)
		disk.stop(t)
		first := later(func() reply { return place(e, l, "a", "", 1) })
		synctest.Wait()
		var refused, soldOut atomic.Int64
		var clients sync.WaitGroup
		for range 2 * engine.MaxUndurable / engine.GatherUpTo {
			for range engine.GatherUpTo {
				clients.Go(func() {
					switch r := place(e, l, "b", "k", 1); {
					case r.err == engine.ErrOverloaded:
						refused.Add(1)
					case r.err == nil && r.Outcome == engine.SoldOut:
						soldOut.Add(1)
					default:
						t.Errorf("%v, %v", r.Outcome, r.err)
					}
				})
			}
			synctest.Wait()
		}
		if refused.Load() < engine.MaxUndurable/2 {
			t.Errorf("of %d commands that wait for the disk %d were refused", 2*engine.MaxUndurable, refused.Load())
		}
		disk.release(nil)
		clients.Wait()
		if r := <-first; r.Outcome != engine.Accepted || soldOut.Load() == 0 {
			t.Errorf("the first order: %v, %v; %d were told that it is sold out", r.Outcome, r.err, soldOut.Load())
		}
	})
}

func TestCloseAnswersWhatWaitsAndRefusesTheRest(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var disk brake
		j := enginetest.NewMemoryJournal()
		j.BeforeAppend = disk.hook
		e := start(t, j, engine.Options{Shards: 2, IDs: j.IDs()})
		l := create(t, e, &engine.Settings{ID: "p"}, 5)
		disk.stop(t)
		var replies []<-chan reply
		for i := range 7 {
			replies = append(replies, later(func() reply { return place(e, l, fmt.Sprintf("buyer-%d", i), "", 1) }))
			synctest.Wait()
		}
		closed := later(e.Close)
		synctest.Wait()
		if len(closed) != 0 {
			t.Error("Close returned although orders wait")
		}
		if r := place(e, l, "late", "", 1); r.err != engine.ErrClosed {
			t.Errorf("a late buyer: %v, %v", r.Outcome, r.err)
		}
		disk.release(nil)
		if err := <-closed; err != nil {
			t.Errorf("close: %v", err)
		}
		for i, r := range replies {
			if got := <-r; got.err != nil || (got.Outcome == engine.Accepted) != (i < 5) {
				t.Errorf("buyer %d: %v, %v", i, got.Outcome, got.err)
			}
		}
		wantView(t, l, 0, 0, 5)
		if r := place(e, l, "late", "", 1); r.err != engine.ErrClosed {
			t.Errorf("after Close: %v, %v", r.Outcome, r.err)
		}
		if err := e.Close(); err != nil {
			t.Errorf("closed again: %v", err)
		}
	})
}

// The fast path must say what the shard would, or nothing.
func TestRefusalWithoutAHandOffSaysWhatTheShardSays(t *testing.T) {
	for _, row := range []struct {
		name     string
		settings engine.Settings
		stock    int64
		do       []engine.Op
		quantity int64
		now      int64
		want     engine.Outcome // of the fast path; 0: asks the shard
		shard    engine.Outcome
	}{
		{"open", engine.Settings{}, 1, nil, 1, 50, 0, engine.Accepted},
		{"sold out", engine.Settings{}, 0, nil, 1, 50, engine.SoldOut, engine.SoldOut},
		{"fewer than asked for", engine.Settings{}, 2, nil, 3, 50, 0, engine.SoldOut},
		{"paused", engine.Settings{}, 1, []engine.Op{engine.OpPause}, 1, 50, engine.Paused, engine.Paused},
		{"paused and sold out", engine.Settings{}, 0, []engine.Op{engine.OpPause}, 1, 50, engine.Paused, engine.Paused},
		{"resumed", engine.Settings{}, 1, []engine.Op{engine.OpPause, engine.OpResume}, 1, 50, 0, engine.Accepted},
		{"not started", engine.Settings{StartsAt: 51}, 1, nil, 1, 50, engine.NotStarted, engine.NotStarted},
		{"not started, paused, sold out", engine.Settings{StartsAt: 51}, 0, []engine.Op{engine.OpPause}, 1, 50, engine.NotStarted, engine.NotStarted},
		{"just started", engine.Settings{StartsAt: 50}, 1, nil, 1, 50, 0, engine.Accepted},
		{"ended, not seen yet", engine.Settings{EndsAt: 50}, 1, nil, 1, 50, 0, engine.Ended},
		{"ended, and was seen", engine.Settings{EndsAt: 50}, 1, []engine.Op{engine.OpPlace}, 1, 50, engine.Ended, engine.Ended},
		{"ended and paused", engine.Settings{EndsAt: 50}, 1, []engine.Op{engine.OpPlace, engine.OpPause}, 1, 50, engine.Ended, engine.Ended},
	} {
		t.Run(row.name, func(t *testing.T) {
			j := enginetest.NewMemoryJournal()
			e := start(t, j, engine.Options{IDs: j.IDs(), Now: func() int64 { return row.now }})
			row.settings.ID = "p"
			l := create(t, e, &row.settings, row.stock)
			for _, op := range row.do {
				if r := admin(e, l, op, 1); r.err != nil {
					t.Fatal(r.err)
				}
			}
			if got := l.Refusal(row.now, row.quantity); got != row.want {
				t.Errorf("the fast path says %v, want %v", got, row.want)
			}
			if r := place(e, l, "", "", row.quantity); r.Outcome != row.shard || r.err != nil {
				t.Errorf("the shard says %v, %v, want %v", r.Outcome, r.err, row.shard)
			}
		})
	}
}

func TestOneOfManyCreatesOfAProductWins(t *testing.T) {
	j := enginetest.NewMemoryJournal()
	e := start(t, j, engine.Options{IDs: j.IDs(), MaxProducts: 21})
	var won [20]atomic.Int64
	var stock [20]atomic.Int64
	var admins sync.WaitGroup
	for i := range 200 {
		admins.Go(func() {
			p, n := i%20, int64(i)+1
			a, err := e.Create(&engine.Settings{ID: fmt.Sprintf("p-%d", p)}, n)
			switch {
			case err != nil:
				t.Errorf("create %d: %v", i, err)
			case a.Outcome == engine.Accepted:
				won[p].Add(1)
				stock[p].Store(n)
			case a.Outcome != engine.ProductExists:
				t.Errorf("create %d: %v", i, a.Outcome)
			}
			if a.View == nil || a.View.Run != 1 {
				t.Errorf("create %d: view %+v", i, a.View)
			}
		})
	}
	admins.Wait()
	for p := range won {
		l := e.Listing(fmt.Appendf(nil, "p-%d", p))
		if won[p].Load() != 1 || l.View().Stock != stock[p].Load() {
			t.Errorf("product %d was created %d times, its stock is %d, the winner's %d", p, won[p].Load(), l.View().Stock, stock[p].Load())
		}
	}
	create(t, e, &engine.Settings{ID: "q"}, 1)
	if _, err := e.Create(&engine.Settings{ID: "r"}, 1); err != engine.ErrTooManyProducts {
		t.Errorf("a product too many: %v", err)
	}
	if e.Listing([]byte("r")) != nil {
		t.Error("a product that was refused is listed")
	}
	var ids []string
	for _, l := range e.Listings() {
		ids = append(ids, l.ID())
	}
	if len(ids) != 21 || !slices.IsSorted(ids) {
		t.Errorf("listings: %v", ids)
	}
	if e.Listing([]byte("nothing")) != nil {
		t.Error("a product that was never created is listed")
	}
}

// A create whose outcome is unknown has taken place in the shard. Another one
// must meet it there: two products of one id would not survive a restart.
func TestACreateAfterAnUnknownOneFindsTheProduct(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var disk brake
		j := enginetest.NewMemoryJournal()
		j.BeforeAppend = disk.hook
		e := start(t, j, engine.Options{Shards: 1, IDs: j.IDs()})
		disk.stop(t)
		if a, err := e.Create(&engine.Settings{ID: "p"}, 1); err != engine.ErrUnknown {
			t.Fatalf("the disk stands still and the answer is %v, %v", a.Outcome, err)
		}
		if l := e.Listing([]byte("p")); l != nil {
			t.Errorf("a product that may not be durable is listed: %+v", *l.View())
		}
		disk.release(nil)
		a, err := e.Create(&engine.Settings{ID: "p"}, 7)
		if err != nil || a.Outcome != engine.ProductExists {
			t.Fatalf("a retry: %v, %v", a.Outcome, err)
		}
		l := e.Listing([]byte("p"))
		wantView(t, l, 1, 0, 0)
		for want := engine.Accepted; want <= engine.SoldOut; want += engine.SoldOut - engine.Accepted {
			if r := place(e, l, "", "", 1); r.Outcome != want || r.err != nil {
				t.Errorf("%v, %v, want %v", r.Outcome, r.err, want)
			}
		}
		if v := recoverFrom(t, j).Products["p"].View(); withoutVersion(v) != withoutVersion(l.View()) {
			t.Errorf("a restart comes to %+v, the engine has %+v", *v, *l.View())
		}
	})
}

func TestManyProductsOverShards(t *testing.T) {
	const products, stock = 500, 3
	j := enginetest.NewMemoryJournal()
	e := start(t, j, engine.Options{Shards: 8, IDs: j.IDs()})
	for i := range products {
		create(t, e, &engine.Settings{ID: fmt.Sprintf("p-%d", i)}, stock)
	}
	var clients sync.WaitGroup
	var accepted atomic.Int64
	for c := range 16 {
		clients.Go(func() {
			for i := range products {
				l := e.Listing(fmt.Appendf(nil, "p-%d", (i+c*31)%products))
				if r := place(e, l, "", "", 1); r.err != nil {
					t.Error(r.err)
				} else if r.Outcome == engine.Accepted {
					accepted.Add(1)
				}
			}
		})
	}
	clients.Wait()
	if accepted.Load() != products*stock {
		t.Errorf("%d orders, want %d", accepted.Load(), products*stock)
	}
	for _, l := range e.Listings() {
		wantView(t, l, 0, 0, stock)
	}
	st := e.Stats()
	var decisions uint64
	for i, s := range st.Shards {
		if s.Products < products/16 {
			t.Errorf("shard %d of 8 has %d of %d products", i, s.Products, products)
		}
		decisions += s.Decisions
	}
	if decisions != products+16*products || st.Outcomes[engine.Accepted] != products+products*stock {
		t.Errorf("Stats: %d decisions, %d accepted", decisions, st.Outcomes[engine.Accepted])
	}
	if st.CommitSize.Sum != int64(st.Seq) || st.CommitNanos.Count != st.CommitSize.Count {
		t.Errorf("Stats: %d events stored with %d appends, the sequence is %d", st.CommitSize.Sum, st.CommitNanos.Count, st.Seq)
	}
}

func TestHoldsExpireByThemselves(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := enginetest.NewMemoryJournal()
		e := start(t, j, engine.Options{IDs: j.IDs()})
		l := create(t, e, &engine.Settings{ID: "p", HoldSeconds: 5}, 3)
		a := place(e, l, "a", "", 1)
		pass(2 * time.Second)
		b, c := place(e, l, "b", "", 1), place(e, l, "c", "", 1)
		if r := change(e, l, j, engine.OpConfirm, c.ID); r.Outcome != engine.Accepted {
			t.Errorf("confirm: %v, %v", r.Outcome, r.err)
		}
		pass(3*time.Second - 5*time.Millisecond)
		wantView(t, l, 0, 2, 1)
		pass(10 * time.Millisecond)
		wantView(t, l, 1, 1, 1)
		pass(2 * time.Second)
		wantView(t, l, 2, 0, 1)
		for _, id := range []engine.OrderID{a.ID, b.ID} {
			if o, _, _ := j.Order(id); o.Status != engine.Expired {
				t.Errorf("the ledger says %v", o.Status)
			}
		}
		if r := place(e, l, "d", "", 2); r.Outcome != engine.Accepted {
			t.Errorf("the units that came back: %v, %v", r.Outcome, r.err)
		}
	})
}

func TestAShorterHoldExpiresBeforeALongerOneThatCameFirst(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := enginetest.NewMemoryJournal()
		e := start(t, j, engine.Options{IDs: j.IDs()})
		l := create(t, e, &engine.Settings{ID: "p", HoldSeconds: 3600}, 2)
		place(e, l, "a", "", 1)
		ask(e, l, func(c *engine.Command) {
			c.Op, c.Settings = engine.OpChange, &engine.Settings{ID: "p", HoldSeconds: 1}
		})
		place(e, l, "b", "", 1)
		pass(1100 * time.Millisecond)
		wantView(t, l, 1, 1, 0)
		pass(time.Hour)
		wantView(t, l, 2, 0, 0)
	})
}

// F30: the clock is set while a hold runs.
func TestHoldsAndAClockThatIsSet(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var offset atomic.Int64
		j := enginetest.NewMemoryJournal()
		e := start(t, j, engine.Options{IDs: j.IDs(), Now: func() int64 { return time.Now().UnixMilli() + offset.Load() }})
		l := create(t, e, &engine.Settings{ID: "p", HoldSeconds: 1800}, 2)
		a := place(e, l, "a", "", 1)
		pass(time.Minute)
		wantView(t, l, 1, 1, 0)

		offset.Store(time.Hour.Milliseconds()) // forward: noticed within a second or so
		pass(1100 * time.Millisecond)
		wantView(t, l, 2, 0, 0)
		b := place(e, l, "b", "", 1)
		if b.Deadline-b.At != 1_800_000 {
			t.Errorf("the hold lasts %d ms", b.Deadline-b.At)
		}

		offset.Store(-time.Hour.Milliseconds()) // back: nothing expires twice, nothing comes to life
		pass(time.Minute)
		wantView(t, l, 1, 1, 0)
		if r := change(e, l, j, engine.OpConfirm, a.ID); r.Outcome != engine.HoldExpired {
			t.Errorf("confirm of what had expired: %v, %v", r.Outcome, r.err)
		}
		if c := place(e, l, "c", "", 1); c.At < b.At {
			t.Errorf("time went back, from %d to %d", b.At, c.At)
		}
		pass(3 * time.Hour)
		wantView(t, l, 2, 0, 0)
	})
}

// F80: exactly one final state, and who lost is told which.
func TestConfirmCancelAndExpiryRace(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const n = 1000
		j := enginetest.NewMemoryJournal()
		e := start(t, j, engine.Options{IDs: j.IDs()})
		l := create(t, e, &engine.Settings{ID: "p", HoldSeconds: 1}, n)
		var orders []reply
		for i := range n {
			orders = append(orders, place(e, l, fmt.Sprintf("buyer-%d", i), "", 1))
		}
		var clients sync.WaitGroup
		won := make([][2]atomic.Int32, n)
		for i, o := range orders {
			for k, op := range []engine.Op{engine.OpConfirm, engine.OpCancel} {
				clients.Go(func() {
					<-time.After(time.Second + time.Duration(i%3-1)*time.Millisecond)
					r := change(e, l, j, op, o.ID)
					switch {
					case r.err != nil:
						t.Error(r.err)
					case r.Outcome == engine.Accepted:
						won[i][k].Add(1)
					case r.Status == engine.Held:
						t.Errorf("order %d: %v, and it is still held", i, r.Outcome)
					}
				})
			}
		}
		clients.Wait()
		pass(2 * time.Second)
		ended := make(map[engine.Status]int64)
		for i, o := range orders {
			stored, _, _ := j.Order(o.ID)
			ended[stored.Status]++
			want := [2]bool{stored.Status == engine.Confirmed, stored.Status == engine.Cancelled}
			if got := [2]bool{won[i][0].Load() == 1, won[i][1].Load() == 1}; got != want {
				t.Errorf("order %d is %v; its confirm and its cancel won: %v", i, stored.Status, got)
			}
		}
		wantView(t, l, n-ended[engine.Confirmed], 0, ended[engine.Confirmed])
		if r := recoverFrom(t, j); withoutVersion(r.Products["p"].View()) != withoutVersion(l.View()) {
			t.Errorf("a restart comes to %+v", *r.Products["p"].View())
		}
	})
}

// F81: a buyer could not confirm while the node was down.
func TestHoldsGetTheirGraceAfterARestart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := enginetest.NewMemoryJournal()
		e := start(t, j, engine.Options{IDs: j.IDs()})
		l := create(t, e, &engine.Settings{ID: "p", HoldSeconds: 5}, 3)
		a, b := place(e, l, "a", "", 1), place(e, l, "b", "", 1)
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		pass(time.Hour) // down

		r := recoverFrom(t, j)
		r.GraceHolds(time.Now().Add(30 * time.Second).UnixMilli())
		e = startFrom(t, j, engine.Options{IDs: j.IDs()}, r)
		l = e.Listing([]byte("p"))
		pass(29 * time.Second)
		wantView(t, l, 1, 2, 0)
		if r := change(e, l, j, engine.OpConfirm, a.ID); r.Outcome != engine.Accepted {
			t.Errorf("confirm within the grace: %v, %v", r.Outcome, r.err)
		}
		pass(time.Second + 10*time.Millisecond)
		wantView(t, l, 2, 0, 1)
		if r := change(e, l, j, engine.OpConfirm, b.ID); r.Outcome != engine.HoldExpired {
			t.Errorf("confirm after the grace: %v, %v", r.Outcome, r.err)
		}
	})
}

// A hold placed after the restart has nothing to do with the time before it.
func TestANewHoldGetsNoGrace(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := enginetest.NewMemoryJournal()
		e := start(t, j, engine.Options{IDs: j.IDs()})
		l := create(t, e, &engine.Settings{ID: "p", HoldSeconds: 5}, 2)
		place(e, l, "old", "", 1)
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		r := recoverFrom(t, j)
		r.GraceHolds(time.Now().Add(30 * time.Second).UnixMilli())
		e = startFrom(t, j, engine.Options{IDs: j.IDs()}, r)
		l = e.Listing([]byte("p"))
		b := place(e, l, "new", "", 1)
		pass(5*time.Second + 10*time.Millisecond)
		wantView(t, l, 1, 1, 0)
		if r := change(e, l, j, engine.OpConfirm, b.ID); r.Outcome != engine.HoldExpired {
			t.Errorf("confirm of the new one: %v, %v", r.Outcome, r.err)
		}
		pass(25 * time.Second)
		wantView(t, l, 2, 0, 0)
	})
}

func TestHoldsThatRanOutWhileDownAreReturnedAtStart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const n = 3*engine.ExpireLimit + 1
		h := newHistory(t)
		now := time.Now().UnixMilli()
		h.step(enginetest.Step{Op: engine.OpCreate, Quantity: n, Settings: engine.Settings{ID: "p", HoldSeconds: 5}}, now)
		for range n {
			h.step(enginetest.Step{Op: engine.OpPlace, Quantity: 1}, now)
		}
		pass(time.Minute)
		e := start(t, h.journal, engine.Options{IDs: h.journal.IDs()})
		synctest.Wait()
		wantView(t, e.Listing([]byte("p")), n, 0, 0)
	})
}

func TestSnapshotsAreMadeOnceEnoughHappened(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := enginetest.NewMemoryJournal()
		var heard []string
		e := start(t, j, engine.Options{IDs: j.IDs(), Snapshots: j, SnapshotEvery: 10,
			OnSnapshot: func(seq uint64, products int, _ time.Duration, err error) {
				heard = append(heard, fmt.Sprint(seq, products, err))
			}})
		l := create(t, e, &engine.Settings{ID: "p"}, 100)
		create(t, e, &engine.Settings{ID: "q"}, 100)
		for range 7 {
			place(e, l, "a", "", 1)
		}
		pass(3 * time.Second) // 9 events: not enough
		if j.SnapshotSeq() != 0 {
			t.Errorf("a snapshot at %d", j.SnapshotSeq())
		}
		place(e, l, "a", "", 1)
		pass(3 * time.Second)
		for range 10 {
			place(e, l, "a", "", 1)
		}
		pass(3 * time.Second)
		if st := e.Stats(); st.Snapshots != 2 || st.SnapshotSeq != 20 || j.SnapshotSeq() != 20 {
			t.Errorf("%d snapshots, up to %d", st.Snapshots, st.SnapshotSeq)
		}
		if want := []string{"10 2 <nil>", "20 1 <nil>"}; !slices.Equal(heard, want) {
			t.Errorf("heard of %v, want %v", heard, want)
		}
		r := recoverFrom(t, j)
		if r.Replayed != 0 || withoutVersion(r.Products["p"].View()) != withoutVersion(l.View()) {
			t.Errorf("replayed %d events after the snapshot, to %+v", r.Replayed, *r.Products["p"].View())
		}
	})
}

// badStore cannot write.
type badStore struct{ *enginetest.MemoryJournal }

func (badStore) WriteSnapshots(uint64, []string, func(string, func([]byte) error) error) error {
	return errDisk
}

func TestASnapshotThatFailsIsTriedAgainLaterAndStopsNoSale(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := enginetest.NewMemoryJournal()
		failures := 0
		e := start(t, j, engine.Options{IDs: j.IDs(), Snapshots: badStore{j}, SnapshotEvery: 5,
			OnSnapshot: func(_ uint64, _ int, _ time.Duration, err error) {
				if errors.Is(err, errDisk) {
					failures++
				}
			}})
		l := create(t, e, &engine.Settings{ID: "p"}, 100)
		for round := range 3 {
			for range 5 {
				if r := place(e, l, "a", "", 1); r.Outcome != engine.Accepted {
					t.Errorf("%v, %v", r.Outcome, r.err)
				}
			}
			pass(time.Minute)
			if failures != round+1 {
				t.Errorf("round %d: %d failures", round, failures)
			}
		}
		if st := e.Stats(); st.Snapshots != 0 || st.Failed != nil {
			t.Errorf("%d snapshots, %v", st.Snapshots, st.Failed)
		}
	})
}

// slowStore takes long to write: it says so and goes on until it is refused.
type slowStore struct {
	*enginetest.MemoryJournal
	writing chan struct{}
	given   chan error
}

func (s slowStore) WriteSnapshots(_ uint64, products []string, write func(string, func([]byte) error) error) (err error) {
	close(s.writing)
	for n := 0; n < 1_000_000 && err == nil; n++ {
		err = write(products[0], func([]byte) error { return nil })
	}
	s.given <- err
	return err
}

func TestCloseDoesNotWaitForASnapshot(t *testing.T) {
	bubble(t, func(t *testing.T) {
		j := enginetest.NewMemoryJournal()
		slow := slowStore{j, make(chan struct{}), make(chan error, 1)}
		e := start(t, j, engine.Options{IDs: j.IDs(), Snapshots: slow, SnapshotEvery: 1,
			OnSnapshot: func(_ uint64, _ int, _ time.Duration, err error) { t.Errorf("heard of a snapshot: %v", err) }})
		create(t, e, &engine.Settings{ID: "p"}, 100)
		<-slow.writing
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		if <-slow.given == nil {
			t.Error("the snapshot was written to its end")
		}
	})
}

func TestOptionsReportEveryFaultAtOnce(t *testing.T) {
	bad := engine.Options{Shards: 5000, InboxLimit: -1, MaxProducts: -1, StallAfter: time.Millisecond}
	_, err := engine.New(bad, discard{}, &engine.Recovered{})
	if err == nil {
		t.Fatal("started")
	}
	for _, field := range []string{"Shards: 5000", "InboxLimit: -1", "MaxProducts: -1", "StallAfter: 1ms", "IDs: missing"} {
		if !strings.Contains(err.Error(), field) {
			t.Errorf("%q does not tell of %s", err, field)
		}
	}
	var o engine.Options
	o.EnsureDefaults()
	o.IDs = engine.NewIDs([16]byte{})
	if err := o.Validate(); err != nil {
		t.Errorf("the defaults are refused: %v", err)
	}
}

func TestAnAdminIsAnsweredWithTheProductAtThatMoment(t *testing.T) {
	j := enginetest.NewMemoryJournal()
	e := start(t, j, engine.Options{IDs: j.IDs()})
	l := create(t, e, &engine.Settings{ID: "p"}, 3)
	for _, row := range []struct {
		op       engine.Op
		quantity int64
		outcome  engine.Outcome
		stock    int64
		paused   bool
		run      uint32
	}{
		{engine.OpRestock, 2, engine.Accepted, 5, false, 1},
		{engine.OpRestock, -9, engine.StockCommitted, 5, false, 1},
		{engine.OpPause, 0, engine.Accepted, 5, true, 1},
		{engine.OpReset, 7, engine.Accepted, 7, true, 2},
		{engine.OpResume, 0, engine.Accepted, 7, false, 2},
	} {
		r := admin(e, l, row.op, row.quantity)
		if r.err != nil || r.Outcome != row.outcome || r.View == nil || r.View.Stock != row.stock || r.View.Paused != row.paused || r.View.Run != row.run {
			t.Errorf("operation %d: %v, %+v, %v", row.op, r.Outcome, r.View, r.err)
		}
		if got := withoutVersion(l.View()); got != withoutVersion(r.View) {
			t.Errorf("operation %d: published %+v, answered %+v", row.op, got, *r.View)
		}
	}
}
