package engine_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"floodgate/engine"
	"floodgate/engine/enginetest"
)

// history is a journal that is filled event by event, without an engine.
type history struct {
	t       testing.TB
	journal *enginetest.MemoryJournal
	product *engine.Product
	seq     uint64
}

func newHistory(t testing.TB) *history {
	return &history{t: t, journal: enginetest.NewMemoryJournal(), product: engine.NewProduct("p")}
}

func (h *history) do(c *engine.Command, now int64) engine.Answer {
	h.t.Helper()
	h.store(h.product.Decide(c, now, nil))
	a := c.Answer
	engine.ReleaseCommand(c)
	return a
}

func (h *history) store(events []engine.Event) {
	h.t.Helper()
	for i := range events {
		h.seq++
		events[i].Seq = h.seq
	}
	if err := h.journal.Append(events); err != nil {
		h.t.Fatal(err)
	}
}

func (h *history) step(s enginetest.Step, now int64) engine.Answer {
	h.t.Helper()
	return h.do(s.Command(nil), now)
}

func TestASnapshotAndTheEventsAfterItComeToTheSame(t *testing.T) {
	h := newHistory(t)
	model := enginetest.NewModel("p")
	rng := rand.New(rand.NewPCG(7, 8))
	now := sceneEpoch
	for range 400 {
		s := enginetest.NextStep(rng.IntN, model, now)
		now += s.Wait
		if s.Op == 0 {
			model.Expire(now)
			h.store(h.product.Expire(now, 1<<30, nil))
			continue
		}
		c := s.Command(model.Ledger)
		model.Do(s, now)
		h.do(c, now)
		if rng.IntN(40) != 0 {
			continue
		}
		whole := snapshot(t, recoverFrom(t, eventsOnly{h.journal}).Products["p"])
		seq, products, err := engine.Snapshot(h.journal)
		if err != nil || seq != h.seq || products > 1 {
			t.Fatalf("snapshot: sequence %d of %d, %d products, %v", seq, h.seq, products, err)
		}
		r := recoverFrom(t, h.journal)
		if r.Seq != h.seq || r.Replayed != 0 || !slices.EqualFunc(snapshot(t, r.Products["p"]), whole, bytes.Equal) {
			t.Fatalf("after %d events the snapshot is not what the events come to", h.seq)
		}
	}
	r := recoverFrom(t, h.journal)
	if r.Replayed == 0 || r.Seq != h.seq {
		t.Fatalf("recovered to %d of %d, %d replayed", r.Seq, h.seq, r.Replayed)
	}
	if difference := model.Differ(r.Products["p"].View()); difference != "" {
		t.Error(difference)
	}
}

