package engine_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"floodgate/engine"
	"floodgate/engine/enginetest"
)

// TestProductAgreesWithTheModel runs random commands, waits, expiries and
// restarts against the rule and against a toy model of it, and shrinks what goes
// wrong. Promises 1 and 3 hold for the model by its counting; so they hold here.
func TestProductAgreesWithTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newTwin(t)
		choose := func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "choice") }
		t.Repeat(map[string]func(*rapid.T){
			"command": func(t *rapid.T) {
				w.t = t
				for range 4 {
					w.step(enginetest.NextStep(choose, w.model, w.now))
				}
			},
			"restart": func(t *rapid.T) {
				w.t = t
				if choose(4) == 0 { // a short life would meet nothing interesting
					w.restart(int64(choose(3)) * 1000)
				}
			},
		})
		w.compareSnapshots()
	})
}

// TestProductAgreesWithTheModelOverLongLives is the same without shrinking, over
// lives long enough to fill several runs.
func TestProductAgreesWithTheModelOverLongLives(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 1))
		w := newTwin(seeded{t, seed})
		for range 300 {
			w.step(enginetest.NextStep(rng.IntN, w.model, w.now))
			if rng.IntN(100) == 0 {
				w.restart(rng.Int64N(3000))
			}
		}
		w.compareSnapshots()
	}
}

// FuzzProduct reads operations from bytes.
func FuzzProduct(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{23, 0, 1, 0, 5, 4, 0, 0, 4, 2, 0, 0, 1, 3})
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 2))
		input := make([]byte, 400)
		for i := range input {
			input[i] = byte(rng.Uint32())
		}
		f.Add(input)
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		w := newTwin(t)
		choose, done := enginetest.Bytes(input[:min(len(input), 1<<12)])
		for !done() {
			w.step(enginetest.NextStep(choose, w.model, w.now))
			if choose(32) == 1 {
				w.restart(int64(choose(4)) * 500)
			}
		}
		w.compareSnapshots()
	})
}

// failer is what rapid, fuzzing and plain tests have in common.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

// seeded prints the seed with every failure.
type seeded struct {
	failer
	seed uint64
}

func (s seeded) Fatalf(format string, args ...any) {
	s.Helper()
	s.failer.Fatalf("seed %d: %s", s.seed, fmt.Sprintf(format, args...))
}

// twin holds a product and its model together: both get every step, and must
// answer alike. A second product is fed with the events only, as a replay is.
type twin struct {
	t        failer
	live     *engine.Product
	replayed *engine.Product
	model    *enginetest.Model
	now      int64
	trace    []string
	version  uint64
}

func newTwin(t failer) *twin {
	return &twin{
		t: t, now: 1_000_000_000_000,
		live: engine.NewProduct("p"), replayed: engine.NewProduct("p"), model: enginetest.NewModel("p"),
	}
}

func (w *twin) step(s enginetest.Step) {
	w.t.Helper()
	w.now += s.Wait
	var events []engine.Event
	if s.Op == 0 {
		w.trace = append(w.trace, fmt.Sprintf("%d: expire", w.now))
		events = w.live.Expire(w.now, 1<<30, nil)
		w.model.Expire(w.now)
	} else {
		w.trace = append(w.trace, fmt.Sprintf("%d: %+v", w.now, s))
		c := s.Command(w.model.Ledger) // before the model moves the ledger on
		want := w.model.Do(s, w.now)
		want.At = w.now
		events = w.live.Decide(c, w.now, nil)
		if c.Answer != want {
			w.fail("answer %+v\nwant %+v", c.Answer, want)
		}
		engine.ReleaseCommand(c)
	}
	for i := range events {
		if err := w.replayed.Apply(&events[i]); err != nil {
			w.fail("replay: %v", err)
		}
	}
	v := w.live.View()
	if difference := w.model.Differ(v); difference != "" {
		w.fail("%s", difference)
	}
	if v.Stock != v.Remaining+v.Held+v.Sold || v.Remaining < 0 || v.Held < 0 || v.Sold < 0 {
		w.fail("books: %+v", *v)
	}
	if v.Version != w.version+uint64(len(events)) && !onlyEarlierRuns(events, v.Run) {
		w.fail("version %d after %d and %d events", v.Version, w.version, len(events))
	}
	w.version = v.Version
	if r := w.replayed.View(); withoutVersion(r) != withoutVersion(v) {
		w.fail("the replay of the events has %+v\nthe decisions made %+v", *r, *v)
	}
}

// onlyEarlierRuns reports whether the events change nothing that a view shows.
func onlyEarlierRuns(events []engine.Event, run uint32) bool {
	return !slices.ContainsFunc(events, func(ev engine.Event) bool { return ev.Run == run })
}

// restart replaces the live product by what its snapshot comes to, as a restart
// of the node does. Its holds then last for the grace at least.
func (w *twin) restart(grace int64) {
	w.t.Helper()
	w.trace = append(w.trace, fmt.Sprintf("%d: restart, grace %d", w.now, grace))
	w.compareSnapshots()
	chunks := snapshot(w.t, w.live)
	w.live = readSnapshot(w.t, chunks)
	if again := snapshot(w.t, w.live); !slices.EqualFunc(again, chunks, bytes.Equal) {
		w.fail("a snapshot read and written again is another one")
	}
	w.live.GraceHolds(w.now + grace)
	w.model.Restart(w.now + grace)
	w.version = 0
}

// compareSnapshots demands that replay and decisions came to the same bytes.
func (w *twin) compareSnapshots() {
	w.t.Helper()
	if w.model.Run != 0 && !slices.EqualFunc(snapshot(w.t, w.live), snapshot(w.t, w.replayed), bytes.Equal) {
		w.fail("the replay of the events gives another snapshot than the decisions")
	}
}

func (w *twin) fail(format string, args ...any) {
	w.t.Helper()
	var steps bytes.Buffer
	for _, line := range w.trace[max(0, len(w.trace)-40):] {
		fmt.Fprintln(&steps, line)
	}
	w.t.Fatalf("%s\nafter\n%s", fmt.Sprintf(format, args...), steps.String())
}

func withoutVersion(v *engine.View) engine.View {
	c := *v
	c.Version, c.Settings = 0, nil
	return c
}

func snapshot(t failer, p *engine.Product) (chunks [][]byte) {
	t.Helper()
	err := p.WriteSnapshot(func(chunk []byte) error {
		chunks = append(chunks, bytes.Clone(chunk))
		return nil
	})
	if err != nil {
		t.Fatalf("write snapshot: %v", err)
	}
	return chunks
}

func readSnapshot(t failer, chunks [][]byte) *engine.Product {
	t.Helper()
	p, err := engine.ReadSnapshot(nextChunk(chunks))
	if err != nil {
		t.Fatalf("read snapshot: %v", err)
	}
	return p
}

func nextChunk(chunks [][]byte) func() ([]byte, error) {
	return func() ([]byte, error) {
		if len(chunks) == 0 {
			return nil, nil
		}
		chunk := chunks[0]
		chunks = chunks[1:]
		return chunk, nil
	}
}