// Decisions and their replay leave their holds in different places of the heap:
// only the former take out what ran out.
func TestASnapshotTellsTheStateAndNotHowItCameAbout(t *testing.T) {
	s := newScene(t)
	s.do("create 1000")
	for i := range 40 {
		s.do(fmt.Sprintf("set hold=%d", 1+i*7%40))
		s.do("place a 1")
	}
	s.do("expire @20")
	replayed := engine.NewProduct("p")
	for i := range s.events {
		if err := replayed.Apply(&s.events[i]); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.EqualFunc(snapshot(t, s.product), snapshot(t, replayed), bytes.Equal) {
		t.Error("the replay of the events gives another snapshot than the decisions")
	}
	s.do("expire @30") // and a snapshot spoils no heap
	if v := s.product.View(); v.Held != 10 {
		t.Errorf("%d units are held", v.Held)
	}
}

func TestASnapshotOfNothingNewIsNotMade(t *testing.T) {
	h := newHistory(t)
	if seq, products, err := engine.Snapshot(h.journal); seq != 0 || products != 0 || err != nil {
		t.Errorf("of nothing: %d, %d, %v", seq, products, err)
	}
	h.step(enginetest.Step{Op: engine.OpCreate, Quantity: 5, Settings: engine.Settings{ID: "p"}}, 1)
	for i, want := range []int{1, 0} {
		if seq, products, err := engine.Snapshot(h.journal); seq != 1 || products != want || err != nil {
			t.Errorf("attempt %d: %d, %d, %v", i, seq, products, err)
		}
	}
}

// A run of a million bytes and more is cut into chunks.
func TestASnapshotIsCutIntoChunks(t *testing.T) {
	p := engine.NewProduct("p")
	create := enginetest.Step{Op: engine.OpCreate, Quantity: 100_000, Settings: engine.Settings{ID: "p", HoldSeconds: 60}}
	p.Decide(create.Command(nil), 1, nil)
	for i := range 60_000 {
		s := enginetest.Step{Op: engine.OpPlace, Quantity: 1, Buyer: fmt.Sprintf("a-buyer-of-twenty-%d", i), Key: fmt.Sprintf("key-%d", i)}
		c := s.Command(nil)
		p.Decide(c, 2, nil)
		engine.ReleaseCommand(c)
	}
	chunks := snapshot(t, p)
	if len(chunks) < 6 {
		t.Errorf("%d chunks", len(chunks))
	}
	for _, chunk := range chunks {
		if len(chunk) > 1<<20+512 {
			t.Errorf("a chunk of %d bytes", len(chunk))
		}
	}
	if again := snapshot(t, readSnapshot(t, chunks)); !slices.EqualFunc(again, chunks, bytes.Equal) {
		t.Error("a snapshot read and written again is another one")
	}
}

func TestADamagedSnapshotIsRefused(t *testing.T) {
	s := newScene(t)
	s.do("create 9 hold=60 limit=3")
	s.do("place a 2 key=k")
	s.do("place b 1")
	s.do("reset 9")
	s.do("place c 1 key=k")
	good := snapshot(t, s.product)
	long := append([]byte{2, 0xac, 0x02}, bytes.Repeat([]byte{'x'}, 301)...) // a name of 300 bytes
	for name, chunks := range map[string][][]byte{
		"none":                   {},
		"no head":                good[1:],
		"an empty head":          append([][]byte{{}}, good[1:]...),
		"an empty chunk":         append(slices.Clone(good), []byte{}),
		"two heads":              append(slices.Clone(good), good[0]),
		"a head cut short":       append([][]byte{good[0][:len(good[0])-1]}, good[1:]...),
		"a head with more":       append([][]byte{append(slices.Clone(good[0]), 0)}, good[1:]...),
		"a newer version":        append([][]byte{append([]byte{1, 2}, good[0][2:]...)}, good[1:]...),
		"a chunk of no kind":     append(slices.Clone(good), []byte{99}),
		"a name too long":        append(slices.Clone(good), long),
		"a name cut short":       append(slices.Clone(good), []byte{2, 5, 'x'}),
		"a run it does not have": append(slices.Clone(good), []byte{6, 9}),
		"no holds":               good[:1],
	} {
		p, err := engine.ReadSnapshot(nextChunk(chunks))
		if err == nil || !errors.Is(err, engine.ErrDamaged) {
			t.Errorf("%s: read as %v, error %v", name, p, err)
		}
	}
	broken := errors.New("broken")
	for n := range good {
		next, left := nextChunk(good), n
		_, err := engine.ReadSnapshot(func() ([]byte, error) {
			if left--; left < 0 {
				return nil, broken
			}
			return next()
		})
		if !errors.Is(err, broken) {
			t.Errorf("an error after %d chunks came back as %v", n, err)
		}
	}
	if err := s.product.WriteSnapshot(func([]byte) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("an error while writing came back as %v", err)
	}
}

// FuzzReadSnapshot: whatever the bytes, they are read or refused.
func FuzzReadSnapshot(f *testing.F) {
	p := engine.NewProduct("p")
	p.Decide(enginetest.Step{Op: engine.OpCreate, Quantity: 5, Settings: engine.Settings{ID: "p", HoldSeconds: 5}}.Command(nil), 1, nil)
	p.Decide(enginetest.Step{Op: engine.OpPlace, Quantity: 2, Buyer: "a", Key: "k"}.Command(nil), 2, nil)
	p.Decide(enginetest.Step{Op: engine.OpReset, Quantity: 5}.Command(nil), 3, nil)
	p.Decide(enginetest.Step{Op: engine.OpPlace, Quantity: 2, Buyer: "a", Key: "k2"}.Command(nil), 2, nil)
	good := snapshot(f, p)
	f.Add(good[0], bytes.Join(good[1:], nil), 3)
	for i := 1; i < len(good); i++ {
		f.Add(good[0], good[i], len(good[i]))
	}
	f.Add([]byte{1}, []byte{}, 0)
	f.Fuzz(func(t *testing.T, head, body []byte, cut int) {
		chunks := [][]byte{head, body}
		if cut >= 0 && cut <= len(body) {
			chunks = [][]byte{head, body[:cut:cut], body[cut:]}
		}
		p, err := engine.ReadSnapshot(nextChunk(chunks))
		if err != nil {
			return
		}
		if err := p.WriteSnapshot(func([]byte) error { return nil }); err != nil {
			t.Errorf("what was read cannot be written: %v", err)
		}
		p.Expire(1<<60, 1<<30, nil)
	})
}

func TestRecoveryRefusesAHistoryThatContradictsItself(t *testing.T) {
	settings := &engine.Settings{ID: "p"}
	created := engine.Event{Kind: engine.ProductChanged, Product: "p", Run: 1, Quantity: 2, Settings: settings}
	accepted := engine.Event{Kind: engine.OrderAccepted, Product: "p", Run: 1, Quantity: 1}
	held := accepted
	held.Deadline = 5
	with := func(ev engine.Event, change func(*engine.Event)) engine.Event {
		change(&ev)
		return ev
	}
	about := func(kind engine.Kind) engine.Event {
		return engine.Event{Kind: kind, Product: "p", Run: 1, Quantity: 1}
	}
	for name, events := range map[string][]engine.Event{
		"an order before its product":           {accepted},
		"a first run that is the second":        {with(created, func(e *engine.Event) { e.Run = 2 })},
		"an unknown kind":                       {created, {Kind: 99, Product: "p", Run: 1}},
		"more than the stock":                   {created, with(accepted, func(e *engine.Event) { e.Quantity = 3 })},
		"an order of nothing":                   {created, with(accepted, func(e *engine.Event) { e.Quantity = 0 })},
		"an order left out":                     {created, with(accepted, func(e *engine.Event) { e.Number = 1 })},
		"an order twice":                        {created, accepted, accepted},
		"an order of the next run":              {created, with(accepted, func(e *engine.Event) { e.Run = 2 })},
		"a run left out":                        {created, {Kind: engine.RunStarted, Product: "p", Run: 3}},
		"more taken away than there is":         {created, {Kind: engine.StockChanged, Product: "p", Run: 1, Quantity: -3}},
		"a negative stock":                      {with(created, func(e *engine.Event) { e.Quantity = -1 })},
		"a confirm of no order":                 {created, about(engine.OrderConfirmed)},
		"a confirm of a confirmed order":        {created, accepted, about(engine.OrderConfirmed)},
		"a cancel of a confirmed order":         {created, accepted, about(engine.OrderCancelled)},
		"an expiry of a confirmed order":        {created, accepted, about(engine.OrderExpired)},
		"an order that expires twice":           {created, held, about(engine.OrderExpired), about(engine.OrderExpired)},
		"an order confirmed and cancelled":      {created, held, about(engine.OrderConfirmed), about(engine.OrderCancelled)},
		"a refund twice":                        {created, accepted, about(engine.OrderRefunded), about(engine.OrderRefunded)},
		"a confirm of an order of a run before": {created, held, {Kind: engine.RunStarted, Product: "p", Run: 2}, about(engine.OrderConfirmed)},
	} {
		journal := enginetest.NewMemoryJournal()
		for i := range events {
			events[i].Seq = uint64(i + 1)
		}
		if err := journal.Append(events); err != nil {
			t.Fatal(err)
		}
		if _, err := engine.Recover(journal); !errors.Is(err, engine.ErrDamaged) {
			t.Errorf("%s: recovered, error %v", name, err)
		}
		if _, _, err := engine.Snapshot(journal); !errors.Is(err, engine.ErrDamaged) {
			t.Errorf("%s: a snapshot was made, error %v", name, err)
		}
	}
	if err := engine.NewProduct("q").Apply(&created); !errors.Is(err, engine.ErrDamaged) {
		t.Errorf("an event of another product: %v", err)
	}
}

func TestRecoveryRefusesAGapInTheSequence(t *testing.T) {
	h := newHistory(t)
	h.step(enginetest.Step{Op: engine.OpCreate, Quantity: 5, Settings: engine.Settings{ID: "p"}}, 1)
	h.step(enginetest.Step{Op: engine.OpPause}, 1)
	h.step(enginetest.Step{Op: engine.OpResume}, 1)
	if _, err := engine.Recover(without{h.journal, 2}); !errors.Is(err, engine.ErrDamaged) {
		t.Errorf("recovered over a gap, error %v", err)
	}
}

// A run's orders are needed while a retry, a confirm or a refund may ask for one.
func TestOldestNeeded(t *testing.T) {
	const day = engine.KeepKeys
	const s = int64(1000)
	open, windowed := engine.Settings{ID: "p"}, engine.Settings{ID: "p", EndsAt: 100 * s}
	holding := engine.Settings{ID: "p", EndsAt: 100 * s, HoldSeconds: 60}
	place := enginetest.Step{Op: engine.OpPlace, Quantity: 1, Buyer: "a"}
	keyed := enginetest.Step{Op: engine.OpPlace, Quantity: 1, Buyer: "a", Key: "k"}
	reset := enginetest.Step{Op: engine.OpReset, Quantity: 9}
	create := func(settings engine.Settings) enginetest.Step {
		return enginetest.Step{Op: engine.OpCreate, Quantity: 9, Settings: settings}
	}
	for _, row := range []struct {
		name  string
		steps []enginetest.Step // one each second, from the first
		now   int64
		want  uint64
	}{
		{"a sale without an end", []enginetest.Step{create(open), keyed, place}, 100 * day, 1},
		{"a sale that is on", []enginetest.Step{create(windowed), keyed, place}, 50 * s, 1},
		{"a day after the end, almost", []enginetest.Step{create(windowed), keyed, place}, 100*s + day - 1, 1},
		{"a day after the end", []enginetest.Step{create(windowed), keyed, place}, 100*s + day, 4},
		{"a day after the end, with a hold", []enginetest.Step{create(holding), keyed, place}, 100*s + day, 1},
		{"the run before, within a day", []enginetest.Step{create(open), keyed, reset, place}, 3*s + day - 1, 1},
		{"the run before, a day later", []enginetest.Step{create(open), keyed, reset, place}, 3*s + day, 3},
		{"the run before, that had no keys", []enginetest.Step{create(open), place, reset, place}, 3*s + day - 1, 1},
		{"the run before, that had no orders", []enginetest.Step{create(open), reset, place}, 2 * s, 2},
	} {
		h := newHistory(t)
		for i, step := range row.steps {
			h.step(step, int64(i+1)*s)
		}
		if got, err := engine.OldestNeeded(h.journal, row.now); got != 1 || err != nil {
			t.Errorf("%s, without a snapshot: from %d, %v", row.name, got, err)
		}
		if _, _, err := engine.Snapshot(h.journal); err != nil {
			t.Fatal(err)
		}
		if got, err := engine.OldestNeeded(h.journal, row.now); got != row.want || err != nil {
			t.Errorf("%s: needed from %d, want %d, error %v", row.name, got, row.want, err)
		}
	}
}

// A storm of expiries does not keep its shard from the inbox, and neither do
// holds that were confirmed long ago.
func TestAShardLooksAtABoundedNumberOfHoldsAtATime(t *testing.T) {
	const n = 5 * engine.ExpireLimit / 2
	for _, resolved := range []bool{false, true} {
		p := engine.NewProduct("p")
		p.Decide(enginetest.Step{Op: engine.OpCreate, Quantity: n, Settings: engine.Settings{ID: "p", HoldSeconds: 1}}.Command(nil), 0, nil)
		for i := range uint32(n) {
			p.Decide(enginetest.Step{Op: engine.OpPlace, Quantity: 1}.Command(nil), 0, nil)
			if resolved {
				c := engine.AcquireCommand()
				c.Op = engine.OpConfirm
				c.SetOrder(&engine.Order{Run: 1, Number: i, Quantity: 1, Status: engine.Held, Deadline: 1000})
				p.Decide(c, 0, nil)
			}
		}
		for step, left := 0, n; left > 0; step++ {
			returned, taken := engine.ExpireStep(p, 1000)
			if want := min(left, engine.ExpireLimit); taken != want {
				t.Fatalf("resolved %v, step %d: looked at %d holds of %d, want %d", resolved, step, taken, left, want)
			}
			if resolved && returned != 0 || !resolved && returned != taken {
				t.Fatalf("resolved %v, step %d: returned %d of %d", resolved, step, returned, taken)
			}
			left -= taken
		}
	}
}

func recoverFrom(t failer, h engine.History) *engine.Recovered {
	t.Helper()
	r, err := engine.Recover(h)
	if err != nil {
		t.Fatalf("recover: %v", err)
	}
	return r
}

// eventsOnly hides the snapshots of a journal.
type eventsOnly struct{ *enginetest.MemoryJournal }

func (eventsOnly) SnapshotSeq() uint64 { return 0 }
func (eventsOnly) Snapshots(func(string, func() ([]byte, error)) error) error {
	return nil
}

// without leaves one event out.
type without struct {
	*enginetest.MemoryJournal
	seq uint64
}

func (w without) Events(after uint64, apply func(*engine.Event) error) error {
	return w.MemoryJournal.Events(after, func(ev *engine.Event) error {
		if ev.Seq == w.seq {
			return nil
		}
		return apply(ev)
	})
}
